// Prompt lookup: when the last tokens occurred before, what followed them then is drafted (Saxena 2023, prompt-lookup-decoding). N-grams are
// indexed as they are committed, so that a step costs the same however long the text is; how many tokens are drafted follows from how
// often matches of that length were right so far and from what the target's call costs: none where it would not pay.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { AcceptanceTable, matchClass, matchPrior, PendingProposal, TokenRecord } from "../acceptance-table.ts";
import type { DraftContext, Drafter } from "../drafter.ts";
import { bestChainLength } from "../step-costs.ts";
import { rootOnly, type TokenTree, TreeShape } from "../token-tree.ts";

export const lookupSchema = z.strictObject({
  maxNgram: z.int().min(1).max(16).default(8).describe("Longest sequence of last tokens that is looked for first"),
  minNgram: z.int().min(1).max(16).default(1).describe("Shortest sequence that counts as found"),
  numTokens: z.int().min(1).max(256).default(16).describe("Tokens drafted at most"),
  match: z.enum(["latest", "first"]).default("latest").describe("Which earlier place counts: the latest or the first one"),
  adaptive: z.boolean().default(true).describe("Draft only as many tokens as pay by what was measured; otherwise always numTokens"),
});

export type LookupOptions = z.input<typeof lookupSchema>;

/** Matches are counted up to this length. */
const longestMatch = 40;

export class LookupDrafter implements Drafter {
  readonly name = "lookup";
  readonly needs = {};
  readonly #options: z.output<typeof lookupSchema>;
  /** By n: hash of an n-gram → index of the token after it. */
  readonly #index: Map<number, number>[];
  readonly #table = new AcceptanceTable(matchPrior);
  readonly #record = new TokenRecord();
  readonly #pending: PendingProposal;
  readonly #acceptance: Float64Array;
  readonly #ids: Int32Array;
  readonly #root = new Int32Array(1);
  /** Tokens whose n-grams are in the index. */
  #indexed = 0;

  /** @throws UsageError for options that are wrong. */
  constructor(options: LookupOptions = {}) {
    this.#options = parseOptions(lookupSchema, options);
    const { maxNgram, minNgram, numTokens } = this.#options;
    if (minNgram > maxNgram) throw new UsageError(`minNgram: expected at most maxNgram, ${maxNgram}, got ${minNgram}`);
    this.#index = Array.from({ length: maxNgram + 1 }, () => new Map());
    this.#pending = new PendingProposal(numTokens);
    this.#acceptance = new Float64Array(numTokens);
    this.#ids = new Int32Array(numTokens + 1);
  }

  begin(): void {
    for (const map of this.#index) map.clear();
    this.#record.clear();
    this.#indexed = 0;
    this.#pending.length = 0;
  }

  propose({ ids, numIds, maxDepth, maxNodes, costs }: DraftContext): TokenTree {
    const { numTokens, adaptive } = this.#options;
    const root = ids[numIds - 1];
    this.#pending.settle(ids, numIds, this.#table, this.#record);
    this.#extend(ids, numIds);
    const at = this.#find(ids, numIds);
    if (at < 0) return rootOnly(root, this.#root);
    const matched = matchLength(ids, at, numIds);
    const length = Math.min(numTokens, numIds - at);
    const { ids: drafts, kinds } = this.#pending;
    for (let i = 0; i < length; i++) {
      drafts[i] = ids[at + i];
      kinds[i] = matchClass(matched + i);
      this.#acceptance[i] = this.#record.adjust(ids[at + i - 1], this.#table.chance(kinds[i]));
    }
    this.#pending.length = length;
    this.#pending.start = numIds;
    const allowed = Math.min(length, maxDepth, maxNodes - 1);
    const count = adaptive ? bestChainLength(this.#acceptance.subarray(0, allowed), costs) : allowed;
    if (count <= 0) return rootOnly(root, this.#root);
    this.#ids[0] = root;
    for (let i = 0; i < count; i++) this.#ids[i + 1] = drafts[i];
    return { shape: TreeShape.chain(count), ids: this.#ids };
  }

  observe(): void {}

  dispose(): void {}

  [Symbol.dispose](): void {}

  /** Indexes the n-grams that have a token behind them by now. */
  #extend(ids: Int32Array, numIds: number): void {
    const { maxNgram, minNgram, match } = this.#options;
    for (let next = Math.max(1, this.#indexed); next < numIds; next++) {
      for (let n = minNgram; n <= Math.min(maxNgram, next); n++) {
        const key = hashOf(ids, next - n, n);
        const map = this.#index[n];
        if (match === "latest" || !map.has(key)) map.set(key, next);
      }
    }
    this.#indexed = Math.max(this.#indexed, numIds);
  }

  /** Index of the token after the longest n-gram that was found, −1 for none. */
  #find(ids: Int32Array, numIds: number): number {
    const { maxNgram, minNgram } = this.#options;
    for (let n = Math.min(maxNgram, numIds - 1); n >= minNgram; n--) {
      const at = this.#index[n].get(hashOf(ids, numIds - n, n));
      // Hashes may collide; tokens do not.
      if (at !== undefined && matchLength(ids, at, numIds, n) === n) return at;
    }
    return -1;
  }
}

/** How many tokens before `at` equal those before `numIds`. */
function matchLength(ids: Int32Array, at: number, numIds: number, limit = longestMatch): number {
  let length = 0;
  while (length < limit && length < at && ids[at - 1 - length] === ids[numIds - 1 - length]) length++;
  return length;
}

/** FNV-like hash of `n` ids from `start` on. */
function hashOf(ids: Int32Array, start: number, n: number): number {
  let hash = n;
  for (let i = 0; i < n; i++) hash = Math.imul(hash ^ ids[start + i], 0x01000193) + (hash >>> 15);
  return hash | 0;
}
