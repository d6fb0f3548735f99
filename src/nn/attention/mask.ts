// Masks of attention as additive biases: 0 where a query may look, −1e30 where it may not.
import { constant } from "../../tensor/core.ts";
import type { DType } from "../../tensor/dtype.ts";
import { equal, where } from "../../tensor/elementwise.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { expandDims } from "../../tensor/shape.ts";

/** Large enough to vanish in any softmax, small enough that sums of two stay finite in float32. */
export const masked = -1e30;

/** [T, T] bias: query i sees keys j ≤ i, and with a window only the last `window` of them, itself included. */
export function causalBias(graph: Graph, length: number, dtype: DType, window?: number): Tensor {
  return causalBlock(graph, dtype, [0, length], [0, length], window);
}

/** The part of {@link causalBias} for queries and keys [from, to). */
export function causalBlock(
  graph: Graph,
  dtype: DType,
  [query, queryEnd]: readonly [number, number],
  [key, keyEnd]: readonly [number, number],
  window = Number.POSITIVE_INFINITY,
): Tensor {
  const shape = [queryEnd - query, keyEnd - key];
  const data = new (dtype === "f64" ? Float64Array : Float32Array)(shape[0] * shape[1]);
  for (let i = query, at = 0; i < queryEnd; i++) {
    for (let j = key; j < keyEnd; j++, at++) if (j > i || i - j >= window) data[at] = masked;
  }
  return constant(graph, dtype, shape, data);
}

/** [B, T, T] bias that keeps packed documents apart: `documents` [B, T] (i32) numbers the document of each token. */
export function documentBias(documents_BT: Tensor, dtype: DType): Tensor {
  const same = equal(expandDims(documents_BT, 2), expandDims(documents_BT, 1));
  const zero = constant(documents_BT.graph, dtype, [], dtype === "f64" ? Float64Array.of(0) : Float32Array.of(0));
  return where(same, zero, masked);
}
