// Reading and adding at indices: gather, gatherElements, scatterElementsAdd (each other's transposes), oneHot, embedding.
// ScatterND(add) of ONNX Runtime is a data race with repeated indices; ScatterElements(add) runs in order, and is used alone.
import { ShapeError } from "../base/errors.ts";
import { broadcastTo, constant, full, reshape } from "./core.ts";
import type { DType } from "./dtype.ts";
import { cast, equal } from "./elementwise.ts";
import { apply1, normalizeAxis, type Operator, required, sameShape, staticShape, type Tensor } from "./graph.ts";

function checkIndices(operator: string, indices: Tensor): void {
  if (indices.dtype !== "i64" && indices.dtype !== "i32") throw new ShapeError(`${operator}: expected i64 or i32 indices, got ${indices}`);
}

const gatherOperator: Operator<{ axis: number }> = {
  name: "gather",
  infer([x, indices], { axis }) {
    checkIndices("gather", indices);
    return [{ dtype: x.dtype, shape: [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)] }];
  },
  vjp({ inputs: [x, indices], attributes: { axis }, cotangents: [g] }) {
    const count = (dims: readonly (number | string)[]): number => staticShape("gather", dims).reduce((a, b) => a * b, 1);
    const [outer, size, inner, n] = [
      count(x.shape.slice(0, axis)),
      x.shape[axis] as number,
      count(x.shape.slice(axis + 1)),
      count(indices.shape),
    ];
    const updates = reshape(required(g), [outer, n, inner]);
    const where = broadcastTo(reshape(indices, [1, n, 1]), [outer, n, inner]);
    return [reshape(scatterElementsAdd(full(x.graph, x.dtype, [outer, size, inner], 0), where, updates, 1), x.shape), undefined];
  },
  emit: (emitter, node) => emitter.node("Gather", emitter.names(node.inputs), [emitter.output(node)], { axis: node.attributes.axis }),
};

/** Slices of `x` along `axis` at `indices` (i32 or i64, any shape): [..., indices.shape, ...]. Repeated indices add up in the derivative. */
export const gather = (x: Tensor, indices: Tensor, axis = 0): Tensor =>
  apply1(gatherOperator, [x, indices], { axis: normalizeAxis("gather", axis, x.rank) });

/** Rows of a table [V, C] for token ids [...]: [..., C]. */
export const embedding = (table: Tensor, ids: Tensor): Tensor => gather(table, ids, 0);

const gatherElementsOperator: Operator<{ axis: number }> = {
  name: "gatherElements",
  infer([x, indices], { axis }) {
    checkIndices("gatherElements", indices);
    checkAligned("gatherElements", x, indices, axis);
    return [{ dtype: x.dtype, shape: indices.shape }];
  },
  vjp: ({ inputs: [x, indices], attributes: { axis }, cotangents: [g] }) => [
    scatterElementsAdd(full(x.graph, x.dtype, x.shape, 0), indices, required(g), axis),
    undefined,
  ],
  emit: (emitter, node) =>
    emitter.node("GatherElements", emitter.names(node.inputs), [emitter.output(node)], { axis: node.attributes.axis }),
};

function checkAligned(operator: string, x: Tensor, indices: Tensor, axis: number): void {
  if (
    x.rank !== indices.rank ||
    indices.shape.some(
      (dim, i) => i !== axis && dim !== x.shape[i] && !(typeof dim === "number" && typeof x.shape[i] === "number" && dim < x.shape[i]),
    )
  ) {
    throw new ShapeError(`${operator}: expected indices of the shape of ${x} except along axis ${axis}, got ${indices}`);
  }
}

/** y[i][j] = x[i][indices[i][j]] for axis 1, and so on: one index an element. */
export const gatherElements = (x: Tensor, indices: Tensor, axis = -1): Tensor =>
  apply1(gatherElementsOperator, [x, indices], { axis: normalizeAxis("gatherElements", axis, x.rank) });

const scatterElementsAddOperator: Operator<{ axis: number }> = {
  name: "scatterElementsAdd",
  infer([base, indices, updates], { axis }) {
    checkIndices("scatterElementsAdd", indices);
    checkAligned("scatterElementsAdd", base, indices, axis);
    if (!sameShape(indices.shape, updates.shape))
      throw new ShapeError(`scatterElementsAdd: expected updates of the shape of the indices ${indices}, got ${updates}`);
    return [{ dtype: base.dtype, shape: base.shape }];
  },
  vjp: ({ inputs: [, indices], attributes: { axis }, cotangents: [g], needs }) => [
    needs[0] ? g : undefined,
    undefined,
    needs[2] ? gatherElements(required(g), indices, axis) : undefined,
  ],
  emit: (emitter, node) =>
    emitter.node("ScatterElements", emitter.names(node.inputs), [emitter.output(node)], { axis: node.attributes.axis, reduction: "add" }),
};

/** A copy of `base` with `updates` added at `indices` along `axis`, repeated indices in order. */
export const scatterElementsAdd = (base: Tensor, indices: Tensor, updates: Tensor, axis = -1): Tensor =>
  apply1(scatterElementsAddOperator, [base, indices, updates], { axis: normalizeAxis("scatterElementsAdd", axis, base.rank) });

/** [..., depth] with 1 where the last coordinate equals the index, else 0. No derivative. */
export function oneHot(indices: Tensor, depth: number, dtype: DType = "f32"): Tensor {
  checkIndices("oneHot", indices);
  return cast(equal(reshape(indices, [...indices.shape, 1]), iota(indices, depth)), dtype);
}

/** 0, 1, …, n − 1 in the dtype of `like`. */
export function iota(like: Tensor, n: number, dtype: DType = like.dtype): Tensor {
  const data =
    dtype === "i64"
      ? BigInt64Array.from({ length: n }, (_, i) => BigInt(i))
      : dtype === "i32"
        ? Int32Array.from({ length: n }, (_, i) => i)
        : dtype === "f64"
          ? Float64Array.from({ length: n }, (_, i) => i)
          : Float32Array.from({ length: n }, (_, i) => i);
  return constant(like.graph, dtype, [n], data);
}
