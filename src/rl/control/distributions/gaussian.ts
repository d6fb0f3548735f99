// Diagonal Gaussians: with one log std for all states, or with a variance for each (gSDE: Raffin et al. 2021, "Smooth exploration for
// robotic reinforcement learning"), both optionally squashed by tanh (Haarnoja et al. 2018, appendix C).
import { headEpsilon, type PolicyHead } from "../../../models/policy/config.ts";
import { atanh } from "../../../tensor/activation.ts";
import { broadcastTo, stopGradient, sum } from "../../../tensor/core.ts";
import { add, clamp, div, exp, greater, log, mul, neg, square, sub, tanh, where } from "../../../tensor/elementwise.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { matmul } from "../../../tensor/matmul.ts";
import type { Distribution } from "./distribution.ts";

type GsdeHead = Extract<PolicyHead, { kind: "gsde" }>;

const log2Pi = Math.log(2 * Math.PI);

interface GaussianParts {
  /** [mean, log std] or [mean, variance]. */
  readonly parameters: readonly Tensor[];
  /** [A] or [B, A] */
  readonly variance: Tensor;
  readonly logStd?: Tensor;
  /** One log std [A] for all states. */
  readonly isShared: boolean;
  readonly squash: boolean;
  readonly epsilon: number;
}

export function gaussian({ parameters, variance, logStd, isShared, squash, epsilon }: GaussianParts): Distribution {
  const [mu] = parameters;
  const logScale = logStd ?? mul(log(variance), 0.5);
  return {
    parameters,
    logProb(actions) {
      const perDimension = add(add(mul(div(square(sub(actions, mu)), variance), 0.5), logScale), 0.5 * log2Pi);
      const plain = neg(sum(perDimension, { axes: -1 }));
      return squash ? sub(plain, sum(logSlopeOfTanh(actions, epsilon), { axes: -1 })) : plain;
    },
    entropy() {
      if (squash) return undefined;
      return sum(broadcastTo(add(logScale, 0.5 * (1 + log2Pi)), mu.shape), { axes: -1 });
    },
    // log σ' − log σ + (σ² + (μ − μ')²) / 2σ'² − ½; unchanged by tanh, which is one-to-one.
    klPerDimension(other) {
      const [theirMean, second] = other.parameters;
      const theirVariance = isShared ? exp(mul(second, 2)) : second;
      const theirLogScale = isShared ? second : mul(log(second), 0.5);
      const spread = div(add(square(sub(mu, theirMean)), variance), mul(theirVariance, 2));
      return add(sub(spread, 0.5), sub(theirLogScale, logScale));
    },
    fisher([alongMean, alongSecond]) {
      const batch = mu.shape[0] as number;
      const second = isShared ? mul(alongSecond, 2 * batch) : div(mul(alongSecond, 0.5), square(variance));
      return [div(alongMean, variance), second];
    },
    mode: () => (squash ? tanh(mu) : mu),
  };
}

/** log(1 − tanh(x)² + ε), elementwise. */
const logSlopeOfTanh = (x: Tensor, epsilon: number): Tensor => log(sub(1 + epsilon, square(tanh(x))));

/**
 * The value before tanh of squashed actions, which are kept off ±1 by the rounding of their dtype.
 * Not differentiated: actions are data.
 */
export function unsquash(actions: Tensor): Tensor {
  const bound = 1 - (actions.dtype === "f64" ? 2 ** -52 : 2 ** -23);
  return atanh(clamp(actions, -bound, bound));
}

/** Standard deviations from gSDE's parameters, elementwise. */
export function gsdeStd({ useExpln, epsilon = headEpsilon }: Pick<GsdeHead, "useExpln" | "epsilon">, logStd: Tensor): Tensor {
  if (!useExpln) return exp(logStd);
  // expln: e^x for x ≤ 0, log(1 + x + ε) + 1 above.
  const above = add(log(add(where(greater(logStd, 0), logStd, 0), 1 + epsilon)), 1);
  return where(greater(logStd, 0), above, exp(where(greater(logStd, 0), 0, logStd)));
}

/** Variance of the actions [B, A]: Σ_l latent² σ_la² + ε. */
export function gsdeVariance(head: GsdeHead, latent: Tensor, logStd: Tensor): Tensor {
  const features = head.learnFeatures ? latent : stopGradient(latent);
  const std = gsdeStd(head, logStd);
  const full = head.fullStd ? std : broadcastTo(std, [std.shape[0], head.size]);
  return add(matmul(square(features), square(full)), head.epsilon ?? headEpsilon);
}
