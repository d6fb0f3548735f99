// Products of rows sorted into groups, each group with a matrix of its own: what a layer of experts is made of. Three operators whose
// derivatives are each other. Groups may be empty. Letters: P rows, E groups, O and I the sides of a matrix.
import { ShapeError } from "../base/errors.ts";
import { apply1, type Operator, required, sameDType, type Tensor } from "./graph.ts";
import type { Emitter } from "./onnx.ts";

interface Rows {
  readonly start: string;
  readonly end: string;
}

/** First and last row of each group, as vectors of one number. */
function boundsOf(emitter: Emitter, ends: Tensor): Rows[] {
  const count = ends.shape[0] as number;
  const parts = Array.from({ length: count }, () => emitter.temporary());
  if (count === 1) parts[0] = emitter.name(ends);
  else emitter.node("Split", [emitter.name(ends), emitter.ints(new Array(count).fill(1))], parts, { axis: 0 });
  return parts.map((end, e) => ({ start: e === 0 ? emitter.ints([0]) : parts[e - 1], end }));
}

const rowsOf = (emitter: Emitter, x: Tensor, { start, end }: Rows): string =>
  emitter.value("Slice", [emitter.name(x), start, end, emitter.ints([0])]);

function checkEnds(operator: string, ends: Tensor, groups: number | string): void {
  if (ends.dtype !== "i64" || ends.rank !== 1 || ends.shape[0] !== groups)
    throw new ShapeError(`${operator}: expected the end of each of ${groups} groups (i64), got ${ends}`);
}

const groupedLinearOperator: Operator<{ transposed: boolean }> = {
  name: "groupedLinear",
  infer([x, weight, ends], { transposed }) {
    const dtype = sameDType("groupedLinear", [x, weight]);
    const [groups, out, inner] = transposed ? [weight.shape[0], weight.shape[2], weight.shape[1]] : weight.shape;
    if (x.rank !== 2 || weight.rank !== 3 || x.shape[1] !== inner || typeof groups !== "number")
      throw new ShapeError(`groupedLinear: expected rows [P, I] and matrices [E, O, I], got ${x} and ${weight}`);
    checkEnds("groupedLinear", ends, groups);
    return [{ dtype, shape: [x.shape[0], out] }];
  },
  vjp({ inputs: [x, weight, ends], attributes: { transposed }, cotangents: [cotangent], needs }) {
    const g = required(cotangent);
    return [
      needs[0] ? groupedLinear(g, weight, ends, { transposed: !transposed }) : undefined,
      needs[1] ? (transposed ? groupedOuter(x, g, ends) : groupedOuter(g, x, ends)) : undefined,
      undefined,
    ];
  },
  emit(emitter, node) {
    const [x, weight, ends] = node.inputs;
    const products = boundsOf(emitter, ends).map((rows, e) => {
      const matrix = emitter.value("Gather", [emitter.name(weight), emitter.scalar("i64", e)], { axis: 0 });
      return emitter.value("Gemm", [rowsOf(emitter, x, rows), matrix], { transB: node.attributes.transposed ? 0 : 1 });
    });
    emitter.node("Concat", products, [emitter.output(node)], { axis: 0 });
  },
};

/**
 * x Wᵀ, the rows of group e with matrix e: x [P, I], weight [E, O, I], ends [E] (i64) = the row after the last one of each group, rising to
 * P → [P, O]. Transposed: x W, [P, O] → [P, I].
 */
export const groupedLinear = (x: Tensor, weight: Tensor, ends: Tensor, { transposed = false }: { transposed?: boolean } = {}): Tensor =>
  apply1(groupedLinearOperator, [x, weight, ends], { transposed });

const groupedOuterOperator: Operator = {
  name: "groupedOuter",
  infer([a, b, ends]) {
    const dtype = sameDType("groupedOuter", [a, b]);
    if (a.rank !== 2 || b.rank !== 2 || a.shape[0] !== b.shape[0])
      throw new ShapeError(`groupedOuter: expected rows [P, O] and [P, I], got ${a} and ${b}`);
    checkEnds("groupedOuter", ends, ends.shape[0]);
    return [{ dtype, shape: [ends.shape[0], a.shape[1], b.shape[1]] }];
  },
  vjp: ({ inputs: [a, b, ends], cotangents: [cotangent], needs }) => {
    const g = required(cotangent);
    return [
      needs[0] ? groupedLinear(b, g, ends) : undefined,
      needs[1] ? groupedLinear(a, g, ends, { transposed: true }) : undefined,
      undefined,
    ];
  },
  emit(emitter, node) {
    const [a, b, ends] = node.inputs;
    const axis = emitter.ints([0]);
    const products = boundsOf(emitter, ends).map((rows) => {
      const product = emitter.value("Gemm", [rowsOf(emitter, a, rows), rowsOf(emitter, b, rows)], { transA: 1 });
      return emitter.value("Unsqueeze", [product, axis]);
    });
    emitter.node("Concat", products, [emitter.output(node)], { axis: 0 });
  },
};

/** aᵀ b of each group of rows: a [P, O], b [P, I], ends [E] as in {@link groupedLinear} → [E, O, I]; 0 for an empty group. */
export const groupedOuter = (a: Tensor, b: Tensor, ends: Tensor): Tensor => apply1(groupedOuterOperator, [a, b, ends], {});

const permuteRowsOperator: Operator = {
  name: "permuteRows",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  vjp: ({ inputs: [, order, inverse], cotangents: [g] }) => [permuteRows(required(g), inverse, order), undefined, undefined],
  emit(emitter, node) {
    const [x, order] = node.inputs;
    emitter.node("Gather", [emitter.name(x), emitter.name(order)], [emitter.output(node)], { axis: 0 });
  },
};

/** Row i is row `order[i]` of x [P, C]; `inverse` is the inverse permutation (both [P], i64), with which the derivative gathers too. */
export const permuteRows = (x: Tensor, order: Tensor, inverse: Tensor): Tensor => apply1(permuteRowsOperator, [x, order, inverse], {});
