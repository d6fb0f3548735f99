// Counts of all token sequences up to a depth: a suffix tree cut at that depth, not path-compressed, in flat arrays. A new token extends the
// nodes of all current suffixes by one, so that adding costs `depth` look-ups and nothing is searched. (Oliaro et al. 2025, suffix decoding.)
// A node takes 32 to 46 bytes. A token makes at most `depth` new ones; in prose and code 18 of 24, which is 0.6 to 0.8 KB a token.
import { invariant } from "../../base/errors.ts";

const root = 0;

/** The nodes of the suffixes of a text: entry d is that of the last d tokens, −1 where they never occurred. Entry 0 is the root. */
export type SuffixNodes = Int32Array;

export class SuffixTrie {
  /** Longest sequence that is counted. */
  readonly depth: number;
  /** Nodes in use, the root included. */
  size = 1;
  #tokens: Int32Array;
  #counts: Int32Array;
  #parents: Int32Array;
  /** The most frequent child, −1 for none; the others behind it in no order. */
  #firstChild: Int32Array;
  #next: Int32Array;
  #previous: Int32Array;
  /** Open addressing: (parent, token) → node, −1 for empty. */
  #table: Int32Array;
  /** Nodes ever used; freed ones are chained through `#next` from `#free`. */
  #high = 1;
  #free = -1;
  readonly #walk: SuffixNodes;

  constructor(depth: number, capacity = 1024) {
    this.depth = depth;
    this.#tokens = new Int32Array(capacity);
    this.#counts = new Int32Array(capacity);
    this.#parents = new Int32Array(capacity).fill(-1);
    this.#firstChild = new Int32Array(capacity).fill(-1);
    this.#next = new Int32Array(capacity).fill(-1);
    this.#previous = new Int32Array(capacity).fill(-1);
    this.#table = new Int32Array(tableSize(capacity)).fill(-1);
    this.#walk = this.start();
  }

  /** Memory of the arrays, used or not. */
  get bytes(): number {
    return this.#tokens.byteLength * 6 + this.#table.byteLength;
  }

  /** Suffixes of an empty text. */
  start(): SuffixNodes {
    const nodes = new Int32Array(this.depth + 1).fill(-1);
    nodes[0] = root;
    return nodes;
  }

  /** Counts a token behind the text whose suffixes these are, and moves them on. */
  add(suffixes: SuffixNodes, token: number): void {
    for (let d = this.depth - 1; d >= 0; d--) {
      const parent = suffixes[d];
      suffixes[d + 1] = parent < 0 ? -1 : this.#increment(parent, token);
    }
  }

  /** Moves suffixes on without counting. */
  follow(suffixes: SuffixNodes, token: number): void {
    for (let d = this.depth - 1; d >= 0; d--) suffixes[d + 1] = suffixes[d] < 0 ? -1 : this.child(suffixes[d], token);
  }

  /** Takes back a whole text that was added from `start()` on. */
  remove(ids: ArrayLike<number>, length = ids.length): void {
    const suffixes = this.#walk;
    // All its nodes are found before any is freed: the walk needs them.
    const path: number[] = [];
    suffixes.fill(-1, 1);
    for (let i = 0; i < length; i++) {
      this.follow(suffixes, ids[i]);
      for (let d = 1; d <= this.depth; d++) if (suffixes[d] >= 0) path.push(suffixes[d]);
    }
    for (const node of path) this.#counts[node]--;
    // Children come behind their parents, so from the back none is met before it is free of them. Only where the first of some siblings fell
    // may another be the likeliest now; it is looked for once, because a root has as many children as a text has tokens.
    const fallen = new Set<number>();
    for (let i = path.length - 1; i >= 0; i--) {
      const node = path[i];
      const parent = this.#parents[node];
      if (parent < 0) continue;
      if (this.#firstChild[parent] === node) fallen.add(parent);
      if (this.#counts[node] === 0 && this.#firstChild[node] < 0) this.#release(node);
    }
    for (const parent of fallen) this.#bringFirst(parent);
  }

  child(node: number, token: number): number {
    const mask = this.#table.length - 1;
    for (let slot = hashOf(node, token) & mask; ; slot = (slot + 1) & mask) {
      const candidate = this.#table[slot];
      if (candidate < 0) return -1;
      if (this.#parents[candidate] === node && this.#tokens[candidate] === token) return candidate;
    }
  }

  /** The most frequent continuation, −1 for none. */
  likeliestChild(node: number): number {
    return this.#firstChild[node];
  }

  token(node: number): number {
    return this.#tokens[node];
  }

  /** How often the sequence of this node was added. */
  count(node: number): number {
    return this.#counts[node];
  }

  /** Children with their counts, for tests. */
  children(node: number): { node: number; token: number; count: number }[] {
    const result = [];
    for (let at = this.#firstChild[node]; at >= 0; at = this.#next[at])
      result.push({ node: at, token: this.#tokens[at], count: this.#counts[at] });
    return result;
  }

  #increment(parent: number, token: number): number {
    let node = this.child(parent, token);
    if (node < 0) node = this.#create(parent, token);
    const count = ++this.#counts[node];
    const first = this.#firstChild[parent];
    if (first !== node && count > this.#counts[first]) this.#toFront(node);
    return node;
  }

  #create(parent: number, token: number): number {
    let node = this.#free;
    if (node >= 0) this.#free = this.#next[node];
    else {
      if (this.#high === this.#tokens.length) this.#grow();
      node = this.#high++;
    }
    this.#tokens[node] = token;
    this.#counts[node] = 0;
    this.#parents[node] = parent;
    this.#firstChild[node] = -1;
    // Behind the first one, which is the most frequent.
    const first = this.#firstChild[parent];
    this.#previous[node] = first;
    this.#next[node] = first < 0 ? -1 : this.#next[first];
    if (first < 0) this.#firstChild[parent] = node;
    else {
      if (this.#next[first] >= 0) this.#previous[this.#next[first]] = node;
      this.#next[first] = node;
    }
    this.#insert(node);
    this.size++;
    return node;
  }

  #toFront(node: number): void {
    const parent = this.#parents[node];
    this.#unlink(node);
    const first = this.#firstChild[parent];
    this.#previous[node] = -1;
    this.#next[node] = first;
    if (first >= 0) this.#previous[first] = node;
    this.#firstChild[parent] = node;
  }

  #unlink(node: number): void {
    const [before, after] = [this.#previous[node], this.#next[node]];
    if (before >= 0) this.#next[before] = after;
    else this.#firstChild[this.#parents[node]] = after;
    if (after >= 0) this.#previous[after] = before;
  }

  /** A node that is nowhere any more. */
  #release(node: number): void {
    this.#unlink(node);
    this.#erase(node);
    this.#parents[node] = -1;
    this.#next[node] = this.#free;
    this.#free = node;
    this.size--;
  }

  /** Puts the likeliest child before its siblings. */
  #bringFirst(parent: number): void {
    let best = this.#firstChild[parent];
    for (let at = best; at >= 0; at = this.#next[at]) if (this.#counts[at] > this.#counts[best]) best = at;
    if (best >= 0 && best !== this.#firstChild[parent]) this.#toFront(best);
  }

  #insert(node: number): void {
    if (2 * (this.size + 1) > this.#table.length) this.#rehash(2 * this.#table.length);
    const mask = this.#table.length - 1;
    let slot = hashOf(this.#parents[node], this.#tokens[node]) & mask;
    while (this.#table[slot] >= 0) slot = (slot + 1) & mask;
    this.#table[slot] = node;
  }

  /** Linear probing without tombstones: what stands behind the gap moves up where it may. */
  #erase(node: number): void {
    const mask = this.#table.length - 1;
    let gap = hashOf(this.#parents[node], this.#tokens[node]) & mask;
    while (this.#table[gap] !== node) gap = (gap + 1) & mask;
    for (let slot = (gap + 1) & mask; this.#table[slot] >= 0; slot = (slot + 1) & mask) {
      const other = this.#table[slot];
      const home = hashOf(this.#parents[other], this.#tokens[other]) & mask;
      if (((slot - home) & mask) < ((slot - gap) & mask)) continue;
      this.#table[gap] = other;
      gap = slot;
    }
    this.#table[gap] = -1;
  }

  #rehash(size: number): void {
    const old = this.#table;
    this.#table = new Int32Array(size).fill(-1);
    const mask = size - 1;
    for (const node of old) {
      if (node < 0) continue;
      let slot = hashOf(this.#parents[node], this.#tokens[node]) & mask;
      while (this.#table[slot] >= 0) slot = (slot + 1) & mask;
      this.#table[slot] = node;
    }
  }

  #grow(): void {
    // By a quarter: what is not used yet counts as memory, too.
    const capacity = Math.ceil(1.25 * this.#tokens.length);
    invariant(capacity <= 2 ** 28, "a suffix trie of more than 2^28 nodes");
    const grown = (old: Int32Array): Int32Array => {
      const array = new Int32Array(capacity).fill(-1);
      array.set(old);
      return array;
    };
    this.#tokens = grown(this.#tokens);
    this.#counts = grown(this.#counts);
    this.#parents = grown(this.#parents);
    this.#firstChild = grown(this.#firstChild);
    this.#next = grown(this.#next);
    this.#previous = grown(this.#previous);
  }
}

const tableSize = (capacity: number): number => 2 ** Math.ceil(Math.log2(2 * capacity));

function hashOf(node: number, token: number): number {
  let hash = Math.imul(node, 0x9e3779b1) ^ Math.imul(token + 1, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
}
