// Moving elements around: transpose, slice and pad (each other's transposes), concat and split, expandDims, squeeze, stack.
import { invariant, ShapeError } from "../base/errors.ts";
import { reshape, zerosLike } from "./core.ts";
import {
  apply,
  apply1,
  type Dim,
  locate,
  normalizeAxis,
  type Operator,
  required,
  sameDType,
  sameShape,
  staticShape,
  type Tensor,
} from "./graph.ts";

const transposeOperator: Operator<{ perm: readonly number[] }> = {
  name: "transpose",
  infer([x], { perm }) {
    if (perm.length !== x.rank || new Set(perm).size !== x.rank || perm.some((axis) => !(axis >= 0 && axis < x.rank))) {
      throw new ShapeError(`transpose: expected a permutation of the ${x.rank} axes of ${x}, got [${perm.join(", ")}]`);
    }
    return [{ dtype: x.dtype, shape: perm.map((axis) => x.shape[axis]) }];
  },
  vjp({ attributes: { perm }, cotangents: [g] }) {
    const inverse = new Array<number>(perm.length);
    for (const [i, axis] of perm.entries()) inverse[axis] = i;
    return [transpose(required(g), inverse)];
  },
  emit: (emitter, node) =>
    emitter.node("Transpose", [emitter.name(node.inputs[0])], [emitter.output(node)], { perm: node.attributes.perm }),
};

/** Axes in the order of `perm`; by default the last two are swapped (a vector stays as it is). */
export function transpose(x: Tensor, perm?: readonly number[]): Tensor {
  if (!perm && x.rank < 2) return x;
  const order = perm ?? x.shape.map((_, i) => (i < x.rank - 2 ? i : i === x.rank - 2 ? x.rank - 1 : x.rank - 2));
  if (order.length === x.rank && order.every((axis, i) => axis === i)) return x;
  if (x.node?.operator === (transposeOperator as Operator)) {
    const before = x.node.attributes.perm as readonly number[];
    return transpose(
      x.node.inputs[0],
      order.map((axis) => before[axis]),
    );
  }
  return apply1(transposeOperator, [x], { perm: order });
}

/** Adds axes of size 1 at the given places of the result. */
export function expandDims(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis("expandDims", axis, x.rank + 1);
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/** Drops an axis of size 1. */
export function squeeze(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis("squeeze", axis, x.rank);
  if (x.shape[at] !== 1) throw new ShapeError(`squeeze: expected axis ${axis} to have size 1, got ${x}`);
  return reshape(x, [...x.shape.slice(0, at), ...x.shape.slice(at + 1)]);
}

const sliceOperator: Operator<{ axis: number; start: number; end: number }> = {
  name: "slice",
  infer([x], { axis, start, end }) {
    const size = x.shape[axis];
    if (typeof size === "string") throw new ShapeError(`slice: expected a fixed size along axis ${axis}, got ${x}`);
    if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)) {
      throw new ShapeError(`slice: expected 0 <= start <= end <= ${size} along axis ${axis}, got [${start}, ${end})`);
    }
    return [{ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === axis ? end - start : dim)) }];
  },
  vjp({ inputs: [x], attributes: { axis, start, end }, cotangents: [g] }) {
    return [pad(required(g), { axis, before: start, after: (x.shape[axis] as number) - end })];
  },
  emit(emitter, node) {
    const { axis, start, end } = node.attributes;
    emitter.node(
      "Slice",
      [emitter.name(node.inputs[0]), emitter.ints([start]), emitter.ints([end]), emitter.ints([axis])],
      [emitter.output(node)],
    );
  },
};

/** Elements [start, end) along `axis`; negative positions count from the end, the end defaults to the size. */
export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  const at = normalizeAxis("slice", axis, x.rank);
  const size = x.shape[at];
  const place = (position: number): number => (position < 0 && typeof size === "number" ? position + size : position);
  const [from, to] = [place(start), end === undefined ? (size as number) : place(end)];
  if (from === 0 && to === size) return x;
  return apply1(sliceOperator, [x], { axis: at, start: from, end: to });
}

const padOperator: Operator<{ axis: number; before: number; after: number; value: number }> = {
  name: "pad",
  infer([x], { axis, before, after }) {
    if (!(Number.isInteger(before) && Number.isInteger(after) && before >= 0 && after >= 0)) {
      throw new ShapeError(`pad: expected non-negative integers, got ${before} and ${after}`);
    }
    const size = x.shape[axis];
    if (typeof size === "string") throw new ShapeError(`pad: expected a fixed size along axis ${axis}, got ${x}`);
    return [{ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === axis ? size + before + after : dim)) }];
  },
  vjp({ inputs: [x], attributes: { axis, before }, cotangents: [g] }) {
    return [slice(required(g), axis, before, before + (x.shape[axis] as number))];
  },
  emit(emitter, node) {
    const { axis, before, after, value } = node.attributes;
    const [x] = node.inputs;
    emitter.node(
      "Pad",
      [emitter.name(x), emitter.ints([before, after]), emitter.scalar(x.dtype, value), emitter.ints([axis])],
      [emitter.output(node)],
    );
  },
};

/** `before` and `after` elements of `value` (default 0) added along `axis`. */
export function pad(
  x: Tensor,
  { axis = -1, before = 0, after = 0, value = 0 }: { axis?: number; before?: number; after?: number; value?: number },
): Tensor {
  if (before === 0 && after === 0) return x;
  return apply1(padOperator, [x], { axis: normalizeAxis("pad", axis, x.rank), before, after, value });
}

const concatOperator: Operator<{ axis: number }> = {
  name: "concat",
  infer(inputs, { axis }) {
    const dtype = sameDType("concat", inputs);
    const [first] = inputs;
    let size: Dim = 0;
    for (const x of inputs) {
      if (x.rank !== first.rank || x.shape.some((dim, i) => i !== axis && dim !== first.shape[i])) {
        throw new ShapeError(`concat: expected equal shapes except along axis ${axis}, got ${inputs.map(String).join(" and ")}`);
      }
      const dim = x.shape[axis];
      if (size === 0) size = dim;
      else if (dim !== 0) size = typeof size === "number" && typeof dim === "number" ? size + dim : `${size}_plus_${dim}`;
    }
    return [{ dtype, shape: first.shape.map((dim, i) => (i === axis ? size : dim)) }];
  },
  vjp({ inputs, attributes: { axis }, cotangents: [g] }) {
    return split(
      required(g),
      staticShape(
        "concat",
        inputs.map((x) => x.shape[axis]),
      ),
      axis,
    );
  },
  emit: (emitter, node) => emitter.node("Concat", emitter.names(node.inputs), [emitter.output(node)], { axis: node.attributes.axis }),
};

/** Joined along `axis`. */
export function concat(inputs: readonly Tensor[], axis = -1): Tensor {
  if (inputs.length === 0) throw new ShapeError("concat: expected at least one tensor, got none");
  if (inputs.length === 1) return inputs[0];
  return apply1(concatOperator, inputs, { axis: normalizeAxis("concat", axis, inputs[0].rank) });
}

/** Joined along a new axis. */
export const stack = (inputs: readonly Tensor[], axis = 0): Tensor =>
  concat(
    inputs.map((x) => expandDims(x, axis)),
    axis,
  );

const splitOperator: Operator<{ sizes: readonly number[]; axis: number }> = {
  name: "split",
  infer([x], { sizes, axis }) {
    const total = sizes.reduce((a, b) => a + b, 0);
    if (total !== x.shape[axis] || sizes.some((size) => !Number.isInteger(size) || size < 0)) {
      throw new ShapeError(`split: expected sizes that add up to axis ${axis} of ${x}, got [${sizes.join(", ")}]`);
    }
    return sizes.map((size) => ({ dtype: x.dtype, shape: x.shape.map((dim, i) => (i === axis ? size : dim)) }));
  },
  vjp({ outputs, attributes: { axis }, cotangents }) {
    return [
      concat(
        outputs.map((output, i) => cotangents[i] ?? zerosLike(output)),
        axis,
      ),
    ];
  },
  emit(emitter, node) {
    const { sizes, axis } = node.attributes;
    const outputs = node.outputs.map((_, i) => emitter.output(node, i));
    emitter.node("Split", [emitter.name(node.inputs[0]), emitter.ints(sizes)], outputs, { axis });
  },
};

/** Parts of the given sizes along `axis`. @throws ShapeError for sizes that do not add up. */
export function split(x: Tensor, sizes: readonly number[], axis = -1): Tensor[] {
  const at = normalizeAxis("split", axis, x.rank);
  // A number of parts is what other libraries take here.
  if (!Array.isArray(sizes) || sizes.length === 0)
    throw locate(
      new ShapeError(`split: expected the sizes of at least one part, got ${Array.isArray(sizes) ? "[]" : String(sizes)}`, {
        hint: "Give one size for each part: split(x, [2, 2], axis).",
      }),
      x.graph,
    );
  if (sizes.length === 1 && sizes[0] === x.shape[at]) return [x];
  const parts = apply(splitOperator, [x], { sizes: [...sizes], axis: at });
  invariant(parts.length === sizes.length && sameShape(parts[0].shape.slice(0, at), x.shape.slice(0, at)), "split lost a part");
  return parts;
}
