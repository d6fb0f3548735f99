// From rules over code points to rules over bytes: flat lists of elements (a byte range, a rule, the end of an alternative) that the
// automaton runs. Repetitions become rules that call themselves last; classes become the byte sequences of their UTF-8.
import { UsageError } from "../../base/errors.ts";
import type { Expression, Ranges, Rules } from "./expression.ts";

export const elementKind = { end: 0, bytes: 1, rule: 2 } as const;

export interface CompiledRules {
  /** By element: an {@link elementKind}. */
  readonly kinds: Uint8Array;
  /** By element: the lowest byte, or the number of a rule. */
  readonly lows: Int32Array;
  /** By element: the highest byte. */
  readonly highs: Uint8Array;
  /** By rule: the first element of each alternative. */
  readonly alternatives: readonly Int32Array[];
  readonly root: number;
  /**
   * By element of a counted repetition: the element that stands for it where counting does not matter, on top of a stack and as the place to
   * return to; −1 for other elements. Texts of up to `safe` bytes cannot tell them apart.
   */
  readonly uncountedTops: Int32Array;
  readonly uncountedReturns: Int32Array;
  readonly safe: Int32Array;
}

const maxElements = 1 << 20;

/** In a counted repetition: the rule that repeats without counting, and how many more items the count has room (or need) for. */
interface Counted {
  readonly rule: number;
  readonly safe: number;
}
type Element = readonly [kind: number, low: number, high: number, counted?: Counted];

/** Shorter counts gain nothing. */
const minCounted = 6;

/** @throws UsageError for left recursion, or a grammar that is too large. */
export function compileRules(rules: Rules, root: string): CompiledRules {
  const compiler = new Compiler();
  const numbers = new Map<string, number>();
  for (const name of rules.keys()) numbers.set(name, compiler.addRule(name));
  for (const [name, expression] of rules) {
    const options = expression.kind === "choice" ? expression.options : [expression];
    compiler.setRule(
      numbers.get(name) as number,
      options.map((option) => compiler.elementsOf(option, numbers)),
    );
  }
  return compiler.finish(numbers.get(root) as number);
}

class Compiler {
  private readonly rules: Element[][][] = [];
  private readonly names: string[] = [];
  private readonly classes = new Map<string, number>();
  private numElements = 0;

  addRule(name: string): number {
    this.names.push(name);
    return this.rules.push([]) - 1;
  }

  setRule(number: number, alternatives: Element[][]): void {
    this.rules[number] = alternatives;
    for (const alternative of alternatives) this.numElements += alternative.length + 1;
    if (this.numElements > maxElements) {
      throw new UsageError(`grammar: expected at most ${maxElements} elements, got more`, { hint: "Use smaller counts in repetitions." });
    }
  }

  elementsOf(expression: Expression, numbers: ReadonlyMap<string, number>): Element[] {
    switch (expression.kind) {
      case "literal":
        return Array.from(Buffer.from(expression.text, "utf8"), (byte): Element => [elementKind.bytes, byte, byte]);
      case "class":
        return this.classElements(expression.ranges);
      case "rule":
        return [[elementKind.rule, numbers.get(expression.name) as number, 0]];
      case "sequence":
        return expression.items.flatMap((item) => this.elementsOf(item, numbers));
      case "choice":
        return [this.newRule(expression.options.map((option) => this.elementsOf(option, numbers)))];
      default:
        return this.repetition(this.elementsOf(expression.item, numbers), expression.min, expression.max);
    }
  }

  private newRule(alternatives: Element[][], name = ""): Element {
    const number = this.addRule(name);
    this.setRule(number, alternatives);
    return [elementKind.rule, number, 0];
  }

  private repetition(elements: Element[], min: number, max: number): Element[] {
    if (max === 0 || elements.length === 0) return [];
    // What is repeated is compiled once.
    const item = elements.length === 1 || min + (max === Number.POSITIVE_INFINITY ? 1 : max) <= 1 ? elements : [this.newRule([elements])];
    const endless = min >= minCounted ? this.loop(item, false) : undefined;
    const required = Array.from({ length: min }, (_, i) => {
      return item.map((element): Element => (endless ? counted(element, endless[1], min - i - 1) : element));
    }).flat();
    if (max === Number.POSITIVE_INFINITY) return [...required, this.loop(item, true)];
    const loop = max - min >= minCounted ? this.loop(item, true) : undefined;
    let rest: Element[] = [];
    for (let after = 0; after < max - min; after++) {
      const elements = [...item, ...rest].map((element): Element => (loop ? counted(element, loop[1], after) : element));
      rest = [this.newRule([elements, []])];
    }
    return [...required, ...rest];
  }

  /** An item without end, or with an end wherever it can be. */
  private loop(item: Element[], hasEnd: boolean): Element {
    const number = this.addRule("");
    const self: Element = [elementKind.rule, number, 0];
    this.setRule(number, hasEnd ? [[...item, self], []] : [[...item, self]]);
    return self;
  }

  private classElements(ranges: Ranges): Element[] {
    const sequences = utf8Sequences(ranges);
    if (sequences.length === 1) return sequences[0];
    const key = ranges.join(";");
    let number = this.classes.get(key);
    if (number === undefined) {
      number = this.newRule(sequences)[1];
      this.classes.set(key, number);
    }
    return [[elementKind.rule, number, 0]];
  }

  finish(root: number): CompiledRules {
    this.refuseLeftRecursion();
    const kinds = new Uint8Array(this.numElements);
    const lows = new Int32Array(this.numElements);
    const highs = new Uint8Array(this.numElements);
    const links: (readonly [element: number, counted: Counted])[] = [];
    let at = 0;
    const alternatives = this.rules.map((rule) =>
      Int32Array.from(rule, (elements) => {
        const start = at;
        for (const [kind, low, high, link] of elements) {
          if (link) links.push([at, link]);
          kinds[at] = kind;
          lows[at] = low;
          highs[at++] = high;
        }
        at++;
        return start;
      }),
    );
    const [uncountedTops, uncountedReturns] = [new Int32Array(this.numElements).fill(-1), new Int32Array(this.numElements).fill(-1)];
    const safe = new Int32Array(this.numElements);
    const nullable = this.nullableRules();
    for (const [element, link] of links) {
      // The loop is an item and then itself. What can be empty takes no bytes, and nothing could be told from their number.
      const [item] = alternatives[link.rule];
      if (kinds[item] === elementKind.rule && nullable[lows[item]]) continue;
      uncountedTops[element] = item;
      uncountedReturns[element] = item + 1;
      safe[element] = link.safe;
    }
    return { kinds, lows, highs, alternatives, root, uncountedTops, uncountedReturns, safe };
  }

  /**
   * A rule that can begin with itself makes the stack grow without reading anything. Rules that call each other as their last element do
   * not: they take the caller's place.
   */
  private refuseLeftRecursion(): void {
    const nullable = this.nullableRules();
    // Edges from a rule to the rules that its alternatives can begin with; `grows` where something follows.
    const edges = this.rules.map((alternatives) => {
      const found: { to: number; grows: boolean }[] = [];
      for (const elements of alternatives) {
        for (const [i, [kind, to]] of elements.entries()) {
          if (kind !== elementKind.rule) break;
          found.push({ to, grows: i + 1 < elements.length });
          if (!nullable[to]) break;
        }
      }
      return found;
    });
    const component = components(edges.map((list) => list.map(({ to }) => to)));
    for (const [from, list] of edges.entries()) {
      const edge = list.find(({ to, grows }) => grows && component[to] === component[from]);
      if (!edge) continue;
      const names = this.names.filter((name, number) => name !== "" && component[number] === component[from]);
      throw new UsageError(`grammar: expected rules without left recursion, got ${names.join(", ") || "a repetition of something empty"}`, {
        hint: "Let a rule begin with characters: list ::= item list instead of list ::= list item.",
      });
    }
  }

  /** Rules that can be empty: those with an alternative of such rules alone, found from the empty ones upwards. */
  private nullableRules(): Uint8Array {
    const nullable = new Uint8Array(this.rules.length);
    const users: { rule: number; missing: number }[][] = this.rules.map(() => []);
    const found: number[] = [];
    const mark = (rule: number): void => {
      if (nullable[rule]) return;
      nullable[rule] = 1;
      found.push(rule);
    };
    for (const [rule, alternatives] of this.rules.entries()) {
      for (const elements of alternatives) {
        if (elements.some(([kind]) => kind === elementKind.bytes)) continue;
        const use = { rule, missing: elements.length };
        for (const [, to] of elements) users[to].push(use);
        if (elements.length === 0) mark(rule);
      }
    }
    for (let rule = found.pop(); rule !== undefined; rule = found.pop()) {
      for (const use of users[rule]) if (--use.missing === 0) mark(use.rule);
    }
    return nullable;
  }
}

/** Counts of repetitions inside are that repetition's own. */
const counted = ([kind, low, high]: Element, rule: number, safe: number): Element => [kind, low, high, { rule, safe }];

/** Strongly connected components (Tarjan 1972), without recursion. */
function components(edges: readonly (readonly number[])[]): Int32Array {
  const order = new Int32Array(edges.length).fill(-1);
  const low = new Int32Array(edges.length);
  const component = new Int32Array(edges.length).fill(-1);
  const open: number[] = [];
  let counter = 0;
  for (let start = 0; start < edges.length; start++) {
    if (order[start] >= 0) continue;
    const path: [node: number, next: number][] = [[start, 0]];
    while (path.length > 0) {
      const frame = path[path.length - 1];
      const [node, next] = frame;
      if (next === 0) {
        order[node] = low[node] = counter++;
        open.push(node);
      }
      if (next < edges[node].length) {
        frame[1]++;
        const to = edges[node][next];
        if (order[to] < 0) path.push([to, 0]);
        else if (component[to] < 0) low[node] = Math.min(low[node], order[to]);
        continue;
      }
      if (low[node] === order[node]) {
        let member: number;
        do {
          member = open.pop() as number;
          component[member] = node;
        } while (member !== node);
      }
      path.pop();
      const parent = path.at(-1);
      if (parent) low[parent[0]] = Math.min(low[parent[0]], low[node]);
    }
  }
  return component;
}

const lastOfLength = [0x7f, 0x7ff, 0xffff, 0x10ffff];

/** The byte ranges of the UTF-8 of ranges of code points: each sequence is a product of ranges. */
export function utf8Sequences(ranges: Ranges): Element[][] {
  const sequences: Element[][] = [];
  const split = (low: number, high: number): void => {
    for (const end of lastOfLength) {
      if (low <= end && high > end) {
        split(low, end);
        split(end + 1, high);
        return;
      }
    }
    if (high <= 0x7f) {
      sequences.push([[elementKind.bytes, low, high]]);
      return;
    }
    const length = low <= 0x7ff ? 2 : low <= 0xffff ? 3 : 4;
    // Split where a range does not cover whole blocks of continuation bytes.
    for (let i = 1; i < length; i++) {
      const mask = (1 << (6 * i)) - 1;
      if ((low & ~mask) === (high & ~mask)) continue;
      if ((low & mask) !== 0) {
        split(low, low | mask);
        split((low | mask) + 1, high);
        return;
      }
      if ((high & mask) !== mask) {
        split(low, (high & ~mask) - 1);
        split(high & ~mask, high);
        return;
      }
    }
    const [first, last] = [Buffer.from(String.fromCodePoint(low)), Buffer.from(String.fromCodePoint(high))];
    sequences.push(Array.from(first, (byte, i): Element => [elementKind.bytes, byte, last[i]]));
  };
  for (const [low, high] of ranges) split(low, high);
  return sequences;
}
