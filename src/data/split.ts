// Train and validation sides by a hash of the document's text: a document keeps its side when others are added, removed or
// reordered, and exact duplicates never fall on both sides.
import { hash } from "node:crypto";
import * as z from "zod";
import { parseOptions } from "../base/schema.ts";
import { philox4x32 } from "../runtime/rng.ts";
import type { TextDocument } from "./corpus.ts";

export const splitSchema = z.object({
  validation: z.number().min(0).max(1).default(0.1).describe("Share of the documents kept for validation."),
  splitSeed: z.int().min(0).max(0xffffffff).default(0).describe("Another seed gives another split."),
});

export type SplitOptions = z.input<typeof splitSchema>;
export type Side = "train" | "validation";

/** The first 32 bits of the text's SHA-256. */
export const contentHash = (text: string): number => hash("sha256", text, "buffer").readUInt32BE(0);

/** Decides the side of a document by its {@link contentHash}. @throws UsageError for options out of range. */
export function splitter(options: SplitOptions = {}): (contentHash: number) => Side {
  const { validation, splitSeed } = parseOptions(splitSchema, options);
  const words = new Uint32Array(4);
  return (content) => {
    philox4x32(content, 0, 0, 0, splitSeed, 0, words);
    return words[0] < validation * 2 ** 32 ? "validation" : "train";
  };
}

/** The documents of one side, in their order. */
export async function* splitDocuments(
  documents: AsyncIterable<TextDocument>,
  side: Side,
  options: SplitOptions = {},
): AsyncGenerator<TextDocument, void, undefined> {
  const sideOf = splitter(options);
  for await (const document of documents) if (sideOf(contentHash(document.text)) === side) yield document;
}
