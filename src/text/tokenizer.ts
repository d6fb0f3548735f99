// What the rest of longwave knows of a tokenizer. Models never import it; a drafter and its target compare `hash`.
import { createHash } from "node:crypto";
import type { StreamDecoder } from "./stream-decoder.ts";

export interface EncodeOptions {
  /** Add what the tokenizer puts around a text (begin-of-text, mostly). Default true. */
  addSpecialTokens?: boolean;
  /** Find special tokens that are written out in the text. Set to false for text from outside. Default true. */
  parseSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out of the text. Default true. */
  skipSpecialTokens?: boolean;
}

/** The ids of tokens with a role; undefined when the tokenizer does not name one. */
export interface SpecialIds {
  bos: number | undefined;
  eos: number | undefined;
  pad: number | undefined;
  unk: number | undefined;
  /** Every special token, ascending. */
  all: readonly number[];
}

export interface Tokenizer {
  /** Lone surrogates in `text` are encoded as U+FFFD. */
  encode(text: string, options?: EncodeOptions): Int32Array<ArrayBuffer>;
  /** Ids that the tokenizer does not know (a model's padded vocabulary) are skipped; broken UTF-8 becomes U+FFFD. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Decodes token by token; see {@link StreamDecoder}. */
  stream(options?: DecodeOptions): StreamDecoder;
  /** Highest id + 1. A model's vocabulary may be padded past it. */
  readonly vocabSize: number;
  readonly specialIds: SpecialIds;
  /** The id of a token in the spelling of the vocabulary. */
  tokenToId(token: string): number | undefined;
  idToToken(id: number): string | undefined;
  /** SHA-256 over the tokens in the order of their ids, with their special marks: equal when ids mean the same text. */
  readonly hash: string;
}

/** The hash of a vocabulary; ids without a token count as null. */
export function hashVocabulary(tokens: readonly (string | undefined)[], special: ReadonlySet<number>): string {
  const hash = createHash("sha256");
  for (let id = 0; id < tokens.length; id++) hash.update(`${JSON.stringify([tokens[id] ?? null, special.has(id)])}\n`);
  return hash.digest("hex");
}
