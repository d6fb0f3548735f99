// `longwave evaluate`: without data it measures what the training run measured, and elsewhere no more than it must.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listRuns, readMetrics } from "../../engine/index.ts";
import { storiesModel } from "../../recipes/index.ts";
import { bufferedOutput } from "../io.ts";
import { runCli } from "../run-cli.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-evaluate-"));
const file = join(root, "text.txt");
let run: string;

const cli = async (...argv: string[]) => {
  const [stdout, stderr] = [bufferedOutput(), bufferedOutput()];
  const code = await runCli(argv, { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal });
  return { code, out: stdout.text(), err: stderr.text() };
};

beforeAll(async () => {
  const words = ["river", "stone", "light", "under", "never", "window"];
  const paragraph = (n: number): string => Array.from({ length: 30 }, (_, i) => words[(n * n + i * (n + 3)) % words.length]).join(" ");
  writeFileSync(file, Array.from({ length: 60 }, (_, n) => paragraph(n)).join("\n\n"));
  const sizes = ["--model.width", "16", "--model.layers", "1", "--model.heads", "2", "--model.kv-heads", "1"];
  const { code, err } = await cli(
    ...["pretrain", file, "--runs", join(root, "runs"), "--vocab-size", "260", "--split-by", "paragraph", "--validation", "0.3"],
    ...[...sizes, "--batch-size", "2", "--sequence-length", "16", "--steps", "3", "--sample-every", "0", "--threads", "1"],
  );
  expect(code, err).toBe(0);
  [run] = listRuns(join(root, "runs"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const lastEvaluation = () => {
  const [last] = [...readMetrics(join(run, "metrics.jsonl"))].filter((event) => event.kind === "evaluation").slice(-1);
  return last.metrics;
};

test.each([[""], ["checkpoints/step-00000003"]])(
  "of a run (%s) is its own validation loss, on all of it when that is little",
  async (part) => {
    const { code, out, err } = await cli("evaluate", join(run, part), "--json", "--threads", "1");
    expect(code, err).toBe(0);
    const result = JSON.parse(out);
    const { loss, tokens } = lastEvaluation();
    expect(result.tokens).toBe(tokens);
    expect(result.loss).toBeCloseTo(loss, 5);
    expect(result.data).toMatch(/^validation data of .*text\.txt$/);
    expect(err).toBe("");
  },
);

test("stops after as many batches as it is told, and says so", async () => {
  const { out } = await cli("evaluate", run, "--max-batches", "2", "--batch-size", "3", "--threads", "1");
  expect(out).toMatch(/^model {9}.*step-00000003$/m);
  expect(out).toMatch(/^tokens {8}96 in .*, not all: see --max-batches$/m);
});

test("of named data is about all of it", async () => {
  const { out } = await cli("evaluate", run, file, "--split-by", "paragraph", "--json", "--threads", "1");
  const whole = JSON.parse(out);
  expect(whole.data).toBe(file);
  const kept = await cli("evaluate", run, file, "--split-by", "paragraph", "--validation", "0.3", "--json", "--threads", "1");
  expect(JSON.parse(kept.out).tokens).toBe(lastEvaluation().tokens);
  expect(whole.tokens).toBeGreaterThan(2 * lastEvaluation().tokens);
});

test("of a model of elsewhere reads no more of the built-in corpus than it needs", async () => {
  const { code, out, err } = await cli("evaluate", storiesModel, "--max-batches", "1", "--batch-size", "1", "--json", "--threads", "1");
  expect(code, err).toBe(0);
  const result = JSON.parse(out);
  expect(result.data).toBe("State of the Union addresses");
  expect(result.tokens).toBe(result.sequenceLength);
});
