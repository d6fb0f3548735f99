// Training and validation sides of tokenised documents, also where there are too few documents to choose among.
import { DataError } from "../base/errors.ts";
import { splitTokens, splitter, type TokenSource } from "../data/index.ts";

export interface HeldOut {
  readonly train: TokenSource;
  /** Undefined when no share was asked for. */
  readonly validation: TokenSource | undefined;
  /** documents: chosen by a hash of their text. end: too few for that, so the last tokens are kept. */
  readonly by: "documents" | "end" | "none";
}

/**
 * Keeps a share for validation: whole documents, chosen by their text; where that leaves a side empty (a file or two), the last tokens.
 * @param share in [0, 1).
 * @throws DataError when there are too few tokens for two sides.
 */
export function holdOut(source: TokenSource, share: number): HeldOut {
  if (share === 0) return { train: source, validation: undefined, by: "none" };
  const sideOf = splitter({ validation: share });
  const sides = new Set<string>();
  for (let document = 0; document < source.numDocuments && sides.size < 2; document++) {
    const isEmpty = source.documentStart(document) === source.documentStart(document + 1);
    if (!isEmpty) sides.add(sideOf(source.documentHash(document)));
  }
  if (sides.size === 2) return { ...splitTokens(source, { validation: share }), by: "documents" };
  const numHeld = Math.max(2, Math.round(share * source.numTokens));
  if (source.numTokens < numHeld + 2)
    throw new DataError(`data: expected tokens for training and validation, got ${source.numTokens}`, {
      hint: "Give more text, or set validation to 0.",
    });
  const cut = source.numTokens - numHeld;
  return { train: sliceTokens(source, 0, cut), validation: sliceTokens(source, cut, source.numTokens), by: "end" };
}

/** Tokens [start, end) of a source; a document that is cut keeps its part. */
function sliceTokens(source: TokenSource, start: number, end: number): TokenSource {
  let first = 0;
  while (source.documentStart(first + 1) <= start) first++;
  let last = first;
  while (source.documentStart(last) < end) last++;
  const clamp = (position: number): number => Math.min(Math.max(position, start), end) - start;
  return {
    numDocuments: last - first,
    numTokens: end - start,
    documentStart: (document) => clamp(source.documentStart(first + document)),
    documentHash: (document) => source.documentHash(first + document),
    read: (from, target, offset, count) => source.read(start + from, target, offset, count),
  };
}
