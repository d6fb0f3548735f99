// Laws that every tokenizer keeps: texts come back, streams concatenate to the decoding, and no emission splits a character.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loadTokenizer, type Tokenizer, tokenizerFromTrained, trainBpe } from "../../src/text/index.ts";

const golden = (name: string): Tokenizer => loadTokenizer(fileURLToPath(new URL(`../golden/tokenizers/${name}`, import.meta.url)));
const trainingText = readFileSync(new URL("../golden/bpe-training/text.txt", import.meta.url), "utf8");

// UTF-16 code units of any kind: lone surrogates, joiners, emoji, combining marks.
const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 30 }).map((units) => String.fromCharCode(...units)),
  fc
    .array(fc.constantFrom("👨‍👩‍👧", "🇩🇪", "é", "\ud83d", "\ude00", " a", "\ufeff", "ﷺ", "\ufffd"), { maxLength: 12 })
    .map((parts) => parts.join("")),
);
const wellFormed = (text: string): string => text.replace(/\p{Surrogate}/gu, "\ufffd");

function checkStream(tokenizer: Tokenizer, ids: ArrayLike<number>, decoded: string): void {
  const stream = tokenizer.stream({ skipSpecialTokens: false });
  let text = "";
  for (const id of Array.from(ids)) {
    const part = stream.push(id);
    expect(/\p{Surrogate}/u.test(part)).toBe(false);
    text += part;
  }
  expect(text + stream.end()).toBe(decoded);
}

describe.each(["gpt2-bytelevel", "llama3-bytelevel", "llama2-bytefallback", "mistral-metaspace"])("%s", (name) => {
  const tokenizer = golden(name);

  test("any text comes back, at once and streamed", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        // Metaspace tokenizers write a space as this character; it cannot come back.
        fc.pre(!text.includes("\u2581"));
        const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: false });
        const decoded = tokenizer.decode(ids, { skipSpecialTokens: false });
        const expected = wellFormed(text);
        // Mistral's kind adds its space only where the text does not begin with one, so one leading space is lost.
        expect(name === "mistral-metaspace" && text.startsWith(" ") ? ` ${decoded}` : decoded).toBe(expected);
        checkStream(tokenizer, ids, decoded);
      }),
      { numRuns: 300 },
    );
  });
});

test.each(["gpt2-bytelevel", "llama3-bytelevel"])("%s: any ids stream to what they decode to", (name) => {
  const tokenizer = golden(name);
  const id = fc.integer({ min: 0, max: tokenizer.vocabSize + 5 });
  const bytes = fc.integer({ min: 94, max: 255 });
  fc.assert(
    fc.property(fc.array(fc.oneof(id, bytes), { maxLength: 150 }), (ids) => {
      checkStream(tokenizer, ids, tokenizer.decode(ids, { skipSpecialTokens: false }));
    }),
    { numRuns: 300 },
  );
});

test.each(["gpt2", "llama3", "qwen2", "smollm"] as const)(
  "a vocabulary trained with %s splitting gives any text back",
  async (preTokenizer) => {
    const tokenizer = tokenizerFromTrained(await trainBpe([trainingText], { vocabSize: 600, preTokenizer }));
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(wellFormed(text));
      }),
      { numRuns: 200 },
    );
  },
);
