// Documents as token ids, read by position: what packing and loading work on, wherever the ids are kept.
import { DataError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type Side, type SplitOptions, splitSchema, splitter } from "./split.ts";

export interface TokenSource {
  readonly numDocuments: number;
  readonly numTokens: number;
  /** Position of a document's first token; `documentStart(numDocuments)` is `numTokens`. */
  documentStart(document: number): number;
  /** The content hash that decides a document's side. */
  documentHash(document: number): number;
  /** Copies `count` tokens from `start` on into `target` at `offset`. The range lies within the source. */
  read(start: number, target: Int32Array, offset: number, count: number): void;
}

/** A source in memory. `hashes` default to the documents' numbers. */
export function tokensOf(documents: readonly ArrayLike<number>[], hashes?: ArrayLike<number>): TokenSource {
  const starts = [0];
  for (const document of documents) starts.push(starts[starts.length - 1] + document.length);
  const tokens = new Int32Array(starts[documents.length]);
  for (const [i, document] of documents.entries()) tokens.set(document, starts[i]);
  return {
    numDocuments: documents.length,
    numTokens: tokens.length,
    documentStart: (document) => starts[document],
    documentHash: (document) => hashes?.[document] ?? document,
    read: (start, target, offset, count) => target.set(tokens.subarray(start, start + count), offset),
  };
}

/** The chosen documents of a source, in their order, as a source of their own. Nothing is copied but their positions. */
export function selectDocuments(source: TokenSource, keep: (document: number) => boolean): TokenSource {
  const chosen: number[] = [];
  for (let document = 0; document < source.numDocuments; document++) if (keep(document)) chosen.push(document);
  const documents = Uint32Array.from(chosen);
  const starts = new Float64Array(documents.length + 1);
  for (const [i, document] of documents.entries()) {
    starts[i + 1] = starts[i] + source.documentStart(document + 1) - source.documentStart(document);
  }
  return {
    numDocuments: documents.length,
    numTokens: starts[documents.length],
    documentStart: (document) => starts[document],
    documentHash: (document) => source.documentHash(documents[document]),
    read(start, target, offset, count) {
      let document = documentAt(start, documents.length, (i) => starts[i]);
      for (let done = 0; done < count; document++) {
        const within = start + done - starts[document];
        const part = Math.min(count - done, starts[document + 1] - starts[document] - within);
        if (part > 0) source.read(source.documentStart(documents[document]) + within, target, offset + done, part);
        done += Math.max(part, 0);
      }
    },
  };
}

/**
 * Both sides of a source.
 * @throws DataError when a side that should have documents has none: too few for the ratio.
 */
export function splitTokens(source: TokenSource, options: SplitOptions = {}): Record<Side, TokenSource> {
  const sideOf = splitter(options);
  const select = (side: Side) => selectDocuments(source, (document) => sideOf(source.documentHash(document)) === side);
  const sides = { train: select("train"), validation: select("validation") };
  const { validation } = parseOptions(splitSchema, options);
  const expected = (["train", "validation"] as const).filter((side) => (side === "train" ? validation < 1 : validation > 0));
  const empty = expected.find((side) => sides[side].numTokens === 0);
  if (empty !== undefined) {
    throw new DataError(`split: expected documents for ${empty}, got none of ${source.numDocuments}`, {
      hint: "Give more or shorter documents (splitBy), another validation share, or another split seed.",
    });
  }
  return sides;
}

/** The last document that starts at or before a position and is not empty there; `start` must not decrease. */
export function documentAt(position: number, numDocuments: number, start: (document: number) => number): number {
  let low = 0;
  let high = numDocuments - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (start(middle) <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}
