// Numbers between bounds as texts: every run of digits between two of equal length, digit by digit.
import { characters, choice, type Expression, literal, repeat, sequence } from "./expression.ts";

/** As many digits as are exact in a double. */
const maxDigits = 15;
const digit = characters(["0", "9"]);

/** The whole numbers from `low` to `high`, infinities included; undefined when there is none. */
export function integersBetween(low: number, high: number): Expression | undefined {
  const options: Expression[] = [];
  const limit = 10 ** maxDigits - 1;
  const [from, to] = [Math.max(low, -Math.max(limit, -high)), Math.min(high, Math.max(limit, low))];
  if (from <= Math.min(to, -1)) options.push(sequence(literal("-"), naturalsBetween(-Math.min(to, -1), -from)));
  if (to >= Math.max(from, 0)) options.push(naturalsBetween(Math.max(from, 0), to));
  return options.length === 0 ? undefined : choice(...options);
}

/**
 * Numbers, with decimals, between bounds. Of the interval only what lies between whole numbers within it: [0.5, 3] gives 1, 2.75 and 3.
 * Undefined when it has no whole number.
 */
export function numbersBetween(low: number, high: number): Expression | undefined {
  const integers = integersBetween(low, high);
  if (!integers) return undefined;
  const fraction = sequence(literal("."), repeat(digit, 1, 16));
  const options = [integers];
  const limit = 10 ** maxDigits - 1;
  // n.… lies in [n, n + 1), −n.… in (−n − 1, −n].
  const positive = [Math.max(low, 0), Math.min(high, limit) - 1] as const;
  if (positive[0] <= positive[1]) options.push(sequence(naturalsBetween(...positive), fraction));
  const negative = [Math.max(-high, 0), Math.min(-low, limit) - 1] as const;
  if (negative[0] <= negative[1]) options.push(sequence(literal("-"), naturalsBetween(...negative), fraction));
  return choice(...options);
}

/** 0 ≤ low ≤ high. */
function naturalsBetween(low: number, high: number): Expression {
  const options: Expression[] = [];
  const [first, last] = [BigInt(low).toString(), BigInt(high).toString()];
  for (let length = first.length; length <= last.length; length++) {
    const from = length === first.length ? first : `1${"0".repeat(length - 1)}`;
    const to = length === last.length ? last : "9".repeat(length);
    options.push(digitsBetween(from, to));
  }
  return options.length === 1 ? options[0] : choice(...options);
}

/** Texts of digits of one length, from `low` to `high`. */
function digitsBetween(low: string, high: string): Expression {
  if (low === "") return sequence();
  const rest = low.length - 1;
  const anyRest = repeat(digit, rest, rest);
  const [a, b] = [low[0], high[0]];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  if (a === b) return sequence(literal(a), digitsBetween(lowRest, highRest));
  const isFullBelow = /^0*$/.test(lowRest);
  const isFullAbove = /^9*$/.test(highRest);
  const [from, to] = [isFullBelow ? Number(a) : Number(a) + 1, isFullAbove ? Number(b) : Number(b) - 1];
  const options: Expression[] = [];
  if (!isFullBelow) options.push(sequence(literal(a), digitsBetween(lowRest, "9".repeat(rest))));
  if (from <= to) options.push(sequence(characters([String(from), String(to)]), anyRest));
  if (!isFullAbove) options.push(sequence(literal(b), digitsBetween("0".repeat(rest), highRest)));
  return options.length === 1 ? options[0] : choice(...options);
}
