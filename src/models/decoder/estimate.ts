// What a decoder costs: parameters, floating-point operations and memory, before anything is allocated.
import { countParameters } from "../../nn/parameter.ts";
import type { DecoderConfig } from "./config.ts";
import { decoderParameters } from "./parameters.ts";

export interface DecoderEstimate {
  /** All parameters. */
  parameters: number;
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
  const { vocabSize, width, layers, heads, kvHeads, headWidth, mlpWidth } = config;
  const parameters = countParameters(decoderParameters(config) as never);
  const embeddings =
    vocabSize * width * (config.tieEmbeddings ? 1 : 2) + (config.position === "learned" ? config.contextLength * width : 0);
  const matrices =
    layers * (width * (heads + 2 * kvHeads) * headWidth + heads * headWidth * width + width * mlpWidth * (config.mlp === "gated" ? 3 : 2));
  // Scores and mixing: 2 products of D multiply-adds for each of T/2 keys (on average) and head.
  const seen = (kind: string): number =>
    kind === "sliding" ? Math.min(config.window ?? sequenceLength, sequenceLength / 2) : sequenceLength / 2;
  const attention = config.layerTypes.reduce((sum, kind) => sum + 4 * heads * headWidth * seen(kind), 0);
  const forwardFlopsPerToken = 2 * (matrices + vocabSize * width) + attention;
  const floatsPerToken =
    layers * (8 * width + 2 * (heads + 2 * kvHeads) * headWidth + 4 * mlpWidth + 2 * heads * sequenceLength) + 3 * vocabSize;
  return {
    parameters,
    nonEmbeddingParameters: parameters - embeddings,
    forwardFlopsPerToken,
    trainingFlopsPerToken: 3 * forwardFlopsPerToken,
    trainingStateBytes: 16 * parameters,
    activationBytes: (tokens) => 4 * floatsPerToken * tokens,
    cacheBytesPerToken: 8 * layers * kvHeads * headWidth,
  };
}
