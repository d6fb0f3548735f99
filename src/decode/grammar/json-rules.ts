// Rules of JSON's own syntax, for grammars made from schemas: values, strings, numbers, dates. White space as in llama.cpp's converter: none,
// one blank, or one or two line breaks with an indentation, after every token.
import { characters as chars, choice, type Expression, optional, repeat, rule, sequence, literal as text } from "./expression.ts";

const digit = chars(["0", "9"]);
const hex = chars(["0", "9"], ["a", "f"], ["A", "F"]);
const space = rule("space");
export const quote = text('"');
/** What a string may hold as it is. */
export const plainCharacters = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x7e],
  [0x80, 0x10ffff],
] as const;
const escaped = sequence(
  text("\\"),
  choice(
    {
      kind: "class",
      ranges: [...'"/\\bfnrt'].map((c): [number, number] => [c.charCodeAt(0), c.charCodeAt(0)]).sort((a, b) => a[0] - b[0]),
    },
    // No halves of surrogate pairs, which are no characters.
    sequence(
      text("u"),
      choice(
        sequence(chars(["0", "9"], ["a", "c"], ["A", "C"], ["e", "f"], ["E", "F"]), repeat(hex, 3, 3)),
        sequence(chars(["d", "d"], ["D", "D"]), chars(["0", "7"]), repeat(hex, 2, 2)),
      ),
    ),
  ),
);

const list = (open: string, item: Expression, close: string): Expression =>
  sequence(text(open), space, optional(sequence(item, repeat(sequence(text(","), space, item), 0))), text(close), space);
const integral = sequence(optional(text("-")), choice(text("0"), sequence(chars(["1", "9"]), repeat(digit, 0, 15))));
const pair = (tens: string, most: string): Expression => sequence(chars([tens, tens]), chars(["0", most]));
const date = sequence(
  repeat(digit, 4, 4),
  text("-"),
  choice(sequence(text("0"), chars(["1", "9"])), pair("1", "2")),
  text("-"),
  choice(sequence(text("0"), chars(["1", "9"])), sequence(chars(["1", "2"]), digit), pair("3", "1")),
);
const hours = choice(sequence(chars(["0", "1"]), digit), pair("2", "3"));
const sixty = sequence(chars(["0", "5"]), digit);
const time = sequence(
  hours,
  text(":"),
  sixty,
  text(":"),
  sixty,
  optional(sequence(text("."), repeat(digit, 3, 3))),
  choice(text("Z"), sequence(chars(["+", "+"], ["-", "-"]), hours, text(":"), sixty)),
);
const quoted = (content: Expression): Expression => sequence(quote, content, quote, space);
const byteNumber = choice(
  sequence(text("25"), chars(["0", "5"])),
  sequence(text("2"), chars(["0", "4"]), digit),
  sequence(text("1"), digit, digit),
  sequence(chars(["1", "9"]), digit),
  digit,
);

/** Rules that others refer to by name. A schema takes those that it needs. */
export const jsonRules: Readonly<Record<string, Expression>> = {
  space: choice(sequence(), text(" "), sequence(repeat(text("\n"), 1, 2), repeat(chars([" ", " "], ["\t", "\t"]), 0, 20))),
  char: choice({ kind: "class", ranges: plainCharacters }, escaped),
  string: quoted(repeat(rule("char"), 0)),
  number: sequence(
    integral,
    optional(sequence(text("."), repeat(digit, 1, 16))),
    optional(sequence(chars(["e", "e"], ["E", "E"]), optional(chars(["+", "+"], ["-", "-"])), repeat(digit, 1, 2))),
    space,
  ),
  integer: sequence(integral, space),
  boolean: sequence(choice(text("true"), text("false")), space),
  null: sequence(text("null"), space),
  member: sequence(rule("string"), text(":"), space, rule("value")),
  object: list("{", rule("member"), "}"),
  array: list("[", rule("value"), "]"),
  value: choice(rule("object"), rule("array"), rule("string"), rule("number"), rule("boolean"), rule("null")),
  "date-string": quoted(date),
  "time-string": quoted(time),
  "date-time-string": quoted(sequence(date, text("T"), time)),
  "uuid-string": quoted(
    sequence(
      repeat(hex, 8, 8),
      text("-"),
      repeat(hex, 4, 4),
      text("-"),
      repeat(hex, 4, 4),
      text("-"),
      repeat(hex, 4, 4),
      text("-"),
      repeat(hex, 12, 12),
    ),
  ),
  "ipv4-string": quoted(sequence(byteNumber, repeat(sequence(text("."), byteNumber), 3, 3))),
};

/** Formats of strings that have a rule. */
export const formatRules: Readonly<Record<string, string>> = {
  date: "date-string",
  time: "time-string",
  "date-time": "date-time-string",
  uuid: "uuid-string",
  ipv4: "ipv4-string",
};
