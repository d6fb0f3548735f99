// The decoder as pure functions over symbolic tensors. One stack of blocks serves every face: `attend` is what differs between
// training (parallel), and decoding (over a cache). Letters: B batch, T time, N = B·T rows, C width, V vocabulary,
// H query heads, G key/value heads, D head width.
import { ShapeError } from "../../base/errors.ts";
import { causalAttention, causalSpans } from "../../nn/attention/causal.ts";
import { causalBias, documentBias } from "../../nn/attention/mask.ts";
import { softmaxAttention } from "../../nn/attention/softmax.ts";
import { embeddingRows, type LinearParameters, type LinearWeight, linearLayer } from "../../nn/linear.ts";
import { type ExpertsEmission, expertLayer } from "../../nn/moe/experts.ts";
import { balanceLoss, route } from "../../nn/moe/router.ts";
import { residualNorm } from "../../nn/residual-norm.ts";
import { type RotaryOptions, rotaryTables } from "../../nn/rotary.ts";
import { gelu, relu, silu, softCap, squaredRelu } from "../../tensor/activation.ts";
import { rotary } from "../../tensor/attention.ts";
import { constant, reshape, sum } from "../../tensor/core.ts";
import { add, div, mul, neg, sigmoid } from "../../tensor/elementwise.ts";
import { embedding, gather } from "../../tensor/gather.ts";
import { scope, type Tensor } from "../../tensor/graph.ts";
import { labelLogProbs } from "../../tensor/loss.ts";
import { layerNorm, rmsNorm } from "../../tensor/norm.ts";
import { concat, slice, split, transpose } from "../../tensor/shape.ts";
import { type DecoderConfig, rotaryOptions, rotaryWidth } from "./config.ts";
import { latentRows, latentValues } from "./latent.ts";
import type { BlockParameters, DecoderParameters, MlpParameters, NormParameters } from "./parameters.ts";

/** Matrices of linear layers may be quantised: for inference. */
export type DecoderTensors = DecoderParameters<Tensor, LinearWeight<Tensor>>;
export type BlockTensors = BlockParameters<Tensor, LinearWeight<Tensor>>;

/** Attention of one layer: joined queries, keys and values [N, (H + 2G)·D] → mixed values [N, H·D]. */
export type Attend = (qkv_NF: Tensor, layer: number, parameters: BlockTensors) => Tensor;

const activations = {
  silu,
  gelu: (x: Tensor) => gelu(x),
  geluTanh: (x: Tensor) => gelu(x, { approximate: "tanh" }),
  relu,
  squaredRelu,
};

export function normalize(config: DecoderConfig, x: Tensor, { scale, bias }: NormParameters<Tensor>): Tensor {
  const options = { epsilon: config.normEpsilon };
  return config.norm === "layer" ? layerNorm(x, scale, bias, options) : rmsNorm(x, scale, options);
}

/** Token embeddings (plus learned positions) as rows [N, C]; `positions` has the shape of `ids`. */
export function embed(config: DecoderConfig, parameters: DecoderTensors, ids: Tensor, positions?: Tensor): Tensor {
  let x = embeddingRows(parameters.embedding.tokens, ids, config.width);
  if (config.embeddingScale !== 1) x = mul(x, config.embeddingScale);
  if (config.position === "learned") {
    const table = parameters.embedding.positions as Tensor;
    if (positions) x = add(x, embedding(table, positions));
    else x = add(x, slice(table, 0, 0, ids.shape.at(-1) as number));
  }
  return reshape(x, [-1, config.width]);
}

export interface StackOutput {
  /** [N, C] before the final norm. */
  hidden: Tensor;
  /** [N, C] rows as they enter layer i, for the layers asked for. */
  layers: Map<number, Tensor>;
  /** What the router of each layer of experts decided: logits [N, E] and choices [N, K]. */
  routers: { logits: Tensor; chosen: Tensor }[];
}

export interface StackOptions {
  /** Residual sums and norms in one kernel: less to launch, but no derivative. Default false. */
  fuseResiduals?: boolean;
  /** How layers of experts are computed. Default grouped: with a derivative, for a fixed number of tokens. */
  experts?: ExpertsEmission;
}

/**
 * All blocks over rows [N, C] (or [B, T, C], where `attend` takes them). `record`: layers whose input rows are wanted (drafters, early exit).
 */
export function decoderStack(
  config: DecoderConfig,
  parameters: DecoderTensors,
  x: Tensor,
  attend: Attend,
  record: readonly number[] = [],
  { fuseResiduals = false, experts = "grouped" }: StackOptions = {},
): StackOutput {
  const layers = new Map<number, Tensor>();
  const routers: StackOutput["routers"] = [];
  let rows: Residual = { sum: x };
  for (const [index, block] of parameters.layers.entries()) {
    const { attentionNorm, attentionOutputNorm, mlpNorm, mlpOutputNorm } = block;
    const parts: [name: string, norm: NormParameters<Tensor>, after: NormParameters<Tensor> | undefined, (input: Tensor) => Tensor][] = [
      ["attention", attentionNorm, attentionOutputNorm, (input) => attentionLayer(config, block, index, input, attend)],
      ["mlp", mlpNorm, mlpOutputNorm, (input) => feedForward(config, block, input, experts, routers)],
    ];
    for (const [name, norm, after, sublayer] of parts) {
      rows = scope(x, `layers.${index}.${name}`, () => {
        const { sum, normed } = enter(config, rows, norm, fuseResiduals);
        if (name === "attention" && record.includes(index)) layers.set(index, sum);
        const delta = sublayer(normed);
        return { sum, delta: config.normPlace === "before" ? delta : normalize(config, delta, after ?? norm) };
      });
    }
  }
  return { hidden: total(rows), layers, routers };
}

function attentionLayer(config: DecoderConfig, block: BlockTensors, layer: number, input: Tensor, attend: Attend): Tensor {
  const { qkv, latent, output } = block.attention;
  if (latent) return linearLayer(latentValues(config, attend(latentRows(config, latent, input), layer, block)), output);
  return linearLayer(attend(linearLayer(input, qkv as LinearParameters<Tensor, LinearWeight<Tensor>>), layer, block), output);
}

/** The residual stream, and the output of the last sublayer that is still to be added. */
interface Residual {
  sum: Tensor;
  delta?: Tensor;
}

const total = ({ sum, delta }: Residual): Tensor => (delta ? add(sum, delta) : sum);

/** Adds what is left over and normalises the result for the next sublayer (norm before it) or leaves it as it is (norm after it). */
function enter(config: DecoderConfig, rows: Residual, norm: NormParameters<Tensor>, fuse: boolean): { sum: Tensor; normed: Tensor } {
  const before = config.normPlace !== "after";
  if (fuse && rows.delta && before) return residualNorm(rows.sum, rows.delta, norm, { kind: config.norm, epsilon: config.normEpsilon });
  const sum = total(rows);
  return { sum, normed: before ? normalize(config, sum, norm) : sum };
}

/** The MLP of a block, or its experts, or both. */
function feedForward(
  config: DecoderConfig,
  { mlp, experts }: BlockTensors,
  input: Tensor,
  emission: ExpertsEmission,
  routers: StackOutput["routers"],
): Tensor {
  let output = mlp && decoderMlp(config, mlp, input);
  if (!experts || !config.experts) return output as Tensor;
  const { router, up, down, sharedGate } = experts;
  const logits = linearLayer(input, { weight: router.weight });
  const routing = route(logits, config.experts, router.selection);
  routers.push({ logits, chosen: routing.chosen });
  const weights = { up: up.weight, down: down.weight };
  const routed = expertLayer(input, weights, routing, { activate: activations[config.activation], emission });
  if (output && sharedGate) output = mul(output, sigmoid(linearLayer(input, sharedGate)));
  return output ? add(output, routed) : routed;
}

function decoderMlp(config: DecoderConfig, mlp: MlpParameters<Tensor, LinearWeight<Tensor>>, input: Tensor): Tensor {
  const activate = activations[config.activation];
  let inner = linearLayer(input, mlp.up);
  if (config.mlp === "gated") {
    const width = (inner.shape.at(-1) as number) / 2;
    const [gate, value] = split(inner, [width, width]);
    inner = mul(activate(gate), value);
  } else inner = activate(inner);
  return linearLayer(inner, mlp.down);
}

/** Final norm and output matrix: rows [N, C] → logits [N, V]. */
export const decoderLogits = (config: DecoderConfig, parameters: DecoderTensors, hidden: Tensor): Tensor =>
  unembed(config, outputMatrix(parameters), finalNorm(config, parameters, hidden));

/** The rows [N, C] that the output matrix reads, and that drafters call the final hidden states. */
export const finalNorm = (config: DecoderConfig, parameters: DecoderTensors, hidden: Tensor): Tensor =>
  scope(hidden, "head", () => normalize(config, hidden, parameters.norm));

/** The matrix that reads the final hidden rows: the token embedding where the two are tied. */
export const outputMatrix = <T, W>({ head, embedding }: Pick<DecoderParameters<T, W>, "embedding" | "head">): W =>
  head?.weight ?? embedding.tokens;

/** Output matrix alone: rows [N, C] after the final norm → logits [N, V]. */
export function unembed(config: DecoderConfig, matrix: LinearWeight<Tensor>, rows: Tensor): Tensor {
  return scope(rows, "head", () => {
    const logits = linearLayer(rows, { weight: matrix });
    return config.logitSoftCap > 0 ? softCap(logits, config.logitSoftCap) : logits;
  });
}

/** Queries, keys and values of rows [N, (H + 2G)·D], normalised as configured, still as rows of [heads, D]. */
export function splitHeads(config: DecoderConfig, qkv_NF: Tensor, { attention }: BlockTensors): Tensor[] {
  const { heads, kvHeads, headWidth } = config;
  const sizes = [heads * headWidth, kvHeads * headWidth, kvHeads * headWidth];
  let [query, key, value] = split(qkv_NF, sizes);
  const { queryNorm, keyNorm } = attention;
  if (config.qkNorm === "projection" && queryNorm && keyNorm) {
    query = rmsNorm(query, queryNorm.scale, { epsilon: config.normEpsilon });
    key = rmsNorm(key, keyNorm.scale, { epsilon: config.normEpsilon });
  }
  query = reshape(query, [-1, heads, headWidth]);
  key = reshape(key, [-1, kvHeads, headWidth]);
  value = reshape(value, [-1, kvHeads, headWidth]);
  if (config.qkNorm === "head" && queryNorm && keyNorm) {
    query = rmsNorm(query, queryNorm.scale, { epsilon: config.normEpsilon });
    key = rmsNorm(key, keyNorm.scale, { epsilon: config.normEpsilon });
  }
  return [query, key, value];
}

export const usesRotary = (config: DecoderConfig, layer: number): boolean =>
  config.position === "rotary" && !config.noRotaryLayers.includes(layer);

/** Rotates the leading features of x [.., .., .., D]; the rest passes (partial rotary). */
export function rotateHeads(config: DecoderConfig, x: Tensor, cosines: Tensor, sines: Tensor): Tensor {
  const width = rotaryWidth(config);
  if (width === config.headWidth) return rotary(x, cosines, sines);
  return concat([rotary(slice(x, -1, 0, width), cosines, sines), slice(x, -1, width)], -1);
}

export interface SequenceOptions {
  /** Position of each token [B, T] (i32). Default 0 … T − 1. */
  positions?: Tensor;
  /** Number of the document of each token [B, T] (i32): packed documents do not see each other. */
  documents?: Tensor;
}

/** Attention of whole sequences [B, T], causal. */
function parallelAttend(config: DecoderConfig, ids_BT: Tensor, options: SequenceOptions): Attend {
  const [batch, time] = ids_BT.shape;
  if (typeof batch !== "number" || typeof time !== "number")
    throw new ShapeError(`decoder: expected fixed sizes for whole sequences, got ${ids_BT}`);
  const { heads, kvHeads, headWidth } = config;
  const all = heads + 2 * kvHeads;
  const { graph } = ids_BT;
  const shared = new Map<string, unknown>();
  const once = <T>(key: string, make: () => T): T => {
    if (!shared.has(key)) shared.set(key, make());
    return shared.get(key) as T;
  };
  return (qkv_NF, layer, block) => {
    const { dtype } = qkv_NF;
    const window = config.layerTypes[layer] === "sliding" ? config.window : undefined;
    const turns = usesRotary(config, layer);
    const tables = (): Tensor[] => {
      const rotation = rotaryOptions(config, layer);
      const make = () => parallelTables(config, rotation, ids_BT, options, dtype as "f32" | "f64");
      return once(`rotary ${dtype} ${rotation.base} ${rotation.scaling !== undefined}`, make);
    };
    const normed = config.qkNorm === "none" ? undefined : splitHeads(config, qkv_NF, block);
    const rows = normed ? concat(normed, 1) : reshape(qkv_NF, [batch * time, all, headWidth]);
    // What is the same for all sequences goes block by block; positions or documents of each of them, or a soft cap, in the large.
    if (!options.positions && !options.documents && config.attentionSoftCap === 0) {
      const spans = once(`spans ${dtype} ${window}`, () => causalSpans(graph, time, dtype, window));
      const rotation = turns
        ? { tables: tables(), apply: (x: Tensor, cosines: Tensor, sines: Tensor) => rotateHeads(config, x, cosines, sines) }
        : undefined;
      const mixed_BTC = causalAttention(reshape(rows, [batch, time, all * headWidth]), spans, {
        heads,
        kvHeads,
        scale: config.attentionScale,
        rotation,
      });
      return reshape(mixed_BTC, [batch * time, heads * headWidth]);
    }
    let heads_ABTD = transpose(reshape(rows, [batch, time, all, headWidth]), [2, 0, 1, 3]);
    if (turns) {
      const [cosines, sines] = tables();
      const [turned, value] = split(heads_ABTD, [heads + kvHeads, kvHeads], 0);
      heads_ABTD = concat([rotateHeads(config, turned, cosines, sines), value], 0);
    }
    const [query, key, value] = split(heads_ABTD, [heads, kvHeads, kvHeads], 0);
    const bias = once(`bias ${dtype} ${window}`, () => {
      const causal = causalBias(graph, time, dtype, window);
      return options.documents ? add(documentBias(options.documents, dtype), causal) : causal;
    });
    const mixed_HBTD = softmaxAttention(query, key, value, { scale: config.attentionScale, softCap: config.attentionSoftCap, bias });
    return reshape(transpose(mixed_HBTD, [1, 2, 0, 3]), [batch * time, heads * headWidth]);
  };
}

/** Tables [T, D/2], or rows of them [B, T, D/2] for given positions. */
function parallelTables(
  config: DecoderConfig,
  rotation: RotaryOptions,
  ids_BT: Tensor,
  { positions }: SequenceOptions,
  dtype: "f32" | "f64",
): [Tensor, Tensor] {
  const time = ids_BT.shape[1] as number;
  const length = positions ? Math.max(config.contextLength, time) : time;
  const { cosines, sines } = rotaryTables(length, rotation, dtype, time);
  const tables = [cosines, sines].map((data) => constant(ids_BT.graph, dtype, [length, rotation.width / 2], data));
  return (positions ? tables.map((table) => gather(table, positions)) : tables) as [Tensor, Tensor];
}

/** Hidden rows [N, C] (before the final norm) of whole sequences ids [B, T] (i32 or i64). */
export function decoderForward(
  config: DecoderConfig,
  parameters: DecoderTensors,
  ids_BT: Tensor,
  options: SequenceOptions & { record?: readonly number[] } = {},
): StackOutput {
  const x = embed(config, parameters, ids_BT, options.positions);
  return decoderStack(config, parameters, x, parallelAttend(config, ids_BT, options), options.record);
}

export interface LanguageModelLoss {
  /** Weighted mean of the negative log-likelihood, in nats a token. */
  loss: Tensor;
  /** log p of each label [B, T]. */
  logProbs: Tensor;
  /** Load-balancing loss of all layers of experts (scalar), which is no part of `loss`: training adds it times its factor. */
  balance?: Tensor;
}

/**
 * Next-token loss: ids and labels [B, T] (i32), weights [B, T] (0 where a position does not count).
 * A label under weight 0 must still be a valid id.
 */
export function languageModelLoss(
  config: DecoderConfig,
  parameters: DecoderTensors,
  { ids, labels, weights, ...options }: { ids: Tensor; labels: Tensor; weights?: Tensor } & SequenceOptions,
): LanguageModelLoss {
  const { hidden, routers } = decoderForward(config, parameters, ids, options);
  const logits = decoderLogits(config, parameters, hidden);
  const balance = routers.length > 0 ? { balance: balanceLoss(routers) } : {};
  const logProbs = labelLogProbs(logits, reshape(labels, [-1]));
  if (!weights) {
    const count = logProbs.shape[0] as number;
    return { loss: mul(sum(logProbs), -1 / count), logProbs: reshape(logProbs, labels.shape), ...balance };
  }
  const flat = reshape(weights, [-1]);
  return { loss: neg(div(sum(mul(logProbs, flat)), sum(flat))), logProbs: reshape(logProbs, labels.shape), ...balance };
}

/** What training minimises: the loss, and the load-balancing loss of layers of experts times its factor. */
export const trainingLoss = ({ experts }: DecoderConfig, { loss, balance }: Pick<LanguageModelLoss, "loss" | "balance">): Tensor =>
  balance && experts && experts.balanceLoss > 0 ? add(loss, mul(balance, experts.balanceLoss)) : loss;
