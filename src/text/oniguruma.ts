// Regular expressions of a tokenizer.json (Oniguruma's notation) as JavaScript's, with flag v: Unicode white space for \s, inline
// (?i:…) written out, possessive quantifiers and atomic groups by way of a lookahead. What has no counterpart is refused.
import { FormatError } from "../base/errors.ts";

const maxPatternLength = 10_000;
const whiteSpace = "\\p{White_Space}";

/** POSIX classes, by Unicode property. */
const posixClasses: Readonly<Record<string, string>> = {
  alpha: "\\p{Alphabetic}",
  digit: "\\p{Nd}",
  alnum: "\\p{Alphabetic}\\p{Nd}",
  upper: "\\p{Uppercase}",
  lower: "\\p{Lowercase}",
  space: whiteSpace,
  punct: "\\p{P}\\p{S}",
};

/** @throws FormatError for a pattern that is damaged or cannot be expressed. */
export function compileOniguruma(pattern: string): RegExp {
  if (pattern.length > maxPatternLength)
    throw new FormatError(`regular expression: expected at most ${maxPatternLength} characters, got ${pattern.length}`);
  try {
    return new RegExp(new Translation(pattern).run(), "gv");
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(`regular expression: expected one that JavaScript can run, got ${JSON.stringify(pattern)}`, {
      cause,
      hint: (cause as Error).message,
    });
  }
}

class Translation {
  private readonly pattern: string;
  private at = 0;
  private numAtomic = 0;

  constructor(pattern: string) {
    this.pattern = pattern;
  }

  run(): string {
    const out = this.alternatives(false);
    if (this.at < this.pattern.length) throw this.wrong("a group that was opened");
    return out;
  }

  private alternatives(ignoreCase: boolean): string {
    let out = "";
    let ignore = ignoreCase;
    while (this.at < this.pattern.length && this.pattern[this.at] !== ")") {
      if (this.pattern[this.at] === "|") {
        out += "|";
        this.at++;
        continue;
      }
      // (?i) up to the end of the group.
      if (this.takes("(?i)")) {
        ignore = true;
        continue;
      }
      const atom = this.atom(ignore);
      out += this.quantified(atom);
    }
    return out;
  }

  private quantified(atom: string): string {
    const match = /^(?:[?*+]|\{\d*,?\d*\})/.exec(this.pattern.slice(this.at));
    if (!match || match[0] === "{}" || match[0] === "{,}") return atom;
    this.at += match[0].length;
    const quantifier = match[0].startsWith("{,") ? `{0${match[0].slice(1)}` : match[0];
    const suffix = this.pattern[this.at];
    if (suffix === "?") {
      this.at++;
      return `${atom}${quantifier}?`;
    }
    if (suffix === "+" && !quantifier.startsWith("{")) {
      this.at++;
      return this.atomic(atom + quantifier);
    }
    return atom + quantifier;
  }

  /** A lookahead does not give back what it matched. */
  private atomic(body: string): string {
    const name = `atomic${this.numAtomic++}`;
    return `(?:(?=(?<${name}>${body}))\\k<${name}>)`;
  }

  private atom(ignoreCase: boolean): string {
    const { pattern } = this;
    const character = String.fromCodePoint(pattern.codePointAt(this.at) as number);
    if (character === "(") return this.group(ignoreCase);
    if (character === "[") return this.characterClass(ignoreCase);
    if (character === "\\") return this.escape(ignoreCase, false);
    if ("*+?".includes(character)) throw this.wrong("something to repeat");
    this.at += character.length;
    // In Oniguruma ^ and $ mean lines; texts of several lines are what is split here.
    if (character === "^") return "(?<=^|\\n)";
    if (character === "$") return "(?=\\n|$)";
    if (character === ".") return "[^\\n]";
    return literal(character, ignoreCase);
  }

  private group(ignoreCase: boolean): string {
    let open = "(?:";
    let ignore = ignoreCase;
    let isAtomic = false;
    if (this.takes("(?:")) open = "(?:";
    else if (this.takes("(?i:")) ignore = true;
    else if (this.takes("(?-i:")) ignore = false;
    else if (this.takes("(?>")) isAtomic = true;
    else {
      const look = ["(?=", "(?!", "(?<=", "(?<!"].find((start) => this.takes(start));
      if (look) open = look;
      else if (this.pattern.startsWith("(?", this.at)) throw this.wrong("a group of a kind that is known");
      else this.at++;
    }
    const body = this.alternatives(ignore);
    if (!this.takes(")")) throw this.wrong("the end of a group");
    return isAtomic ? this.atomic(body) : `${open}${body})`;
  }

  private characterClass(ignoreCase: boolean): string {
    const { pattern } = this;
    this.at++;
    let out = this.takes("^") ? "[^" : "[";
    for (let isFirst = true; ; isFirst = false) {
      if (this.at >= pattern.length) throw this.wrong("the end of a class");
      if (pattern[this.at] === "]" && !isFirst) break;
      out += this.classItem(ignoreCase);
    }
    this.at++;
    return `${out}]`;
  }

  private classItem(ignoreCase: boolean): string {
    const { pattern } = this;
    const posix = /^\[:(\^?)(\w+):\]/.exec(pattern.slice(this.at, this.at + 20));
    if (posix) {
      const properties = posixClasses[posix[2]];
      if (properties === undefined) throw this.wrong("a POSIX class that is known");
      this.at += posix[0].length;
      return `[${posix[1]}${properties}]`;
    }
    if (pattern[this.at] === "[") return this.characterClass(ignoreCase);
    if (this.takes("&&")) return "&&";
    const from = this.classCharacter(ignoreCase);
    const isRange = pattern[this.at] === "-" && this.at + 1 < pattern.length && pattern[this.at + 1] !== "]" && from.single;
    if (!isRange) return from.text;
    this.at++;
    const to = this.classCharacter(false);
    const range = `${from.single}-${to.text}`;
    // Both cases of a range of ASCII letters.
    const letters = ignoreCase ? /^([a-z])-([a-z])$/i.exec(range) : null;
    return letters ? `${range}${swapCase(letters[1])}-${swapCase(letters[2])}` : range;
  }

  /** One element of a class; `single` where it is one character, as the ends of a range must be. */
  private classCharacter(ignoreCase: boolean): { text: string; single?: string } {
    if (this.pattern[this.at] === "\\") {
      const text = this.escape(ignoreCase, true);
      return /^\\[pP]\{|^\[/.test(text) ? { text } : { text, single: text };
    }
    const character = String.fromCodePoint(this.pattern.codePointAt(this.at) as number);
    this.at += character.length;
    const single = inClass(character);
    const folded = ignoreCase ? casesOf(character).map(inClass).join("") : single;
    return { text: folded, single };
  }

  private escape(ignoreCase: boolean, isInClass: boolean): string {
    const character = String.fromCodePoint(this.pattern.codePointAt(this.at + 1) ?? 0x5c);
    const rest = this.pattern.slice(this.at);
    const property = /^\\([pP])\{(\^?)([^}]*)\}/.exec(rest);
    if (property) {
      this.at += property[0].length;
      const negated = (property[1] === "P") !== (property[2] === "^");
      return `\\${negated ? "P" : "p"}{${propertyName(property[3])}}`;
    }
    const short = /^\\([pP])([LMNPSZC])/.exec(rest);
    const code = /^\\x\{([0-9a-fA-F]{1,6})\}|^\\x([0-9a-fA-F]{2})|^\\u\{([0-9a-fA-F]{1,6})\}|^\\u([0-9a-fA-F]{4})/.exec(rest);
    if (short || code) {
      const [whole] = (short ?? code) as RegExpExecArray;
      this.at += whole.length;
      if (short) return `\\${short[1]}{${short[2]}}`;
      return `\\u{${code?.slice(1).find((digits) => digits !== undefined)}}`;
    }
    this.at += 1 + character.length;
    const classes: Record<string, string> = {
      s: whiteSpace,
      S: "\\P{White_Space}",
      d: "\\p{Nd}",
      D: "\\P{Nd}",
      w: "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]",
      W: "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]",
      h: "[0-9a-fA-F]",
    };
    const known = classes[character];
    if (known !== undefined) return known;
    if ("nrtvf0".includes(character)) return `\\${character}`;
    if (character === "e") return "\\x1b";
    if (!isInClass && character === "A") return "(?<![^])";
    if (!isInClass && (character === "z" || character === "Z")) return "(?![^])";
    if (!isInClass && (character === "b" || character === "B")) return `\\${character}`;
    if (/[a-zA-Z1-9]/.test(character)) throw this.wrong("an escape that is known");
    return isInClass ? inClass(character) : literal(character, ignoreCase);
  }

  private takes(text: string): boolean {
    if (!this.pattern.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }

  private wrong(expected: string): FormatError {
    return new FormatError(`regular expression: expected ${expected}, got ${JSON.stringify(this.pattern.slice(this.at, this.at + 20))}`, {
      hint: `In ${JSON.stringify(this.pattern.slice(0, 200))}.`,
    });
  }
}

/** General categories and binary properties are spelled alike; scripts want their key. */
function propertyName(name: string): string {
  const plain = name.trim();
  for (const candidate of [plain, `Script=${plain}`]) {
    try {
      new RegExp(`\\p{${candidate}}`, "v");
      return candidate;
    } catch {}
  }
  const wide = { Alnum: "Alphabetic", Space: "White_Space", Digit: "Nd", Punct: "P" }[plain];
  if (wide === undefined)
    throw new FormatError(`regular expression: expected a Unicode property that is known, got ${JSON.stringify(name)}`);
  return wide;
}

const swapCase = (character: string): string => (character === character.toLowerCase() ? character.toUpperCase() : character.toLowerCase());

/** All characters that are the same when case is folded: U+017F is an s, U+212A a k. */
function casesOf(character: string): string[] {
  const cases = [character, character.toLowerCase(), character.toUpperCase()].filter((text) => [...text].length === 1);
  if (character === "s" || character === "S") cases.push("\u017f");
  if (character === "k" || character === "K") cases.push("\u212a");
  return [...new Set(cases)];
}

function literal(character: string, ignoreCase: boolean): string {
  const cases = ignoreCase ? casesOf(character) : [character];
  return cases.length > 1 ? `[${cases.map(inClass).join("")}]` : character.replace(/[\\^$.*+?()[\]{}|/]/, "\\$&");
}

/** A character inside of a class under flag v. */
const inClass = (character: string): string => (/[\\^$.*+?()[\]{}|/\-&!#%,:;<=>@`~]/.test(character) ? `\\${character}` : character);
