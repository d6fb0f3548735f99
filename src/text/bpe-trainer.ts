// Trains a byte-level BPE vocabulary (Radford et al. 2019) from a stream of texts. Merges, ids and ties are those of Hugging Face's
// `BpeTrainer`: ids are special tokens, then the alphabet by code point, then merges; the most frequent pair is merged first, among
// equally frequent ones the smallest (left id, right id). Deliberately different: a vocabulary that cannot be filled is an error.
import { setImmediate as nextTurn } from "node:timers/promises";
import { z } from "zod";
import { AbortedError, DataError, UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { byteCharacters, bytesInCharacterOrder } from "./byte-alphabet.ts";
import { MergeLearner, type SymbolWords } from "./merge-learner.ts";
import type { PreTokenizerKind } from "./pre-tokenizer.ts";
import { WordCounter } from "./word-counter.ts";

/** Settings of {@link trainBpe}. */
export const bpeTrainerOptions = z.strictObject({
  vocabSize: z
    .int()
    .min(2)
    .max(1 << 22)
    .describe("Number of tokens, special tokens and the alphabet included")
    .default(8192),
  minFrequency: z.int().min(0).describe("Pairs that occur less often are not merged; 0 and 1 mean no limit").default(0),
  specialTokens: z.array(z.string().min(1)).describe("Tokens that get the first ids; they are not looked for in the text").default([]),
  preTokenizer: z.enum(["gpt2", "llama3", "qwen2", "smollm"]).describe("How text is split into words").default("gpt2"),
  initialAlphabet: z
    .array(z.int().min(0).max(255))
    .describe("Bytes that are in the vocabulary whether or not they occur; absent: all 256, so that any text can be encoded")
    .optional(),
  limitAlphabet: z.int().min(1).describe("At most this many distinct bytes; the rarest others are left out of the words").optional(),
  maxTokenLength: z
    .int()
    .min(2)
    .describe("Longest token, in bytes (Hugging Face's max_token_length counts one more for the same result)")
    .optional(),
  allowSmaller: z.boolean().describe("Return a smaller vocabulary when the text does not support vocabSize").default(false),
});

export type BpeTrainerOptions = z.input<typeof bpeTrainerOptions>;

/** Where training stands. */
export interface BpeProgress {
  phase: "count" | "merge";
  /** Code units (count) or tokens (merge) so far. */
  done: number;
  /** Tokens wanted; undefined while counting, because a stream does not tell its length. */
  total: number | undefined;
}

/** How a training is watched and stopped. */
export interface BpeTrainerHooks {
  /** Called about twenty times a second. */
  onProgress?: (progress: BpeProgress) => void;
  signal?: AbortSignal;
}

/** A trained vocabulary. */
export interface TrainedBpe {
  preTokenizer: PreTokenizerKind;
  /** By id, in byte-level spelling. */
  tokens: readonly string[];
  /** The ids of the pairs, in the order of merging. */
  merges: readonly (readonly [left: number, right: number])[];
  /** How often each pair occurred when it was merged. */
  pairCounts: readonly number[];
  specialTokens: readonly string[];
}

/** The event loop gets a turn at least this often, so that signals and aborts are seen. */
const turnMs = 40;
const wordsPerCheck = 20_000;
const mergesPerCheck = 16;

/**
 * Trains on texts, each of which is a document of its own (words never reach across). The texts themselves are not kept.
 * @throws UsageError for bad options, DataError when there is no text or too little of it, AbortedError.
 */
export async function trainBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  options: BpeTrainerOptions = {},
  hooks: BpeTrainerHooks = {},
): Promise<TrainedBpe> {
  const settings = parseOptions(bpeTrainerOptions, options);
  const specialTokens = checkSpecialTokens(settings.specialTokens);
  const turn = makeTurn(hooks.signal);
  const counter = new WordCounter(settings.preTokenizer);
  for await (const text of texts) {
    for (let at = 0; at < text.length; ) {
      at = counter.add(text, at, wordsPerCheck);
      if (await turn()) hooks.onProgress?.({ phase: "count", done: counter.numUnits, total: undefined });
    }
    await turn();
  }
  if (counter.numUnits === 0) {
    throw new DataError("train a tokenizer: expected some text, got none", {
      hint: "Check the files or the filter that the texts come from.",
    });
  }

  const words = counter.words();
  const alphabet = chooseAlphabet(words, settings.initialAlphabet, settings.limitAlphabet);
  const tokens = [...specialTokens, ...alphabet.map((byte) => byteCharacters[byte])];
  const numBase = tokens.length;
  if (settings.vocabSize < numBase) {
    throw new UsageError(`vocabSize: expected at least ${numBase} (special tokens and alphabet), got ${settings.vocabSize}`, {
      hint: "Ask for a larger vocabulary, or give a smaller initialAlphabet.",
    });
  }
  const learner = new MergeLearner(symbolWords(words, alphabet, specialTokens.length), {
    firstSymbol: specialTokens.length,
    numSymbols: alphabet.length,
    maxSymbols: settings.vocabSize,
    minFrequency: Math.max(1, settings.minFrequency),
    maxTokenLength: settings.maxTokenLength ?? Number.POSITIVE_INFINITY,
  });
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const merges: [number, number][] = [];
  const pairCounts: number[] = [];
  while (tokens.length < settings.vocabSize) {
    const best = learner.best();
    if (best === undefined) break;
    const token = tokens[best.left] + tokens[best.right];
    const known = idOf.get(token);
    const id = known ?? tokens.length;
    if (known === undefined) {
      idOf.set(token, id);
      tokens.push(token);
    }
    merges.push([best.left, best.right]);
    pairCounts.push(best.count);
    learner.merge(best, id, known === undefined);
    if (merges.length % mergesPerCheck === 0 && (await turn())) {
      hooks.onProgress?.({ phase: "merge", done: tokens.length, total: settings.vocabSize });
    }
  }
  if (tokens.length < settings.vocabSize && !settings.allowSmaller) {
    const limit = settings.minFrequency > 1 ? ` with pairs that occur ${settings.minFrequency} times or more` : "";
    throw new DataError(`train a tokenizer: expected text for ${settings.vocabSize} tokens, got enough for ${tokens.length}${limit}`, {
      hint: `Ask for vocabSize ${tokens.length} or less, give more text, or set allowSmaller.`,
    });
  }
  hooks.onProgress?.({ phase: "merge", done: tokens.length, total: tokens.length });
  return { preTokenizer: settings.preTokenizer, tokens, merges, pairCounts, specialTokens };
}

/** Yields to the event loop when it is time to; resolves to true when it did. */
function makeTurn(signal: AbortSignal | undefined): () => Promise<boolean> {
  let last = performance.now();
  const check = (): void => {
    if (signal?.aborted) throw new AbortedError("train a tokenizer: interrupted", { cause: signal.reason });
  };
  return async () => {
    check();
    if (performance.now() - last < turnMs) return false;
    await nextTurn();
    check();
    last = performance.now();
    return true;
  };
}

function checkSpecialTokens(tokens: readonly string[]): readonly string[] {
  const seen = new Set<string>();
  for (const token of tokens) {
    if (seen.has(token)) throw new UsageError(`specialTokens: expected distinct tokens, got ${JSON.stringify(token)} twice`);
    if (byteCharacters.includes(token)) {
      throw new UsageError(`specialTokens: expected tokens that are not of the byte alphabet, got ${JSON.stringify(token)}`, {
        hint: 'Give special tokens names like "<|endoftext|>".',
      });
    }
    seen.add(token);
  }
  return tokens;
}

type ByteWords = ReturnType<WordCounter["words"]>;

/** The bytes of the vocabulary in the order of their ids. */
function chooseAlphabet(words: ByteWords, initial: readonly number[] | undefined, limit: number | undefined): number[] {
  const counts = new Float64Array(256);
  for (let word = 0; word < words.numWords; word++) {
    for (let at = words.starts[word]; at < words.starts[word + 1]; at++) counts[words.bytes[at]] += words.counts[word];
  }
  const kept = new Set(initial ?? bytesInCharacterOrder());
  const order = bytesInCharacterOrder();
  const seen = order.filter((byte) => counts[byte] > 0 && !kept.has(byte)).sort((a, b) => counts[b] - counts[a]);
  for (const byte of seen) if (limit === undefined || kept.size < limit) kept.add(byte);
  return order.filter((byte) => kept.has(byte));
}

/** Words as ids of the alphabet; bytes outside it are left out. */
function symbolWords(words: ByteWords, alphabet: readonly number[], firstId: number): SymbolWords {
  const idOfByte = new Int32Array(256).fill(-1);
  alphabet.forEach((byte, index) => {
    idOfByte[byte] = firstId + index;
  });
  const symbols = new Int32Array(words.bytes.length);
  const starts = new Float64Array(words.numWords + 1);
  let to = 0;
  for (let word = 0; word < words.numWords; word++) {
    for (let at = words.starts[word]; at < words.starts[word + 1]; at++) {
      const id = idOfByte[words.bytes[at]];
      if (id >= 0) symbols[to++] = id;
    }
    starts[word + 1] = to;
  }
  return { symbols: symbols.subarray(0, to), starts, counts: words.counts, numWords: words.numWords };
}
