// A decoder with its matrices in blocks of 4 or 8 bits, for inference. Fused matrices stay fused; norms, biases and the embeddings that
// are gathered from stay float32; a tied output matrix gets a quantised copy, because it is read whole for every token.
import { UsageError } from "../../base/errors.ts";
import { isQuantised, type LinearParameters, type LinearWeight, type QuantisedWeight } from "../../nn/linear.ts";
import { packQ4, packQ8 } from "../../nn/quantise.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";
import { flatten, mapTree, type Tree } from "../../tensor/tree.ts";
import type { DecoderConfig } from "./config.ts";
import type { BlockParameters, DecoderParameters } from "./parameters.ts";

type Weight = LinearWeight<TensorBuffer>;

/** What decoding needs of a model: a loaded decoder, or a quantised one. */
export interface InferenceModel {
  readonly config: DecoderConfig;
  readonly parameters: { readonly tree: DecoderParameters<TensorBuffer, Weight> };
}

export interface QuantiseOptions {
  /** Bits of a weight. Default 8. */
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
  const { embedding, layers, norm, head } = parameters.tree;
  const pack = bits === 4 ? packQ4 : packQ8;
  const matrix = (weight: Weight): QuantisedWeight<TensorBuffer> => {
    if (isQuantised(weight)) throw new UsageError("quantiseDecoder: expected a float32 decoder, got one that is quantised already");
    return pack(weight, { blockSize });
  };
  const linear = ({ weight, bias }: LinearParameters<TensorBuffer, Weight>): LinearParameters<TensorBuffer, Weight> => ({
    weight: matrix(weight),
    ...(bias ? { bias: copy(bias) } : {}),
  });
  const block = ({
    attentionNorm,
    attention,
    mlpNorm,
    mlp,
  }: BlockParameters<TensorBuffer, Weight>): BlockParameters<TensorBuffer, Weight> => {
    const { qkv, output, ...norms } = attention;
    return {
      attentionNorm: copyTree(attentionNorm),
      attention: { qkv: linear(qkv), output: linear(output), ...copyTree(norms) },
      mlpNorm: copyTree(mlpNorm),
      mlp: { up: linear(mlp.up), down: linear(mlp.down) },
    };
  };
  const tree: DecoderParameters<TensorBuffer, Weight> = {
    embedding: copyTree(embedding),
    layers: layers.map(block),
    norm: copyTree(norm),
    head: { weight: matrix(head?.weight ?? embedding.tokens) },
  };
  return { config, parameters: { tree }, bits, blockSize, bytes: bytesOfTree(tree) };
}

function copy<B extends TensorBuffer>(buffer: B): B {
  const copied = allocate(buffer.dtype, buffer.shape);
  (copied.data as Float32Array).set(buffer.data as Float32Array);
  return copied as B;
}

const copyTree = <T>(tree: T): T => mapTree(tree, (leaf) => copy(leaf as TensorBuffer)) as T;
