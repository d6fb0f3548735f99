// Real `longwave pretrain` processes, interrupted and killed: however often, the run ends with the same bytes as one left in peace.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckpointStore, readMetrics } from "../../src/engine/index.ts";
import { transpile } from "./child-module.ts";
import { randomText } from "./random-text.ts";

const long = process.env.LONGWAVE_TEST_LONG === "1";
let root: string;
let main: string;
let data: string;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-pretrain-"));
  const code = join(root, "code");
  [main] = transpile(["cli/main.ts", "cli/commands/pretrain.ts", "runtime/open.ts"], code);
  symlinkSync(fileURLToPath(new URL("../../node_modules", import.meta.url)), join(code, "node_modules"));
  data = join(root, "data.txt");
  writeFileSync(data, randomText(100));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const options = [
  ["--split-by", "paragraph", "--vocab-size", "280", "--threads", "1", "--seed", "7"],
  ["--model.width", "16", "--model.layers", "1", "--model.heads", "2", "--model.kv-heads", "1", "--model.context-length", "16"],
  ["--batch-size", "4", "--accumulate", "2", "--ema", "0.9", "--learning-rate", "0.01"],
  ["--evaluate-every", "5", "--sample-every", "12", "--sample-tokens", "5", "--keep-last", "2"],
].flat();

interface Exit {
  code: number | null;
  signal: string | null;
  output: string;
}

function start(args: readonly string[], onLine?: (line: string, child: ChildProcess) => void): Promise<Exit> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, "pretrain", ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const receive = (chunk: Buffer): void => {
      output += chunk;
      for (const line of String(chunk).split("\n")) if (line !== "") onLine?.(line, child);
    };
    child.stdout.on("data", receive);
    child.stderr.on("data", receive);
    child.on("close", (code, signal) => resolve({ code, signal, output }));
  });
}

const folderOf = (output: string): string | undefined => /^run folder: (.+)$/m.exec(output)?.[1];
const newRun = (steps: number, every: number, runs: string): string[] => [
  "data.txt",
  ...options,
  ...["--steps", String(steps), "--checkpoint-every", String(every), "--runs", runs],
];

const finalFiles = (run: string): Record<string, string> => {
  const { path } = new CheckpointStore(join(root, run)).resolve("latest");
  const names = ["model.safetensors", "trainer.safetensors", "ema/model.safetensors", "tokenizer.json", "config.json"];
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(path, name)).toString("base64")]));
};

/** What a run says about learning, without times. */
const history = (run: string): string[] =>
  [...readMetrics(join(root, run, "metrics.jsonl"))]
    .filter(({ kind }) => kind === "step" || kind === "evaluation" || kind === "sample")
    .map((event) => JSON.stringify(event, (key, value) => (/seconds|time|mfu/i.test(key) ? undefined : value)));

describe.skipIf(process.platform === "win32")("a run that is stopped and resumed", () => {
  const steps = long ? 60 : 24;
  let undisturbed: string;
  beforeAll(async () => {
    const { code, output } = await start(newRun(steps, 3, "undisturbed"));
    expect(code, output).toBe(0);
    undisturbed = folderOf(output) as string;
    expect(output).toContain("sample at step 0");
    expect(output).toContain(`sample at step ${steps}`);
    // One line for each step, whatever the rest.
    expect(history(undisturbed).filter((line) => line.includes('"kind":"step"'))).toHaveLength(steps);
  });

  const expectEqual = (run: string): void => {
    expect(history(run)).toEqual(history(undisturbed));
    const [actual, expected] = [finalFiles(run), finalFiles(undisturbed)];
    for (const [name, content] of Object.entries(expected)) expect(actual[name] === content, name).toBe(true);
  };

  test(`by kill -9 at random moments, ${long ? 20 : 3} times`, { timeout: long ? 3_600_000 : 600_000 }, async () => {
    let run: string | undefined;
    let kills = 0;
    for (let attempt = 0; attempt < 100 && kills < (long ? 20 : 3); attempt++) {
      let planned = false;
      const args: string[] = run === undefined ? newRun(steps, 3, "killed") : ["--resume", run, "--threads", "1"];
      const exit = await start(args, (line, child) => {
        if (planned || !line.startsWith("run folder")) return;
        planned = true;
        setTimeout(() => child.kill("SIGKILL"), Math.random() * 250);
      });
      run ??= folderOf(exit.output);
      if (exit.signal === "SIGKILL") kills++;
      else {
        // It was done before it could be killed: another run takes the other kills.
        expect(exit.code, exit.output).toBe(0);
        expectEqual(run as string);
        run = undefined;
      }
      if (run === undefined) continue;
      const store = new CheckpointStore(join(root, run));
      expect(store.list().map(({ step }) => step)).toEqual(store.steps());
    }
    expect(kills).toBe(long ? 20 : 3);
    const last = await start(run === undefined ? newRun(steps, 3, "killed") : ["--resume", run, "--threads", "1"]);
    expect(last.code, last.output).toBe(0);
    run ??= folderOf(last.output) as string;
    expectEqual(run);
    expect(readdirSync(join(root, run, "checkpoints")).filter((name) => /tmp|old/.test(name))).toEqual([]);
  });

  test("by SIGINT: the step is finished and saved, exit code 130", async () => {
    let sent = false;
    const exit = await start(newRun(steps, 1, "interrupted"), (line, child) => {
      if (sent || !line.includes("step-00000002")) return;
      sent = true;
      child.kill("SIGINT");
    });
    expect(exit.code, exit.output).toBe(130);
    expect(exit.output).toMatch(/\ninterrupted after step \d+: finishing what is under way and saving; press Ctrl-C again/);
    expect(exit.output).toMatch(/\nrun: interrupted by SIGINT after step \d+ of/);
    const run = folderOf(exit.output) as string;
    expect(exit.output).toContain(` pretrain --resume ${run}`);
    expect(new CheckpointStore(join(root, run)).latest()?.step).toBeGreaterThanOrEqual(2);
    const last = await start(["--resume", run, "--threads", "1", "--checkpoint-every", "3"]);
    expect(last.code, last.output).toBe(0);
    expectEqual(run);
  });
});

describe("a disk that fills up", () => {
  const mount = join(tmpdir(), `longwave-full-run-${process.pid}`);
  const canMount = (() => {
    mkdirSync(mount, { recursive: true });
    return spawnSync("unshare", ["-m", "mount", "-t", "tmpfs", "tmpfs", mount]).status === 0;
  })();
  afterAll(() => rmSync(mount, { recursive: true, force: true }));

  test.skipIf(!canMount)("fails a save as a warning while an earlier checkpoint is there, and the final one as an error", () => {
    // Room for tokenised data and about two checkpoints of this model.
    const args = newRun(12, 3, join(mount, "runs")).map((arg) => `'${arg}'`);
    const script =
      `mount -t tmpfs -o size=500k tmpfs "${mount}" && cd "${root}" && "${process.execPath}" "${main}" pretrain ${args.join(" ")}; ` +
      `echo "exit $?"; find "${mount}" -name model.safetensors`;
    const { stdout, stderr } = spawnSync("unshare", ["-m", "sh", "-c", script], { encoding: "utf8" });
    expect(stdout, stderr).toContain("exit 1");
    expect(stdout).toMatch(/warning: save .*expected enough free space, got ENOSPC/);
    expect(stderr).toMatch(/^error: save .*step-00000012.*expected enough free space, got ENOSPC/m);
    expect(stderr).toMatch(/^hint: Free some space or save to another disk, then resume. What was saved before is intact/m);
    expect(stdout.split("exit 1")[1]).toContain("step-00000003/model.safetensors");
  });
});
