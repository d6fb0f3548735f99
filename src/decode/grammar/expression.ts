// A grammar as it is written: rules over code points, the common ground of GBNF texts and JSON schemas.
import { UsageError } from "../../base/errors.ts";

/** Ranges of code points, ascending, disjoint, ends included. */
export type Ranges = readonly (readonly [low: number, high: number])[];

export type Expression =
  | { readonly kind: "literal"; readonly text: string }
  | { readonly kind: "class"; readonly ranges: Ranges }
  | { readonly kind: "rule"; readonly name: string }
  | { readonly kind: "sequence"; readonly items: readonly Expression[] }
  | { readonly kind: "choice"; readonly options: readonly Expression[] }
  /** `max` may be Infinity. */
  | { readonly kind: "repeat"; readonly item: Expression; readonly min: number; readonly max: number };

/** Rules by name. */
export type Rules = ReadonlyMap<string, Expression>;

const surrogates = [0xd800, 0xdfff] as const;
const last = 0x10ffff;

/** Sorted, joined, and without surrogates, which no UTF-8 text has. */
export function normalizeRanges(ranges: Ranges): Ranges {
  const joined: [number, number][] = [];
  for (const [low, high] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const previous = joined.at(-1);
    if (previous && low <= previous[1] + 1) previous[1] = Math.max(previous[1], high);
    else joined.push([low, high]);
  }
  return joined.flatMap(([low, high]): [number, number][] => {
    const parts: [number, number][] = [
      [low, Math.min(high, surrogates[0] - 1)],
      [Math.max(low, surrogates[1] + 1), high],
    ];
    return parts.filter(([from, to]) => from <= to);
  });
}

/** Every code point that is not in the ranges. */
export function invertRanges(ranges: Ranges): Ranges {
  const inverted: [number, number][] = [];
  let next = 0;
  for (const [low, high] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (low > next) inverted.push([next, low - 1]);
    next = Math.max(next, high + 1);
  }
  if (next <= last) inverted.push([next, last]);
  return normalizeRanges(inverted);
}

export const intersectRanges = (a: Ranges, b: Ranges): Ranges => invertRanges([...invertRanges(a), ...invertRanges(b)]);

export const anyCharacter: Expression = { kind: "class", ranges: normalizeRanges([[0, last]]) };

export const literal = (text: string): Expression => ({ kind: "literal", text });
export const rule = (name: string): Expression => ({ kind: "rule", name });
export const sequence = (...items: readonly Expression[]): Expression => ({ kind: "sequence", items });
export const choice = (...options: readonly Expression[]): Expression => ({ kind: "choice", options });
export const repeat = (item: Expression, min: number, max = Number.POSITIVE_INFINITY): Expression => ({ kind: "repeat", item, min, max });
export const optional = (item: Expression): Expression => repeat(item, 0, 1);
export const characters = (...ranges: readonly (readonly [number | string, number | string])[]): Expression => {
  const code = (end: number | string): number => (typeof end === "number" ? end : (end.codePointAt(0) as number));
  return { kind: "class", ranges: normalizeRanges(ranges.map(([low, high]) => [code(low), code(high)])) };
};

/** @throws UsageError when a rule is used and not defined. */
export function checkRules(rules: Rules, root: string): void {
  const visit = (expression: Expression, by: string): void => {
    if (expression.kind === "rule" && !rules.has(expression.name)) {
      throw new UsageError(`grammar: expected a rule ${expression.name}, which ${by} uses, got none`, {
        hint: "Define it, or mend its name.",
      });
    }
    if (expression.kind === "sequence") for (const item of expression.items) visit(item, by);
    if (expression.kind === "choice") for (const option of expression.options) visit(option, by);
    if (expression.kind === "repeat") visit(expression.item, by);
  };
  if (!rules.has(root))
    throw new UsageError(`grammar: expected a rule named ${root}, got ${[...rules.keys()].slice(0, 8).join(", ") || "none"}`);
  for (const [name, expression] of rules) visit(expression, name);
}
