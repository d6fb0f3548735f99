// The merging step that every BPE here shares: the pair of lowest rank first, the leftmost among equals, with a linked list and a heap,
// so that a word costs O(n log n) in its length however long it is.
import { FormatError } from "../base/errors.ts";

/** Heap keys are rank · 2^31 + position and must be exact in a double. */
const positionRange = 2 ** 31;

export class BpeMerger {
  /** Symbols to merge are written here, from 0 on; the survivors are linked by `next`, from 0 on, −1 after the last. */
  symbols = new Int32Array(192);
  next = new Int32Array(192);
  private previous = new Int32Array(192);
  private readonly ranks: MergeRanks;
  private readonly heap = new KeyHeap();

  constructor(ranks: MergeRanks) {
    this.ranks = ranks;
  }

  /** Makes room for `length` symbols; what was written is lost when there was less. */
  reserve(length: number): void {
    if (length <= this.symbols.length) return;
    const size = 2 ** Math.ceil(Math.log2(length));
    this.symbols = new Int32Array(size);
    this.next = new Int32Array(size);
    this.previous = new Int32Array(size);
  }

  /** Merges symbols[0 … length). Swallowed symbols become −1. */
  merge(length: number): void {
    const { symbols, next, previous, heap, ranks } = this;
    for (let i = 0; i < length; i++) {
      next[i] = i + 1 < length ? i + 1 : -1;
      previous[i] = i - 1;
    }
    heap.length = 0;
    for (let i = 0; i + 1 < length; i++) {
      const rank = ranks.find(symbols[i], symbols[i + 1]);
      if (rank >= 0) heap.push(rank * positionRange + i);
    }
    while (heap.length > 0) {
      const key = heap.pop();
      const rank = Math.floor(key / positionRange);
      const at = key - rank * positionRange;
      const second = next[at];
      // Out of date when the pair has changed or its left part is gone (symbol −1).
      if (second < 0 || symbols[at] < 0 || symbols[at] !== ranks.lefts[rank] || symbols[second] !== ranks.rights[rank]) continue;
      symbols[at] = ranks.results[rank];
      symbols[second] = -1;
      const after = next[second];
      next[at] = after;
      if (after >= 0) {
        previous[after] = at;
        const right = ranks.find(symbols[at], symbols[after]);
        if (right >= 0) heap.push(right * positionRange + at);
      }
      const before = previous[at];
      if (before >= 0) {
        const left = ranks.find(symbols[before], symbols[at]);
        if (left >= 0) heap.push(left * positionRange + before);
      }
    }
  }
}

/** Ranks of merges by (left id, right id): open addressing over integers. */
export class MergeRanks {
  readonly lefts: Int32Array;
  readonly rights: Int32Array;
  readonly results: Int32Array;
  /** Rank + 1, 0 = free; at most half full. */
  private readonly slots: Int32Array;
  private readonly mask: number;

  /**
   * @param continuation marks tokens inside of a word; the right part of a join loses it.
   * @throws FormatError when a merge names a token that the vocabulary lacks.
   */
  constructor(merges: readonly (readonly [string, string])[], vocab: ReadonlyMap<string, number>, continuation = "") {
    this.lefts = new Int32Array(merges.length);
    this.rights = new Int32Array(merges.length);
    this.results = new Int32Array(merges.length);
    this.slots = new Int32Array(2 ** Math.ceil(Math.log2(merges.length * 2 + 2)));
    this.mask = this.slots.length - 1;
    const idOf = (token: string, rank: number): number => {
      const id = vocab.get(token);
      if (id === undefined) {
        throw new FormatError(`tokenizer merges[${rank}]: expected tokens of the vocabulary, got ${JSON.stringify(token)}`, {
          hint: "The file's vocabulary and merges do not belong together.",
        });
      }
      return id;
    };
    merges.forEach(([left, right], rank) => {
      this.lefts[rank] = idOf(left, rank);
      this.rights[rank] = idOf(right, rank);
      this.results[rank] = idOf(left + (right.startsWith(continuation) ? right.slice(continuation.length) : right), rank);
      // A pair that is listed twice has its later rank.
      this.slots[this.slotOf(this.lefts[rank], this.rights[rank])] = rank + 1;
    });
  }

  /** The rank of a pair, or −1. */
  find(left: number, right: number): number {
    return this.slots[this.slotOf(left, right)] - 1;
  }

  private slotOf(left: number, right: number): number {
    const { slots, lefts, rights, mask } = this;
    let slot = Math.imul(Math.imul(left, 0x9e3779b1) ^ right, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & mask;
    for (let entry = slots[slot]; entry !== 0; entry = slots[slot]) {
      if (lefts[entry - 1] === left && rights[entry - 1] === right) break;
      slot = (slot + 1) & mask;
    }
    return slot;
  }
}

/** A binary min-heap of numbers. */
class KeyHeap {
  length = 0;
  private keys = new Float64Array(256);

  push(key: number): void {
    if (this.length === this.keys.length) {
      const longer = new Float64Array(this.length * 2);
      longer.set(this.keys);
      this.keys = longer;
    }
    const { keys } = this;
    let hole = this.length++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (keys[parent] <= key) break;
      keys[hole] = keys[parent];
      hole = parent;
    }
    keys[hole] = key;
  }

  pop(): number {
    const { keys } = this;
    const top = keys[0];
    const length = --this.length;
    const last = keys[length];
    let hole = 0;
    for (let child = 1; child < length; child = hole * 2 + 1) {
      if (child + 1 < length && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= last) break;
      keys[hole] = keys[child];
      hole = child;
    }
    keys[hole] = last;
    return top;
  }
}
