// The decoder over a cache: new tokens of a batch attend to what the cache holds and to each other (prefill, one-token steps, chains).
// Two emissions of the same attention: the fused kernel in place (head width a multiple of 8), and a composition for everything else.
// Letters: B batch, S new tokens, R rows whose logits are wanted, G key/value heads, D head width, V vocabulary.

import { masked } from "../../nn/attention/mask.ts";
import { dependsOnLength, type RotaryOptions, rotaryTables } from "../../nn/rotary.ts";
import { softCap } from "../../tensor/activation.ts";
import { groupQueryAttention, writeRows } from "../../tensor/attention.ts";
import { constant, reshape, scalar } from "../../tensor/core.ts";
import { add, cast, greater, lessEqual, logicalAnd, sub, where } from "../../tensor/elementwise.ts";
import { gather, iota } from "../../tensor/gather.ts";
import type { Dim, Tensor } from "../../tensor/graph.ts";
import { matmul } from "../../tensor/matmul.ts";
import { softmax } from "../../tensor/norm.ts";
import { transpose } from "../../tensor/shape.ts";
import { type DecoderConfig, rotaryOptions, rotaryWidth } from "./config.ts";
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
  /** Cosines and sines of the new tokens, [B, S, rotated / 2], where they depend on the length of a sequence ({@link readsRotary}). */
  rotary?: { cosines: Tensor; sines: Tensor };
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
const rotatesInKernel = (config: DecoderConfig, layer: number): boolean =>
  rotaryWidth(config) % 16 === 0 &&
  config.headWidth % 16 === 0 &&
  config.qkNorm === "none" &&
  !dependsOnLength(rotaryOptions(config, layer).scaling);

/** Whether cosines and sines depend on how long a sequence is: {@link CachedInputs.rotary} then holds them. */
export const readsRotary = (config: DecoderConfig): boolean =>
  config.layerTypes.some((_, layer) => usesRotary(config, layer) && dependsOnLength(rotaryOptions(config, layer).scaling));

/** A kernel that counts positions by places in the cache would cut a tree's windows at the wrong ones. */
export const treeEmissionFor = (config: DecoderConfig, emission = emissionFor(config)): CachedEmission =>
  config.layerTypes.includes("sliding") ? "composed" : emission;

/** Whether the program of {@link decoderCached} reads `positions`: the fused kernel counts them itself where it rotates. */
export function readsPositions(config: DecoderConfig, emission = emissionFor(config)): boolean {
  if (emission === "composed" || config.position === "learned") return true;
  return config.layerTypes.some(
    (_, layer) => usesRotary(config, layer) && !rotatesInKernel(config, layer) && !dependsOnLength(rotaryOptions(config, layer).scaling),
  );
}

/** The same for a program over a tree: the kernel wants them, the composition where something depends on them. */
export const treeReadsPositions = (config: DecoderConfig, emission: CachedEmission): boolean =>
  emission === "fused" ||
  config.position === "learned" ||
  config.layerTypes.some(
    (kind, layer) => kind === "sliding" || (usesRotary(config, layer) && !dependsOnLength(rotaryOptions(config, layer).scaling)),
  );

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
  const byRows = biased || config.latent !== undefined || config.experts !== undefined;
  const x = emission === "fused" && typeof time === "string" && !byRows ? reshape(embedded, [batch, time, config.width]) : embedded;
  const experts = config.activation === "silu" ? "fused" : "dense";
  const { hidden, layers } = decoderStack(config, parameters, x, attend, features.layers, { fuseResiduals: true, experts });
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

type Tables = [cosines: Tensor, sines: Tensor];

/** Tables of a layer, made once for all layers that share them. */
function tablesOf(config: DecoderConfig, make: (rotation: RotaryOptions) => Tables): (layer: number) => Tables {
  const made = new Map<string, Tables>();
  return (layer) => {
    const rotation = rotaryOptions(config, layer);
    const key = `${rotation.base} ${rotation.scaling !== undefined}`;
    const tables = made.get(key) ?? make(rotation);
    made.set(key, tables);
    return tables;
  };
}

/** Cosines and sines [capacity, D/2] as constants of the program; those that depend on the length are of a sequence that fills the cache. */
function capacityTables(config: DecoderConfig, { ids, cache }: CachedInputs): (layer: number) => Tables {
  return tablesOf(config, (rotation) => {
    const capacity = cache[0].key.shape[2] as number;
    const { cosines, sines } = rotaryTables(capacity, rotation);
    return [cosines, sines].map((data) => constant(ids.graph, "f32", [capacity, rotation.width / 2], data)) as Tables;
  });
}

/** The tables at the positions of the new tokens: [B, S, 1, D/2]. */
function positionTables(config: DecoderConfig, inputs: CachedInputs): (layer: number) => Tables {
  const constants = capacityTables(config, inputs);
  const [batch, time] = inputs.ids.shape;
  const { rotary } = inputs;
  const gathered = new Map<Tables, Tables>();
  return (layer) => {
    if (rotary && dependsOnLength(rotaryOptions(config, layer).scaling))
      return [rotary.cosines, rotary.sines].map((rows) => reshape(rows, [batch, time, 1, rows.shape[2]])) as Tables;
    const tables = constants(layer);
    const rows =
      gathered.get(tables) ?? (tables.map((table) => reshape(gather(table, inputs.positions), [batch, time, 1, table.shape[1]])) as Tables);
    gathered.set(tables, rows);
    return rows;
  };
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
      if (config.qkNorm === "none" && (!rotates || rotatesInKernel(config, layer))) {
        const query = join(qkv_NF, heads + 2 * kvHeads);
        const [cosines, sines] = rotates ? tables(layer) : [];
        return groupQueryAttention(
          { query, pastKey, pastValue, lengths, total },
          { ...options, tables: cosines && sines ? { cosines, sines } : undefined },
        );
      }
      const [query, key, value] = splitHeads(config, qkv_NF, block);
      const turn = (x: Tensor, count: number): Tensor => {
        if (!rotates) return join(x, count);
        const [cosines, sines] = rows(layer);
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
      if (index < 2 && usesRotary(config, layer)) heads_BSHD = rotateHeads(config, heads_BSHD, ...tables(layer));
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
