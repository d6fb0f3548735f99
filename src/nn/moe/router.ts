// Which experts a token goes through, and with what weights. One function covers the published rules by options: softmax over all or
// over the chosen (Mixtral: Jiang et al. 2024, Eq. 2), sigmoid scores with a selection bias and groups (DeepSeek-V3, Section 2.1.2).
// Letters: N tokens, E experts, K chosen ones.
import { constant, reshape, sum } from "../../tensor/core.ts";
import { add, cast, div, equal, greater, less, mul, sigmoid, where } from "../../tensor/elementwise.ts";
import { gatherElements, iota } from "../../tensor/gather.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { softmax } from "../../tensor/norm.ts";
import { max, mean, topK } from "../../tensor/reduce.ts";
import { expandDims } from "../../tensor/shape.ts";

export interface RouterOptions {
  /** Experts that a token goes through, K. */
  chosen: number;
  /** Default softmax. */
  score?: "softmax" | "sigmoid";
  /** The scores of the chosen experts are divided by their sum. Default true. */
  normalise?: boolean;
  /** Factor of the weights. Default 1. */
  scale?: number;
  /** Groups of experts, of which a token chooses `chosenGroups` first. Default 1. */
  groups?: number;
  chosenGroups?: number;
}

export interface Routing {
  /** [N, K] */
  weights: Tensor;
  /** [N, K] (i64), best first. */
  chosen: Tensor;
  /** [N, E]: scores of all experts, before the choice. */
  scores: Tensor;
}

const excluded = -1e30;

/** Logits [N, E] to a choice of experts. @param selection [E], added to the scores for the choice alone. */
export function route(logits_NE: Tensor, options: RouterOptions, selection?: Tensor): Routing {
  const { chosen: count, score = "softmax", normalise = true, scale = 1, groups = 1, chosenGroups = 1 } = options;
  const scores = score === "softmax" ? softmax(logits_NE) : sigmoid(logits_NE);
  const biased = selection ? add(scores, selection) : scores;
  const { indices: chosen } = topK(groups > 1 ? withinGroups(biased, groups, chosenGroups) : biased, count);
  let weights = gatherElements(scores, chosen);
  if (normalise) weights = div(weights, add(sum(weights, { axes: -1, keepDims: true }), 1e-20));
  return { weights: scale === 1 ? weights : mul(weights, scale), chosen, scores };
}

/** Scores of experts outside of the best groups become very small; a group is as good as the sum of its two best. */
function withinGroups(scores_NE: Tensor, groups: number, chosenGroups: number): Tensor {
  const [tokens, experts] = scores_NE.shape;
  const size = (experts as number) / groups;
  const grouped = reshape(scores_NE, [tokens, groups, size]);
  const { indices } = topK(sum(topK(grouped, 2).values, { axes: -1 }), chosenGroups);
  const isChosen = max(cast(equal(expandDims(indices, 2), iota(indices, groups)), scores_NE.dtype), { axes: 1 });
  return reshape(where(greater(expandDims(isChosen, 2), 0), grouped, excluded), scores_NE.shape);
}

/**
 * E · Σ fₑ Pₑ of the tokens of several layers together: fₑ how many of a token's K choices are expert e, on average, Pₑ its mean softmax
 * probability (Fedus et al. 2021, Eqs. 4 to 6; for K > 1 as transformers counts). 1 · K when the load is even.
 * @param routers logits [N, E] and choices [N, K] of each layer.
 */
export function balanceLoss(routers: readonly { logits: Tensor; chosen: Tensor }[]): Tensor {
  const experts = routers[0].logits.shape[1] as number;
  const averages = (ofLayer: (router: (typeof routers)[number]) => Tensor): Tensor => {
    const total = routers.map(ofLayer).reduce((a, b) => add(a, b));
    return mul(total, 1 / routers.length);
  };
  const share = averages(({ logits, chosen }) => {
    const hot = cast(equal(expandDims(chosen, 2), iota(chosen, experts)), logits.dtype);
    return mean(sum(hot, { axes: 1 }), { axes: 0 });
  });
  const probability = averages(({ logits }) => mean(softmax(logits), { axes: 0 }));
  return mul(sum(mul(share, probability)), experts);
}

/** Rows sorted by expert: positions in that order, their inverse, and where each expert's rows end. */
export interface Dispatch {
  order: Tensor;
  inverse: Tensor;
  ends: Tensor;
}

/** Sorts the P = N · K pairs of tokens and experts by expert; of one expert, by token. `chosen` [N, K] has fixed sizes. */
export function dispatch(chosen_NK: Tensor, experts: number): Dispatch {
  const [tokens, count] = chosen_NK.shape as number[];
  const pairs = tokens * count;
  const flat = reshape(chosen_NK, [pairs]);
  const { indices: order } = topK(flat, pairs, { largest: false });
  const { indices: inverse } = topK(order, pairs, { largest: false });
  const limits = constant(
    flat.graph,
    "i64",
    [experts],
    BigInt64Array.from({ length: experts }, (_, e) => BigInt(e) + 1n),
  );
  // Ends: how many pairs lie before expert e + 1.
  return { order, inverse, ends: sum(cast(less(expandDims(flat, 1), limits), "i64"), { axes: 0 }) };
}
