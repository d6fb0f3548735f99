// The decoder's parameters: a tree of specifications. Query, key and value are one matrix, gate and up another: what is multiplied
// together lies together, and its named parts keep their own initialisation and checkpoint keys.
import type { LinearParameters } from "../../nn/linear.ts";
import { type Initializer, type ParameterSpec, parameter } from "../../nn/parameter.ts";
import type { DecoderConfig } from "./config.ts";

export interface NormParameters<T> {
  scale: T;
  bias?: T;
}

export interface BlockParameters<T, W = T> {
  attentionNorm: NormParameters<T>;
  attention: { qkv: LinearParameters<T, W>; output: LinearParameters<T, W>; queryNorm?: NormParameters<T>; keyNorm?: NormParameters<T> };
  mlpNorm: NormParameters<T>;
  mlp: { up: LinearParameters<T, W>; down: LinearParameters<T, W> };
}

/** The tree, with leaves of any kind: specifications, tensors, buffers. W: the matrices of linear layers, which inference may quantise. */
export interface DecoderParameters<T, W = T> {
  embedding: { tokens: T; positions?: T };
  layers: BlockParameters<T, W>[];
  norm: NormParameters<T>;
  head?: { weight: W };
}

/** Shapes: C width, H·D query features, G·D key features, M MLP width; matrices are stored [out, in]. */
export function decoderParameters(config: DecoderConfig): DecoderParameters<ParameterSpec> {
  const { vocabSize, width, layers, heads, kvHeads, headWidth, mlpWidth, contextLength, initStd } = config;
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
  const [query, key] = [heads * headWidth, kvHeads * headWidth];
  const qkNormSizes = config.qkNorm === "head" ? [headWidth, headWidth] : [query, key];
  const gated = config.mlp === "gated";
  const block = (): BlockParameters<ParameterSpec> => ({
    attentionNorm: norm(),
    attention: {
      qkv: matrix(query + 2 * key, width, config.qkvBias, weight, [
        { name: "query", rows: query },
        { name: "key", rows: key },
        { name: "value", rows: key },
      ]),
      output: matrix(width, query, config.outputBias, residual),
      ...(config.qkNorm === "none" ? {} : { queryNorm: norm(qkNormSizes[0], false), keyNorm: norm(qkNormSizes[1], false) }),
    },
    mlpNorm: norm(),
    mlp: {
      up: gated
        ? matrix(2 * mlpWidth, width, config.mlpBias, weight, [
            { name: "gate", rows: mlpWidth },
            { name: "up", rows: mlpWidth },
          ])
        : matrix(mlpWidth, width, config.mlpBias),
      down: matrix(width, mlpWidth, config.mlpBias, residual),
    },
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
