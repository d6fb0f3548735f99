import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AbortedError, DataError, UsageError } from "../base/errors.ts";
import { type BpeTrainerOptions, trainBpe } from "./bpe-trainer.ts";
import { byteCharacters, bytesInCharacterOrder, tokenOfBytes } from "./byte-alphabet.ts";
import { splitWords } from "./pre-tokenizer.ts";

const folder = new URL("../../test/golden/bpe-training/", import.meta.url);
const goldenText = readFileSync(new URL("text.txt", folder), "utf8");
const readJson = (name: string): unknown => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

interface GoldenRun {
  preTokenizer: { type: string };
  vocabSize: number;
  minFrequency: number;
  specialTokens: string[];
  vocab: Record<string, number>;
  merges: [string, string][];
  pairCounts: number[];
}

describe("equals Hugging Face's BpeTrainer", () => {
  const { runs } = readJson("expected.json") as { runs: Record<string, GoldenRun> };
  test.each(Object.entries(runs))("run %s", async (name, run) => {
    const trained = await trainBpe([name === "small" ? goldenText.slice(0, 3000) : goldenText], {
      vocabSize: run.vocabSize,
      minFrequency: run.minFrequency,
      specialTokens: run.specialTokens,
      preTokenizer: run.preTokenizer.type === "ByteLevel" ? "gpt2" : "llama3",
      allowSmaller: name === "small",
    });
    expect(trained.merges.map(([left, right]) => [trained.tokens[left], trained.tokens[right]])).toEqual(run.merges);
    expect(trained.pairCounts).toEqual(run.pairCounts);
    expect(Object.fromEntries(trained.tokens.map((token, id) => [token, id]))).toEqual(run.vocab);
  });

  const options = readJson("options.json") as {
    runs: { name: string; options: BpeTrainerOptions; tokens: string[]; merges: string[] }[];
  };
  test.each(options.runs.map((run) => [`${run.name} ${run.options.preTokenizer}`, run] as const))("%s", async (_, run) => {
    const trained = await trainBpe([goldenText.slice(0, 20_000)], run.options);
    expect(trained.tokens).toEqual(run.tokens);
    expect(trained.merges.map(([left, right]) => `${trained.tokens[left]} ${trained.tokens[right]}`)).toEqual(run.merges);
  });
});

/** BPE training as in the paper: count every pair anew before each merge. */
function trainPlainly(texts: readonly string[], numMerges: number): [number, number][] {
  const alphabet = bytesInCharacterOrder();
  const tokens = alphabet.map((byte) => byteCharacters[byte]);
  const words = texts
    .flatMap((text) => splitWords(text, "gpt2"))
    .map((word) => Array.from(tokenOfBytes(new TextEncoder().encode(word)), (character) => tokens.indexOf(character)));
  const merges: [number, number][] = [];
  while (merges.length < numMerges) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = `${word[i]} ${word[i + 1]}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const ranked = [...counts].map(([key, count]) => ({ count, pair: key.split(" ").map(Number) as [number, number] }));
    ranked.sort((a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1]);
    if (ranked.length === 0) break;
    const [left, right] = ranked[0].pair;
    merges.push([left, right]);
    const id = tokens.length;
    tokens.push(tokens[left] + tokens[right]);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) if (word[i] === left && word[i + 1] === right) word.splice(i, 2, id);
    }
  }
  return merges;
}

test("equals a plain trainer that recounts everything (runs of one letter included)", async () => {
  const letters = fc.array(fc.constantFrom("a", "b", "c", " ", "aa", "é"), { minLength: 1, maxLength: 60 }).map((parts) => parts.join(""));
  await fc.assert(
    fc.asyncProperty(fc.array(letters, { minLength: 1, maxLength: 4 }), async (texts) => {
      const trained = await trainBpe(texts, { vocabSize: 256 + 20, allowSmaller: true });
      const plain = trainPlainly(texts, trained.merges.length + 1);
      // Two ways to spell one token reuse its id there, which the plain trainer does not model: compare up to that point.
      const spelled = trained.merges.map(([left, right]) => trained.tokens[left] + trained.tokens[right]);
      const firstRepeat = spelled.findIndex((token, i) => spelled.indexOf(token) < i);
      const length = firstRepeat < 0 ? trained.merges.length : firstRepeat;
      expect(trained.merges.slice(0, length)).toEqual(plain.slice(0, length));
      if (firstRepeat < 0 && trained.tokens.length < 276) expect(plain).toHaveLength(trained.merges.length);
    }),
    { numRuns: 150 },
  );
});

test("a stream gives the same as a list, piece by piece", async () => {
  const lines = goldenText.slice(0, 30_000).match(/[^\n]*\n/g) ?? [];
  async function* stream() {
    for (const line of lines) yield line;
  }
  const options = { vocabSize: 400, preTokenizer: "llama3" } as const;
  expect(await trainBpe(stream(), options)).toEqual(await trainBpe(lines, options));
});

test("a token that can be spelled in two ways keeps one id", async () => {
  // "ab" is a special token, so that the merge of a and b finds it there.
  const trained = await trainBpe(["ab ab ab abc abc"], { vocabSize: 260, specialTokens: ["ab"], allowSmaller: true });
  expect(new Set(trained.tokens).size).toBe(trained.tokens.length);
  expect(trained.merges.map(([left, right]) => trained.tokens[left] + trained.tokens[right])).toContain("ab");
});

test("too little text is an error that says how many tokens it is enough for", async () => {
  await expect(trainBpe(["low lower lowest"], { vocabSize: 4000 })).rejects.toThrow(/expected text for 4000 tokens, got enough for 26\d$/);
  const smaller = await trainBpe(["low lower lowest"], { vocabSize: 4000, allowSmaller: true });
  await expect(trainBpe(["low lower lowest"], { vocabSize: smaller.tokens.length })).resolves.toEqual(smaller);
});

test.each([
  ["no texts", [], {}, DataError],
  ["empty texts", ["", ""], {}, DataError],
  ["a vocabulary below the alphabet", ["text"], { vocabSize: 200 }, UsageError],
  ["a repeated special token", ["text"], { specialTokens: ["<a>", "<a>"] }, UsageError],
  ["a special token of one byte character", ["text"], { specialTokens: ["Ġ"] }, UsageError],
  ["an unknown option", ["text"], { vocabsize: 300 }, UsageError],
  ["an unknown pre-tokenizer", ["text"], { preTokenizer: "bert" }, UsageError],
  ["a fractional vocabulary", ["text"], { vocabSize: 300.5 }, UsageError],
] as const)("%s is refused", async (_, texts, options, kind) => {
  await expect(trainBpe(texts, options as BpeTrainerOptions)).rejects.toBeInstanceOf(kind);
});

test("an abort ends training, even inside one large text", async () => {
  const controller = new AbortController();
  const endless = goldenText.repeat(60);
  let reports = 0;
  const training = trainBpe(
    [endless, endless],
    { vocabSize: 4000 },
    {
      signal: controller.signal,
      onProgress: () => {
        reports++;
        controller.abort();
      },
    },
  );
  await expect(training).rejects.toBeInstanceOf(AbortedError);
  expect(reports).toBeGreaterThan(0);
  await expect(trainBpe([goldenText], { vocabSize: 300 }, { signal: AbortSignal.abort() })).rejects.toBeInstanceOf(AbortedError);
});
