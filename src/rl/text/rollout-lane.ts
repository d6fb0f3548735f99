// One lane of rollouts: its own rows of a cache and its own programs on one thread of work, so that lanes run side by side. Rows that have
// ended make room: the rows still at work move together, and programs for half as many take over.
import { AbortedError, invariant } from "../../base/errors.ts";
import { type Processor, sampleToken, tokenLogProbability, tokenUniform } from "../../decode/index.ts";
import type { Backend } from "../../runtime/backend.ts";
import { KVCache } from "../../runtime/kv-cache.ts";
import { streamId } from "../../runtime/rng.ts";
import { type PolicyDecoder, type RolloutCall, RolloutPrograms, type RolloutWeights } from "./rollout-programs.ts";
import type { Completion } from "./rollouts.ts";

export interface LaneOptions {
  /** Rows at once. */
  rows: number;
  /** Positions of the cache. */
  capacity: number;
  maxNewTokens: number;
  temperature: number;
  ends: ReadonlySet<number>;
  weights: RolloutWeights;
  /** Threads of its own; undefined: the shared pool. */
  threads: number | undefined;
  /** Makes the distribution that is sampled from; undefined: the model's own under the temperature. */
  processor: Processor | undefined;
}

/** Completions of one prompt that run together, at most as many as a lane has rows. */
export interface LaneTask {
  readonly prompt: ArrayLike<number>;
  /** Numbers of the rows: which random numbers each uses. */
  readonly requests: readonly number[];
}

const rolloutStream = streamId("rollouts");

export class RolloutLane {
  readonly #decoder: PolicyDecoder;
  readonly #options: LaneOptions;
  readonly #cache: KVCache;
  readonly #programs: RolloutPrograms;

  constructor(backend: Backend, decoder: PolicyDecoder, options: LaneOptions) {
    const { layers, kvHeads, headWidth } = decoder.config;
    const { rows, capacity, weights, temperature, processor, threads } = options;
    this.#decoder = decoder;
    this.#options = options;
    this.#cache = new KVCache({ layers, batch: rows, kvHeads, capacity, headWidth });
    const output = { kind: processor ? ("logits" as const) : ("probabilities" as const), temperature };
    this.#programs = new RolloutPrograms(backend, decoder, this.#cache, { weights, output, threads });
  }

  /** To be called when the weights have changed. */
  refresh(): void {
    this.#programs.refresh();
  }

  /** Runs tasks in order, as many at once as there are rows. @returns the completions of each. @throws AbortedError. */
  async run(tasks: readonly LaneTask[], seed: number, signal?: AbortSignal): Promise<Completion[][]> {
    const results: Completion[][] = [];
    for (let start = 0; start < tasks.length; ) {
      let [end, numRows] = [start, 0];
      while (end < tasks.length && numRows + tasks[end].requests.length <= this.#options.rows) numRows += tasks[end++].requests.length;
      invariant(end > start, "a task with more rows than the lane");
      const rows = tasks.slice(start, end).map((task) => this.#begin(task));
      await this.#loop(this.#prefill(tasks.slice(start, end), rows, seed), seed, signal);
      results.push(...rows.map((group) => group.map((row) => row.completion())));
      start = end;
    }
    return results;
  }

  dispose(): void {
    this.#programs.dispose();
  }

  #begin({ prompt, requests }: LaneTask): Row[] {
    const { maxNewTokens } = this.#options;
    const limit = Math.min(maxNewTokens, this.#decoder.config.contextLength - prompt.length);
    return requests.map((request) => new Row(request, limit, limit < maxNewTokens));
  }

  /** Runs every prompt once, copies its keys and values to the rows of its group, and samples their first tokens. */
  #prefill(tasks: readonly LaneTask[], groups: readonly Row[][], seed: number): Row[] {
    let slot = 0;
    for (const [index, { prompt }] of tasks.entries()) {
      const first = slot;
      const distribution = this.#programs.prefill(first, prompt);
      for (const row of groups[index]) {
        if (slot > first) copyRow(this.#cache, first, slot, prompt.length);
        this.#take(row, distribution, seed);
        slot++;
      }
    }
    return groups.flat();
  }

  /** Steps until every row has ended. `active[slot]` is the row whose keys and values lie in that row of the cache. */
  async #loop(rows: Row[], seed: number, signal: AbortSignal | undefined): Promise<void> {
    const { vocabSize } = this.#decoder.config;
    let active = this.#compact(rows);
    while (active.length > 0) {
      if (signal?.aborted) throw new AbortedError("rollouts: aborted", { cause: signal.reason });
      const call = this.#programs.step(this.#tierFor(active.length));
      this.#fill(call, active);
      await call.bound.runAsync();
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
    let tier = this.#options.rows;
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
    const { temperature, processor, ends } = this.#options;
    const uniform = tokenUniform({ seed, request: row.request, stream: rolloutStream }, row.count);
    if (processor) {
      const probabilities = processor.probabilities(distribution, { ids: row.ids, numIds: row.count, promptLength: 0 });
      const id = sampleToken(probabilities, uniform);
      row.push(id, tokenLogProbability(distribution, id, temperature), Math.log(probabilities[id]), ends);
      return;
    }
    const id = sampleToken(distribution, uniform);
    const logProb = Math.log(distribution[id]);
    row.push(id, logProb, logProb, ends);
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
  constructor(request: number, limit: number, isContextBound: boolean) {
    invariant(limit > 0, "a row without room");
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
