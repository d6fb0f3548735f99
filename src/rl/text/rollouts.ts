// Rollouts: G completions of each prompt, with the log-probability of every sampled token under softmax(logits / temperature).
// A prompt runs once and its keys and values are copied to the rows of its group. Rows that have ended make room: the rows still at work
// move together, and smaller programs take over. What a row samples depends on its own number, seed and weights, through the
// counter-based generator; not on the rows beside it, except for the rounding of products of another size.
import { setImmediate as nextTurn } from "node:timers/promises";
import { AbortedError, invariant, UsageError } from "../../base/errors.ts";
import { createProcessor, type Processor, sampleToken, tokenLogProbability, tokenUniform } from "../../decode/index.ts";
import type { Backend } from "../../runtime/backend.ts";
import { KVCache } from "../../runtime/kv-cache.ts";
import { streamId } from "../../runtime/rng.ts";
import { type PolicyDecoder, type RolloutCall, RolloutPrograms, type RolloutWeights } from "./rollout-programs.ts";

export interface RolloutOptions {
  /** Completions of each prompt, G. */
  numGenerations: number;
  /** Tokens of a completion at most, the end token included. */
  maxNewTokens: number;
  /** Longest prompt in tokens; sets the size of the cache. */
  maxPromptLength: number;
  /** Divides the logits. Default 1. */
  temperature?: number;
  /** Ids that end a completion and are part of it. */
  endTokenIds: readonly number[];
  /** Rows at once, at most. Default 64. */
  maxRows?: number;
  /** Truncated sampling. The recorded `samplingLogProbs` are those of the truncated distribution. Default: none. */
  topK?: number;
  topP?: number;
  minP?: number;
  /** Default bound. */
  weights?: RolloutWeights;
}

export interface Completion {
  /** The end token included. */
  readonly ids: Int32Array;
  /** log p of each token under the temperature alone. */
  readonly logProbs: Float64Array;
  /** log p under the distribution that was sampled from; `logProbs` itself without truncation. */
  readonly samplingLogProbs: Float64Array;
  /** end: an end token; length: maxNewTokens; context: the model's context is full. */
  readonly finish: "end" | "length" | "context";
}

/** The event loop gets a turn when this many milliseconds have passed. */
const turnMs = 25;
const rolloutStream = streamId("rollouts");

export class Rollouts {
  readonly options: Required<RolloutOptions>;
  readonly #decoder: PolicyDecoder;
  readonly #cache: KVCache;
  readonly #programs: RolloutPrograms;
  readonly #processor: Processor | undefined;
  readonly #maxRows: number;
  readonly #ends: ReadonlySet<number>;

  /** @throws UsageError for options that do not fit the model. */
  constructor(backend: Backend, decoder: PolicyDecoder, options: RolloutOptions) {
    const defaults = { temperature: 1, maxRows: 64, topK: 0, topP: 1, minP: 0, weights: "bound" as const };
    this.options = { ...defaults, ...options };
    const { numGenerations, maxNewTokens, maxPromptLength, temperature, topK, topP, minP, weights, maxRows, endTokenIds } = this.options;
    const { contextLength, layers, kvHeads, headWidth, vocabSize } = decoder.config;
    if (!(temperature > 0))
      throw new UsageError(`temperature: expected a positive number for rollouts, got ${temperature}`, {
        hint: "Greedy completions of one prompt are all the same: there is nothing to compare.",
      });
    this.#decoder = decoder;
    this.#ends = new Set(endTokenIds);
    // A batch of a whole number of groups, as large as it may be; halves of it are the smaller programs.
    this.#maxRows = maxRows < numGenerations ? maxRows : Math.floor(maxRows / numGenerations) * numGenerations;
    // The last token of a completion is never run, so its keys and values need no room.
    const capacity = Math.min(contextLength, maxPromptLength + maxNewTokens);
    this.#cache = new KVCache({ layers, batch: this.#maxRows, kvHeads, capacity, headWidth });
    const isTruncated = topK > 0 || topP < 1 || minP > 0;
    if (isTruncated) this.#processor = createProcessor({ temperature, topK, topP, minP }, { vocabularySize: vocabSize });
    this.#programs = new RolloutPrograms(backend, decoder, this.#cache, {
      weights,
      output: { kind: isTruncated ? "logits" : "probabilities", temperature },
    });
  }

  /**
   * Completes all prompts with the weights as they are now.
   * @param prompts token ids, each of at least one. @param seed of this rollout; the same seed and weights give the same completions.
   * @param options.numGenerations other than that of the constructor.
   * @returns [prompt][generation].
   * @throws UsageError for a prompt that is empty or does not fit, AbortedError between two tokens.
   */
  async run(
    prompts: readonly ArrayLike<number>[],
    seed: number,
    { numGenerations = this.options.numGenerations, signal }: { numGenerations?: number; signal?: AbortSignal } = {},
  ): Promise<Completion[][]> {
    for (const [index, prompt] of prompts.entries()) this.#check(prompt, index);
    this.#programs.refresh();
    // A group that is larger than the batch is drawn in parts.
    const perPart = Math.min(numGenerations, this.#maxRows);
    const perWave = Math.floor(this.#maxRows / perPart);
    const results: Completion[][] = prompts.map(() => []);
    for (let start = 0; start < prompts.length; start += perWave) {
      for (let done = 0; done < numGenerations; done += perPart) {
        const [count, part] = [Math.min(perPart, numGenerations - done), prompts.slice(start, start + perWave)];
        const requestOf = (p: number, g: number): number => (start + p) * numGenerations + done + g;
        for (const [p, group] of (await this.#wave(part, count, requestOf, seed, signal)).entries()) results[start + p].push(...group);
      }
    }
    return results;
  }

  dispose(): void {
    this.#programs.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(prompt: ArrayLike<number>, index: number): void {
    const { contextLength, vocabSize } = this.#decoder.config;
    if (prompt.length === 0) throw new UsageError(`prompt ${index}: expected at least one token, got none`);
    if (prompt.length >= contextLength || prompt.length > this.options.maxPromptLength)
      throw new UsageError(
        `prompt ${index}: expected fewer tokens than the context of ${contextLength} and at most ${this.options.maxPromptLength}, got ${prompt.length}`,
      );
    for (let i = 0; i < prompt.length; i++) {
      if (prompt[i] < 0 || prompt[i] >= vocabSize)
        throw new UsageError(`prompt ${index}: expected token ids below ${vocabSize}, got ${prompt[i]}`, {
          hint: "The tokenizer and the model do not belong together.",
        });
    }
  }

  async #wave(
    prompts: readonly ArrayLike<number>[],
    numGenerations: number,
    requestOf: (prompt: number, generation: number) => number,
    seed: number,
    signal: AbortSignal | undefined,
  ): Promise<Completion[][]> {
    const { maxNewTokens } = this.options;
    const rows: Row[] = [];
    let lastTurn = performance.now();
    const breathe = async (): Promise<void> => {
      if (performance.now() - lastTurn >= turnMs) {
        await nextTurn();
        lastTurn = performance.now();
      }
      if (signal?.aborted) throw new AbortedError("rollouts: aborted", { cause: signal.reason });
    };
    for (const [p, prompt] of prompts.entries()) {
      await breathe();
      const first = p * numGenerations;
      const distribution = this.#programs.prefill(first, prompt);
      const limit = Math.min(maxNewTokens, this.#decoder.config.contextLength - prompt.length);
      for (let g = 0; g < numGenerations; g++) {
        if (g > 0) copyRow(this.#cache, first, first + g, prompt.length);
        rows.push(new Row(requestOf(p, g), prompt.length, limit, limit < maxNewTokens));
      }
      for (const row of rows.slice(first)) this.#take(row, distribution, seed);
    }
    await this.#loop(rows, seed, breathe);
    return prompts.map((_, p) => rows.slice(p * numGenerations, (p + 1) * numGenerations).map((row) => row.completion()));
  }

  /** Steps until every row has ended. `active[slot]` is the row whose keys and values lie in that row of the cache. */
  async #loop(rows: readonly Row[], seed: number, breathe: () => Promise<void>): Promise<void> {
    let active = this.#compact(rows.slice());
    while (active.length > 0) {
      await breathe();
      const call = this.#programs.step(this.#tierFor(active.length));
      this.#fill(call, active);
      call.bound.run();
      const { vocabSize } = this.#decoder.config;
      let anyEnded = false;
      for (const [slot, row] of active.entries()) {
        this.#cache.lengths[slot]++;
        this.#take(row, call.rows.subarray(slot * vocabSize, (slot + 1) * vocabSize), seed);
        anyEnded ||= row.finish !== undefined;
      }
      if (anyEnded) active = this.#compact(active);
    }
  }

  /** Rows of the next program: all, a half, a quarter … of them, so that few programs are compiled. */
  #tierFor(count: number): number {
    let tier = this.#maxRows;
    while (tier % 2 === 0 && tier / 2 >= count && tier > 4) tier /= 2;
    return tier;
  }

  #fill(call: RolloutCall, active: readonly Row[]): void {
    let total = 1;
    for (let slot = 0; slot < call.ids.length; slot++) {
      const row = active[slot] as Row | undefined;
      // A slot without a row computes at the first position, which nothing reads.
      const position = row ? this.#cache.lengths[slot] : 0;
      call.ids[slot] = row?.last ?? 0;
      call.positions[slot] = position;
      call.lengths[slot] = position;
      total = Math.max(total, position + 1);
    }
    call.total[0] = total;
  }

  /** Moves rows from the end into the places of rows that have ended. */
  #compact(active: Row[]): Row[] {
    let count = active.length;
    for (let slot = 0; slot < count; ) {
      if (active[slot].finish === undefined) {
        slot++;
        continue;
      }
      count--;
      if (slot < count && active[count].finish === undefined) copyRow(this.#cache, count, slot, this.#cache.lengths[count]);
      active[slot] = active[count];
    }
    return active.slice(0, count);
  }

  #take(row: Row, distribution: Float32Array, seed: number): void {
    const { temperature } = this.options;
    const uniform = tokenUniform({ seed, request: row.request, stream: rolloutStream }, row.count);
    if (this.#processor) {
      const probabilities = this.#processor.probabilities(distribution, { ids: row.ids, numIds: row.count, promptLength: 0 });
      const id = sampleToken(probabilities, uniform);
      row.push(id, tokenLogProbability(distribution, id, temperature), Math.log(probabilities[id]), this.#ends);
      return;
    }
    const id = sampleToken(distribution, uniform);
    const logProb = Math.log(distribution[id]);
    row.push(id, logProb, logProb, this.#ends);
  }
}

/** One completion in the making. */
class Row {
  readonly request: number;
  readonly ids: Int32Array;
  count = 0;
  finish: Completion["finish"] | undefined;
  readonly #logProbs: Float64Array;
  readonly #samplingLogProbs: Float64Array;
  readonly #isContextBound: boolean;

  /** @param limit tokens at most. @param isContextBound whether the limit is the model's context. */
  constructor(request: number, promptLength: number, limit: number, isContextBound: boolean) {
    invariant(limit > 0 && promptLength > 0, "a row without room");
    this.request = request;
    this.ids = new Int32Array(limit);
    this.#logProbs = new Float64Array(limit);
    this.#samplingLogProbs = new Float64Array(limit);
    this.#isContextBound = isContextBound;
  }

  get last(): number {
    return this.ids[this.count - 1];
  }

  push(id: number, logProb: number, samplingLogProb: number, ends: ReadonlySet<number>): void {
    this.ids[this.count] = id;
    this.#logProbs[this.count] = logProb;
    this.#samplingLogProbs[this.count] = samplingLogProb;
    this.count++;
    if (ends.has(id)) this.finish = "end";
    else if (this.count === this.ids.length) this.finish = this.#isContextBound ? "context" : "length";
  }

  completion(): Completion {
    invariant(this.finish !== undefined, "a row that has not ended");
    const cut = <A extends Int32Array | Float64Array>(values: A): A => values.subarray(0, this.count) as A;
    return { ids: cut(this.ids), logProbs: cut(this.#logProbs), samplingLogProbs: cut(this.#samplingLogProbs), finish: this.finish };
  }
}

/** Copies the first `length` positions of a row of the cache. */
function copyRow(cache: KVCache, from: number, to: number, length: number): void {
  const { kvHeads, capacity, headWidth } = cache.shape;
  for (const { key, value } of cache.layers) {
    for (const { data } of [key, value]) {
      for (let head = 0; head < kvHeads; head++) {
        const start = (from * kvHeads + head) * capacity * headWidth;
        data.copyWithin((to * kvHeads + head) * capacity * headWidth, start, start + length * headWidth);
      }
    }
  }
  cache.lengths[to] = length;
}
