// Damaged and foreign tokenizer files end in a FormatError that names the place, never in a crash or an endless allocation.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { FormatError } from "../../src/base/errors.ts";
import { type JsonObject, loadTokenizer, tokenizerFromJson } from "../../src/text/index.ts";

const source = readFileSync(new URL("../golden/tokenizers/llama3-bytelevel/tokenizer.json", import.meta.url), "utf8");
const good = JSON.parse(source) as JsonObject & { model: JsonObject & { vocab: Record<string, number>; merges: unknown[] } };
const directory = mkdtempSync(join(tmpdir(), "longwave-faults-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("truncated anywhere", () => {
  const path = join(directory, "tokenizer.json");
  for (const part of [0, 0.01, 0.3, 0.7, 0.999]) {
    writeFileSync(path, source.slice(0, Math.floor(source.length * part)));
    expect(() => loadTokenizer(path), `cut at ${part}`).toThrow(FormatError);
  }
});

test.each([
  ["bytes that are no text", Buffer.from([0xff, 0xfe, 0x00, 0x80])],
  ["a list", "[]"],
  ["null", "null"],
  ["a web page", "<!DOCTYPE html><html></html>"],
  ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9085657\n"],
])("%s", (_, content) => {
  const path = join(directory, "foreign.json");
  writeFileSync(path, content);
  expect(() => loadTokenizer(path)).toThrow(FormatError);
});

test("nothing there, an empty folder, a folder with another kind of tokenizer", () => {
  expect(() => loadTokenizer(join(directory, "absent"))).toThrow(FormatError);
  const folder = join(directory, "folder");
  mkdirSync(folder);
  expect(() => loadTokenizer(folder)).toThrow(/an empty folder/);
  writeFileSync(join(folder, "tokenizer.model"), "x");
  expect(() => loadTokenizer(folder)).toThrow(FormatError);
});

test("a file that is larger than any tokenizer is not read", () => {
  const path = join(directory, "huge.json");
  writeFileSync(path, "{");
  truncateSync(path, 300 * 2 ** 20);
  expect(() => loadTokenizer(path)).toThrow(/expected at most/);
});

test("a damaged tokenizer_config.json beside a good file", () => {
  const folder = join(directory, "config");
  mkdirSync(folder);
  writeFileSync(join(folder, "tokenizer.json"), source);
  writeFileSync(join(folder, "tokenizer_config.json"), '{"bos_token": ');
  expect(() => loadTokenizer(folder)).toThrow(/tokenizer_config\.json/);
});

describe("wrong structure", () => {
  const { model } = good;
  const firstAdded = (good.added_tokens as JsonObject[])[0];
  test.each<[string, JsonObject]>([
    ["no model", { ...good, model: undefined }],
    ["a model of another kind", { ...good, model: { ...model, type: "Neural" } }],
    ["a vocabulary that is a list", { ...good, model: { ...model, vocab: ["a", "b"] } }],
    ["an empty vocabulary", { ...good, added_tokens: [], model: { ...model, vocab: {}, merges: [] } }],
    ["a negative id", { ...good, model: { ...model, vocab: { ...model.vocab, bad: -1 } } }],
    ["a fractional id", { ...good, model: { ...model, vocab: { ...model.vocab, bad: 1.5 } } }],
    ["an enormous id", { ...good, model: { ...model, vocab: { ...model.vocab, bad: 4e9 } } }],
    ["two tokens with one id", { ...good, model: { ...model, vocab: { ...model.vocab, bad: 5 } } }],
    ["no merges", { ...good, model: { ...model, merges: undefined } }],
    ["a merge of three parts", { ...good, model: { ...model, merges: [["a", "b", "c"]] } }],
    ["a merge of numbers", { ...good, model: { ...model, merges: [[1, 2]] } }],
    ["a merge of unknown tokens", { ...good, model: { ...model, merges: [["never", "seen"]] } }],
    ["added tokens that are an object", { ...good, added_tokens: {} }],
    ["an added token without content", { ...good, added_tokens: [{ id: 3 }] }],
    ["an added token with a taken id", { ...good, added_tokens: [{ ...firstAdded, id: 0 }] }],
    ["a decoder that is a string", { ...good, decoder: "ByteLevel" }],
    ["an unknown normaliser", { ...good, normalizer: { type: "Rot13" } }],
    ["an unknown pre-tokenizer", { ...good, pre_tokenizer: { type: "Guess" } }],
    ["an unknown post-processor", { ...good, post_processor: { type: "Guess" } }],
    ["an unknown decoder", { ...good, decoder: { type: "Guess" } }],
    [
      "a template of an unknown token",
      { ...good, post_processor: { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<x>" } }] } },
    ],
  ])("%s", (_, json) => {
    expect(() => tokenizerFromJson(json)).toThrow(FormatError);
  });

  test("the untouched file is fine", () => {
    expect(() => tokenizerFromJson(good)).not.toThrow();
  });
});
