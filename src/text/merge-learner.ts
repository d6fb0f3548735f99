// The merge loop of BPE training (Sennrich et al. 2016) with exact incremental pair counts.
// Every position of the words' symbols is in at most one doubly linked list: that of the pair which it begins. A merge walks the list
// of its pair only, so its cost is the number of occurrences, whatever the size of the text; nothing is counted twice.
import { invariant } from "../base/errors.ts";
import { PairHeap } from "./pair-heap.ts";
import { grow } from "./word-table.ts";

/** Distinct words as runs of symbols. */
export interface SymbolWords {
  /** The symbols of all words, one word after the other. */
  symbols: Int32Array;
  /** Word w owns symbols[starts[w] … starts[w + 1]). */
  starts: ArrayLike<number>;
  /** How often each word occurs in the text. */
  counts: ArrayLike<number>;
  numWords: number;
}

export interface MergeLearnerOptions {
  /** At the start, symbols are numbers from `firstSymbol` on, … */
  firstSymbol: number;
  /** … this many of them. */
  numSymbols: number;
  /** Upper bound of all ids given to {@link MergeLearner.merge}. */
  maxSymbols: number;
  /** Pairs that occur less often are never offered; at least 1. */
  minFrequency: number;
  /** Pairs whose parts are together longer than this, in bytes, are never offered. */
  maxTokenLength: number;
}

/** The pair that {@link MergeLearner.best} offers. */
export interface BestPair {
  pair: number;
  left: number;
  right: number;
  count: number;
}

const none = -1;

export class MergeLearner {
  private readonly options: MergeLearnerOptions;
  private readonly counts: ArrayLike<number>;
  /** By position: symbol, word, neighbours within the word. Only the first position of a merged symbol stays linked. */
  private readonly symbols: Int32Array;
  private readonly wordOf: Int32Array;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** By position: the pair it begins, and its neighbours in that pair's list. */
  private readonly pairAt: Int32Array;
  private readonly listNext: Int32Array;
  private readonly listPrevious: Int32Array;
  /** By pair. */
  private readonly ids = { left: new Int32Array(1 << 10), right: new Int32Array(1 << 10) };
  private pairCounts = new Float64Array(1 << 10);
  private head = new Int32Array(1 << 10);
  private tail = new Int32Array(1 << 10);
  private numPairs = 0;
  private readonly heap = new PairHeap(this.ids);
  /** By symbol: length in bytes, and the pairs (symbol, new) and (new, symbol) of the merge at hand. */
  private readonly lengths: Int32Array;
  private readonly pairBefore: Int32Array;
  private readonly pairAfter: Int32Array;

  constructor(words: SymbolWords, options: MergeLearnerOptions) {
    const numPositions = words.symbols.length;
    this.options = options;
    this.counts = words.counts;
    this.symbols = words.symbols;
    this.wordOf = new Int32Array(numPositions);
    this.next = new Int32Array(numPositions).fill(none);
    this.previous = new Int32Array(numPositions).fill(none);
    this.pairAt = new Int32Array(numPositions).fill(none);
    this.listNext = new Int32Array(numPositions);
    this.listPrevious = new Int32Array(numPositions);
    this.lengths = new Int32Array(options.maxSymbols).fill(1);
    this.pairBefore = new Int32Array(options.maxSymbols).fill(none);
    this.pairAfter = new Int32Array(options.maxSymbols).fill(none);
    this.countPairs(words);
  }

  /** The most frequent pair, or undefined when none occurs often enough. The caller merges it. */
  best(): BestPair | undefined {
    const { heap, ids } = this;
    while (heap.length > 0) {
      const pushedWith = heap.topCount;
      const pair = heap.pop();
      const count = this.pairCounts[pair];
      if (count < this.options.minFrequency) continue;
      if (count !== pushedWith) {
        heap.push(pair, count);
        continue;
      }
      return { pair, left: ids.left[pair], right: ids.right[pair], count };
    }
    return undefined;
  }

  /**
   * Replaces every occurrence of the pair by `symbol`, left to right, and brings all counts up to date.
   * `symbol` may be one that exists already (two ways to spell the same token).
   */
  merge({ pair, left, right }: BestPair, symbol: number, isNew: boolean): void {
    const { symbols, wordOf, next, previous, counts, pairBefore, pairAfter } = this;
    invariant(symbol < this.options.maxSymbols, "merge: the new symbol is below maxSymbols");
    this.lengths[symbol] = this.lengths[left] + this.lengths[right];
    const firstNewPair = this.numPairs;
    const touched = isNew ? [] : this.findPairsWith(symbol);
    for (let at = this.head[pair]; at !== none; at = this.head[pair]) {
      const weight = counts[wordOf[at]];
      const second = next[at];
      const before = previous[at];
      const after = next[second];
      this.leave(at, weight);
      if (before !== none) {
        this.leave(before, weight);
        const neighbour = symbols[before];
        if (pairBefore[neighbour] === none && this.mayMerge(neighbour, symbol)) pairBefore[neighbour] = this.addPair(neighbour, symbol);
        if (pairBefore[neighbour] !== none) this.join(before, pairBefore[neighbour], weight);
      }
      if (after !== none) {
        this.leave(second, weight);
        const neighbour = symbols[after];
        // The pair (new, new) has one record, which pairBefore holds.
        const table = neighbour === symbol ? pairBefore : pairAfter;
        if (table[neighbour] === none && this.mayMerge(symbol, neighbour)) table[neighbour] = this.addPair(symbol, neighbour);
        if (table[neighbour] !== none) this.join(at, table[neighbour], weight);
        previous[after] = at;
      }
      symbols[at] = symbol;
      next[at] = after;
    }
    for (let made = firstNewPair; made < this.numPairs; made++) touched.push(made);
    const { left: lefts, right: rights } = this.ids;
    for (const made of touched) {
      pairBefore[lefts[made]] = none;
      pairAfter[rights[made]] = none;
      // Counts only fall from here on, so a pair that is too rare now will never be wanted.
      if (this.pairCounts[made] >= this.options.minFrequency) this.heap.push(made, this.pairCounts[made]);
    }
  }

  private mayMerge(left: number, right: number): boolean {
    return this.lengths[left] + this.lengths[right] <= this.options.maxTokenLength;
  }

  private countPairs(words: SymbolWords): void {
    const { symbols, wordOf, next, previous } = this;
    const { firstSymbol, numSymbols, minFrequency } = this.options;
    const pairs = new Int32Array(numSymbols * numSymbols).fill(none);
    for (let word = 0; word < words.numWords; word++) {
      const end = words.starts[word + 1];
      for (let at = words.starts[word]; at < end; at++) {
        wordOf[at] = word;
        if (at + 1 === end) break;
        next[at] = at + 1;
        previous[at + 1] = at;
        const key = (symbols[at] - firstSymbol) * numSymbols + symbols[at + 1] - firstSymbol;
        if (pairs[key] === none) pairs[key] = this.addPair(symbols[at], symbols[at + 1]);
        this.join(at, pairs[key], words.counts[word]);
      }
    }
    for (let pair = 0; pair < this.numPairs; pair++) {
      if (this.pairCounts[pair] >= minFrequency) this.heap.push(pair, this.pairCounts[pair]);
    }
  }

  private addPair(left: number, right: number): number {
    const pair = this.numPairs++;
    if (pair === this.head.length) {
      const length = pair * 2;
      this.ids.left = grow(this.ids.left, length);
      this.ids.right = grow(this.ids.right, length);
      this.pairCounts = grow(this.pairCounts, length);
      this.head = grow(this.head, length);
      this.tail = grow(this.tail, length);
    }
    this.ids.left[pair] = left;
    this.ids.right[pair] = right;
    this.pairCounts[pair] = 0;
    this.head[pair] = none;
    this.tail[pair] = none;
    return pair;
  }

  /** Appends a position to a pair's list. Lists stay in text order, because merges walk their own list in text order. */
  private join(at: number, pair: number, weight: number): void {
    const last = this.tail[pair];
    this.pairAt[at] = pair;
    this.listPrevious[at] = last;
    this.listNext[at] = none;
    if (last === none) this.head[pair] = at;
    else this.listNext[last] = at;
    this.tail[pair] = at;
    this.pairCounts[pair] += weight;
  }

  private leave(at: number, weight: number): void {
    const pair = this.pairAt[at];
    if (pair === none) return;
    const before = this.listPrevious[at];
    const after = this.listNext[at];
    if (before === none) this.head[pair] = after;
    else this.listNext[before] = after;
    if (after === none) this.tail[pair] = before;
    else this.listPrevious[after] = before;
    this.pairAt[at] = none;
    this.pairCounts[pair] -= weight;
  }

  /** Live pairs that contain a symbol, entered into the tables of the merge at hand. Rare: only for a token spelled in two ways. */
  private findPairsWith(symbol: number): number[] {
    const { left, right } = this.ids;
    const found: number[] = [];
    for (let pair = 0; pair < this.numPairs; pair++) {
      if (this.head[pair] === none || (left[pair] !== symbol && right[pair] !== symbol)) continue;
      if (right[pair] === symbol) this.pairBefore[left[pair]] = pair;
      else this.pairAfter[right[pair]] = pair;
      found.push(pair);
    }
    return found;
  }
}
