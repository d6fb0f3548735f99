// A linear layer with its weight in float32 or in quantised blocks: one function applies either, so that a model is written once.
// Blocks are those of ONNX Runtime's MatMulNBits. Quantised weights are for inference: they have no derivative.
import { ShapeError } from "../base/errors.ts";
import { quantisedLinear } from "../tensor/attention.ts";
import { add } from "../tensor/elementwise.ts";
import { embedding } from "../tensor/gather.ts";
import type { Tensor } from "../tensor/graph.ts";
import { linear } from "../tensor/matmul.ts";
import { quantisedEmbedding } from "../tensor/quantised-embedding.ts";
import { isLeaf } from "../tensor/tree.ts";

/** A matrix [out, in] in blocks along `in`; how many bits and how long the blocks are follows from the shapes. */
export type QuantisedWeight<T> = {
  /** [out, blocks, bytes of a block] (u8). */
  packed: T;
  /** [out, blocks] (f32). */
  scales: T;
  /** [out, bytes] (u8). Absent: 2^(bits − 1), blocks symmetric around 0. */
  zeroPoints?: T;
  /** [out, blocks] (f32): added to every value of a block. Absent: 0. */
  offsets?: T;
};

export type LinearWeight<T> = T | QuantisedWeight<T>;

export type LinearParameters<T, W = T> = { weight: W; bias?: T };

export const isQuantised = <T>(weight: LinearWeight<T>): weight is QuantisedWeight<T> => !isLeaf(weight);

/**
 * Bits and block size of packed blocks [out, blocks, bytes] for rows of `inner` values.
 * @throws ShapeError when neither 8 nor 4 bits fit.
 */
export function blockFormat(inner: number, packedShape: readonly (number | string)[]): { bits: 4 | 8; blockSize: number } {
  const [, blocks, bytes] = packedShape;
  for (const bits of [8, 4] as const) {
    const blockSize = (Number(bytes) * 8) / bits;
    if (packedShape.length === 3 && Math.ceil(inner / blockSize) === blocks) return { bits, blockSize };
  }
  throw new ShapeError(
    `linearLayer: expected blocks [out, blocks, bytes] of 8 or 4 bits for rows of ${inner}, got [${packedShape.join(", ")}]`,
  );
}

/** x Wᵀ + b: [..., in] → [..., out]. */
export function linearLayer(x: Tensor, { weight, bias }: LinearParameters<Tensor, LinearWeight<Tensor>>): Tensor {
  if (!isQuantised(weight)) return linear(x, weight, bias);
  const inner = x.shape.at(-1);
  if (typeof inner !== "number") throw new ShapeError(`linearLayer: expected rows of a fixed width, got ${x}`);
  const { bits, blockSize } = blockFormat(inner, weight.packed.shape);
  const product = quantisedLinear(x, weight, bits, blockSize);
  return bias ? add(product, bias) : product;
}

/**
 * Rows of a table [V, width] for token ids [...]: [..., width]. A table in blocks stays in blocks.
 * @throws ShapeError for blocks with zero points.
 */
export function embeddingRows(table: LinearWeight<Tensor>, ids: Tensor, width: number): Tensor {
  if (!isQuantised(table)) return embedding(table, ids);
  if (table.zeroPoints) throw new ShapeError("embeddingRows: expected a table in blocks with offsets, got zero points");
  return quantisedEmbedding(table, ids, { bits: blockFormat(width, table.packed.shape).bits, inner: width });
}
