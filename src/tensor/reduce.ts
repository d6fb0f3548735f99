// Reductions and scans beyond sum: mean, max, min, logSumExp, variance, cumsum, argmax, topK.
import { ShapeError } from "../base/errors.ts";
import { broadcastTo, full, keepReduced, type ReduceAttributes, type ReduceOptions, reduceAttributes, reducedType, sum } from "./core.ts";
import { cast, div, equal, exp, mul, square, sub } from "./elementwise.ts";
import { scatterElementsAdd } from "./gather.ts";
import { apply, apply1, elementCount, normalizeAxis, type Operator, required, staticShape, type Tensor } from "./graph.ts";

type ReduceRule = (x: Tensor, y: Tensor, g: Tensor, attributes: ReduceAttributes) => Tensor;

/** Rules get the output and its cotangent with the reduced axes kept as size 1. */
function reduction(name: string, onnx: string, rule: ReduceRule): Operator<ReduceAttributes> {
  return {
    name,
    infer([x], attributes) {
      const reduced = attributes.axes.map((axis) => x.shape[axis]);
      if (name !== "mean" && reduced.includes(0))
        throw new ShapeError(`${name}: expected at least one element along the reduced axes, got ${x}`);
      return [reducedType(x, attributes)];
    },
    vjp: ({ inputs: [x], outputs: [y], attributes, cotangents: [g] }) => [
      rule(x, keepReduced(y, x, attributes), keepReduced(required(g), x, attributes), attributes),
    ],
    emit(emitter, node) {
      const { axes, keepDims } = node.attributes;
      emitter.node(onnx, [emitter.name(node.inputs[0]), emitter.ints(axes)], [emitter.output(node)], { keepdims: keepDims ? 1 : 0 });
    },
  };
}

function apply1Reduction(operator: Operator<ReduceAttributes>, x: Tensor, options: ReduceOptions): Tensor {
  const attributes = reduceAttributes(operator.name, x, options);
  // Over no axes each of them is the identity; ONNX would read an empty list as all axes.
  return attributes.axes.length === 0 ? x : apply1(operator, [x], attributes);
}

const countOf = (x: Tensor, { axes }: ReduceAttributes): number =>
  staticShape(
    "mean",
    axes.map((axis) => x.shape[axis]),
  ).reduce((a, b) => a * b, 1);

const meanOperator = reduction("mean", "ReduceMean", (x, _, g, attributes) => broadcastTo(mul(g, 1 / countOf(x, attributes)), x.shape));
// Equal extremes share the cotangent, so that the rule does not depend on an order (as torch.amax does).
const extremeRule: ReduceRule = (x, y, g, { axes }) => {
  const hits = cast(equal(x, y), x.dtype);
  return mul(hits, div(g, sum(hits, { axes, keepDims: true })));
};
const maxOperator = reduction("max", "ReduceMax", extremeRule);
const minOperator = reduction("min", "ReduceMin", extremeRule);
// exp(x − y) is the softmax up to the rounding of y, which is large where x is: it is normalised once more.
const logSumExpOperator = reduction("logSumExp", "ReduceLogSumExp", (x, y, g, { axes }) => {
  const weights = exp(sub(x, y));
  return mul(weights, div(g, sum(weights, { axes, keepDims: true })));
});

/** Arithmetic mean over `axes` (all by default). The mean of nothing is NaN. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  const attributes = reduceAttributes("mean", x, options);
  const count = elementCount(attributes.axes.map((axis) => x.shape[axis]));
  // ReduceMean of an empty axis is 0 in ONNX Runtime; 0/0 says what happened.
  if (count === 0) return mul(sum(x, options), Number.NaN);
  return apply1Reduction(meanOperator, x, options);
}
/** Largest element along `axes`. */
export const max = (x: Tensor, options: ReduceOptions = {}): Tensor => apply1Reduction(maxOperator, x, options);
/** Smallest element along `axes`. */
export const min = (x: Tensor, options: ReduceOptions = {}): Tensor => apply1Reduction(minOperator, x, options);
/** log Σ exp(x) along `axes`, without overflow. */
export const logSumExp = (x: Tensor, options: ReduceOptions = {}): Tensor => apply1Reduction(logSumExpOperator, x, options);

/** Mean squared deviation from the mean, divided by n − `ddof` (default 0). */
export function variance(x: Tensor, { ddof = 0, ...options }: ReduceOptions & { ddof?: number } = {}): Tensor {
  const attributes = reduceAttributes("variance", x, options);
  const deviation = sub(x, mean(x, { axes: attributes.axes, keepDims: true }));
  const n = countOf(x, attributes);
  return mul(sum(square(deviation), attributes), 1 / (n - ddof));
}

// ---- scans

interface CumsumAttributes {
  readonly axis: number;
  readonly exclusive: boolean;
  readonly reverse: boolean;
  readonly [key: string]: number | boolean;
}

const cumsumOperator: Operator<CumsumAttributes> = {
  name: "cumsum",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  vjp: ({ attributes, cotangents: [g] }) => [cumsum(required(g), { ...attributes, reverse: !attributes.reverse })],
  emit(emitter, node) {
    const { axis, exclusive, reverse } = node.attributes;
    const inputs = [emitter.name(node.inputs[0]), emitter.scalar("i64", axis)];
    emitter.node("CumSum", inputs, [emitter.output(node)], { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 });
  },
};

/** Running sums along `axis` (default the last). `exclusive` leaves out the element itself; `reverse` sums from the end. */
export function cumsum(x: Tensor, { axis = -1, exclusive = false, reverse = false }: Partial<CumsumAttributes> = {}): Tensor {
  return apply1(cumsumOperator, [x], { axis: normalizeAxis("cumsum", axis, x.rank), exclusive, reverse });
}

// ---- order

const argmaxOperator: Operator<{ axis: number; keepDims: boolean }> = {
  name: "argmax",
  infer: ([x], { axis, keepDims }) => [{ ...reducedType(x, { axes: [axis], keepDims }), dtype: "i64" }],
  emit(emitter, node) {
    const { axis, keepDims } = node.attributes;
    emitter.node("ArgMax", [emitter.name(node.inputs[0])], [emitter.output(node)], { axis, keepdims: keepDims ? 1 : 0 });
  },
};

/** Index (i64) of the largest element along `axis`, the first of equals. No derivative. */
export function argmax(x: Tensor, { axis = -1, keepDims = false }: { axis?: number; keepDims?: boolean } = {}): Tensor {
  return apply1(argmaxOperator, [x], { axis: normalizeAxis("argmax", axis, x.rank), keepDims });
}

const topKOperator: Operator<{ k: number; axis: number; largest: boolean }> = {
  name: "topK",
  infer([x], { k, axis }) {
    const size = x.shape[axis];
    if (!Number.isInteger(k) || k < 0 || (typeof size === "number" && k > size))
      throw new ShapeError(`topK: expected k between 0 and ${size}, got ${k}`);
    const shape = x.shape.map((dim, i) => (i === axis ? k : dim));
    return [
      { dtype: x.dtype, shape },
      { dtype: "i64", shape },
    ];
  },
  vjp: ({ inputs: [x], outputs: [, indices], attributes, cotangents: [g] }) => [
    g && scatterElementsAdd(full(x.graph, x.dtype, x.shape, 0), indices, g, attributes.axis),
  ],
  emit(emitter, node) {
    const { k, axis, largest } = node.attributes;
    const [x] = node.inputs;
    const outputs = [emitter.output(node, 0), emitter.output(node, 1)];
    const select = (from: string, to: string[]): void =>
      emitter.node("TopK", [from, emitter.ints([k])], to, { axis, largest: largest ? 1 : 0, sorted: 1 });
    const open = x.shape.flatMap((dim, i) => (i !== axis && typeof dim === "string" ? [i] : []));
    if (open.length === 0) return select(emitter.name(x), outputs);
    // The kernel divides by the number of rows, which ends the process when there are none: one more of each unknown dimension for the
    // time of the call.
    const all = (value: number): string => emitter.ints(open.map(() => value));
    const ends = emitter.ints([...open.map(() => 0), ...open.map(() => 1)]);
    const padded = emitter.value("Pad", [emitter.name(x), ends, emitter.scalar(x.dtype, 0), emitter.ints(open)]);
    const whole = outputs.map(() => emitter.temporary());
    select(padded, whole);
    for (const [i, output] of outputs.entries()) emitter.node("Slice", [whole[i], all(0), all(-1), emitter.ints(open)], [output]);
  },
};

/**
 * The `k` largest (or smallest) elements along `axis`, best first, the first of equals first, and their indices (i64). The values are
 * differentiable.
 */
export function topK(
  x: Tensor,
  k: number,
  { axis = -1, largest = true }: { axis?: number; largest?: boolean } = {},
): { values: Tensor; indices: Tensor } {
  const [values, indices] = apply(topKOperator, [x], { k, axis: normalizeAxis("topK", axis, x.rank), largest });
  return { values, indices };
}
