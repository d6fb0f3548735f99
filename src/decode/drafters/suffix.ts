// Suffix decoding (Oliaro et al. 2025): drafts the most frequent continuation of the longest useful suffix, over this request and earlier
// ones. Agents and editors repeat themselves between requests; a prompt lookup sees one request alone and one earlier place.
//   score of a suffix of length m = Σ_i Π_{j<=i} count(child_j) / count(parent_j), over at most m · factor + offset tokens
// What is different here: drafts are cut where the measured acceptance of such drafts does not pay for the target's call.
import { z } from "zod";
import { parseOptions } from "../../base/schema.ts";
import { AcceptanceTable, matchClass, matchPrior, PendingProposal } from "../acceptance-table.ts";
import type { DraftContext, Drafter, DraftTarget } from "../drafter.ts";
import { bestChainLength } from "../step-costs.ts";
import { rootOnly, type TokenTree, TreeShape } from "../token-tree.ts";
import { type SuffixNodes, SuffixTrie } from "./suffix-trie.ts";

export const suffixSchema = z.strictObject({
  maxDepth: z.int().min(2).max(256).default(24).describe("Longest sequence whose occurrences are counted"),
  numTokens: z.int().min(1).max(256).default(24).describe("Tokens drafted at most"),
  factor: z.number().positive().default(1).describe("Tokens drafted for each matching token"),
  offset: z.number().min(0).default(1).describe("Tokens drafted besides"),
  minProbability: z.number().min(0).max(1).default(0.1).describe("Drafts end where their joint share of the counts falls below"),
  maxRequests: z.int().min(0).default(1000).describe("Earlier requests that are remembered; the oldest is forgotten first"),
  maxTokens: z
    .int()
    .min(0)
    .max(10_000_000)
    .default(50_000)
    .describe("Tokens of earlier requests that are remembered, the latest ones: at most 1.2 KB each by a maxDepth of 24, so 60 MB"),
  adaptive: z.boolean().default(true).describe("Draft only as many tokens as pay by what was measured"),
});

export type SuffixOptions = z.input<typeof suffixSchema>;

/** Classes of a draft's share of the counts. */
const shares = [0.35, 0.65, 0.95] as const;
const shareFactors = [0.5, 0.7, 0.9, 1] as const;
const shareClass = (share: number): number => (share < shares[0] ? 0 : share < shares[1] ? 1 : share < shares[2] ? 2 : 3);

export class SuffixDrafter implements Drafter {
  readonly name = "suffix";
  readonly needs = {};
  readonly #options: z.output<typeof suffixSchema>;
  readonly #table: AcceptanceTable;
  readonly #pending: PendingProposal;
  readonly #trial: { ids: Int32Array; shares: Float64Array; length: number; score: number };
  readonly #best: { ids: Int32Array; shares: Float64Array; length: number; score: number; matched: number };
  readonly #acceptance: Float64Array;
  readonly #ids: Int32Array;
  readonly #root = new Int32Array(1);
  #here: SuffixTrie;
  #hereNodes: SuffixNodes;
  #before: SuffixTrie;
  #beforeNodes: SuffixNodes;
  /** This request's ids, and those of earlier ones, oldest first. */
  #text = new Int32Array(256);
  #count = 0;
  readonly #remembered: Int32Array[] = [];
  #rememberedTokens = 0;
  #target: string | undefined;

  /** @throws UsageError for options that are wrong. */
  constructor(options: SuffixOptions = {}) {
    this.#options = parseOptions(suffixSchema, options);
    const { maxDepth, numTokens } = this.#options;
    this.#table = new AcceptanceTable(matchPrior.flatMap((chance) => shareFactors.map((factor) => chance * factor)));
    this.#pending = new PendingProposal(numTokens);
    const candidate = () => ({ ids: new Int32Array(numTokens), shares: new Float64Array(numTokens), length: 0, score: 0 });
    this.#trial = candidate();
    this.#best = { ...candidate(), matched: 0 };
    this.#acceptance = new Float64Array(numTokens);
    this.#ids = new Int32Array(numTokens + 1);
    this.#here = new SuffixTrie(maxDepth);
    this.#hereNodes = this.#here.start();
    this.#before = new SuffixTrie(maxDepth);
    this.#beforeNodes = this.#before.start();
  }

  /** Tokens of earlier requests that are remembered. */
  get rememberedTokens(): number {
    return this.#rememberedTokens;
  }

  /** Bytes of what is counted, of this request and of earlier ones. */
  get memoryBytes(): number {
    return this.#here.bytes + this.#before.bytes + 4 * this.#rememberedTokens;
  }

  begin({ config, tokenizerHash }: DraftTarget): void {
    const target = tokenizerHash ?? `${config.vocabSize} tokens`;
    // Ids of another vocabulary mean nothing here.
    if (this.#target !== undefined && this.#target !== target) this.#forgetAll();
    else this.#remember();
    this.#target = target;
    this.#here = new SuffixTrie(this.#options.maxDepth);
    this.#hereNodes = this.#here.start();
    this.#beforeNodes = this.#before.start();
    this.#count = 0;
    this.#pending.length = 0;
  }

  propose({ ids, numIds, maxDepth, maxNodes, costs }: DraftContext): TokenTree {
    this.#pending.settle(ids, numIds, this.#table);
    this.#extend(ids, numIds);
    const best = this.#best;
    best.length = 0;
    best.score = 0;
    this.#search(this.#here, this.#hereNodes, 1);
    this.#search(this.#before, this.#beforeNodes, 0);
    const root = ids[numIds - 1];
    const { ids: drafts, kinds } = this.#pending;
    for (let i = 0; i < best.length; i++) {
      drafts[i] = best.ids[i];
      kinds[i] = matchClass(best.matched + i) * shareFactors.length + shareClass(best.shares[i]);
      this.#acceptance[i] = this.#table.chance(kinds[i]);
    }
    this.#pending.length = best.length;
    this.#pending.start = numIds;
    const allowed = Math.min(best.length, maxDepth, maxNodes - 1);
    const count = this.#options.adaptive ? bestChainLength(this.#acceptance.subarray(0, Math.max(0, allowed)), costs) : allowed;
    if (count <= 0) return rootOnly(root, this.#root);
    this.#ids[0] = root;
    for (let i = 0; i < count; i++) this.#ids[i + 1] = drafts[i];
    return { shape: TreeShape.chain(count), ids: this.#ids };
  }

  observe(): void {}

  forget(): void {
    this.#forgetAll();
    this.#count = 0;
  }

  dispose(): void {}

  [Symbol.dispose](): void {}

  #extend(ids: Int32Array, numIds: number): void {
    if (numIds > this.#text.length) {
      const grown = new Int32Array(2 * numIds);
      grown.set(this.#text.subarray(0, this.#count));
      this.#text = grown;
    }
    for (; this.#count < numIds; this.#count++) {
      const id = ids[this.#count];
      this.#text[this.#count] = id;
      this.#here.add(this.#hereNodes, id);
      this.#before.follow(this.#beforeNodes, id);
    }
  }

  /** @param open occurrences of each suffix that have nothing behind them yet: the present one. */
  #search(trie: SuffixTrie, nodes: SuffixNodes, open: number): void {
    const { factor, offset, numTokens } = this.#options;
    for (let m = 1; m <= trie.depth && nodes[m] >= 0; m++) {
      const budget = Math.min(numTokens, Math.floor(m * factor + offset + 1e-6));
      this.#walk(trie, nodes[m], m, open, budget);
      if (this.#trial.score > this.#best.score) {
        const { ids, shares, length, score } = this.#trial;
        this.#best.ids.set(ids.subarray(0, length));
        this.#best.shares.set(shares.subarray(0, length));
        this.#best.length = length;
        this.#best.score = score;
        this.#best.matched = m;
      }
    }
  }

  /** The most frequent continuation below a node at depth m, into `#trial`. */
  #walk(trie: SuffixTrie, from: number, m: number, open: number, budget: number): void {
    const trial = this.#trial;
    trial.length = 0;
    trial.score = 0;
    let node = from;
    let depth = m;
    let joint = 1;
    while (trial.length < budget) {
      if (depth === trie.depth) {
        // The trie ends here; the same text goes on under the last half of what was read.
        node = this.#reroot(trie, m + trial.length);
        depth = Math.floor(trie.depth / 2);
        if (node < 0) break;
      }
      const child = trie.likeliestChild(node);
      if (child < 0) break;
      const parentCount = trie.count(node) - (trial.length === 0 ? open : 0);
      const share = Math.min(1, trie.count(child) / Math.max(1, parentCount));
      joint *= share;
      if (joint < this.#options.minProbability) break;
      trial.ids[trial.length] = trie.token(child);
      trial.shares[trial.length++] = share;
      trial.score += joint;
      node = child;
      depth++;
    }
  }

  /** The node of the last half of `depth` tokens of the text with the trial behind it. */
  #reroot(trie: SuffixTrie, available: number): number {
    const { ids, length } = this.#trial;
    const wanted = Math.min(Math.floor(trie.depth / 2), available);
    let node = 0;
    for (let i = length - wanted; i < length && node >= 0; i++) node = trie.child(node, i < 0 ? this.#text[this.#count + i] : ids[i]);
    return node;
  }

  #remember(): void {
    const { maxRequests, maxTokens } = this.#options;
    if (this.#count === 0 || maxRequests === 0 || maxTokens === 0) return;
    // Of a text that is too long the end.
    const text = this.#text.slice(Math.max(0, this.#count - maxTokens), this.#count);
    // Room is made first, so that the bound holds at any time.
    while (this.#remembered.length >= maxRequests || this.#rememberedTokens + text.length > maxTokens) this.#forgetOldest();
    const nodes = this.#before.start();
    for (const id of text) this.#before.add(nodes, id);
    this.#remembered.push(text);
    this.#rememberedTokens += text.length;
  }

  #forgetOldest(): void {
    const text = this.#remembered.shift() as Int32Array;
    this.#before.remove(text);
    this.#rememberedTokens -= text.length;
  }

  /** And gives the memory back. */
  #forgetAll(): void {
    this.#before = new SuffixTrie(this.#options.maxDepth);
    this.#beforeNodes = this.#before.start();
    this.#remembered.length = 0;
    this.#rememberedTokens = 0;
  }
}
