// Which tokens of a vocabulary may follow in a state of a grammar, as bits. A mask is the union over the state's stacks. For each stack the
// tokens that stay within its uppermost frames are the same whatever lies below, and are found once for each such top; only tokens that
// end these frames (a quote and what follows it) are walked anew in a state that was not seen before. In counted repetitions (a string of at
// most 200 characters) only tokens longer than what is left of the count are.
import { type Automaton, dead } from "./automaton.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";

export interface TokenMask {
  /** Bit `id & 31` of word `id >> 5`. */
  readonly words: Uint32Array;
  /** How many tokens are allowed, and the first of them (−1: none). */
  readonly count: number;
  readonly first: number;
}

/** Frames that are looked at together: a character, the repetition around it, and the rule around that. */
const numFrames = 3;
const maxMasks = 4096;
const maxTops = 8192;

interface Top {
  readonly words: Uint32Array;
  /** Nodes of the vocabulary at which the frames are at their end, and which have nodes below them. */
  readonly exits: Int32Array;
}

const shared = new WeakMap<Automaton, WeakMap<GrammarVocabulary, TokenMasks>>();

export class TokenMasks {
  private readonly automaton: Automaton;
  private readonly vocabulary: GrammarVocabulary;
  private readonly numWords: number;
  private tops = new Map<number, Top>();
  private masks = new Map<number, TokenMask>();
  private epoch: number;
  /** By depth of the vocabulary's trie: the state there. */
  private readonly path: Int32Array;

  /** The masks of a grammar for a vocabulary: the same object for the same two. */
  static of(automaton: Automaton, vocabulary: GrammarVocabulary): TokenMasks {
    let byVocabulary = shared.get(automaton);
    if (!byVocabulary) {
      byVocabulary = new WeakMap();
      shared.set(automaton, byVocabulary);
    }
    let masks = byVocabulary.get(vocabulary);
    if (!masks) {
      masks = new TokenMasks(automaton, vocabulary);
      byVocabulary.set(vocabulary, masks);
    }
    return masks;
  }

  private constructor(automaton: Automaton, vocabulary: GrammarVocabulary) {
    this.automaton = automaton;
    this.vocabulary = vocabulary;
    this.numWords = Math.ceil(vocabulary.size / 32);
    this.path = new Int32Array(vocabulary.maxDepth + 1);
    this.epoch = automaton.epoch;
  }

  /** The tokens that may follow. The same object for the same state. */
  mask(state: number): TokenMask {
    if (this.epoch !== this.automaton.epoch) {
      this.epoch = this.automaton.epoch;
      this.tops = new Map();
      this.masks = new Map();
    }
    let mask = this.masks.get(state);
    if (!mask) {
      mask = this.compute(state);
      if (this.masks.size >= maxMasks) this.masks.clear();
      this.masks.set(state, mask);
    }
    return mask;
  }

  private compute(state: number): TokenMask {
    const words = new Uint32Array(this.numWords);
    for (const stack of this.automaton.stacks(state)) {
      const { top, below, uncounted, safe } = this.automaton.cut(stack, numFrames);
      const known = uncounted === top ? this.topOf(top) : this.countedTopOf(top, uncounted, safe);
      for (let i = 0; i < words.length; i++) words[i] |= known.words[i];
      if (below !== dead) for (const node of known.exits) this.walk(node, below, words);
    }
    let [count, first] = [0, -1];
    for (let i = 0; i < words.length; i++) {
      let word = words[i];
      if (word !== 0 && first < 0) first = 32 * i + 31 - Math.clz32(word & -word);
      for (; word !== 0; word &= word - 1) count++;
    }
    return { words, count, first };
  }

  private topOf(state: number): Top {
    let top = this.tops.get(state);
    if (!top) {
      const words = new Uint32Array(this.numWords);
      const exits: number[] = [];
      this.walk(0, state, words, exits);
      top = { words, exits: Int32Array.from(exits) };
      if (this.tops.size >= maxTops) this.tops.clear();
      this.tops.set(state, top);
    }
    return top;
  }

  /** Up to `safe` bytes as without the count; longer tokens are walked. */
  private countedTopOf(state: number, uncounted: number, safe: number): Top {
    const { vocabulary } = this;
    const known = this.topOf(uncounted);
    if (safe >= vocabulary.maxDepth) return known;
    let top = this.tops.get(state);
    if (!top) {
      const words = vocabulary.tokensUpTo(safe).slice();
      for (let i = 0; i < words.length; i++) words[i] &= known.words[i];
      const exits = [...known.exits].filter((node) => vocabulary.depths[node] <= safe);
      this.walk(0, state, words, exits, safe);
      top = { words, exits: Int32Array.from(exits) };
      if (this.tops.size >= maxTops) this.tops.clear();
      this.tops.set(state, top);
    }
    return top;
  }

  /**
   * Sets the bits of the tokens below a node that a state allows; `exits` collects nodes at which the state's stacks may be empty.
   * @param above only tokens and exits of more bytes than this.
   */
  private walk(start: number, state: number, words: Uint32Array, exits?: number[], above = 0): void {
    const { automaton, path } = this;
    const { bytes, depths, ends, longest, tokens, tokenStarts } = this.vocabulary;
    const end = ends[start];
    path[depths[start]] = state;
    for (let node = start + 1; node < end; ) {
      const depth = depths[node];
      if (longest[node] <= above) {
        node = ends[node];
        continue;
      }
      const next = automaton.next(path[depth - 1], bytes[node]);
      if (next === dead) {
        node = ends[node];
        continue;
      }
      path[depth] = next;
      if (depth <= above) {
        node++;
        continue;
      }
      for (let i = tokenStarts[node]; i < tokenStarts[node + 1]; i++) words[tokens[i] >> 5] |= 1 << (tokens[i] & 31);
      if (exits && ends[node] > node + 1 && automaton.isAccepting(next)) exits.push(node);
      node++;
    }
  }
}

/** Forbids every token that is not in the mask, and those beyond it. `keep` are ids that stay as they are. */
export function applyMask(logits_V: Float32Array, { words }: TokenMask, keep: readonly number[]): void {
  const kept = keep.map((id) => logits_V[id]);
  const size = Math.min(logits_V.length, words.length * 32);
  for (let i = 0, from = 0; from < size; i++, from += 32) {
    const word = words[i];
    if (word === 0xffffffff) continue;
    const end = Math.min(size, from + 32);
    if (word === 0) logits_V.fill(Number.NEGATIVE_INFINITY, from, end);
    else for (let id = from; id < end; id++) if (((word >>> (id - from)) & 1) === 0) logits_V[id] = Number.NEGATIVE_INFINITY;
  }
  logits_V.fill(Number.NEGATIVE_INFINITY, size);
  for (const [i, id] of keep.entries()) logits_V[id] = kept[i];
}
