// A processed next-token distribution as exact probabilities: what a verifier calls p or q. Sparse, because truncated
// distributions are small, and owned, because a verifier holds one per node of a token tree.
import { InvariantError } from "../../base/errors.ts";
import type { Candidates } from "./candidates.ts";

export class Distribution {
  /** Entries in use of the arrays below. */
  count = 0;
  /** Token ids with a probability, ascending. */
  ids: Int32Array;
  /** Float64, summing to 1 up to rounding. */
  probabilities: Float64Array;

  constructor(capacity = 16) {
    this.ids = new Int32Array(capacity);
    this.probabilities = new Float64Array(capacity);
  }

  /** All mass on one token: what greedy decoding and a deterministic draft are. */
  setOneHot(id: number): this {
    this.#reserve(1);
    this.ids[0] = id;
    this.probabilities[0] = 1;
    this.count = 1;
    return this;
  }

  /** softmax of the candidates' logits. */
  setCandidates(candidates: Candidates): this {
    candidates.weigh();
    const { count, ids, weights, total } = candidates;
    this.#reserve(count);
    this.ids.set(ids.subarray(0, count));
    for (let i = 0; i < count; i++) this.probabilities[i] = weights[i] / total;
    this.count = count;
    return this;
  }

  /** The entries above zero of a dense array [V]. */
  setDense(probabilities_V: ArrayLike<number>): this {
    this.count = 0;
    this.#reserve(probabilities_V.length);
    for (let id = 0; id < probabilities_V.length; id++) {
      if (!(probabilities_V[id] > 0)) continue;
      this.ids[this.count] = id;
      this.probabilities[this.count++] = probabilities_V[id];
    }
    return this;
  }

  /** The probability of a token; 0 for one that was cut off. */
  probability(id: number): number {
    const { ids, probabilities, count } = this;
    // Nothing was cut off below `id`, as in every untruncated distribution.
    if (id < count && ids[id] === id) return probabilities[id];
    let low = 0;
    let high = count - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (ids[middle] === id) return probabilities[middle];
      if (ids[middle] < id) low = middle + 1;
      else high = middle - 1;
    }
    return 0;
  }

  /** The token at `uniform` of the cumulative distribution in id order; the same as `sampleToken` of the dense array. */
  sample(uniform: number): number {
    const { ids, probabilities, count } = this;
    let cumulative = 0;
    let last = -1;
    for (let i = 0; i < count; i++) {
      if (!(probabilities[i] > 0)) continue;
      cumulative += probabilities[i];
      last = ids[i];
      if (uniform < cumulative) return last;
    }
    if (last < 0) throw new InvariantError("Distribution.sample: the distribution is empty");
    return last;
  }

  /** Probabilities over the whole vocabulary [V]. */
  toDense(out_V: Float64Array): Float64Array {
    out_V.fill(0);
    for (let i = 0; i < this.count; i++) out_V[this.ids[i]] = this.probabilities[i];
    return out_V;
  }

  #reserve(capacity: number): void {
    if (this.ids.length >= capacity) return;
    // Doubling, so that sizes that vary from token to token soon stop allocating.
    const size = Math.max(capacity, 2 * this.ids.length);
    this.ids = new Int32Array(size);
    this.probabilities = new Float64Array(size);
  }
}
