// The decoder's parameters: a tree of specifications. Query, key and value are one matrix, gate and up another: what is multiplied
// together lies together, and its named parts keep their own initialisation and checkpoint keys.
// Types, not interfaces: only those fit `Tree`.
import type { LinearParameters } from "../../nn/linear.ts";
import { type Initializer, type ParameterSpec, parameter } from "../../nn/parameter.ts";
import { type DecoderConfig, hasExperts } from "./config.ts";

export type NormParameters<T> = { scale: T; bias?: T };

export type AttentionParameters<T, W = T> = {
  /** Absent with latent attention. */
  qkv?: LinearParameters<T, W>;
  latent?: LatentParameters<T, W>;
  output: LinearParameters<T, W>;
  queryNorm?: NormParameters<T>;
  keyNorm?: NormParameters<T>;
};

/** Compressed queries, keys and values (DeepSeek-V2, Section 2.1). The rows of a head: plain features, then rotated ones, or values. */
export type LatentParameters<T, W = T> = {
  queryDown?: LinearParameters<T, W>;
  queryNorm?: NormParameters<T>;
  query: LinearParameters<T, W>;
  /** Its last rows are the rotated features of the keys, which all heads share. */
  keyValueDown: LinearParameters<T, W>;
  keyValueNorm: NormParameters<T>;
  keyValue: LinearParameters<T, W>;
};

export type MlpParameters<T, W = T> = { up: LinearParameters<T, W>; down: LinearParameters<T, W> };

/** Shapes: E experts, M inner width. The rows of gate and up alternate, gate first, as ONNX Runtime's kernel has them. */
export type ExpertParameters<T, W = T> = {
  /** weight [E, C]; `selection` [E] is added to the scores for the choice alone. */
  router: { weight: T; selection?: T };
  /** [E, 2M, C] */
  up: { weight: W };
  /** [E, C, M] */
  down: { weight: W };
  /** [1, C], of the shared MLP. */
  sharedGate?: { weight: T };
};

export type BlockParameters<T, W = T> = {
  attentionNorm: NormParameters<T>;
  attention: AttentionParameters<T, W>;
  /** Norm of the sublayer's output, where there are norms on both sides. */
  attentionOutputNorm?: NormParameters<T>;
  mlpNorm: NormParameters<T>;
  /** The MLP or, in a layer of experts, the one that every token goes through besides. */
  mlp?: MlpParameters<T, W>;
  experts?: ExpertParameters<T, W>;
  mlpOutputNorm?: NormParameters<T>;
};

/** The tree, with leaves of any kind: specifications, tensors, buffers. W: the matrices of linear layers and the table of tokens, which inference may quantise. */
export type DecoderParameters<T, W = T> = {
  embedding: { tokens: W; positions?: T };
  layers: BlockParameters<T, W>[];
  norm: NormParameters<T>;
  head?: { weight: W };
};

/** Shapes: C width, H·D query features, G·D key features, M MLP width; matrices are stored [out, in]. */
export function decoderParameters(config: DecoderConfig): DecoderParameters<ParameterSpec> {
  const { vocabSize, width, layers, mlpWidth, contextLength, initStd } = config;
  const weight: Initializer = { kind: "normal", std: initStd };
  const residual: Initializer = { kind: "normal", std: config.scaleResidualInit ? initStd / Math.sqrt(2 * layers) : initStd };
  const zeros: Initializer = { kind: "zeros" };
  const matrix = (
    out: number,
    inner: number,
    bias: boolean,
    initializer = weight,
    names?: { name: string; rows: number }[],
  ): LinearParameters<ParameterSpec> => ({
    weight: parameter([out, inner], initializer, { parts: names }),
    ...(bias ? { bias: parameter([out], zeros, { parts: names }) } : {}),
  });
  const norm = (size = width, bias = config.norm === "layer"): NormParameters<ParameterSpec> => ({
    scale: parameter([size], { kind: "ones" }),
    ...(bias ? { bias: parameter([size], zeros) } : {}),
  });
  const attention = (): AttentionParameters<ParameterSpec> => {
    const { heads, kvHeads, headWidth, latent } = config;
    const output = (inner: number) => matrix(width, inner, config.outputBias, residual);
    if (latent) {
      const { queryRank, keyValueRank, plainWidth, rotaryWidth, valueWidth } = latent;
      const query = heads * (plainWidth + rotaryWidth);
      return {
        latent: {
          ...(queryRank ? { queryDown: matrix(queryRank, width, false), queryNorm: norm(queryRank, false) } : {}),
          query: matrix(query, queryRank ?? width, false),
          keyValueDown: matrix(keyValueRank + rotaryWidth, width, false),
          keyValueNorm: norm(keyValueRank, false),
          keyValue: matrix(heads * (plainWidth + valueWidth), keyValueRank, false),
        },
        output: output(heads * valueWidth),
      };
    }
    const [query, key] = [heads * headWidth, kvHeads * headWidth];
    const qkNormSizes = config.qkNorm === "head" ? [headWidth, headWidth] : [query, key];
    return {
      qkv: matrix(query + 2 * key, width, config.qkvBias, weight, [
        { name: "query", rows: query },
        { name: "key", rows: key },
        { name: "value", rows: key },
      ]),
      output: output(query),
      ...(config.qkNorm === "none" ? {} : { queryNorm: norm(qkNormSizes[0], false), keyNorm: norm(qkNormSizes[1], false) }),
    };
  };
  const mlp = (inner: number): MlpParameters<ParameterSpec> => ({
    up:
      config.mlp === "gated"
        ? matrix(2 * inner, width, config.mlpBias, weight, [
            { name: "gate", rows: inner },
            { name: "up", rows: inner },
          ])
        : matrix(inner, width, config.mlpBias),
    down: matrix(width, inner, config.mlpBias, residual),
  });
  const feedForward = (layer: number): Pick<BlockParameters<ParameterSpec>, "mlp" | "experts"> => {
    if (!config.experts || !hasExperts(config, layer)) return { mlp: mlp(mlpWidth) };
    const { count, width: inner, selectionBias, sharedWidth, sharedGate } = config.experts;
    return {
      ...(sharedWidth > 0 ? { mlp: mlp(sharedWidth) } : {}),
      experts: {
        router: { weight: parameter([count, width], weight), ...(selectionBias ? { selection: parameter([count], zeros) } : {}) },
        up: { weight: parameter([count, 2 * inner, width], weight) },
        down: { weight: parameter([count, width, inner], residual) },
        ...(sharedGate ? { sharedGate: { weight: parameter([1, width], weight) } } : {}),
      },
    };
  };
  const both = config.normPlace === "both";
  const block = (_: unknown, layer: number): BlockParameters<ParameterSpec> => ({
    attentionNorm: norm(),
    attention: attention(),
    ...(both ? { attentionOutputNorm: norm() } : {}),
    mlpNorm: norm(),
    ...feedForward(layer),
    ...(both ? { mlpOutputNorm: norm() } : {}),
  });
  return {
    embedding: {
      tokens: parameter([vocabSize, width], weight),
      // As in GPT-2's training, positions are decayed no more than biases are: there is one row a position, whatever the data.
      ...(config.position === "learned" ? { positions: parameter([contextLength, width], weight, { decay: false }) } : {}),
    },
    layers: Array.from({ length: layers }, block),
    norm: norm(),
    ...(config.tieEmbeddings ? {} : { head: { weight: parameter([vocabSize, width], weight) } }),
  };
}
