// A max-heap of symbol pairs: largest count first, among equal counts the smallest (left id, right id), as Hugging Face's trainer orders
// them. Counts are those at the time of `push`; a caller that finds one out of date pushes the pair again (lazy decrease of keys).
import { grow } from "./word-table.ts";

/** What the heap compares besides the count. */
export interface PairIds {
  left: Int32Array;
  right: Int32Array;
}

export class PairHeap {
  length = 0;
  private pairs = new Int32Array(1 << 10);
  private keys = new Float64Array(1 << 10);
  private readonly ids: PairIds;

  constructor(ids: PairIds) {
    this.ids = ids;
  }

  push(pair: number, count: number): void {
    if (this.length === this.pairs.length) {
      this.pairs = grow(this.pairs, this.length * 2);
      this.keys = grow(this.keys, this.length * 2);
    }
    let hole = this.length++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!this.before(pair, count, this.pairs[parent], this.keys[parent])) break;
      this.pairs[hole] = this.pairs[parent];
      this.keys[hole] = this.keys[parent];
      hole = parent;
    }
    this.pairs[hole] = pair;
    this.keys[hole] = count;
  }

  /** The count that the first pair was pushed with. */
  get topCount(): number {
    return this.keys[0];
  }

  /** Removes and returns the first pair. The heap must not be empty. */
  pop(): number {
    const top = this.pairs[0];
    const length = --this.length;
    const pair = this.pairs[length];
    const count = this.keys[length];
    let hole = 0;
    for (let child = 1; child < length; child = hole * 2 + 1) {
      if (child + 1 < length && this.before(this.pairs[child + 1], this.keys[child + 1], this.pairs[child], this.keys[child])) child++;
      if (!this.before(this.pairs[child], this.keys[child], pair, count)) break;
      this.pairs[hole] = this.pairs[child];
      this.keys[hole] = this.keys[child];
      hole = child;
    }
    this.pairs[hole] = pair;
    this.keys[hole] = count;
    return top;
  }

  private before(pairA: number, countA: number, pairB: number, countB: number): boolean {
    if (countA !== countB) return countA > countB;
    const { left, right } = this.ids;
    if (left[pairA] !== left[pairB]) return left[pairA] < left[pairB];
    return right[pairA] < right[pairB];
  }
}
