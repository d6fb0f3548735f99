// What a decoder costs: parameters, floating-point operations and memory, before anything is allocated.
import { countParameters, type ParameterSpec } from "../../nn/parameter.ts";
import { flatten } from "../../tensor/tree.ts";
import { type DecoderConfig, hasExperts } from "./config.ts";
import { decoderParameters } from "./parameters.ts";

export interface DecoderEstimate {
  /** All parameters. */
  parameters: number;
  /** Those that a token goes through: all but the experts that it does not choose. */
  activeParameters: number;
  /** Without the token and position embeddings (a tied output matrix counts as embedding). */
  nonEmbeddingParameters: number;
  /** Forward floating-point operations a token at the given length: 2 a multiply-add, causal attention counted by half. */
  forwardFlopsPerToken: number;
  /** Forward and backward: three times the forward pass. */
  trainingFlopsPerToken: number;
  /** Bytes of float32 weights, gradients and two moments. */
  trainingStateBytes: number;
  /** Rough bytes of activations of one training step of `tokens` tokens. */
  activationBytes: (tokens: number) => number;
  /** Bytes of keys and values a token (float32). */
  cacheBytesPerToken: number;
}

/** @param sequenceLength of the attention term; default the context length. */
export function estimateDecoder(config: DecoderConfig, sequenceLength = config.contextLength): DecoderEstimate {
  const { vocabSize, width, layers, heads, kvHeads, headWidth, experts } = config;
  const specs = decoderParameters(config);
  const parameters = countParameters(specs);
  const numExpertLayers = config.layerTypes.filter((_, layer) => hasExperts(config, layer)).length;
  const idle = experts ? numExpertLayers * (experts.count - experts.chosen) * 3 * experts.width * width : 0;
  const embeddings =
    vocabSize * width * (config.tieEmbeddings ? 1 : 2) + (config.position === "learned" ? config.contextLength * width : 0);
  // Every matrix of a layer is applied once to a token, but for the experts that it does not choose.
  const matrices =
    flatten<ParameterSpec>({ layers: specs.layers }).reduce(
      (sum, [, { shape }]) => (shape.length > 1 ? sum + shape.reduce((product, dim) => product * dim, 1) : sum),
      0,
    ) - idle;
  const mlpWidth = experts ? experts.chosen * experts.width + experts.sharedWidth : config.mlpWidth;
  // Scores and mixing: 2 products of D multiply-adds for each of T/2 keys (on average) and head.
  const seen = (kind: string): number =>
    kind === "sliding" ? Math.min(config.window ?? sequenceLength, sequenceLength / 2) : sequenceLength / 2;
  const attention = config.layerTypes.reduce((sum, kind) => sum + 4 * heads * headWidth * seen(kind), 0);
  const forwardFlopsPerToken = 2 * (matrices + vocabSize * width) + attention;
  const floatsPerToken =
    layers * (8 * width + 2 * (heads + 2 * kvHeads) * headWidth + 4 * mlpWidth + 2 * heads * sequenceLength) + 3 * vocabSize;
  return {
    parameters,
    activeParameters: parameters - idle,
    nonEmbeddingParameters: parameters - embeddings,
    forwardFlopsPerToken,
    trainingFlopsPerToken: 3 * forwardFlopsPerToken,
    trainingStateBytes: 16 * parameters,
    activationBytes: (tokens) => 4 * floatsPerToken * tokens,
    cacheBytesPerToken: 8 * layers * kvHeads * headWidth,
  };
}
