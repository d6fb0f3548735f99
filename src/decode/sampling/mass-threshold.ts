// The key at which the mass of the largest keys first reaches a target: the k-th largest logit (every mass 1), the edge of a
// nucleus (mass = probability), the edge of a typical set. A radix search over the bits of the float32 keys from the top digit
// down: O(n) whatever the data, exact, and without sorting or allocating.
import { invariant } from "../../base/errors.ts";

const numBins = 2048;

export class MassThreshold {
  /** After `find`: the mass of all keys strictly above the threshold. */
  massAbove = 0;
  readonly #histogram = new Float64Array(numBins);
  readonly #members: Int32Array;
  readonly #word = new Uint32Array(1);
  readonly #float = new Float32Array(this.#word.buffer);

  /** @param capacity the largest number of keys. */
  constructor(capacity: number) {
    this.#members = new Int32Array(capacity);
  }

  /**
   * The largest t with mass{key >= t} >= target; when rounding keeps the total below the target, the smallest key that has mass.
   * @param bits the same memory as the float32 keys, as 32-bit words. Keys are neither NaN nor -0.
   * @param masses one per key, non-negative; null: 1 each.
   */
  find(bits: Uint32Array, masses: Float64Array | null, count: number, target: number): number {
    invariant(count > 0, "MassThreshold.find needs at least one key");
    const histogram = this.#histogram;
    const members = this.#members;
    this.massAbove = 0;

    histogram.fill(0);
    if (masses === null) for (let i = 0; i < count; i++) histogram[orderedBits(bits[i]) >>> 21]++;
    else for (let i = 0; i < count; i++) histogram[orderedBits(bits[i]) >>> 21] += masses[i];
    const top = this.#descend(target);

    histogram.fill(0);
    let numMembers = 0;
    for (let i = 0; i < count; i++) {
      const key = orderedBits(bits[i]);
      if (key >>> 21 !== top) continue;
      members[numMembers++] = i;
      histogram[(key >>> 10) & 2047] += masses === null ? 1 : masses[i];
    }
    const middle = this.#descend(target);

    histogram.fill(0);
    for (let j = 0; j < numMembers; j++) {
      const i = members[j];
      const key = orderedBits(bits[i]);
      if (((key >>> 10) & 2047) === middle) histogram[key & 1023] += masses === null ? 1 : masses[i];
    }
    const key = (top << 21) | (middle << 10) | this.#descend(target);
    this.#word[0] = key < 0 ? key ^ 0x80000000 : ~key;
    return this.#float[0];
  }

  /** The bin, from the top, in which the mass reaches the target; adds the bins passed over to `massAbove`. */
  #descend(target: number): number {
    const histogram = this.#histogram;
    let above = this.massAbove;
    let bin = -1;
    for (let b = numBins - 1; b >= 0; b--) {
      const mass = histogram[b];
      if (mass === 0) continue;
      if (bin >= 0) above += histogram[bin];
      bin = b;
      if (above + mass >= target) break;
    }
    this.massAbove = above;
    return bin;
  }
}

/** Maps the bits of a float32 to an unsigned word that sorts as the float does. */
function orderedBits(bits: number): number {
  return bits ^ (-(bits >>> 31) | 0x80000000);
}
