// Files of texts: what comes back is what was added, half a line is written again, and other files are left alone.
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CheckpointError, DataError } from "../base/errors.ts";
import { TextStore } from "./text-store.ts";

let path: string;
beforeEach(() => {
  path = join(mkdtempSync(join(tmpdir(), "texts-")), "train.jsonl");
});
afterEach(() => rmSync(join(path, ".."), { recursive: true }));

const head = { tokenizerHash: "abc", vocabSize: 10, top: 1, settings: { seed: 1 } };
const text = (index: number) => ({
  index,
  ids: [1, 2, 9],
  promptLength: 1,
  topIds: Int32Array.of(2, 8),
  topLogProbs: Float32Array.of(-0.5, -1.25),
});

test("texts come back in order, without the half of one", () => {
  const store = new TextStore(path, head);
  store.add(text(4));
  store.add(text(2));
  const whole = readFileSync(path, "utf8");
  appendFileSync(path, '{"index":3,"ids":[1,');
  const again = new TextStore(path, head);
  expect(again.texts).toEqual([text(2), text(4)]);
  expect(again.numTokens).toBe(4);
  expect(again.has(3)).toBe(false);
  expect(readFileSync(path, "utf8")).toBe(whole);
});

test.each([
  ["a file of one's own", '{"prompt":"a"}\n{"prompt":"b"}', DataError],
  ["one line", '{"prompt":"a"}', DataError],
  ["texts of another tokenizer", `${JSON.stringify({ ...head, tokenizerHash: "xyz" })}\n{"index"`, CheckpointError],
  ["other settings", `${JSON.stringify({ ...head, settings: { seed: 2 } })}\n{"index"`, CheckpointError],
  ["a damaged line", `${JSON.stringify(head)}\n{"index":0}\n{"index"`, DataError],
])("%s is refused and stays as it is", (_, content, kind) => {
  writeFileSync(path, content);
  expect(() => new TextStore(path, head)).toThrow(kind);
  expect(readFileSync(path, "utf8")).toBe(content);
});
