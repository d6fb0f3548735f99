// A hash table of words that are slices of strings: open addressing over UTF-16 code units in typed arrays.
// Looking a word up makes no string, which is what keeps training and encoding fast.
import { invariant } from "../base/errors.ts";

/** Words get the numbers 0, 1, … in the order in which they were first seen. */
export class WordTable {
  /** The code units of all words, one after the other. */
  units: Uint16Array = new Uint16Array(1 << 12);
  /** Word w owns units[starts[w] … starts[w + 1]). */
  starts: Float64Array = new Float64Array(1 << 9);
  length = 0;
  private hashes = new Int32Array(1 << 9);
  /** Word number + 1, 0 = free; at most half full. */
  private slots = new Int32Array(1 << 10);

  get numUnits(): number {
    return this.starts[this.length];
  }

  /** The number of the word text[start … end), or −1. The slot found is kept for an {@link add} that follows. */
  find(text: string, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    hash ^= hash >>> 15;
    const { slots, hashes, starts, units } = this;
    const mask = slots.length - 1;
    const width = end - start;
    let slot = hash & mask;
    for (let word = slots[slot]; word !== 0; word = slots[slot]) {
      if (hashes[word - 1] === hash) {
        const from = starts[word - 1];
        if (starts[word] - from === width) {
          let i = 0;
          while (i < width && units[from + i] === text.charCodeAt(start + i)) i++;
          if (i === width) return word - 1;
        }
      }
      slot = (slot + 1) & mask;
    }
    this.lastHash = hash;
    this.lastSlot = slot;
    return -1;
  }

  private lastHash = 0;
  private lastSlot = 0;

  /** Adds the word of the preceding {@link find}, which must have returned −1, and returns its number. */
  add(text: string, start: number, end: number): number {
    const word = this.length;
    const from = this.starts[word];
    const to = from + (end - start);
    invariant(to < 2 ** 32, "a word table holds at most 2^32 code units");
    if (to > this.units.length) this.units = grow(this.units, Math.max(to, this.units.length * 2));
    if (word + 2 > this.starts.length) {
      this.starts = grow(this.starts, this.starts.length * 2);
      this.hashes = grow(this.hashes, this.hashes.length * 2);
    }
    for (let i = start, at = from; i < end; i++) this.units[at++] = text.charCodeAt(i);
    this.starts[word + 1] = to;
    this.hashes[word] = this.lastHash;
    this.slots[this.lastSlot] = word + 1;
    this.length++;
    if (this.length * 2 > this.slots.length) this.rehash();
    return word;
  }

  clear(): void {
    this.length = 0;
    this.slots.fill(0);
  }

  private rehash(): void {
    const slots = new Int32Array(this.slots.length * 2);
    const mask = slots.length - 1;
    for (let word = 0; word < this.length; word++) {
      let slot = this.hashes[word] & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = word + 1;
    }
    this.slots = slots;
  }
}

/** A longer copy of a typed array, zero-filled at the end. */
export function grow<T extends Int32Array | Float64Array | Uint16Array | Uint8Array>(array: T, length: number): T {
  const longer = new (array.constructor as new (length: number) => T)(length);
  longer.set(array as never);
  return longer;
}
