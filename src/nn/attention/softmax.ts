// Softmax attention, parallel face: all queries of a sequence at once, composed of differentiable operators (training, evaluation).
// Letters: H query heads, G key/value heads, R = H/G, B batch, T time, D head width. Heads come first, so that one transpose serves
// queries, keys and values, and grouped heads broadcast in the products.
import { ShapeError } from "../../base/errors.ts";
import { softCap } from "../../tensor/activation.ts";
import { scaledDotProductAttention } from "../../tensor/attention.ts";
import { reshape } from "../../tensor/core.ts";
import { add } from "../../tensor/elementwise.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { matmul } from "../../tensor/matmul.ts";
import { softmax } from "../../tensor/norm.ts";

export interface SoftmaxOptions {
  /** Factor of the scores. Default 1/√D. */
  scale?: number;
  /** Scores limited to ±cap; 0 (default): no limit. */
  softCap?: number;
  /** Additive bias that broadcasts to [B, T, T], see mask.ts. */
  bias?: Tensor;
}

/**
 * softmax(q kᵀ · scale + bias) v (Vaswani et al. 2017, Eq. 1): query [H, B, T, D], key and value [G, B, T, D] → [H, B, T, D].
 * Query head h uses key/value head ⌊h / (H/G)⌋.
 */
export function softmaxAttention(query_HBTD: Tensor, key_GBTD: Tensor, value_GBTD: Tensor, options: SoftmaxOptions = {}): Tensor {
  const [heads, batch, time, width] = query_HBTD.shape as number[];
  const groups = key_GBTD.shape[0] as number;
  if (query_HBTD.rank !== 4 || key_GBTD.rank !== 4 || heads % groups !== 0) {
    throw new ShapeError(
      `softmaxAttention: expected query [H, B, T, D] and key [G, B, T, D] with G dividing H, got ${query_HBTD} and ${key_GBTD}`,
    );
  }
  const { scale = 1 / Math.sqrt(width), softCap: cap = 0, bias } = options;
  const grouped = groups !== heads;
  const spread = (x: Tensor): Tensor => (grouped ? reshape(x, [groups, 1, ...x.shape.slice(1)]) : x);
  const query = grouped ? reshape(query_HBTD, [groups, heads / groups, batch, time, width]) : query_HBTD;
  const [key, value] = [spread(key_GBTD), spread(value_GBTD)];
  const capped = (): Tensor => {
    const scores = softCap(matmul(query, key, { transposeB: true, alpha: scale }), cap);
    return matmul(softmax(bias ? add(scores, bias) : scores), value);
  };
  const mixed = cap > 0 ? capped() : scaledDotProductAttention(query, key, value, { scale, bias });
  return grouped ? reshape(mixed, [heads, batch, time, width]) : mixed;
}
