// GBNF, the grammar notation of llama.cpp: `name ::= alternatives`, "literals", [classes], groups, * + ? {m,n}, # comments.
// A rule ends at the end of its line, save inside of parentheses and after `|` or `::=`.
import { UsageError } from "../../base/errors.ts";
import { anyCharacter, checkRules, type Expression, invertRanges, normalizeRanges, type Rules } from "./expression.ts";

const maxLength = 1 << 20;
const maxNesting = 200;
/** Larger repetitions than this are a mistake more often than a wish: each counts as a rule of its own. */
export const maxRepetition = 10_000;

/** @throws UsageError with line and column. */
export function parseGbnf(text: string, root = "root"): Rules {
  if (text.length > maxLength) throw new UsageError(`grammar: expected at most ${maxLength} characters, got ${text.length}`);
  const rules = new Parser(text).rules();
  checkRules(rules, root);
  return rules;
}

class Parser {
  private readonly text: string;
  private at = 0;
  private depth = 0;

  constructor(text: string) {
    this.text = text;
  }

  rules(): Rules {
    const rules = new Map<string, Expression>();
    this.skip(true);
    while (this.at < this.text.length) {
      const start = this.at;
      const name = this.name();
      this.skip(false);
      if (!this.takes("::=")) throw this.wrong("`::=` after the name of a rule");
      this.skip(true);
      const expression = this.choice(false);
      if (rules.has(name)) {
        this.at = start;
        throw this.wrong(`one rule ${name}`);
      }
      rules.set(name, expression);
      if (this.at < this.text.length && !/[\r\n]/.test(this.text[this.at])) throw this.wrong("the end of the line");
      this.skip(true);
    }
    return rules;
  }

  private choice(isNested: boolean): Expression {
    if (++this.depth > maxNesting) throw this.wrong(`at most ${maxNesting} nested groups`);
    const options = [this.sequence(isNested)];
    while (this.takes("|")) {
      this.skip(true);
      options.push(this.sequence(isNested));
    }
    this.depth--;
    return options.length === 1 ? options[0] : { kind: "choice", options };
  }

  private sequence(isNested: boolean): Expression {
    const items: Expression[] = [];
    for (;;) {
      this.skip(isNested);
      const item = this.item();
      if (!item) break;
      items.push(this.repeated(item));
    }
    return items.length === 1 ? items[0] : { kind: "sequence", items };
  }

  /** The next thing that can be repeated, or undefined where a sequence ends. */
  private item(): Expression | undefined {
    const character = this.text[this.at];
    if (character === '"') return this.literal();
    if (character === "[") return this.characterClass();
    if (character === ".") {
      this.at++;
      return anyCharacter;
    }
    if (character === "(") {
      this.at++;
      this.skip(true);
      const inner = this.choice(true);
      this.skip(true);
      if (!this.takes(")")) throw this.wrong("`)`");
      return inner;
    }
    if (character === "<") throw this.wrong("characters (tokens in angle brackets are not supported)");
    if (character !== undefined && /[a-zA-Z0-9_-]/.test(character)) {
      const start = this.at;
      const name = this.name();
      const end = this.at;
      // The name of the next rule ends this one.
      this.skip(false);
      if (this.text.startsWith("::=", this.at)) {
        this.at = start;
        throw this.wrong("a rule on a line of its own");
      }
      this.at = end;
      return { kind: "rule", name };
    }
    return undefined;
  }

  private repeated(item: Expression): Expression {
    let expression = item;
    for (;;) {
      this.skip(false);
      const bounds = this.bounds();
      if (!bounds) return expression;
      expression = { kind: "repeat", item: expression, min: bounds[0], max: bounds[1] };
    }
  }

  private bounds(): readonly [min: number, max: number] | undefined {
    if (this.takes("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.takes("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.takes("?")) return [0, 1];
    if (this.text[this.at] !== "{") return undefined;
    const match = /^\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}/.exec(this.text.slice(this.at, this.at + 64));
    if (!match || (match[1] === "" && match[3] === "") || (match[2] === "" && match[3] !== ""))
      throw this.wrong("{m}, {m,}, {,n} or {m,n}");
    const min = Number(match[1] || 0);
    const max = match[2] === "" ? min : match[3] === "" ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (max < min) throw this.wrong("a largest count that is not below the smallest");
    if (min > maxRepetition || (max > maxRepetition && max !== Number.POSITIVE_INFINITY)) throw this.wrong(`counts up to ${maxRepetition}`);
    this.at += match[0].length;
    return [min, max];
  }

  private literal(): Expression {
    this.at++;
    let text = "";
    while (this.text[this.at] !== '"') text += String.fromCodePoint(this.character('"'));
    this.at++;
    return { kind: "literal", text };
  }

  private characterClass(): Expression {
    this.at++;
    const isInverted = this.takes("^");
    const ranges: [number, number][] = [];
    while (this.text[this.at] !== "]") {
      const low = this.character("]");
      const isRange = this.text[this.at] === "-" && this.text[this.at + 1] !== "]";
      if (isRange) this.at++;
      const high = isRange ? this.character("]") : low;
      if (high < low) throw this.wrong("a range that ascends");
      ranges.push([low, high]);
    }
    this.at++;
    return { kind: "class", ranges: isInverted ? invertRanges(ranges) : normalizeRanges(ranges) };
  }

  /** A character or an escape. */
  private character(closing: string): number {
    const code = this.text.codePointAt(this.at);
    if (code === undefined || code === 0x0a) throw this.wrong(`\`${closing}\``);
    if (code !== 0x5c) {
      this.at += code > 0xffff ? 2 : 1;
      return code;
    }
    const escaped = /^\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt"'\\[\]^\-/.0]))/.exec(
      this.text.slice(this.at, this.at + 10),
    );
    if (!escaped) throw this.wrong('an escape (\\n \\r \\t \\\\ \\" \\[ \\] \\xNN \\uNNNN \\UNNNNNNNN)');
    const digits = escaped[1] ?? escaped[2] ?? escaped[3];
    const value =
      digits === undefined
        ? ({ n: 10, r: 13, t: 9, 0: 0 }[escaped[4]] ?? (escaped[4].codePointAt(0) as number))
        : Number.parseInt(digits, 16);
    if (value > 0x10ffff) throw this.wrong("a code point up to U+10FFFF");
    this.at += escaped[0].length;
    return value;
  }

  private name(): string {
    const match = /^[a-zA-Z0-9_-]+/.exec(this.text.slice(this.at, this.at + 1024));
    if (!match) throw this.wrong("the name of a rule");
    this.at += match[0].length;
    return match[0];
  }

  /** Blanks and comments. */
  private skip(newLines: boolean): void {
    for (; this.at < this.text.length; this.at++) {
      const character = this.text[this.at];
      if (character === "#") {
        const end = this.text.indexOf("\n", this.at);
        this.at = (end < 0 ? this.text.length : end) - 1;
      } else if (character !== " " && character !== "\t" && !(newLines && (character === "\n" || character === "\r"))) return;
    }
  }

  private takes(token: string): boolean {
    if (!this.text.startsWith(token, this.at)) return false;
    this.at += token.length;
    return true;
  }

  private wrong(expected: string): UsageError {
    const before = this.text.slice(0, this.at).split("\n");
    const got = this.at < this.text.length ? JSON.stringify(this.text.slice(this.at, this.at + 16)) : "the end";
    return new UsageError(
      `grammar: line ${before.length}, column ${(before.at(-1) as string).length + 1}: expected ${expected}, got ${got}`,
      {
        hint: "The notation is llama.cpp's GBNF.",
      },
    );
  }
}
