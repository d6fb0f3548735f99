import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { utf8Sequences } from "./compile-rules.ts";
import { Grammar } from "./grammar.ts";

const matches = (grammar: string, text: string): boolean => Grammar.parse(grammar).matches(text);

describe("GBNF", () => {
  test("alternatives, groups, repetitions and references", () => {
    const grammar = Grammar.parse(`
      # a comment
      root ::= greeting ("," " "? name){1,2} | # another one
               "bye" | # over several lines
               "x"{3}
      greeting ::= "hello" | "hi" [!.]*
      name ::= [A-Z] [a-z]+
    `);
    for (const text of ["hello,Ann", "hi!!., Ann,Bob", "bye", "xxx"]) expect(grammar.matches(text), text).toBe(true);
    for (const text of ["hello", "hello,ann", "hi,A", "hi,Ann,Bob,Cid", "xx", "xxxx", "byebye", ""])
      expect(grammar.matches(text), text).toBe(false);
    expect(grammar.begins("hi!!., An")).toBe(true);
    expect(grammar.begins("hix")).toBe(false);
  });

  test("escapes, inverted classes and any character", () => {
    expect(matches('root ::= "\\n\\t\\"\\\\\\x41\\u00e9\\U0001F600"', '\n\t"\\Aé😀')).toBe(true);
    const class_ = Grammar.parse('root ::= [^"\\\\\\x00-\\x1f\\]é-]+');
    expect(class_.matches("ab😀ü[")).toBe(true);
    for (const text of ['"', "\\", "\n", "é", "]", "-", ""]) expect(class_.matches(text), text).toBe(false);
    expect(matches("root ::= . .", "é😀")).toBe(true);
    expect(matches("root ::= [😀-😂]", "😁")).toBe(true);
  });

  test("repetitions equal regular expressions", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("a{2}", "a{1,3}", "a{0,2}b", "a{2,}", "(ab?){2,3}", "(a|bb)*", "a?b?a?", "(a*)*b", "((a|b){0,2}){2}", "a{0,0}b"),
        fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 7 }),
        (pattern, text) => {
          const grammar = `root ::= ${pattern.replaceAll(/[ab]/g, '"$&"')}`;
          expect(matches(grammar, text)).toBe(new RegExp(`^(?:${pattern})$`).test(text));
        },
      ),
      { numRuns: 400 },
    );
  });

  test("nesting is counted without limit", () => {
    const grammar = Grammar.parse('root ::= "(" root ")" | ""');
    expect(grammar.matches("(".repeat(5000) + ")".repeat(5000))).toBe(true);
    expect(grammar.matches("(".repeat(50) + ")".repeat(51))).toBe(false);
  });

  test("ambiguous grammars stay small: equal readings are one", () => {
    const grammar = Grammar.parse('root ::= ("a" | "a" | [a-b] | "a" "a")*');
    expect(grammar.matches("a".repeat(20_000))).toBe(true);
    expect(grammar.automaton.numStates).toBeLessThan(20);
  });

  test.each([
    ['root ::= root "a" | "b"', /left recursion, got root/],
    ['root ::= a "x"\na ::= b? root "y"\nb ::= "z"', /left recursion/],
    ["root ::= other", /a rule other, which root uses/],
    ['start ::= "a"', /a rule named root, got start/],
    ['root ::= "a\nx ::= "b"', /line 1, column 12: expected `"`/],
    ['root ::= ("a"', /line 1, column 14: expected `\)`/],
    ["root ::= [b-a]", /range that ascends/],
    ['root ::= "a"{3,2}', /largest count/],
    ['root ::= "a"{99999}', /counts up to/],
    ['root ::= "\\q"', /an escape/],
    ['root = "a"', /`::=`/],
    ['root ::= "a" )', /the end of the line/],
    ['root ::= "a"\nroot ::= "b"', /one rule root/],
    ["root ::= root", /refers to itself alone/],
  ])("%j is refused", (text, message) => {
    expect(() => Grammar.parse(text)).toThrow(UsageError);
    expect(() => Grammar.parse(text)).toThrow(message);
  });
});

test("ranges of code points are the ranges of their UTF-8", () => {
  const end = fc.oneof(
    fc.integer({ min: 0, max: 0xd7ff }),
    fc.integer({ min: 0xe000, max: 0x10ffff }),
    fc.constantFrom(0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000),
  );
  fc.assert(
    fc.property(end, end, end, (a, b, probe) => {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      fc.pre(high < 0xd800 || low > 0xdfff);
      const bytes = Buffer.from(String.fromCodePoint(probe));
      const isIn = utf8Sequences([[low, high]]).some(
        (ranges) => ranges.length === bytes.length && ranges.every(([, from, to], i) => from <= bytes[i] && bytes[i] <= to),
      );
      expect(isIn).toBe(low <= probe && probe <= high);
    }),
    { numRuns: 3000 },
  );
});
