// Softmax attention over a cache, composed of plain operators, in any float dtype: what the fused kernel is compared with.
// Letters: B batch, H query heads, G key/value heads, S new tokens, N slots of the cache, D head width.

import { softCap } from "../activation.ts";
import { reshape } from "../core.ts";
import { add, cast, equal, greater, lessEqual, logicalAnd, sub, where } from "../elementwise.ts";
import { iota } from "../gather.ts";
import type { Tensor } from "../graph.ts";
import { matmul } from "../matmul.ts";
import { softmax } from "../norm.ts";
import { max } from "../reduce.ts";
import { expandDims } from "../shape.ts";

export interface CachedSoftmaxInputs {
  query_BHSD: Tensor;
  key_BGSD: Tensor;
  value_BGSD: Tensor;
  pastKey_BGND: Tensor;
  pastValue_BGND: Tensor;
  /** Where each new token goes in the cache (i64). It sees the slots up to its own. */
  slots_BS: Tensor;
}

export interface CachedSoftmaxOptions {
  /** Added to the scores; broadcasts to [B, 1, S, N]. */
  bias?: Tensor;
  window?: number;
  softCap?: number;
}

export function cachedSoftmax(
  inputs: CachedSoftmaxInputs,
  options: CachedSoftmaxOptions = {},
): { output: Tensor; key: Tensor; value: Tensor } {
  const { query_BHSD: query, key_BGSD, value_BGSD, pastKey_BGND, pastValue_BGND, slots_BS } = inputs;
  const [batch, heads, rows, width] = query.shape as number[];
  const [, groups, slots] = pastKey_BGND.shape as number[];
  const places = iota(slots_BS, slots);
  const hit_B1SN = cast(expandDims(equal(expandDims(slots_BS, 2), places), 1), query.dtype);
  const written_B1N1 = greater(expandDims(max(hit_B1SN, { axes: 2 }), -1), 0);
  const write = (past: Tensor, fresh: Tensor): Tensor => where(written_B1N1, matmul(hit_B1SN, fresh, { transposeA: true }), past);
  const [key, value] = [write(pastKey_BGND, key_BGSD), write(pastValue_BGND, value_BGSD)];
  // Query head h reads key/value head ⌊h / (H/G)⌋.
  const grouped = (x: Tensor): Tensor => reshape(x, [batch, groups, 1, slots, width]);
  let scores = matmul(reshape(query, [batch, groups, heads / groups, rows, width]), grouped(key), {
    transposeB: true,
    alpha: 1 / Math.sqrt(width),
  });
  if (options.softCap) scores = softCap(scores, options.softCap);
  if (options.bias) scores = add(scores, expandDims(options.bias, 1));
  const own_BS1 = expandDims(slots_BS, 2);
  const past_BSN = lessEqual(places, own_BS1);
  const near_BSN = options.window ? logicalAnd(past_BSN, greater(places, sub(own_BS1, options.window))) : past_BSN;
  const visible = where(expandDims(expandDims(near_BSN, 1), 1), scores, -1e30);
  const output = reshape(matmul(softmax(visible), grouped(value)), [batch, heads, rows, width]);
  return { output, key, value };
}
