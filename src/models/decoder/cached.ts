// The decoder over a cache: new tokens of a batch attend to what the cache holds and to each other (prefill, one-token steps, chains).
// Two emissions of the same attention: the fused kernel in place (head width a multiple of 8), and a composition for everything else.
// Letters: B batch, S new tokens, R rows whose logits are wanted, G key/value heads, D head width, V vocabulary.

import { masked } from "../../nn/attention/mask.ts";
import { rotaryTables } from "../../nn/rotary.ts";
import { softCap } from "../../tensor/activation.ts";
import { groupQueryAttention, writeRows } from "../../tensor/attention.ts";
import { constant, reshape, scalar } from "../../tensor/core.ts";
import { add, cast, greater, lessEqual, logicalAnd, sub, where } from "../../tensor/elementwise.ts";
import { gather, iota } from "../../tensor/gather.ts";
import type { Dim, Tensor } from "../../tensor/graph.ts";
import { matmul } from "../../tensor/matmul.ts";
import { softmax } from "../../tensor/norm.ts";
import { transpose } from "../../tensor/shape.ts";
import type { DecoderConfig } from "./config.ts";
import {
  type Attend,
  type DecoderTensors,
  decoderStack,
  embed,
  finalNorm,
  outputMatrix,
  rotateHeads,
  splitHeads,
  unembed,
  usesRotary,
} from "./decoder.ts";
import { padTree } from "./pad-tree.ts";

export interface CachedInputs {
  /** [B, S] (i32) */
  ids: Tensor;
  /** [B, S] (i32): position of each new token in its sequence. */
  positions: Tensor;
  /** [B] (i32): tokens held before, plus S, minus 1. */
  lengths: Tensor;
  /** Scalar (i32): the largest of tokens held before plus S. */
  total: Tensor;
  /** [R] (i32): which of the B·S new rows get logits. */
  rows: Tensor;
  /** Per layer, [B, G, capacity, D]. */
  cache: { key: Tensor; value: Tensor }[];
  /** The new tokens are a tree instead of a chain. `positions` then tells their depths. B = 1. */
  tree?: TreeInputs;
}

export interface TreeInputs {
  /** [1, 1, S, S]: 0 where the column is the row's token or an ancestor of it, a large negative number elsewhere. */
  bias: Tensor;
  /** [1, S] (i32): place of each new token in the cache. */
  slots: Tensor;
  /** [2] (i64): columns that put `bias` behind the past: past, 0. */
  before: Tensor;
  /** [2] (i64): columns from there to the capacity: 0, capacity − past − S. Read by the composed emission only. */
  after: Tensor;
}

/** Rows that drafters read, besides logits. */
export interface CachedFeatures {
  /** Rows after the final norm. */
  hidden?: boolean;
  /** Rows as they enter these layers. */
  layers?: readonly number[];
}

export interface CachedOutputs {
  /** [R, V] */
  logits: Tensor;
  /** [R, C], where asked for. */
  hidden?: Tensor;
  /** By number of the layer, [R, C], where asked for. */
  layers?: Record<string, Tensor>;
  /** The caches with the new rows; bind to the same memory as the inputs. */
  cache: { key: Tensor; value: Tensor }[];
}

export type CachedEmission = "fused" | "composed";

/** The fused kernel wants head widths that are multiples of 8. */
export const emissionFor = (config: DecoderConfig): CachedEmission => (config.headWidth % 8 === 0 ? "fused" : "composed");

/** The kernel's own rotation wants multiples of 16, and queries and keys as the projection gives them. */
const rotatesInKernel = ({ headWidth, rotaryFraction, qkNorm }: DecoderConfig): boolean =>
  (headWidth * rotaryFraction) % 16 === 0 && headWidth % 16 === 0 && qkNorm === "none";

/** A kernel that counts positions by places in the cache would cut a tree's windows at the wrong ones. */
export const treeEmissionFor = (config: DecoderConfig, emission = emissionFor(config)): CachedEmission =>
  config.layerTypes.includes("sliding") ? "composed" : emission;

/** Whether the program of {@link decoderCached} reads `positions`: the fused kernel counts them itself where it rotates. */
export function readsPositions(config: DecoderConfig, emission = emissionFor(config)): boolean {
  if (emission === "composed" || config.position === "learned") return true;
  return !rotatesInKernel(config) && config.layerTypes.some((_, layer) => usesRotary(config, layer));
}

/**
 * Logits after the last of the new tokens (or at any rows of them), writing the new keys and values into the cache.
 * S > 1 needs B = 1; S and R may be symbolic then.
 */
export function decoderCached(
  config: DecoderConfig,
  parameters: DecoderTensors,
  inputs: CachedInputs,
  emission = emissionFor(config),
  features: CachedFeatures = {},
): CachedOutputs {
  const cache: { key: Tensor; value: Tensor }[] = [];
  const attend = emission === "fused" ? fusedAttend(config, inputs, cache) : composedAttend(config, inputs, cache);
  const [batch, time] = inputs.ids.shape;
  const embedded = embed(config, parameters, inputs.ids, inputs.positions);
  // The kernel takes rows as [B, S, ·]. Products of rank 3 spare reshaping them twice a layer, where no product would reshape them itself
  // (fixed sizes) and no bias would take a node of its own.
  const biased = config.qkvBias || config.outputBias || config.mlpBias;
  const x = emission === "fused" && typeof time === "string" && !biased ? reshape(embedded, [batch, time, config.width]) : embedded;
  const { hidden, layers } = decoderStack(config, parameters, x, attend, features.layers, { fuseResiduals: true });
  const rowsOf = (all: Tensor): Tensor => gather(reshape(all, [-1, config.width]), inputs.rows);
  const rows = finalNorm(config, parameters, rowsOf(hidden));
  return {
    logits: unembed(config, outputMatrix(parameters), rows),
    cache,
    ...(features.hidden ? { hidden: rows } : {}),
    ...(features.layers?.length ? { layers: Object.fromEntries(Array.from(layers, ([layer, all]) => [layer, rowsOf(all)])) } : {}),
  };
}

function once<T>(make: () => T): () => T {
  let value: T | undefined;
  return () => {
    value ??= make();
    return value;
  };
}

/** Cosines and sines [capacity, D/2] as constants of the program. */
function capacityTables(config: DecoderConfig, { ids, cache }: CachedInputs): () => [Tensor, Tensor] {
  return once(() => {
    const capacity = cache[0].key.shape[2] as number;
    const width = config.headWidth * config.rotaryFraction;
    const { cosines, sines } = rotaryTables(capacity, { base: config.rotaryBase, width });
    return [cosines, sines].map((data) => constant(ids.graph, "f32", [capacity, width / 2], data)) as [Tensor, Tensor];
  });
}

/** The tables at the positions of the new tokens: [B, S, 1, D/2]. */
function positionTables(config: DecoderConfig, inputs: CachedInputs): () => [Tensor, Tensor] {
  const tables = capacityTables(config, inputs);
  const [batch, time] = inputs.ids.shape;
  return once(
    () => tables().map((table) => reshape(gather(table, inputs.positions), [batch, time, 1, table.shape[1]])) as [Tensor, Tensor],
  );
}

function fusedAttend(config: DecoderConfig, inputs: CachedInputs, present: { key: Tensor; value: Tensor }[]): Attend {
  const { heads, kvHeads, headWidth } = config;
  const [batch, time] = inputs.ids.shape;
  const tables = capacityTables(config, inputs);
  const rows = positionTables(config, inputs);
  const tree = inputs.tree && {
    positions: cast(inputs.positions, "i64"),
    bias: padTree(inputs.tree.bias, inputs.tree.before, 0, "past_and_new"),
  };
  return (qkv_NF, layer, block) => {
    const { lengths, total, cache } = inputs;
    const [pastKey, pastValue] = [cache[layer].key, cache[layer].value];
    const rotates = usesRotary(config, layer);
    const options = {
      heads,
      kvHeads,
      scale: config.attentionScale,
      softCap: config.attentionSoftCap,
      window: config.layerTypes[layer] === "sliding" ? config.window : undefined,
      tree,
    };
    const join = (x: Tensor, count: number): Tensor => reshape(x, [batch, time, count * headWidth]);
    const result = (): ReturnType<typeof groupQueryAttention> => {
      // Queries, keys and values need no splitting then.
      if (config.qkNorm === "none" && (!rotates || rotatesInKernel(config))) {
        const query = join(qkv_NF, heads + 2 * kvHeads);
        const [cosines, sines] = rotates ? tables() : [];
        return groupQueryAttention(
          { query, pastKey, pastValue, lengths, total },
          { ...options, tables: cosines && sines ? { cosines, sines } : undefined },
        );
      }
      const [query, key, value] = splitHeads(config, qkv_NF, block);
      const turn = (x: Tensor, count: number): Tensor => {
        if (!rotates) return join(x, count);
        const [cosines, sines] = rows();
        return join(rotateHeads(config, reshape(x, [batch, time, count, headWidth]), cosines, sines), count);
      };
      return groupQueryAttention(
        { query: turn(query, heads), key: turn(key, kvHeads), value: join(value, kvHeads), pastKey, pastValue, lengths, total },
        options,
      );
    };
    const { output, presentKey, presentValue } = result();
    present[layer] = { key: presentKey, value: presentValue };
    return reshape(output, [...qkv_NF.shape.slice(0, -1), heads * headWidth]);
  };
}

/** The same in plain operators, over the whole capacity with a mask: slower, but without conditions on the head width. */
function composedAttend(config: DecoderConfig, inputs: CachedInputs, present: { key: Tensor; value: Tensor }[]): Attend {
  const { heads, kvHeads, headWidth } = config;
  const { ids, positions, cache, tree } = inputs;
  const slots = tree?.slots ?? positions;
  const [batch, time] = ids.shape;
  const capacity = cache[0].key.shape[2] as number;
  const tables = positionTables(config, inputs);
  const bias = (window: number | undefined): Tensor => {
    const at = reshape(positions, [batch, 1, 1, time, 1]);
    const places = iota(positions, capacity, "i32");
    const zero = scalar(ids.graph, "f32", 0);
    // A new token lies at its position or, in a tree, behind it, and no deeper than the window: it passes for visible.
    const inWindow = window === undefined ? undefined : greater(places, sub(at, window));
    if (tree) {
      const all = reshape(padTree(padTree(tree.bias, tree.before, 0, "past_and_new"), tree.after, masked, capacity), [
        1,
        1,
        1,
        time,
        capacity,
      ]);
      return inWindow ? add(all, where(inWindow, zero, masked)) : all;
    }
    const causal = lessEqual(places, at);
    return where(inWindow ? logicalAnd(causal, inWindow) : causal, zero, masked);
  };
  const full = once(() => bias(undefined));
  const sliding = once(() => bias(config.window));
  return (qkv_NF, layer, block) => {
    const turned = splitHeads(config, qkv_NF, block).map((x, index) => {
      const count = index === 0 ? heads : kvHeads;
      let heads_BSHD = reshape(x, [batch, time, count, headWidth]);
      if (index < 2 && usesRotary(config, layer)) heads_BSHD = rotateHeads(config, heads_BSHD, ...tables());
      return transpose(heads_BSHD, [0, 2, 1, 3]);
    });
    const [query_BHSD, key_BGSD, value_BGSD] = turned;
    const key = writeRows(cache[layer].key, slots, key_BGSD);
    const value = writeRows(cache[layer].value, slots, value_BGSD);
    present[layer] = { key, value };
    const spread = (x: Tensor): Tensor => reshape(x, [batch, kvHeads, 1, capacity, headWidth]);
    const query = reshape(query_BHSD, [batch, kvHeads, heads / kvHeads, time, headWidth]);
    let scores = matmul(query, spread(key), { transposeB: true, alpha: config.attentionScale });
    if (config.attentionSoftCap > 0) scores = softCap(scores, config.attentionSoftCap);
    scores = add(scores, config.layerTypes[layer] === "sliding" ? sliding() : full());
    const mixed = matmul(softmax(scores), spread(value));
    const rows: Dim[] = [batch, time, heads * headWidth];
    return reshape(reshape(transpose(reshape(mixed, [batch, heads, time, headWidth]), [0, 2, 1, 3]), rows), [-1, heads * headWidth]);
  };
}
