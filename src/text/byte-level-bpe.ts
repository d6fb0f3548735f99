// Byte-level BPE encoding: the pair of lowest rank is merged first, the leftmost among equals, as Hugging Face's BPE model does it.
// Words that were seen before come from a bounded cache; others cost O(n log n) in their length, however long they are.
import { FormatError } from "../base/errors.ts";
import { byteCharacters, tokenOfBytes, writeUtf8 } from "./byte-alphabet.ts";
import { IdBuffer } from "./id-buffer.ts";
import type { WordEnd } from "./pre-tokenizer.ts";
import { WordTable } from "./word-table.ts";

/** The cache starts afresh when it holds this many words; longer words than `maxCachedUnits` are not kept. */
const maxCachedWords = 1 << 16;
const maxCachedUnits = 64;
/** Heap keys are rank · 2^31 + position and must be exact in a double. */
const positionRange = 2 ** 31;

export interface ByteLevelBpeOptions {
  /** Ids by token in byte-level spelling; must hold all 256 single bytes. */
  vocab: ReadonlyMap<string, number>;
  /** Pairs of tokens, most urgent first. */
  merges: readonly (readonly [string, string])[];
  wordEnd: WordEnd;
  /** A word that is itself a token is not merged step by step (Llama 3). */
  ignoreMerges: boolean;
}

export class ByteLevelBpe {
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly ignoreMerges: boolean;
  private readonly wordEnd: WordEnd;
  private readonly byteIds: Int32Array;
  private readonly ranks: MergeRanks;
  private readonly cache = new WordTable();
  private readonly cachedIds = new IdBuffer();
  /** By cached word: where its ids start in `cachedIds`. */
  private readonly cachedStarts = new Float64Array(maxCachedWords + 1);
  private units = new Uint16Array(64);
  private bytes = new Uint8Array(192);
  private symbols = new Int32Array(192);
  private next = new Int32Array(192);
  private previous = new Int32Array(192);
  private readonly heap = new KeyHeap();

  /** @throws FormatError when a merge names a token that the vocabulary lacks. */
  constructor(options: ByteLevelBpeOptions) {
    this.vocab = options.vocab;
    this.ignoreMerges = options.ignoreMerges;
    this.wordEnd = options.wordEnd;
    this.byteIds = Int32Array.from(byteCharacters, (character) => options.vocab.get(character) ?? -1);
    this.ranks = new MergeRanks(options.merges, options.vocab);
  }

  /** Appends the ids of text[start … end), which is split into words as a text of its own. */
  encode(text: string, start: number, end: number, out: IdBuffer): void {
    const { wordEnd, cache, cachedStarts, cachedIds } = this;
    for (let at = start; at < end; ) {
      const stop = wordEnd(text, at, end);
      if (stop - at > maxCachedUnits) this.encodeWord(text, at, stop, out);
      else {
        let word = cache.find(text, at, stop);
        if (word < 0) {
          if (cache.length === maxCachedWords) {
            cache.clear();
            cachedIds.length = 0;
            cache.find(text, at, stop);
          }
          word = cache.add(text, at, stop);
          this.encodeWord(text, at, stop, cachedIds);
          cachedStarts[word + 1] = cachedIds.length;
        }
        out.pushAll(cachedIds.data, cachedStarts[word], cachedStarts[word + 1]);
      }
      at = stop;
    }
  }

  private encodeWord(text: string, start: number, end: number, out: IdBuffer): void {
    const numUnits = end - start;
    if (numUnits > this.units.length) this.reserve(numUnits);
    const { units, bytes, symbols, byteIds } = this;
    for (let i = 0; i < numUnits; i++) units[i] = text.charCodeAt(start + i);
    const numBytes = writeUtf8(units, 0, numUnits, bytes, 0);
    if (this.ignoreMerges && numBytes > 1) {
      const whole = this.vocab.get(tokenOfBytes(bytes.subarray(0, numBytes)));
      if (whole !== undefined) {
        out.push(whole);
        return;
      }
    }
    for (let i = 0; i < numBytes; i++) symbols[i] = byteIds[bytes[i]];
    if (numBytes > 1) this.mergeSymbols(numBytes);
    for (let i = 0; i >= 0; i = numBytes > 1 ? this.next[i] : -1) out.push(symbols[i]);
  }

  /** Merges symbols[0 … length); the survivors are linked by `next` from position 0 on. */
  private mergeSymbols(length: number): void {
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

  private reserve(numUnits: number): void {
    const length = 2 ** Math.ceil(Math.log2(numUnits));
    this.units = new Uint16Array(length);
    this.bytes = new Uint8Array(length * 3);
    this.symbols = new Int32Array(length * 3);
    this.next = new Int32Array(length * 3);
    this.previous = new Int32Array(length * 3);
  }
}

/** Ranks of merges by (left id, right id): open addressing over integers. */
class MergeRanks {
  readonly lefts: Int32Array;
  readonly rights: Int32Array;
  readonly results: Int32Array;
  /** Rank + 1, 0 = free; at most half full. */
  private readonly slots: Int32Array;
  private readonly mask: number;

  constructor(merges: readonly (readonly [string, string])[], vocab: ReadonlyMap<string, number>) {
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
      this.results[rank] = idOf(left + right, rank);
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
