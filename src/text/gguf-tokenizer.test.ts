import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, test } from "vitest";
import { FormatError } from "../base/errors.ts";
import { openGguf } from "../formats/gguf.ts";
import type { GgufMetadataEntry } from "../formats/gguf-header.ts";
import { ggufEntry, writeGguf } from "../formats/gguf-write.ts";
import { ggufTokenizerFiles } from "./gguf-tokenizer.ts";
import { tokenizerGgufEntries } from "./gguf-tokenizer-write.ts";
import { loadTokenizer } from "./load-tokenizer.ts";
import { readJsonFile } from "./tokenizer-file.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../test/golden/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "longwave-gguf-tokenizer-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const write = (entries: Iterable<readonly [string, GgufMetadataEntry]>, name = "tokenizer.gguf"): string => {
  const path = join(directory, name);
  writeGguf(path, [], { metadata: entries });
  return path;
};

test("SentencePiece tokens with scores give llama.cpp's ids", () => {
  const { texts, llamaCppIds } = JSON.parse(readFileSync(golden("formats/gguf/llama.expected.json"), "utf8")).tokenizer;
  const tokenizer = loadTokenizer(golden("formats/gguf/llama-Q4_1.gguf"));
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { addSpecialTokens: false }));
  expect((texts as string[]).map(encode)).toEqual(llamaCppIds);
  expect(Array.from(tokenizer.encode("Hello world"))).toEqual([1, ...llamaCppIds[0]]);
  expect(tokenizer.decode(tokenizer.encode("😀 café  two"))).toBe("😀 café  two");
  expect(tokenizer.specialIds).toMatchObject({ bos: 1, eos: 2, unk: 0 });
});

describe("byte-level BPE", () => {
  const folder = golden("tokenizers/llama3-bytelevel");
  const entries = () =>
    tokenizerGgufEntries(readJsonFile(join(folder, "tokenizer.json")), {
      chat_template: "{{ messages }}",
      add_bos_token: true,
      bos_token: "<|begin_of_text|>",
    });

  it("written from a tokenizer.json and read back: the same ids", () => {
    const own = loadTokenizer(write(entries()));
    const { cases } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
    expect(cases.length).toBeGreaterThan(20);
    for (const { text, ids } of cases) expect(Array.from(own.encode(text)), text).toEqual(ids);
    expect(own.hash).toBe(loadTokenizer(folder).hash);
    using file = openGguf(write(entries()));
    expect(file.value("tokenizer.ggml.pre")).toBe("llama-bpe");
    expect(ggufTokenizerFiles(file).config).toMatchObject({ chat_template: "{{ messages }}", add_bos_token: true });
  });

  it("names splitting rules that it does not know", () => {
    const changed = new Map(entries()).set("tokenizer.ggml.pre", ggufEntry.string("martian"));
    expect(() => loadTokenizer(write(changed))).toThrow(/tokenizer.ggml.pre gpt-2, .* got "martian"/);
  });
});

test("a unigram model with its scores", () => {
  const folder = golden("tokenizers/unigram-bytefallback");
  const { cases } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
  const own = loadTokenizer(write(tokenizerGgufEntries(readJsonFile(join(folder, "tokenizer.json")), {})));
  const plain = loadTokenizer(folder);
  for (const { text } of cases.slice(0, 30)) {
    expect(Array.from(own.encode(text, { addSpecialTokens: false })), text).toEqual(
      Array.from(plain.encode(text, { addSpecialTokens: false })),
    );
  }
});

test("what is missing or of another length is named", () => {
  expect(() => loadTokenizer(write([]))).toThrow(/tokens in tokenizer.ggml.tokens/);
  const tokens = ["tokenizer.ggml.tokens", ggufEntry.strings(["a", "b"])] as const;
  expect(() => loadTokenizer(write([tokens]))).toThrow(/tokenizer.ggml.model gpt2, llama or t5/);
  const model = ["tokenizer.ggml.model", ggufEntry.string("llama")] as const;
  expect(() => loadTokenizer(write([model, tokens]))).toThrow(/tokenizer.ggml.scores/);
  const scores = ["tokenizer.ggml.scores", ggufEntry.f32s(Float32Array.of(1))] as const;
  expect(() => loadTokenizer(write([model, tokens, scores]))).toThrow(FormatError);
  expect(() => loadTokenizer(write([model, tokens, scores]))).toThrow(/expected 2 numbers/);
});
