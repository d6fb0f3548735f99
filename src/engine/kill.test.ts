// Real processes, really killed: whatever the moment, the next start goes on from a whole checkpoint and ends with the same bytes.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import type { RunEvent } from "./events.ts";
import { createRunDirectory, type RunDirectory } from "./run-directory.ts";
import { readMetrics } from "./sinks/jsonl.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-kill-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const child = fileURLToPath(new URL("testing/child.ts", import.meta.url));
const nodeOptions = ["--import", new URL("../runtime/testing/register-typescript.mjs", import.meta.url).href];

const long = process.env.LONGWAVE_TEST_LONG === "1";

interface Exit {
  code: number | null;
  signal: string | null;
  output: string;
}

/** Starts the child; `onLine` sees its output as it comes. */
function start(
  run: RunDirectory,
  settings: [steps: number, busyMs: number, every: number, hangs?: number],
  onLine?: (line: string, process: ChildProcess) => void,
) {
  return new Promise<Exit>((resolve) => {
    const started = spawn(process.execPath, [...nodeOptions, child, run.path, ...settings.map(String)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    const receive = (chunk: Buffer): void => {
      output += chunk;
      for (const line of String(chunk).split("\n")) if (line !== "") onLine?.(line, started);
    };
    started.stdout.on("data", receive);
    started.stderr.on("data", receive);
    started.on("close", (code, signal) => resolve({ code, signal, output }));
  });
}

const newRun = (): RunDirectory => createRunDirectory({ root, name: "kill", config: { seed: 1 } });

const finalFiles = (run: RunDirectory): string[] =>
  ["model.bin", "optimiser.bin"].map((name) => readFileSync(join(run.checkpoints.resolve("latest").path, name)).toString("hex"));

/** What a run says about learning, without times. */
const history = (run: RunDirectory): string[] => {
  const told: RunEvent[] = [...readMetrics(run.metricsPath)];
  return told
    .filter(({ kind }) => kind === "step" || kind === "evaluation" || kind === "sample")
    .map((event) => JSON.stringify(event, (key, value) => (/seconds|time/i.test(key) ? undefined : value)));
};

test("kill -9 at random moments", async () => {
  const settings: [number, number, number] = [60, 4, 3];
  const undisturbed = newRun();
  expect((await start(undisturbed, settings)).output).toContain("run-end 60");

  const run = newRun();
  for (let kills = 0; kills < (long ? 40 : 3); kills++) {
    let planned = false;
    const exit = await start(run, long ? [60, 4, 1] : settings, (_, process) => {
      if (planned) return;
      planned = true;
      setTimeout(() => process.kill("SIGKILL"), Math.random() * 120);
    });
    expect(exit.signal === "SIGKILL" || exit.code === 0, exit.output).toBe(true);
    // Every checkpoint that has its final name is whole.
    expect(run.checkpoints.list().map(({ step }) => step)).toEqual(run.checkpoints.steps());
  }
  const last = await start(run, settings);
  expect(last.code, last.output).toBe(0);
  expect(finalFiles(run)).toEqual(finalFiles(undisturbed));
  expect(history(run)).toEqual(history(undisturbed));
  expect(readdirSync(run.checkpoints.directory).filter((name) => /tmp|old/.test(name))).toEqual([]);
});

test("the first SIGINT finishes the step, saves and exits 130", async () => {
  const run = newRun();
  const exit = await start(run, [1000, 3, 0], (line, process) => {
    if (line === "step 5") process.kill("SIGINT");
  });
  expect(exit.code, exit.output).toBe(130);
  expect(exit.output).toMatch(/interrupted by SIGINT after step \d+ of 1000/);
  const { step } = run.checkpoints.resolve("latest");
  expect(step).toBeGreaterThanOrEqual(5);
  expect(exit.output).toContain(`run-end ${step}`);
});

test("a SIGINT in a step that is given up saves the steps before it, and the run goes on from there", async () => {
  const undisturbed = newRun();
  expect((await start(undisturbed, [20, 1, 0])).code).toBe(0);
  const run = newRun();
  const exit = await start(run, [20, 1, 0, 9], (line, process) => {
    if (line === "step 9") setTimeout(() => process.kill("SIGINT"), 50);
  });
  expect(exit.code, exit.output).toBe(130);
  expect(exit.output).toMatch(/checkpoint 9\nrun-end 9\nrun: interrupted by SIGINT after step 9 of 20/);
  expect(run.checkpoints.steps().at(-1)).toBe(9);
  expect((await start(run, [20, 1, 0])).code).toBe(0);
  expect(finalFiles(run)).toEqual(finalFiles(undisturbed));
  expect(history(run)).toEqual(history(undisturbed));
});

test("the second signal exits at once", async () => {
  const script = `
    import { installSignalHandlers } from "${new URL("signals.ts", import.meta.url)}";
    const { signal } = installSignalHandlers({ onFirst: (name) => console.log(name, signal.aborted) });
    setTimeout(() => console.log("never"), 60_000);
    console.log("ready");`;
  const started = spawn(process.execPath, [...nodeOptions, "--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  started.stdout.on("data", (chunk: Buffer) => {
    output += chunk;
    started.kill(output.includes("SIGTERM") ? "SIGINT" : "SIGTERM");
  });
  const code = await new Promise((resolve) => started.on("close", resolve));
  expect(code).toBe(130);
  expect(output).toBe("ready\nSIGTERM true\n");
});
