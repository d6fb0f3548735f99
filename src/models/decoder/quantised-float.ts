// Calls of many rows over a model in blocks of 8 bits: each matrix becomes float32 just before its product and is forgotten behind it, so that
// what this costs is spread over the rows, and nothing but the blocks is kept.
import { blockFormat, type LinearWeight, type QuantisedWeight } from "../../nn/linear.ts";
import type { ParameterSpec } from "../../nn/parameter.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { dequantise } from "../../tensor/dequantise.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { flatten, isLeaf, join } from "../../tensor/tree.ts";
import type { DecoderConfig } from "./config.ts";
import type { DecoderTensors } from "./decoder.ts";
import { decoderParameters } from "./parameters.ts";
import type { InferenceModel } from "./quantise.ts";

/** Whether the layers of a model have matrices in blocks, all of them of 8 bits. Experts have a kernel of their own. */
export function hasBytesAlone({ config, parameters }: InferenceModel): boolean {
  if (config.experts) return false;
  const bits: number[] = [];
  mapMatrices<TensorBuffer, unknown>(config, parameters.tree.layers, (weight, inner) => {
    bits.push(blockFormat(inner, weight.packed.shape).bits);
    return weight;
  });
  return bits.length > 0 && bits.every((count) => count === 8);
}

/** The parameters with the matrices of the layers as float32 tensors, for a program that has the blocks as inputs; see {@link dequantise}. */
export const floatMatrices = (config: DecoderConfig, parameters: DecoderTensors): DecoderTensors => ({
  ...parameters,
  layers: mapMatrices<Tensor, DecoderTensors["layers"]>(config, parameters.layers, dequantise),
});

/** The same layers with another weight in place of each matrix of blocks. Its number of columns is that of the specification: blocks may be padded. */
function mapMatrices<T, L>(config: DecoderConfig, layers: L, change: (weight: QuantisedWeight<T>, inner: number) => LinearWeight<T>): L {
  const specs = new Map(flatten<ParameterSpec>(decoderParameters(config).layers));
  const visit = (node: unknown, path: string): unknown => {
    if (typeof node !== "object" || node === null || isLeaf(node)) return node;
    if (Array.isArray(node)) return node.map((child, i) => visit(child, join(path, String(i))));
    const spec = specs.get(path);
    if (spec) return change(node as QuantisedWeight<T>, spec.shape[1]);
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, visit(child, join(path, key))]));
  };
  return visit(layers, "") as L;
}
