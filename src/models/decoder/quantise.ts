// A decoder with its matrices in blocks of 4 or 8 bits, for inference. Fused matrices stay fused; norms, biases, routers and the embeddings
// that are gathered from stay float32; a tied output matrix gets a quantised copy, because it is read whole for every token.
import { UsageError } from "../../base/errors.ts";
import { isQuantised, type LinearWeight } from "../../nn/linear.ts";
import { packQ4, packQ8, packStackQ8 } from "../../nn/quantise.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";
import { flatten, isLeaf, join, type Tree } from "../../tensor/tree.ts";
import type { DecoderConfig } from "./config.ts";
import type { DecoderParameters } from "./parameters.ts";

type Weight = LinearWeight<TensorBuffer>;

/** What decoding needs of a model: a loaded decoder, or a quantised one. */
export interface InferenceModel {
  readonly config: DecoderConfig;
  readonly parameters: { readonly tree: DecoderParameters<TensorBuffer, Weight> };
}

export interface QuantiseOptions {
  /** Bits of a weight. Default 8. Experts always get 8: ONNX Runtime's kernel is ten times slower with 4. */
  bits?: 4 | 8;
  /** Values that share a scale: a power of two of at least 16. Default 32. */
  blockSize?: number;
}

export interface QuantisedDecoder extends InferenceModel {
  readonly bits: 4 | 8;
  readonly blockSize: number;
  /** Memory of the whole tree. */
  readonly bytes: number;
}

/** Memory of all leaves. */
export const bytesOfTree = (tree: unknown): number =>
  flatten<TensorBuffer>(tree as Tree<TensorBuffer>).reduce((sum, [, { data }]) => sum + data.byteLength, 0);

/**
 * A quantised copy of a decoder. Nothing of it refers to the original, whose memory may go.
 * @throws ShapeError for matrices narrower than half a block, UsageError for other block sizes.
 */
export function quantiseDecoder(decoder: InferenceModel, { bits = 8, blockSize = 32 }: QuantiseOptions = {}): QuantisedDecoder {
  if (bits !== 4 && bits !== 8) throw new UsageError(`bits: expected 4 or 8, got ${bits}`, { hint: "Choose 8 for quality, 4 for speed." });
  const { config, parameters } = decoder;
  const packMatrix = bits === 4 ? packQ4 : packQ8;
  /** Experts whose rows are no whole blocks, or whose activation has no kernel, stay as they are. */
  const packStack = (stack: TensorBuffer, name: string): Weight => {
    const whole = config.activation === "silu" && [config.width, config.experts?.width ?? 0].every((inner) => inner % blockSize === 0);
    return whole ? packStackQ8(stack, { blockSize, name }) : copy(stack);
  };
  const matrix = (weight: Weight, name: string): Weight => {
    if (isQuantised(weight)) throw new UsageError("quantiseDecoder: expected a float32 decoder, got one that is quantised already");
    return weight.shape.length === 3 ? packStack(weight, name) : packMatrix(weight, { blockSize, name });
  };
  /** Matrices are the leaves called `weight`, but for the small ones that decide. */
  const convert = (node: unknown, path: string, inside: string): unknown => {
    if (isLeaf(node)) return copy(node as TensorBuffer);
    return Object.fromEntries(
      Object.entries(node as object).flatMap(([key, child]) => {
        if (child === undefined) return [];
        const isMatrix = key === "weight" && inside !== "router" && inside !== "sharedGate";
        return [[key, isMatrix ? matrix(child as Weight, join(path, key)) : convert(child, join(path, key), key)]];
      }),
    );
  };
  const { embedding, layers, norm, head } = parameters.tree;
  const output = head ? { weight: head.weight, name: "head.weight" } : { weight: embedding.tokens as Weight, name: "embedding.tokens" };
  const tree: DecoderParameters<TensorBuffer, Weight> = {
    embedding: convert(embedding, "embedding", "") as typeof embedding,
    layers: layers.map((block, i) => convert(block, `layers.${i}`, "") as typeof block),
    norm: convert(norm, "norm", "") as typeof norm,
    head: { weight: matrix(output.weight, output.name) },
  };
  return { config, parameters: { tree }, bits, blockSize, bytes: bytesOfTree(tree) };
}

function copy<B extends TensorBuffer>(buffer: B): B {
  const copied = allocate(buffer.dtype, buffer.shape);
  (copied.data as Float32Array).set(buffer.data as Float32Array);
  return copied as B;
}
