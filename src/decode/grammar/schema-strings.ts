// Contents of JSON strings: those that a regular expression allows, and those that are none of some names.
import { UsageError } from "../../base/errors.ts";
import {
  choice,
  type Expression,
  intersectRanges,
  invertRanges,
  literal,
  normalizeRanges,
  type Ranges,
  repeat,
  rule,
  sequence,
} from "./expression.ts";
import { maxRepetition } from "./gbnf.ts";
import { plainCharacters } from "./json-rules.ts";

const escapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};
const anyCharacters = repeat(rule("char"), 0);

/** One of these characters, as JSON writes it. Control characters without a short escape are left out. */
function charactersInJson(ranges: Ranges): Expression {
  const options: Expression[] = [];
  const plain = intersectRanges(ranges, plainCharacters);
  if (plain.length > 0) options.push({ kind: "class", ranges: plain });
  for (const [character, spelling] of Object.entries(escapes)) {
    const code = character.charCodeAt(0);
    if (ranges.some(([low, high]) => low <= code && code <= high)) options.push(literal(spelling));
  }
  return options.length === 1 ? options[0] : choice(...options);
}

/**
 * Strings that a pattern matches, without quotes. A part of JavaScript's notation: no look-around, back references and boundaries, and
 * anchors only at the ends of alternatives.
 * @throws UsageError for the rest.
 */
export const patternContent = (pattern: string, path: string): Expression => new PatternParser(pattern, path).parse();

const digits: Ranges = [[0x30, 0x39]];
const wordCharacters = normalizeRanges([
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
]);
const spaces = normalizeRanges([
  [9, 13],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]);
const lineEnds: Ranges = [
  [10, 10],
  [13, 13],
  [0x2028, 0x2029],
];
const classEscapes: Readonly<Record<string, Ranges>> = {
  d: digits,
  D: invertRanges(digits),
  w: wordCharacters,
  W: invertRanges(wordCharacters),
  s: spaces,
  S: invertRanges(spaces),
};

class PatternParser {
  private readonly pattern: string;
  private readonly path: string;
  private at = 0;
  private depth = 0;

  constructor(pattern: string, path: string) {
    this.pattern = pattern;
    this.path = path;
  }

  parse(): Expression {
    const options: Expression[] = [];
    do {
      const begins = this.takes("^");
      const body = this.sequence();
      const ends = this.takes("$");
      options.push(sequence(...(begins ? [] : [anyCharacters]), body, ...(ends ? [] : [anyCharacters])));
    } while (this.takes("|"));
    if (this.at < this.pattern.length) throw this.wrong("a pattern of characters, classes, groups and repetitions");
    return options.length === 1 ? options[0] : choice(...options);
  }

  private sequence(): Expression {
    const items: Expression[] = [];
    while (this.at < this.pattern.length && !"|)$^".includes(this.pattern[this.at])) items.push(this.repeated(this.item()));
    return sequence(...items);
  }

  private repeated(item: Expression): Expression {
    const match = /^(?:([*+?])|\{(\d+)(,?)(\d*)\})\??/.exec(this.pattern.slice(this.at, this.at + 40));
    if (!match) return item;
    this.at += match[0].length;
    if (match[1] === "*") return repeat(item, 0);
    if (match[1] === "+") return repeat(item, 1);
    if (match[1] === "?") return repeat(item, 0, 1);
    const min = Number(match[2]);
    const max = match[3] === "" ? min : match[4] === "" ? Number.POSITIVE_INFINITY : Number(match[4]);
    if (max < min || min > maxRepetition || (max > maxRepetition && max !== Number.POSITIVE_INFINITY))
      throw this.wrong(`counts up to ${maxRepetition}`);
    return repeat(item, min, max);
  }

  private item(): Expression {
    if (this.takes("(")) {
      if (++this.depth > 100) throw this.wrong("at most 100 nested groups");
      if (this.pattern[this.at] === "?" && !this.takes("?:") && !this.takesName()) throw this.wrong("groups without look-around");
      const options: Expression[] = [];
      do options.push(this.sequence());
      while (this.takes("|"));
      if (!this.takes(")")) throw this.wrong("`)`");
      this.depth--;
      return options.length === 1 ? options[0] : choice(...options);
    }
    if (this.takes("[")) return charactersInJson(this.characterClass());
    if (this.takes(".")) return charactersInJson(invertRanges(lineEnds));
    const character = String.fromCodePoint(this.pattern.codePointAt(this.at) as number);
    if ("*+?{".includes(character)) throw this.wrong("something to repeat");
    const ranges = this.character();
    return charactersInJson(ranges);
  }

  private characterClass(): Ranges {
    const isInverted = this.takes("^");
    const ranges: (readonly [number, number])[] = [];
    while (this.pattern[this.at] !== "]") {
      if (this.at >= this.pattern.length) throw this.wrong("`]`");
      const low = this.character();
      const isSingle = low.length === 1 && low[0][0] === low[0][1];
      if (isSingle && this.pattern[this.at] === "-" && this.pattern[this.at + 1] !== "]" && this.at + 1 < this.pattern.length) {
        this.at++;
        const high = this.character();
        if (high.length !== 1 || high[0][0] < low[0][0]) throw this.wrong("a range that ascends");
        ranges.push([low[0][0], high[0][0]]);
      } else ranges.push(...low);
    }
    this.at++;
    return isInverted ? invertRanges(ranges) : normalizeRanges(ranges);
  }

  /** A character, an escape, or a class like \d. */
  private character(): Ranges {
    const code = this.pattern.codePointAt(this.at) as number;
    if (code !== 0x5c) {
      this.at += code > 0xffff ? 2 : 1;
      return [[code, code]];
    }
    const match = /^\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|([\s\S]))/.exec(
      this.pattern.slice(this.at, this.at + 10),
    );
    if (!match) throw this.wrong("an escape");
    const hex = match[1] ?? match[2] ?? match[3];
    const known = classEscapes[match[4]];
    if (hex === undefined && !known && /[a-zA-Z0-9]/.test(match[4]) && !"nrtfv0".includes(match[4]))
      throw this.wrong("an escape that is known");
    this.at += match[0].length;
    if (known) return known;
    const value =
      hex === undefined ? ({ n: 10, r: 13, t: 9, f: 12, v: 11, "0": 0 }[match[4]] ?? match[4].charCodeAt(0)) : Number.parseInt(hex, 16);
    return [[value, value]];
  }

  private takesName(): boolean {
    const match = /^\?<[a-zA-Z_]\w*>/.exec(this.pattern.slice(this.at, this.at + 64));
    if (match) this.at += match[0].length;
    return match !== null;
  }

  private takes(text: string): boolean {
    if (!this.pattern.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }

  private wrong(expected: string): UsageError {
    return new UsageError(
      `JSON schema ${this.path}/pattern: expected ${expected}, got ${JSON.stringify(this.pattern.slice(this.at, this.at + 20))}`,
      {
        hint: "Look-around, back references, boundaries and anchors inside of groups are not supported.",
      },
    );
  }
}

interface NameNode {
  readonly next: Map<string, NameNode>;
  isEnd: boolean;
}

/** Strings, without quotes, that are none of some names, however they are escaped. */
export function otherStrings(names: readonly string[]): Expression {
  const root: NameNode = { next: new Map(), isEnd: false };
  for (const name of names) {
    let node = root;
    for (const character of name) {
      const unit = JSON.stringify(character).slice(1, -1);
      let child = node.next.get(unit);
      if (!child) {
        child = { next: new Map(), isEnd: false };
        node.next.set(unit, child);
      }
      node = child;
    }
    node.isEnd = true;
  }
  const simpleEscapes = Object.values(escapes);
  const from = (node: NameNode): Expression => {
    const options: Expression[] = node.isEnd ? [] : [sequence()];
    const taken: (readonly [number, number])[] = [];
    for (const [unit, child] of node.next) {
      options.push(sequence(literal(unit), from(child)));
      if ([...unit].length === 1) taken.push([unit.codePointAt(0) as number, unit.codePointAt(0) as number]);
    }
    // \u could spell a character of a name, and \/ the slash: neither is where a string leaves the names.
    const others: Expression[] = [{ kind: "class", ranges: intersectRanges(invertRanges(taken), plainCharacters) }];
    for (const spelling of simpleEscapes) if (!node.next.has(spelling)) others.push(literal(spelling));
    options.push(sequence(choice(...others), anyCharacters));
    return choice(...options);
  };
  return from(root);
}
