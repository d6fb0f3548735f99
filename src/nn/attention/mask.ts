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
  const data = dtype === "f64" ? new Float64Array(length * length) : new Float32Array(length * length);
  for (let i = 0; i < length; i++) {
    for (let j = 0; j < length; j++) if (j > i || (window !== undefined && i - j >= window)) data[i * length + j] = masked;
  }
  return constant(graph, dtype, [length, length], data);
}

/** [B, T, T] bias that keeps packed documents apart: `documents` [B, T] (i32) numbers the document of each token. */
export function documentBias(documents_BT: Tensor, dtype: DType): Tensor {
  const same = equal(expandDims(documents_BT, 2), expandDims(documents_BT, 1));
  const zero = constant(documents_BT.graph, dtype, [], dtype === "f64" ? Float64Array.of(0) : Float32Array.of(0));
  return where(same, zero, masked);
}
