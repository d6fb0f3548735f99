// The one policy loss. Every policy-gradient method here is this function with other switches; presets.ts names them.
//   loss = Σ weight · ( policy term + beta · KL(π ‖ π_ref) − entropyCoefficient · H ),    ratio r = π / π_old
//   PPO-clip (Eq. 7, Schulman et al. 2017): −min(r A, clip(r, 1 − low, 1 + high) A); `dual` bounds it for A < 0 (Ye et al. 2020, Eq. 5)
// `weight` comes from aggregation.ts. Shapes: all [B, T] (B sequences, T tokens); advantages may be [B, 1]. For control T may be 1.
import { invariant } from "../../base/errors.ts";
import { stopGradient, sum, zerosLike } from "../../tensor/core.ts";
import {
  add,
  cast,
  clamp,
  div,
  exp,
  greater,
  greaterEqual,
  less,
  lessEqual,
  logicalAnd,
  logicalOr,
  maximum,
  minimum,
  mul,
  neg,
  sigmoid,
  sub,
  where,
} from "../../tensor/elementwise.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { type KlEstimator, klDivergence } from "./kl.ts";

/**
 * token: each its own. sequence: one a sequence, the geometric mean of its tokens' (GSPO, Eq. 7, Zheng et al. 2025). sequence-token: that
 * value, with a gradient to each token's own log-probability (GSPO-token, Eq. 13). trajectory: the product of its tokens' (RLOO in TRL).
 */
export const ratioLevels = ["token", "sequence", "sequence-token", "trajectory"] as const;
export type RatioLevel = (typeof ratioLevels)[number];

export type ClipOptions =
  /** −A log π: REINFORCE. */
  | { readonly kind: "log-prob" }
  /** −r A. */
  | { readonly kind: "none" }
  /** Two-sided clip; `high` above `low` is DAPO's clip-higher. `dual` > 1 + high bounds r where A < 0 (TRL: delta). */
  | { readonly kind: "ppo"; readonly low: number; readonly high: number; readonly dual?: number }
  /** −sg[clip(r)] A log π: every token keeps a gradient (MiniMax-M1, Eq. 4). `min`, `max` bound r itself. */
  | { readonly kind: "cispo"; readonly min?: number; readonly max: number }
  /** −(4/τ) σ(τ (r − 1)) A with τ by the sign of A (SAPO, Gao et al. 2025). */
  | { readonly kind: "soft"; readonly positive: number; readonly negative: number };

export interface PolicyLossOptions {
  /** Default token. */
  ratio?: RatioLevel;
  clip: ClipOptions;
  /** Coefficient of the KL to the reference inside the loss. Default 0. */
  beta?: number;
  /** Default k3. */
  klEstimator?: KlEstimator;
  /** Weigh the KL by r, which makes its gradient unbiased off-policy (DeepSeek-V3.2, section 3.1). Default false. */
  biasCorrectedKl?: boolean;
  /** Coefficient of the entropy bonus. Default 0. */
  entropyCoefficient?: number;
  /** Leave out sequences with a negative advantage whose mean log π_old − log π exceeds this (DeepSeek-V3.2, section 3.1). Default: none. */
  offPolicyThreshold?: number;
  /** log r is limited to ± this before exp, against overflow. Default 20 (verl); Infinity as in TRL. */
  maxLogRatio?: number;
}

export interface PolicyLossInputs {
  /** log π of the chosen tokens, now. */
  logProbs: Tensor;
  /** The same under the policy that the ratio is relative to. Absent: `logProbs` itself, without its gradient (one update per rollout). */
  oldLogProbs?: Tensor;
  advantages: Tensor;
  /** From `aggregationWeights`: 0 where a token does not count. */
  weights: Tensor;
  /** 1 where a token counts: for means over sequences. Needed by sequence ratios and `offPolicyThreshold`. */
  mask?: Tensor;
  /** Needed when beta > 0. */
  refLogProbs?: Tensor;
  /** Of the distributions that the tokens were drawn from. Needed when entropyCoefficient > 0. */
  entropies?: Tensor;
  /** Weights of the entropies (TRL: the mean over tokens, whatever the aggregation). Default: `weights`. */
  entropyWeights?: Tensor;
  /** Constant factors of the policy term (truncated importance weights of the sampler, high-entropy masks). */
  factors?: Tensor;
  /** Scalar: takes the place of `low` and `high` of the clip kind `ppo`, for clip ranges that change from update to update. */
  clipRange?: Tensor;
}

export interface PolicyLoss {
  /** Scalar. */
  loss: Tensor;
  /** Scalar: the policy term alone. */
  policyLoss: Tensor;
  /** [B, T] KL estimates; absent without a reference. */
  kl?: Tensor;
  /** [B, T] (or [B, 1] for sequence ratios), without gradient. */
  ratio: Tensor;
  /** 1 where the ratio was clipped from below with A < 0, or from above with A > 0; shape as `ratio`. Zero where nothing is clipped. */
  clippedLow: Tensor;
  clippedHigh: Tensor;
}

/**
 * The loss as symbolic tensors; differentiate `loss`.
 * @throws ShapeError from the operators for shapes that do not broadcast.
 */
export function policyLoss(inputs: PolicyLossInputs, options: PolicyLossOptions): PolicyLoss {
  const { logProbs, advantages, weights, refLogProbs, entropies, factors } = inputs;
  const { clip, beta = 0, klEstimator = "k3", maxLogRatio = 20, entropyCoefficient = 0 } = options;
  const oldLogProbs = inputs.oldLogProbs ?? stopGradient(logProbs);
  const logRatio = ratioOf(sub(logProbs, oldLogProbs), inputs, options.ratio ?? "token");
  const ratio = exp(bounded(logRatio, maxLogRatio, options.ratio ?? "token"));
  const clipped = clipTerm(clip, ratio, inputs);
  let perToken = clipped.loss;
  if (options.offPolicyThreshold !== undefined) perToken = mul(perToken, onPolicyMask(oldLogProbs, inputs, options.offPolicyThreshold));
  if (factors) perToken = mul(perToken, factors);
  const policy = sum(mul(weights, perToken));
  let loss = policy;
  let kl: Tensor | undefined;
  if (refLogProbs) {
    kl = klDivergence(logProbs, refLogProbs, klEstimator, { maxLogRatio });
    if (options.biasCorrectedKl) kl = mul(kl, ratio);
    if (beta !== 0) loss = add(loss, mul(sum(mul(weights, kl)), beta));
  }
  invariant(beta === 0 || refLogProbs, "policyLoss: beta without the log-probabilities of the reference");
  if (entropyCoefficient !== 0) {
    invariant(entropies, "policyLoss: an entropy coefficient without entropies");
    loss = sub(loss, mul(sum(mul(inputs.entropyWeights ?? weights, entropies)), entropyCoefficient));
  }
  const flag = (condition: Tensor | undefined): Tensor => (condition ? cast(condition, logProbs.dtype) : zerosLike(ratio));
  return {
    loss,
    policyLoss: policy,
    ...(kl ? { kl } : {}),
    ratio: stopGradient(ratio),
    clippedLow: flag(clipped.low && logicalAnd(clipped.low, less(advantages, 0))),
    clippedHigh: flag(clipped.high && logicalAnd(clipped.high, greater(advantages, 0))),
  };
}

/** Mean over the tokens that count, [B, 1]; 0 for a sequence without any. */
function meanOverSequence(values: Tensor, mask: Tensor | undefined): Tensor {
  invariant(mask, "policyLoss: a mean over sequences without a mask");
  return div(sum(mul(values, mask), { axes: -1, keepDims: true }), maximum(sum(mask, { axes: -1, keepDims: true }), 1));
}

function ratioOf(logRatio: Tensor, { logProbs, mask }: PolicyLossInputs, level: RatioLevel): Tensor {
  if (level === "token") return logRatio;
  if (level === "trajectory") {
    invariant(mask, "policyLoss: a ratio of trajectories without a mask");
    return sum(mul(logRatio, mask), { axes: -1, keepDims: true });
  }
  const ofSequence = meanOverSequence(logRatio, mask);
  if (level === "sequence") return ofSequence;
  return add(sub(logProbs, stopGradient(logProbs)), stopGradient(ofSequence));
}

/** Sequence ratios are limited from above only, as in verl. */
function bounded(logRatio: Tensor, bound: number, level: RatioLevel): Tensor {
  if (!Number.isFinite(bound)) return logRatio;
  return level === "token" ? clamp(logRatio, -bound, bound) : minimum(logRatio, bound);
}

function clipTerm(
  clip: ClipOptions,
  ratio: Tensor,
  { logProbs, advantages, clipRange }: PolicyLossInputs,
): { loss: Tensor; low?: Tensor; high?: Tensor } {
  switch (clip.kind) {
    case "log-prob":
      return { loss: neg(mul(logProbs, advantages)) };
    case "none":
      return { loss: neg(mul(ratio, advantages)) };
    case "ppo": {
      const [low, high] = clipRange ? [sub(1, clipRange), add(1, clipRange)] : [1 - clip.low, 1 + clip.high];
      const surrogate = minimum(mul(ratio, advantages), mul(minimum(maximum(ratio, low), high), advantages));
      const flags = { low: less(ratio, low), high: greater(ratio, high) };
      if (clip.dual === undefined) return { loss: neg(surrogate), ...flags };
      const dual = maximum(surrogate, mul(advantages, clip.dual));
      return { loss: neg(where(less(advantages, 0), dual, surrogate)), ...flags };
    }
    case "cispo": {
      const { min = Number.NEGATIVE_INFINITY, max } = clip;
      const clipped = minimum(Number.isFinite(min) ? maximum(ratio, min) : ratio, max);
      const high = greater(ratio, max);
      return {
        loss: neg(mul(mul(stopGradient(clipped), advantages), logProbs)),
        high,
        ...(Number.isFinite(min) ? { low: less(ratio, min) } : {}),
      };
    }
    case "soft": {
      const gate = (temperature: number): Tensor => mul(sigmoid(mul(sub(ratio, 1), temperature)), 4 / temperature);
      const positive = greater(advantages, 0);
      return { loss: neg(mul(where(positive, gate(clip.positive), gate(clip.negative)), advantages)) };
    }
  }
}

/** [B, 1] or [B, T]: 1 where the advantage is not negative or the sequence is still near the policy that produced it. */
function onPolicyMask(oldLogProbs: Tensor, { logProbs, advantages, mask }: PolicyLossInputs, threshold: number): Tensor {
  const drift = meanOverSequence(stopGradient(sub(oldLogProbs, logProbs)), mask);
  return cast(logicalOr(greaterEqual(advantages, 0), lessEqual(drift, threshold)), logProbs.dtype);
}
