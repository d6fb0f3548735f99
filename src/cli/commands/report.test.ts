import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, describe, expect, it } from "vitest";
import { parseOptions, resolveLayers } from "../../base/schema.ts";
import type { JsonRecord } from "../../engine/index.ts";
import { pretrainSchema, quickstartOptions } from "../../recipes/index.ts";
import { trainConfig, trainEvents, writeRun } from "../../report/testing/synthetic-runs.ts";
import { parseLine } from "../flags.ts";
import { bufferedOutput } from "../io.ts";
import { commands } from "../registry.ts";
import { commandLineOf } from "../reproduce.ts";
import { runCli } from "../run-cli.ts";
import { pretrain } from "./pretrain.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-report-command-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = async (argv: string[]) => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  const io = { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
  return { code: await runCli(argv, io), out: stdout.text(), err: stderr.text() };
};

describe("report", () => {
  const path = join(folder, "run");
  writeRun(path, trainConfig, trainEvents(30));

  it("writes the page into the run folder, with a command that repeats the run", async () => {
    const { code, out, err } = await run(["report", path]);
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/^report: .*report\.html \(\d+(\.\d)? KiB; 1 run\)\n$/);
    expect(readFileSync(join(path, "report.html"), "utf8").replace(/<\/?span[^>]*>/g, "")).toContain("longwave pretrain --batch-size 16");
  });

  it("tells what is missing on standard error, and the outcome as JSON", async () => {
    truncateSync(join(path, "metrics.jsonl"), 5000);
    const output = join(folder, "page.html");
    expect((await run(["report", path, "--output", output])).err).toMatch(/^note: run: The record stops at step \d+ of 30/m);
    const written = JSON.parse((await run(["report", path, "--json", "--output", output, "--title", "mine"])).out);
    expect(written).toMatchObject({ path: output, runs: ["run"] });
    expect(readFileSync(output, "utf8")).toContain("<h1>mine</h1>");
  });

  it("fails with a hint where there is no run", async () => {
    const { code, err } = await run(["report", join(folder, "none")]);
    expect(code).toBe(1);
    expect(err).toMatch(/^error: report .*: expected the folder of a run .*, got no such folder\nhint: /);
  });
});

describe("the command to reproduce", () => {
  const recorded = (options: object): JsonRecord => {
    const { runs, name, cache, resume, ...settings } = parseOptions(pretrainSchema, options);
    return JSON.parse(JSON.stringify({ ...settings, corpus: "state-of-the-union@0.2.3" }));
  };

  it.skipIf(process.platform === "win32")("gives the recorded settings again when a shell reads it", async () => {
    const config = recorded({
      data: ["a book's text.txt", "b.txt"],
      size: "micro",
      model: { kvHeads: 2 },
      optimizer: { kind: "muon" },
      schedule: { kind: "constant" },
      learningRate: 0.02,
      isolateDocuments: true,
      keepBest: false,
      samplePrompt: "It's $HOME & <more>",
      steps: 70,
    });
    const line = (await commandLineOf({ id: "20260131-120000-pretrain", config }, commands))!;
    expect(line).toMatch(/^longwave pretrain 'a book'\\''s text.txt' b.txt --/);
    const argv = execFileSync("sh", ["-c", `printf '%s\\0' ${line}`], { encoding: "utf8" })
      .split("\0")
      .slice(2, -1);
    const again = resolveLayers(pretrainSchema, (await parseLine(pretrain, argv)).layers);
    const { corpus, ...settings } = config;
    expect(JSON.parse(JSON.stringify(again))).toMatchObject(settings);
  });

  it("starts from the preset of the command that the folder is named after", async () => {
    const config = recorded({ ...quickstartOptions, steps: 60 });
    const line = await commandLineOf({ id: "20260131-120000-quickstart", config }, commands);
    expect(line).toBe("longwave quickstart --steps 60");
    expect(line).not.toContain("--batch-size");
  });

  it("is none for settings of another kind", async () => {
    expect(await commandLineOf({ id: "x", config: { a: 1, b: 2, seed: 0 } }, commands)).toBeUndefined();
    expect(await commandLineOf({ id: "x", config: undefined }, commands)).toBeUndefined();
    expect(await commandLineOf({ id: "x", config: {} }, commands)).toBeUndefined();
  });
});
