// What the rest of longwave knows of a tokenizer. Models never import it; a drafter and its target compare `hash`.
import { createHash } from "node:crypto";
import type { StreamDecoder } from "./stream-decoder.ts";

export interface EncodeOptions {
  /** Add what the tokenizer puts around a text (begin-of-text, mostly). Default true. */
  addSpecialTokens?: boolean;
  /** Find special tokens that are written out in the text. Set to false for text from outside. Default true. */
  parseSpecialTokens?: boolean;
}

export interface DetailedEncodeOptions extends EncodeOptions {
  /** A second text, joined with the first by the tokenizer's template. */
  pair?: string;
}

/** Tokens with where they came from. N tokens. */
export interface Encoding {
  /** [N] */
  ids: Int32Array<ArrayBuffer>;
  /**
   * [N, 2]: the range [start, end) of each token in its text, in UTF-16 code units (`text.slice(start, end)`). Tokens that the template
   * adds have [0, 0); bytes of one character have the range of the character.
   */
  offsets: Int32Array<ArrayBuffer>;
  /** [N]: the template's number for the text that a token belongs to, mostly 0 for the first text and 1 for the second. */
  typeIds: Uint8Array<ArrayBuffer>;
  /** [N]: 1 for tokens that the template adds. */
  specialMask: Uint8Array<ArrayBuffer>;
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
  /** The same ids with their places in the text, and with a second text where there is one. Slower than {@link encode}. */
  encodeWithOffsets(text: string, options?: DetailedEncodeOptions): Encoding;
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
