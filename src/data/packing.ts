// Packs documents into rows of T inputs and their T following tokens, keeping document boundaries.
// `concatenate` (GPT): one stream of all documents with a separator token, cut every T tokens; adjacent rows share one token, so that
// every token is an input once. `bestFit` (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"): best-fit decreasing; only
// documents longer than T are cut. Different from packing T + 1 tokens: a document of n tokens takes its n - 1 (input, target) pairs,
// so that no pair crosses a boundary and none is lost.
import * as z from "zod";
import { DataError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import type { BatchWriter } from "./batch.ts";
import { bestFitRows } from "./best-fit.ts";
import { documentAt, type TokenSource } from "./token-source.ts";

export const packingSchema = z.object({
  length: z.int().min(1).describe("T: inputs of a row."),
  mode: z.enum(["concatenate", "bestFit"]).default("concatenate").describe("One stream cut every T tokens, or whole documents packed."),
  separator: z
    .int()
    .nonnegative()
    .nullable()
    .default(null)
    .describe("Token put between documents (end or beginning of text); none if null."),
  separatorPlace: z.enum(["after", "before"]).default("after").describe("Whether the separator ends or begins a document."),
  padding: z.int().nonnegative().default(0).describe("Token of masked positions."),
  crossDocumentTargets: z
    .boolean()
    .default(true)
    .describe("Whether the last token of a document predicts the next document's first (concatenate only; GPT does)."),
});

export type PackingOptions = z.input<typeof packingSchema>;
type Settings = z.output<typeof packingSchema>;

export interface PackedRows {
  /** T */
  readonly length: number;
  readonly numRows: number;
  /** Positions of all rows that are not padding. */
  readonly numPairs: number;
  /** Token of positions that are not part of any document. */
  readonly padding: number;
  /** Whether rows may start at a shifted position: a stream can, packed documents cannot. */
  readonly canShift: boolean;
  /** Writes row `row` into row `slot` of a batch. With `shift` the stream is read from that position on, around its end. */
  fill(row: number, writer: BatchWriter, slot: number, shift?: number): void;
}

/** @throws DataError when the documents hold fewer than two tokens, UsageError for unknown or wrong options. */
export function packDocuments(source: TokenSource, options: PackingOptions): PackedRows {
  const settings = parseOptions(packingSchema, options);
  const rows = settings.mode === "concatenate" ? concatenate(source, settings) : bestFit(source, settings);
  if (rows.numRows === 0) {
    throw new DataError(`packing: expected at least two tokens in a row, got ${source.numTokens} in ${source.numDocuments} documents`, {
      hint: "Give more text.",
    });
  }
  return rows;
}

function concatenate(source: TokenSource, settings: Settings): PackedRows {
  const { length: T, separator, separatorPlace, padding, crossDocumentTargets } = settings;
  const extra = separator === null ? 0 : 1;
  const lead = separatorPlace === "before" ? extra : 0;
  const streamStart = (document: number) => source.documentStart(document) + extra * document;
  const total = streamStart(source.numDocuments);
  const numPairs = Math.max(0, total - 1);
  // One row of the stream and its documents, counted within the row.
  const tokens = new Int32Array(T + 1);
  const segments = new Int32Array(T + 1);

  /** Reads `count` tokens of the stream from `start` on, continuing at the stream's beginning. */
  function readStream(start: number, count: number): void {
    let document = documentAt(start, source.numDocuments, streamStart);
    let segment = 0;
    for (let done = 0; done < count; ) {
      const begin = streamStart(document);
      const end = streamStart(document + 1);
      const from = done === 0 ? start : begin;
      const part = Math.min(count - done, end - from);
      if (part > 0) {
        readPart(document, from - begin, done, part);
        segments.fill(segment++, done, done + part);
        done += part;
      }
      document = document + 1 === source.numDocuments ? 0 : document + 1;
    }
  }

  /** `part` tokens of a document with its separator, from `offset` on. */
  function readPart(document: number, offset: number, at: number, part: number): void {
    const start = source.documentStart(document);
    const size = source.documentStart(document + 1) - start;
    const first = Math.max(0, offset - lead);
    const last = Math.min(size, offset - lead + part);
    if (last > first) source.read(start + first, tokens, at + first + lead - offset, last - first);
    if (separator === null) return;
    const place = (separatorPlace === "before" ? 0 : size) - offset;
    if (place >= 0 && place < part) tokens[at + place] = separator;
  }

  return {
    length: T,
    numRows: Math.ceil(numPairs / T),
    numPairs,
    padding,
    canShift: true,
    fill(row, writer, slot, shift = 0) {
      const valid = Math.min(T, numPairs - row * T);
      readStream((row * T + shift) % total, valid + 1);
      let begin = 0;
      for (let t = 0; t < valid; t++) {
        if (t > 0 && segments[t] !== segments[t - 1]) begin = t;
        const weight = crossDocumentTargets || segments[t] === segments[t + 1] ? 1 : 0;
        writer.set(slot, t, tokens[t], tokens[t + 1], weight, segments[t], t - begin);
      }
      writer.pad(slot, valid, padding);
    },
  };
}

function bestFit(source: TokenSource, settings: Settings): PackedRows {
  const { length: T, separator, separatorPlace, padding } = settings;
  const extra = separator === null ? 0 : 1;
  const lead = separatorPlace === "before" ? extra : 0;
  const { documents, offsets, sizes } = cutDocuments(source, T, extra);
  const { rowStarts, rowPieces } = bestFitRows(sizes, T);
  const tokens = new Int32Array(T + 1);
  return {
    length: T,
    numRows: rowStarts.length - 1,
    numPairs: sizes.reduce((sum, size) => sum + size, 0),
    padding,
    canShift: false,
    fill(row, writer, slot) {
      let t = 0;
      for (let i = rowStarts[row]; i < rowStarts[row + 1]; i++) {
        const piece = rowPieces[i];
        const size = sizes[piece];
        const start = source.documentStart(documents[piece]);
        const end = source.documentStart(documents[piece] + 1);
        // The piece covers size + 1 tokens of [separator] document [separator].
        const first = start + offsets[piece] - lead;
        const from = Math.max(first, start);
        const to = Math.min(first + size + 1, end);
        if (to > from) source.read(from, tokens, from - first, to - from);
        if (separator !== null && first < start) tokens[0] = separator;
        if (separator !== null && first + size + 1 > end) tokens[size] = separator;
        for (let k = 0; k < size; k++) writer.set(slot, t + k, tokens[k], tokens[k + 1], 1, i - rowStarts[row], k);
        t += size;
      }
      writer.pad(slot, t, padding);
    },
  };
}

/** The pairs of every document, cut into pieces of at most T; documents of a single token have none. */
function cutDocuments(source: TokenSource, T: number, extra: number): { documents: Uint32Array; offsets: Uint32Array; sizes: Uint32Array } {
  const pairs = (document: number) => Math.max(0, source.documentStart(document + 1) - source.documentStart(document) + extra - 1);
  let count = 0;
  for (let document = 0; document < source.numDocuments; document++) count += Math.ceil(pairs(document) / T);
  const documents = new Uint32Array(count);
  const offsets = new Uint32Array(count);
  const sizes = new Uint32Array(count);
  let piece = 0;
  for (let document = 0; document < source.numDocuments; document++) {
    const total = pairs(document);
    for (let offset = 0; offset < total; offset += T) {
      documents[piece] = document;
      offsets[piece] = offset;
      sizes[piece++] = Math.min(T, total - offset);
    }
  }
  return { documents, offsets, sizes };
}
