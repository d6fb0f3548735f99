import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CheckpointError } from "../base/errors.ts";
import { createRunDirectory, expectWritable, listRuns, openRunDirectory, runsNear } from "./run-directory.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-runs-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const now = new Date(2026, 0, 2, 3, 4, 5);

test("ids sort by time, hold the name, and never collide", () => {
  const ids = ["small gpt/é", "small gpt/é", "..", ""].map((name) => createRunDirectory({ root, name, config: { a: 1 }, now }).id);
  expect(ids).toEqual(["20260102-030405-small-gpt", "20260102-030405-small-gpt-2", "20260102-030405-run", "20260102-030405-run-2"]);
  expect(listRuns(root)).toHaveLength(4);
  expect(listRuns(join(root, "none"))).toEqual([]);
});

test("a run can be opened again", () => {
  const run = createRunDirectory({ root: join(root, "deep", "runs"), config: { seed: 3, model: { width: 8 } } });
  expect(JSON.parse(readFileSync(join(run.path, "config.json"), "utf8"))).toEqual(run.config);
  const again = openRunDirectory(run.path);
  expect([again.id, again.config]).toEqual([run.id, run.config]);
  expect(again.sinks().map(({ name }) => name)).toEqual(["metrics.jsonl", "TensorBoard event file"]);
  expect(again.sinks({ tensorBoard: false })).toHaveLength(1);
});

test("folders that are no runs are refused", () => {
  expect(() => openRunDirectory(join(root, "none"))).toThrow(/got no such folder/);
  expect(() => openRunDirectory(root)).toThrow(CheckpointError);
  for (const content of ["{", "[]", "null"]) {
    writeFileSync(join(root, "config.json"), content);
    expect(() => openRunDirectory(root)).toThrow(CheckpointError);
  }
});

test("who names a folder of runs, or a run that is not there, is told which there are", () => {
  const runs = ["a", "b"].map((name) => createRunDirectory({ root, name, config: {}, now }).path);
  const names = `${runs[1]}, ${runs[0]}.`;
  const expectHint = (path: string, hint: string) => expect(() => openRunDirectory(path)).toThrow(expect.objectContaining({ hint }));
  expectHint(root, `Name one in it: ${names}`);
  expectHint(join(root, "none"), `Check the path; in ${root} there are: ${names}`);
  expect(runsNear(join(root, "none", "none"))).toBeUndefined();
  // A folder of models is none of runs.
  mkdirSync(join(root, "models", "a"), { recursive: true });
  writeFileSync(join(root, "models", "a", "config.json"), "{}");
  expect(runsNear(join(root, "models", "b"))).toBeUndefined();
});

test("a path through a file says what to do", () => {
  writeFileSync(join(root, "file"), "");
  const attempt = () => createRunDirectory({ root: join(root, "file", "runs"), config: {} });
  expect(attempt).toThrow(CheckpointError);
  expect(attempt).toThrow(/expected a folder as parent/);
});

// The administrator may write everywhere, so there is nothing to see for one.
test.skipIf(process.getuid?.() === 0)("a read-only folder says what to do", () => {
  mkdirSync(join(root, "sealed"));
  chmodSync(join(root, "sealed"), 0o500);
  expect(() => createRunDirectory({ root: join(root, "sealed"), config: {} })).toThrow(/permission/);
  const run = createRunDirectory({ root, config: {} });
  expectWritable(run);
  writeFileSync(run.metricsPath, "");
  for (const part of [run.metricsPath, run.path]) {
    chmodSync(part, 0o500);
    expect(() => expectWritable(run)).toThrow(/permission to write there, got EACCES/);
    chmodSync(part, 0o700);
  }
});
