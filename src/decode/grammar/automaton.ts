// Runs compiled rules over bytes. A state is the set of stacks that the text so far leaves open; stacks share their tails and are
// numbered, so that equal states are one number, and a transition that was taken once is a look-up in a table.
import { UsageError } from "../../base/errors.ts";
import { type CompiledRules, elementKind } from "./compile-rules.ts";

/** The state that no text leads out of: what was read is not in the language. */
export const dead = 0;
/** The empty stack: the text so far is whole. */
const bottom = 0;

const maxStacksInState = 1 << 14;
/** When so many states are known, the tables start afresh at the next occasion. */
const maxStates = 1 << 16;
const maxNodes = 1 << 22;

export class Automaton {
  readonly start: number;
  /** Changes when state numbers lose their meaning. */
  epoch = 0;
  private readonly rules: CompiledRules;
  /** By stack: the element on top, and the stack below. */
  private elements: number[] = [];
  private parents: number[] = [];
  private nodes = new Map<number, number>();
  /** By stack with a byte range on top: the stacks after that byte. */
  private after: (Int32Array | undefined)[] = [];
  /** By state: its stacks, ascending; the bottom first. */
  private states: Int32Array[] = [];
  private stateNumbers = new Map<string, number>();
  /** By state: the next state for each byte, −1 where it was not computed. */
  private tables: (Int32Array | undefined)[] = [];
  private visited = new Set<number>();

  constructor(rules: CompiledRules) {
    this.rules = rules;
    this.start = this.clear();
  }

  /** Forgets all states, and returns the number of the first one, which is always the same. */
  private clear(): number {
    this.epoch++;
    this.elements = [-1];
    this.parents = [bottom];
    this.nodes = new Map();
    this.after = [undefined];
    this.states = [];
    this.stateNumbers = new Map();
    this.tables = [];
    this.stateOf(new Set());
    const first = new Set<number>();
    this.visited.clear();
    for (const alternative of this.rules.alternatives[this.rules.root]) this.expand(alternative, bottom, first);
    return this.stateOf(first);
  }

  /** Keeps memory within bounds. To be called where no state is held. */
  tidy(): void {
    if (this.states.length > maxStates || this.elements.length > maxNodes) this.clear();
  }

  get numStates(): number {
    return this.states.length;
  }

  next(state: number, byte: number): number {
    let table = this.tables[state];
    if (table === undefined) {
      table = new Int32Array(256).fill(-1);
      this.tables[state] = table;
    }
    const known = table[byte];
    if (known >= 0) return known;
    const { lows, highs } = this.rules;
    const stacks = new Set<number>();
    for (const node of this.states[state]) {
      if (node === bottom) continue;
      const element = this.elements[node];
      if (byte < lows[element] || byte > highs[element]) continue;
      for (const stack of this.stacksAfter(node)) stacks.add(stack);
    }
    const next = this.stateOf(stacks);
    table[byte] = next;
    return next;
  }

  /** The text so far is a whole text of the language. */
  isAccepting(state: number): boolean {
    return this.states[state][0] === bottom;
  }

  /** Nothing may follow. */
  isFinal(state: number): boolean {
    return this.states[state].length === 1 && this.isAccepting(state);
  }

  /** The only byte that may follow, or −1 when there are several, none, or the text may end here. */
  onlyByte(state: number): number {
    const { lows, highs } = this.rules;
    let only = -1;
    for (const node of this.states[state]) {
      if (node === bottom) return -1;
      const element = this.elements[node];
      if (lows[element] !== highs[element] || (only >= 0 && only !== lows[element])) return -1;
      only = lows[element];
    }
    return only;
  }

  /** Stacks of a state, the bottom left out. */
  stacks(state: number): Int32Array {
    const stacks = this.states[state];
    return stacks[0] === bottom ? stacks.subarray(1) : stacks;
  }

  /**
   * A stack cut below its uppermost frames: the state of those frames over an empty stack, and the state of what lies below them (`dead`
   * when nothing does). What happens within the frames does not depend on what is below. `uncounted` is the state of the frames where counted
   * repetitions do not count; texts of up to `safe` bytes lead as far from it as from `top`.
   */
  cut(node: number, numFrames: number): { top: number; below: number; uncounted: number; safe: number } {
    const frames: number[] = [];
    let at = node;
    for (; at !== bottom && frames.length < numFrames; at = this.parents[at]) frames.push(this.elements[at]);
    const { uncountedTops, uncountedReturns, safe: safeOf } = this.rules;
    let [parent, other, safe] = [bottom, bottom, Number.POSITIVE_INFINITY];
    for (let i = frames.length - 1; i >= 0; i--) {
      const element = frames[i];
      const uncounted = (i === 0 ? uncountedTops : uncountedReturns)[element];
      if (uncounted >= 0) safe = Math.min(safe, safeOf[element]);
      parent = this.nodeOf(element, parent);
      other = this.nodeOf(uncounted >= 0 ? uncounted : element, other);
    }
    const top = this.stateOf(new Set([parent]));
    const uncounted = this.stateOf(new Set([other]));
    if (at === bottom) return { top, below: dead, uncounted, safe };
    const stacks = new Set<number>();
    this.visited.clear();
    this.expand(this.elements[at], this.parents[at], stacks);
    return { top, below: this.stateOf(stacks), uncounted, safe };
  }

  private nodeOf(element: number, parent: number): number {
    const key = parent * this.rules.kinds.length + element;
    let node = this.nodes.get(key);
    if (node === undefined) {
      node = this.elements.push(element) - 1;
      this.parents.push(parent);
      this.after.push(undefined);
      this.nodes.set(key, node);
    }
    return node;
  }

  private stacksAfter(node: number): Int32Array {
    let stacks = this.after[node];
    if (stacks === undefined) {
      const found = new Set<number>();
      this.visited.clear();
      this.expand(this.elements[node] + 1, this.parents[node], found);
      stacks = Int32Array.from(found);
      this.after[node] = stacks;
    }
    return stacks;
  }

  /** Adds the stacks that begin at an element: rules are opened and ended alternatives left until a byte is on top. */
  private expand(element: number, parent: number, into: Set<number>): void {
    const { kinds, lows, alternatives } = this.rules;
    const open: [element: number, parent: number][] = [[element, parent]];
    for (let item = open.pop(); item; item = open.pop()) {
      const [at, below] = item;
      if (kinds[at] === elementKind.end) {
        if (below === bottom) into.add(bottom);
        else open.push([this.elements[below], this.parents[below]]);
        continue;
      }
      const node = this.nodeOf(at, below);
      if (this.visited.has(node)) continue;
      this.visited.add(node);
      if (kinds[at] === elementKind.bytes) {
        into.add(node);
        if (into.size > maxStacksInState) {
          throw new UsageError(`grammar: expected at most ${maxStacksInState} readings of one text, got more`, {
            hint: "The grammar is too ambiguous: avoid alternatives that begin alike, and repetitions of repetitions.",
          });
        }
        continue;
      }
      // A rule that is called last takes the place of its caller.
      const back = kinds[at + 1] === elementKind.end ? below : this.nodeOf(at + 1, below);
      for (const alternative of alternatives[lows[at]]) open.push([alternative, back]);
    }
  }

  private stateOf(stacks: ReadonlySet<number>): number {
    const sorted = Int32Array.from(stacks).sort();
    const key = sorted.join();
    let state = this.stateNumbers.get(key);
    if (state === undefined) {
      state = this.states.push(sorted) - 1;
      this.tables.push(undefined);
      this.stateNumbers.set(key, state);
    }
    return state;
  }
}
