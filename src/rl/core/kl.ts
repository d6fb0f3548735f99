// Estimators of KL(π ‖ π_ref) from log-probabilities of tokens that π chose (Schulman 2020, "Approximating KL divergence").
// With d = log π − log π_ref: k1 = d (unbiased, any sign), k2 = d²/2 (low variance, biased; its gradient is that of the KL),
// k3 = e^(−d) − 1 + d (unbiased, ≥ 0). A trailing + keeps the estimator's value and takes k2's gradient (verl).
import { stopGradient } from "../../tensor/core.ts";
import { abs, add, clamp, exp, mul, neg, square, sub } from "../../tensor/elementwise.ts";
import type { Tensor } from "../../tensor/graph.ts";

export const klEstimators = ["k1", "k2", "k3", "abs", "k1+", "k3+", "abs+"] as const;
export type KlEstimator = (typeof klEstimators)[number];

export interface KlOptions {
  /** k3 limits −d to ±`maxLogRatio`, against overflow. Default 20 (verl); Infinity as in TRL. */
  maxLogRatio?: number;
  /** k3 limits its value to ±this. Default Infinity (verl: 10). */
  maxValue?: number;
}

/** Elementwise; shapes broadcast. */
export function klDivergence(logProbs: Tensor, refLogProbs: Tensor, estimator: KlEstimator, options: KlOptions = {}): Tensor {
  if (estimator.endsWith("+")) {
    const value = klDivergence(logProbs, refLogProbs, estimator.slice(0, -1) as KlEstimator, options);
    const through = klDivergence(logProbs, refLogProbs, "k2");
    return add(stopGradient(sub(value, through)), through);
  }
  const difference = sub(logProbs, refLogProbs);
  switch (estimator) {
    case "k1":
      return difference;
    case "k2":
      return mul(square(difference), 0.5);
    case "abs":
      return abs(difference);
    default: {
      const { maxLogRatio = 20, maxValue = Number.POSITIVE_INFINITY } = options;
      const opposite = limit(neg(difference), maxLogRatio);
      return limit(sub(sub(exp(opposite), opposite), 1), maxValue);
    }
  }
}

const limit = (x: Tensor, bound: number): Tensor => (Number.isFinite(bound) ? clamp(x, -bound, bound) : x);

/** The same for numbers. The + forms have the value of the form without it. */
export function klDivergenceOf(logProb: number, refLogProb: number, estimator: KlEstimator, options: KlOptions = {}): number {
  const difference = logProb - refLogProb;
  switch (estimator) {
    case "k1":
    case "k1+":
      return difference;
    case "k2":
      return difference ** 2 / 2;
    case "abs":
    case "abs+":
      return Math.abs(difference);
    default: {
      const { maxLogRatio = 20, maxValue = Number.POSITIVE_INFINITY } = options;
      const opposite = Math.min(Math.max(-difference, -maxLogRatio), maxLogRatio);
      return Math.min(Math.max(Math.expm1(opposite) - opposite, -maxValue), maxValue);
    }
  }
}

/**
 * The coefficient of an adaptive KL penalty after observing `kl` (Ziegler et al. 2019, section 2.2): the relative error, limited to ±0.2,
 * moves it by `numSamples / horizon`.
 */
export function adaptKlCoefficient(
  coefficient: number,
  { kl, target, horizon, numSamples }: { kl: number; target: number; horizon: number; numSamples: number },
): number {
  const error = Math.min(Math.max(kl / target - 1, -0.2), 0.2);
  return coefficient * (1 + (error * numSamples) / horizon);
}
