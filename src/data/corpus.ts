// A corpus: documents in a fixed order, with a fingerprint that changes whenever they could have changed.
import { createHash } from "node:crypto";

export interface TextDocument {
  readonly text: string;
  /** The file (or other origin) that it comes from. */
  readonly source: string;
  /** Its number within the source, from 0. */
  readonly index: number;
}

export interface ReadOptions {
  signal?: AbortSignal;
}

export interface Corpus {
  /** For messages. */
  readonly name: string;
  /** Bytes of all sources: the whole of a progress bar. */
  readonly totalBytes: number;
  /** Equal fingerprints mean equal documents. */
  readonly fingerprint: string;
  /** Some files are long, and were cut into several documents without being asked to. Default false. */
  readonly isCut?: boolean;
  /** The documents, streamed; every call starts again. */
  documents(options?: ReadOptions): AsyncIterable<TextDocument>;
}

/** A corpus of texts in memory, named for messages. */
export function corpusOf(texts: readonly string[], name = "texts"): Corpus {
  const hash = createHash("sha256");
  let totalBytes = 0;
  for (const text of texts) {
    const bytes = Buffer.byteLength(text);
    // The length keeps ["ab", "c"] and ["a", "bc"] apart.
    hash.update(`${bytes}:`).update(text);
    totalBytes += bytes;
  }
  return {
    name,
    totalBytes,
    fingerprint: hash.digest("hex"),
    async *documents() {
      for (const [index, text] of texts.entries()) yield { text, source: name, index };
    },
  };
}
