import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, test } from "vitest";
import { FormatError } from "../base/errors.ts";
import { Llama2cTokenizer, parseLlama2cTokenizer } from "./llama2c-tokenizer.ts";
import { loadTokenizer } from "./load-tokenizer.ts";

const folder = fileURLToPath(new URL("../../assets/stories260k", import.meta.url));
const golden = JSON.parse(readFileSync(new URL("../../test/golden/stories260k/expected.json", import.meta.url), "utf8")) as {
  encodings: { text: string; ids: number[] }[];
  cases: { prompt: string; ids: number[]; greedy: number[]; text: string }[];
};
const tokenizer = loadTokenizer(folder);
const fileBytes = new Uint8Array(readFileSync(`${folder}/tok512.bin`));

test("encodings and texts equal the reference", () => {
  for (const { text, ids } of golden.encodings) {
    expect([...tokenizer.encode(text)]).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text);
  }
  for (const { prompt, ids, greedy, text } of golden.cases) {
    expect([...tokenizer.encode(prompt)]).toEqual(ids);
    expect(tokenizer.decode([...ids, ...greedy])).toBe(text);
  }
});

/** The algorithm as llama2.c describes it: rescan all neighbours before every join. */
function encodePlainly(text: string): number[] {
  const { tokens, scores } = parseLlama2cTokenizer(fileBytes);
  const latin1 = (part: string): string => Buffer.from(part, "utf8").toString("latin1");
  const find = (token: string): number => tokens.indexOf(token, 259);
  const symbols = Array.from(text === "" ? "" : ` ${text}`).flatMap((character) => {
    const id = find(latin1(character));
    return id >= 0 ? [id] : Array.from(Buffer.from(character, "utf8"), (byte) => byte + 3);
  });
  for (;;) {
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const id = find(tokens[symbols[i]] + tokens[symbols[i + 1]]);
      if (id >= 0 && scores[id] > bestScore) [best, bestScore] = [i, scores[id]];
    }
    if (best < 0) return [1, ...symbols];
    symbols.splice(best, 2, find(tokens[symbols[best]] + tokens[symbols[best + 1]]));
  }
}

test("equals plain rescanning, decodes back, and streams what it decodes", () => {
  const words = fc.array(fc.constantFrom("the", "and", " ", "little", "girl", "é", "😀", "\n", "<s>", "xyz", "  ", "<0x41>"), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(
      fc.oneof(
        words.map((parts) => parts.join("")),
        fc.string({ unit: "grapheme", maxLength: 20 }),
      ),
      (text) => {
        const ids = [...tokenizer.encode(text)];
        expect(ids).toEqual(encodePlainly(text));
        expect(tokenizer.decode(ids)).toBe(text);
        const stream = tokenizer.stream();
        expect(ids.map((id) => stream.push(id)).join("") + stream.end()).toBe(text);
      },
    ),
    { numRuns: 200 },
  );
});

test("roles, tokens and hash", () => {
  expect(tokenizer.vocabSize).toBe(512);
  expect(tokenizer.specialIds).toEqual({ bos: 1, eos: 2, pad: undefined, unk: 0, all: [0, 1, 2] });
  expect(tokenizer.tokenToId(" the")).toBe(265);
  expect(tokenizer.idToToken(265)).toBe(" the");
  expect(tokenizer.decode([1, 265, 2], { skipSpecialTokens: false })).toBe("<s>the</s>");
  expect(tokenizer.hash).toBe(new Llama2cTokenizer(parseLlama2cTokenizer(fileBytes)).hash);
});

test("offsets cut the text into what the tokens stand for", () => {
  const text = "Once upon a dög 🐕!";
  const { ids, offsets, specialMask } = tokenizer.encodeWithOffsets(text);
  expect([...ids]).toEqual([...tokenizer.encode(text)]);
  expect(specialMask.reduce((sum, mark) => sum + mark, 0)).toBe(1);
  let covered = 0;
  for (let i = 1; i < ids.length; i++) {
    const [start, end] = offsets.subarray(2 * i, 2 * i + 2);
    expect(start).toBeLessThanOrEqual(covered);
    covered = Math.max(covered, end);
    // Bytes of one character have its range; the space before the text is part of its first character.
    const token = tokenizer.idToToken(ids[i]) as string;
    if (!token.startsWith("<0x"))
      expect(token).toBe(i === 1 ? ` ${text.slice(start, end)}`.slice(0, token.length) : text.slice(start, end));
  }
  expect(covered).toBe(text.length);
  const pair = tokenizer.encodeWithOffsets("a", { pair: "b", addSpecialTokens: false });
  expect([...pair.typeIds]).toEqual([0, 1].flatMap((id) => Array(pair.ids.length / 2).fill(id)));
});

test("damaged files are format errors", () => {
  for (let length = 0; length < fileBytes.length; length += 37) {
    expect(() => parseLlama2cTokenizer(fileBytes.slice(0, length), "tok512.bin", 512), `cut at ${length}`).toThrow(FormatError);
  }
  const withInt = (offset: number, value: number): Uint8Array<ArrayBuffer> => {
    const bytes = fileBytes.slice();
    new DataView(bytes.buffer).setInt32(offset, value, true);
    return bytes;
  };
  expect(() => parseLlama2cTokenizer(withInt(0, 2_000_000_000))).toThrow(FormatError);
  expect(() => parseLlama2cTokenizer(withInt(8, -1))).toThrow(FormatError);
  expect(() => parseLlama2cTokenizer(withInt(8, 0x7fffffff))).toThrow(FormatError);
  expect(() => parseLlama2cTokenizer(withInt(4, 0x7fc00000))).toThrow(FormatError);
});
