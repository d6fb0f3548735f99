// One small configuration for every way in which decoders differ, with random parameters: what all faces of the decoder must agree on.
import { initializeParameters, type ParameterSpec } from "../../../nn/parameter.ts";
import type { TensorBuffer } from "../../../runtime/buffer.ts";
import { uniforms } from "../../../tensor/testing/reference.ts";
import { flatten } from "../../../tensor/tree.ts";
import { allocateDecoder } from "../checkpoint.ts";
import { type DecoderConfig, type DecoderOptions, decoderConfig } from "../config.ts";
import type { DecoderParameters } from "../parameters.ts";

const base = { vocabSize: 13, width: 16, layers: 2, heads: 2, mlpWidth: 24, contextLength: 12, initStd: 0.35 };

const changes: Record<string, Partial<DecoderOptions>> = {
  "as Llama": {},
  "layer norm": { norm: "layer" },
  "norm after the sublayers": { normPlace: "after" },
  "layer norm after the sublayers": { norm: "layer", normPlace: "after", normEpsilon: 1e-3 },
  "learned positions": { position: "learned" },
  "no positions": { position: "none" },
  "partial rotary": { rotaryFraction: 0.5, headWidth: 16 },
  "rotary base 100, none in layer 1": { rotaryBase: 100, noRotaryLayers: [1], headWidth: 16 },
  "grouped heads": { heads: 4, kvHeads: 2, headWidth: 16 },
  "one key/value head": { heads: 3, kvHeads: 1, headWidth: 8 },
  "norm of queries and keys by head": { qkNorm: "head", heads: 4, kvHeads: 2, headWidth: 16 },
  "norm of queries and keys by projection": { qkNorm: "projection", heads: 4, kvHeads: 2, headWidth: 8 },
  "plain MLP, tanh GELU, biases": { mlp: "plain", activation: "geluTanh", qkvBias: true, outputBias: true, mlpBias: true },
  "gated GELU, biases": { activation: "gelu", qkvBias: true, outputBias: true, mlpBias: true },
  "plain MLP, ReLU": { mlp: "plain", activation: "relu" },
  "plain MLP, squared ReLU": { mlp: "plain", activation: "squaredRelu" },
  "untied output matrix": { tieEmbeddings: false },
  "scaled embeddings and scores": { embeddingScale: 4, attentionScale: 0.1 },
  "soft caps": { attentionSoftCap: 1.5, logitSoftCap: 2 },
  "sliding windows": { window: 3, headWidth: 16 },
  "a sliding and a full layer": { window: 2, layerTypes: ["sliding", "full"] },
  "as GPT-2": {
    norm: "layer",
    position: "learned",
    mlp: "plain",
    activation: "geluTanh",
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
  },
  "head width no multiple of 8": { heads: 2, headWidth: 6 },
  "norms on both sides": { normPlace: "both" },
  "two rotary bases": { window: 3, layerTypes: ["sliding", "full"], slidingRotaryBase: 50, headWidth: 16 },
  "rotary scaling: linear": { rotaryScaling: { kind: "linear", factor: 3 }, headWidth: 16 },
  "rotary scaling: llama3": {
    rotaryScaling: { kind: "llama3", factor: 4, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 64 },
    headWidth: 16,
  },
  "rotary scaling: yarn": { rotaryScaling: { kind: "yarn", factor: 4, originalLength: 8, betaFast: 2 }, headWidth: 16, qkNorm: "head" },
  "rotary scaling: longrope": {
    rotaryScaling: { kind: "longrope", shortFactors: [1, 1.2], longFactors: [1.5, 6], originalLength: 100, attentionFactor: 1.2 },
    headWidth: 8,
    rotaryFraction: 0.5,
  },
  "as Gemma 2": {
    normPlace: "both",
    activation: "geluTanh",
    attentionSoftCap: 2,
    logitSoftCap: 3,
    embeddingScale: 4,
    attentionScale: 0.2,
    window: 3,
    layerTypes: ["sliding", "full"],
    headWidth: 16,
  },
  experts: { experts: { count: 4, chosen: 2, width: 8 } },
  "experts and a dense layer, GELU, not normalised": {
    activation: "gelu",
    experts: { count: 4, chosen: 2, width: 8, denseLayers: [0], normalise: false },
  },
  "experts as in DeepSeek-V3": {
    experts: {
      count: 6,
      chosen: 2,
      width: 8,
      score: "sigmoid",
      selectionBias: true,
      groups: 3,
      chosenGroups: 2,
      scale: 2.5,
      sharedWidth: 8,
      sharedGate: true,
    },
  },
  "latent attention": { latent: { queryRank: 12, keyValueRank: 10, plainWidth: 4, rotaryWidth: 4, valueWidth: 6 } },
  "latent attention, queries not compressed": { latent: { keyValueRank: 10, plainWidth: 6, rotaryWidth: 2, valueWidth: 12 } },
};

export interface Variant {
  readonly name: string;
  readonly config: DecoderConfig;
}

export const variants: readonly Variant[] = Object.entries(changes).map(([name, change]) => ({
  name,
  config: decoderConfig({ ...base, ...change }),
}));

/** A decoder with random parameters; biases and norms, which start at 0 and 1, are moved too. */
export function randomDecoder(config: DecoderConfig, seed = 1): ReturnType<typeof allocateDecoder> {
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs, decoder.parameters, seed);
  const next = uniforms(seed);
  for (const { shape, data } of decoder.parameters.leaves.values())
    if (shape.length === 1) for (let i = 0; i < data.length; i++) (data as Float32Array)[i] += 0.6 * next() - 0.3;
  return decoder;
}

/** The specifications with their paths. */
export const leavesOf = (specs: DecoderParameters<ParameterSpec>): [path: string, leaf: ParameterSpec][] => flatten<ParameterSpec>(specs);

/** Random token ids. */
export function randomIds({ vocabSize }: DecoderConfig, count: number, seed = 5): number[] {
  const next = uniforms(seed);
  return Array.from({ length: count }, () => Math.floor(next() * vocabSize));
}

export type Leaves = ReadonlyMap<string, Pick<TensorBuffer, "shape" | "data">>;
