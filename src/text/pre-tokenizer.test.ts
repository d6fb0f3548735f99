import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type PreTokenizerKind, splitWords } from "./pre-tokenizer.ts";

const kinds: PreTokenizerKind[] = ["gpt2", "llama3", "qwen2", "smollm"];

// The published patterns in JavaScript's notation: \s is the Unicode property, and (?i:…) is written out with its case foldings.
const contractions = "'(?:[sS\\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const space = "\\p{White_Space}";
const llama3 = (digits: string) =>
  new RegExp(
    `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^${space}\\p{L}\\p{N}]+[\\r\\n]*|${space}*[\\r\\n]+|${space}+(?!\\P{White_Space})|${space}+`,
    "gu",
  );
const gpt2 = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${space}\\p{L}\\p{N}]+|${space}+(?!\\P{White_Space})|${space}+`,
  "gu",
);
const byPattern: Record<PreTokenizerKind, (text: string) => string[]> = {
  gpt2: (text) => text.match(gpt2) ?? [],
  llama3: (text) => text.match(llama3("{1,3}")) ?? [],
  qwen2: (text) => text.match(llama3("")) ?? [],
  smollm: (text) => text.split(/(\p{N})/u).flatMap((part) => part.match(gpt2) ?? []),
};

const pieces = fc.constantFrom(
  ..."aBzé中日ß١²½Ⅷ😀𝒜𝟙'_-!. \n\r\t\u0085\u00a0\u2028\u3000\ufeff\u180e\u0301\u200d\u017f",
  "'s",
  "'LL",
  "'re",
  "  ",
  "\ud800",
  "\udc00",
);
const text = fc.oneof(
  fc.array(pieces, { maxLength: 24 }).map((parts) => parts.join("")),
  fc.string({ unit: "binary", maxLength: 24 }),
);

test.each(kinds)("%s: the scanner splits as the regular expression does", (kind) => {
  fc.assert(
    fc.property(text, (sample) => {
      expect(splitWords(sample, kind)).toEqual(byPattern[kind](sample));
    }),
    { numRuns: 2000 },
  );
});

test.each(kinds)("%s: the scanner splits as Hugging Face's tokenizers does", (kind) => {
  const path = new URL("../../test/golden/bpe-training/options.json", import.meta.url);
  const { splits } = JSON.parse(readFileSync(path, "utf8")) as { splits: ({ text: string } & Record<PreTokenizerKind, string[]>)[] };
  expect(splits.length).toBeGreaterThan(50);
  for (const sample of splits) expect(splitWords(sample.text, kind), JSON.stringify(sample.text)).toEqual(sample[kind]);
});

test("an empty text has no words", () => {
  expect(splitWords("", "llama3")).toEqual([]);
});
