// A smaller language model drafts (Leviathan et al. 2023; Chen et al. 2023). It keeps a cache of its own, which is cut back to what was committed.
// Drafts are the model's most probable tokens, or drawn from its distribution under the request's own processing; the tree then tells the
// distribution that each was drawn from, which rejection and block verification need. A model of another tokenizer drafts the tokens that
// both vocabularies spell alike (vocabulary-map.ts). How many are drafted follows from their confidence, how often such drafts were right,
// and what both models' calls cost.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import type { InferenceModel } from "../../models/decoder/quantise.ts";
import type { Backend } from "../../runtime/backend.ts";
import { streamId } from "../../runtime/rng.ts";
import { AcceptanceTable } from "../acceptance-table.ts";
import type { DraftContext, Drafter, DraftTarget } from "../drafter.ts";
import { DecoderRunner, type RunnerOptions } from "../runner.ts";
import { NoTokenLeftError } from "../sampling/candidates.ts";
import { Distribution } from "../sampling/distribution.ts";
import { tokenUniform } from "../sampling/sample.ts";
import { rootOnly, type TokenTree, TreeShape } from "../token-tree.ts";

export const draftModelSchema = z.strictObject({
  numTokens: z.int().min(1).max(64).default(8).describe("Tokens drafted at most"),
  draw: z
    .enum(["argmax", "sample"])
    .default("argmax")
    .describe("Draft the most probable token, or draw from the draft model's distribution (for verifiers that use it)"),
  minProbability: z.number().min(0).max(1).default(0).describe("Stop before a draft whose probability is lower"),
  adaptive: z.boolean().default(true).describe("Draft only as many tokens as pay by what was measured; otherwise always numTokens"),
});

export type DraftModelOptions = z.input<typeof draftModelSchema>;

/** How a draft model of other ids speaks of the target's: `VocabularyMap`, `TrimmedVocabulary`. */
export interface DraftVocabulary {
  /** By target id: the draft model's, −1 where it cannot be drafted. */
  readonly toDraft: Int32Array;
  /** The draft model's ids for a token of the target. */
  spell(id: number): ArrayLike<number>;
  /** The draft model's logits at the target's ids [V_target]; −Infinity for tokens that cannot be drafted. Overwritten by the next call. */
  spread(logits: Float32Array): Float32Array;
  /** @throws UsageError for models of other vocabularies. */
  check(targetSize: number, draftSize: number): void;
}

export interface DraftModelSetup {
  /** Hash of the draft model's tokenizer, compared with the target's. */
  tokenizerHash?: string;
  /** For a model of another vocabulary. */
  map?: DraftVocabulary;
  runner?: RunnerOptions;
}

const none = { id: -1, probability: 0 };
const draftStream = streamId("draft");

/** Confidence of a draft in ten classes; chances as a usual draft model has them. */
const confidenceClass = (probability: number): number => Math.min(9, Math.floor(probability * 10));
const confidencePrior = Array.from({ length: 10 }, (_, i) => 0.15 + 0.08 * i);
/** Weight of the newest draft in the running share of accepted ones. */
const rate = 0.05;
/** Where drafting does not pay, it is tried again after so many steps; after twice as many each time it still does not. */
const probeEvery = { first: 16, most: 256 } as const;

export class DraftModelDrafter implements Drafter {
  readonly name = "draft-model";
  readonly needs = {};
  readonly #runner: DecoderRunner;
  readonly #options: z.output<typeof draftModelSchema>;
  readonly #setup: DraftModelSetup;
  readonly #table = new AcceptanceTable(confidencePrior, { window: 400 });
  /** Running share of accepted drafts of all confidences, and running mean of a call's milliseconds (0: none yet). */
  #meanChance = 0.6;
  #callMilliseconds = 0;
  #numCalls = 0;
  /** The target's ids with drafts behind them, and the draft model's for the same text. */
  #text = new Int32Array(64);
  #own = new Int32Array(64);
  /** [i]: how many own ids spell the first i ids of the text. */
  #ends = new Int32Array(65);
  #numText = 0;
  /** Own ids that the cache holds. */
  #cached = new Int32Array(64);
  /** The last proposal: node i is draft i − 1. */
  readonly #tree: Int32Array;
  readonly #kinds: Int32Array;
  #numDrafts = 0;
  readonly #drawn: (Distribution | undefined)[];
  readonly #scratch = new Distribution();
  readonly #root = new Int32Array(1);
  readonly #draft = { id: -1, probability: 0 };
  #idle = 0;
  #probe: number = probeEvery.first;

  /**
   * @param model a decoder with the target's vocabulary, or any with `setup.map`.
   * @throws UsageError for options that are wrong.
   */
  constructor(backend: Backend, model: InferenceModel, options: DraftModelOptions = {}, setup: DraftModelSetup = {}) {
    this.#options = parseOptions(draftModelSchema, options);
    this.#runner = new DecoderRunner(backend, model, setup.runner);
    this.#setup = setup;
    const { numTokens } = this.#options;
    this.#tree = new Int32Array(numTokens + 1);
    this.#kinds = new Int32Array(numTokens);
    this.#drawn = Array.from({ length: numTokens + 1 }, (_, node) => (node === 0 ? undefined : new Distribution()));
  }

  begin({ config, tokenizerHash }: DraftTarget): void {
    const { map, tokenizerHash: own } = this.#setup;
    const { vocabSize } = this.#runner.config;
    const hint = "Take a smaller model of the same family, or draft by the tokens that both vocabularies have (VocabularyMap).";
    if (map) map.check(config.vocabSize, vocabSize);
    else if (vocabSize !== config.vocabSize)
      throw new UsageError(`draft model: expected the target's vocabulary of ${config.vocabSize} tokens, got ${vocabSize}`, { hint });
    else if (own !== undefined && tokenizerHash !== undefined && own !== tokenizerHash)
      throw new UsageError("draft model: expected the target's tokenizer, got another one of the same size", { hint });
    // What the cache holds stays: the next text may begin with the last one, as turns of a conversation do.
    this.#numText = 0;
    this.#numDrafts = 0;
    this.#idle = 0;
  }

  propose(context: DraftContext): TokenTree {
    const { ids, numIds, costs, processor } = context;
    const root = ids[numIds - 1];
    this.#learn(ids);
    const { numTokens, adaptive, minProbability, draw } = this.#options;
    this.#reserve(numIds + numTokens);
    const committed = this.#numText;
    this.#read(ids, numIds);
    const held = this.#ends[numIds];
    const room = this.#runner.capacity - held;
    // A text of special tokens alone may be nothing at all in the draft model's vocabulary.
    const most = held === 0 ? 0 : Math.min(numTokens, context.maxDepth, context.maxNodes - 1, room);
    if (most <= 0) return rootOnly(root, this.#root);
    const plain = 1 / costs.at(1);
    const isProbe = this.#idle >= this.#probe;
    if (adaptive && !isProbe && this.#callMilliseconds > 0 && this.#promise(context, most) < plain) {
      this.#idle++;
      return rootOnly(root, this.#root);
    }
    let logits = this.#catchUp(numIds, committed);
    let reach = 1;
    let expected = 1;
    let spent = 0;
    let count = 0;
    while (count < most) {
      const { id, probability } = this.#choose(logits, context, count);
      if (id < 0 || probability < minProbability) break;
      const kind = confidenceClass(probability);
      const chance = this.#table.chance(kind);
      // The draft is there; the target's row for it is not.
      if (adaptive && count > 0 && (expected + reach * chance) / (costs.at(count + 2) + spent) < expected / (costs.at(count + 1) + spent))
        break;
      this.#kinds[count] = kind;
      this.#text[numIds + count] = id;
      this.#tree[++count] = id;
      reach *= chance;
      expected += reach;
      if (count === most) break;
      const more = costs.at(count + 2) + spent + this.#callMilliseconds;
      if (adaptive && (expected + reach * this.#meanChance) / more < expected / (costs.at(count + 1) + spent)) break;
      const startedAt = performance.now();
      logits = this.#append(this.#setup.map ? this.#setup.map.toDraft[id] : id);
      spent += this.#time(startedAt);
    }
    this.#numDrafts = count;
    if (isProbe) {
      const pays = expected / (costs.at(count + 1) + spent + this.#callMilliseconds) > plain;
      this.#probe = pays ? probeEvery.first : Math.min(probeEvery.most, 2 * this.#probe);
      this.#idle = 0;
    }
    if (count === 0) return rootOnly(root, this.#root);
    this.#tree[0] = root;
    const isDrawn = draw === "sample" && !processor.greedy;
    return { shape: TreeShape.chain(count), ids: this.#tree, ...(isDrawn ? { distributions: this.#drawn } : {}) };
  }

  observe(): void {}

  dispose(): void {
    this.#runner.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The most tokens a millisecond that drafting of some length promises, before anything is drafted. */
  #promise({ costs }: DraftContext, most: number): number {
    let best = 0;
    let reach = 1;
    let expected = 1;
    for (let n = 1; n <= most; n++) {
      reach *= this.#meanChance;
      expected += reach;
      best = Math.max(best, expected / (costs.at(n + 1) + n * this.#callMilliseconds));
    }
    return best;
  }

  /** What became of the last proposal: the sequence tells. */
  #learn(ids: Int32Array): void {
    for (let i = 0; i < this.#numDrafts; i++) {
      const right = ids[this.#numText + i] === this.#tree[i + 1];
      this.#table.observe(this.#kinds[i], right);
      this.#meanChance += rate * (Number(right) - this.#meanChance);
      if (!right) break;
    }
    this.#numDrafts = 0;
  }

  /** Takes in the ids committed since the last time, spelt in the draft model's own. */
  #read(ids: Int32Array, numIds: number): void {
    const { map } = this.#setup;
    for (let i = this.#numText; i < numIds; i++) {
      const spelt = map?.spell(ids[i]);
      let end = this.#ends[i];
      const length = spelt ? spelt.length : 1;
      if (end + length > this.#own.length) this.#own = grown(this.#own, end + length);
      for (let j = 0; j < length; j++) this.#own[end++] = spelt ? spelt[j] : ids[i];
      this.#text[i] = ids[i];
      this.#ends[i + 1] = end;
    }
    this.#numText = numIds;
  }

  /** Feeds the draft model what it has not seen, after cutting off what was not committed. Logits after the last token. */
  #catchUp(numIds: number, committed: number): Float32Array {
    const { cache } = this.#runner;
    const [held, count] = [cache.lengths[0], this.#ends[numIds]];
    // At least one token is fed, because its logits are wanted.
    const limit = Math.min(held, count - 1);
    let shared = Math.min(limit, this.#ends[committed]);
    while (shared < limit && this.#cached[shared] === this.#own[shared]) shared++;
    if (shared < held) cache.truncate(0, shared);
    if (count + this.#options.numTokens > this.#cached.length) this.#cached = grown(this.#cached, count + this.#options.numTokens);
    this.#cached.set(this.#own.subarray(shared, count), shared);
    const startedAt = performance.now();
    const logits = this.#runner.append(0, this.#own.subarray(shared, count));
    if (count - shared === 1) this.#time(startedAt);
    return logits;
  }

  #append(id: number): Float32Array {
    this.#cached[this.#runner.cache.lengths[0]] = id;
    this.#root[0] = id;
    return this.#runner.append(0, this.#root);
  }

  #time(startedAt: number): number {
    const milliseconds = performance.now() - startedAt;
    // The first call finds nothing bound and caches cold.
    const seen = this.#numCalls++;
    const mean = this.#callMilliseconds;
    if (seen === 1) this.#callMilliseconds = milliseconds;
    else if (seen > 1) this.#callMilliseconds = mean + Math.max(0.1, 1 / seen) * (Math.min(milliseconds, 2 * mean) - mean);
    return milliseconds;
  }

  /** A draft after `depth` others; id −1 when no token fits: none of those that both vocabularies have may be allowed. */
  #choose(ownLogits: Float32Array, context: DraftContext, depth: number): { id: number; probability: number } {
    try {
      const draft = this.#pick(ownLogits, context, depth);
      // A token that processors force may be one that the draft model does not have.
      return (this.#setup.map?.toDraft[draft.id] ?? 0) < 0 ? none : draft;
    } catch (error) {
      if (!(error instanceof NoTokenLeftError)) throw error;
      return none;
    }
  }

  #pick(
    ownLogits: Float32Array,
    { processor, key, numIds, promptLength }: DraftContext,
    depth: number,
  ): { id: number; probability: number } {
    const draft = this.#draft;
    const { map } = this.#setup;
    const logits = map ? map.spread(ownLogits) : ownLogits;
    const seen = { ids: this.#text, numIds: numIds + depth, promptLength };
    if (processor.greedy) {
      draft.id = processor.select(logits, seen, 0);
      // Over the draft model's own tokens: they are fewer, and what it gives to those that cannot be drafted counts against the draft.
      draft.probability = map ? probabilityOf(ownLogits, map.toDraft[draft.id]) : probabilityOf(logits, draft.id);
      return draft;
    }
    const isDrawn = this.#options.draw === "sample";
    const distribution = processor.distribution(logits, seen, isDrawn ? (this.#drawn[depth + 1] as Distribution) : this.#scratch);
    const { ids, probabilities, count } = distribution;
    if (isDrawn) {
      draft.id = distribution.sample(tokenUniform({ ...key, stream: draftStream }, numIds + depth));
      draft.probability = distribution.probability(draft.id);
      return draft;
    }
    let best = 0;
    for (let i = 1; i < count; i++) if (probabilities[i] > probabilities[best]) best = i;
    draft.id = ids[best];
    draft.probability = probabilities[best];
    return draft;
  }

  #reserve(numIds: number): void {
    if (this.#text.length < numIds) this.#text = grown(this.#text, numIds);
    if (this.#ends.length <= numIds) this.#ends = grown(this.#ends, numIds + 1);
  }
}

function grown(old: Int32Array, least: number): Int32Array<ArrayBuffer> {
  const array = new Int32Array(2 * least);
  array.set(old);
  return array;
}

/** Under softmax of the logits. */
function probabilityOf(logits: Float32Array, id: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) if (logits[i] > top) top = logits[i];
  let total = 0;
  // What lies further below the top adds less than a rounding error that matters here.
  for (let i = 0; i < logits.length; i++) if (logits[i] > top - 16) total += Math.exp(logits[i] - top);
  return Math.exp(logits[id] - top) / total;
}
