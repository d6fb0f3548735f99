// Action distributions over symbolic tensors: what losses and trust regions are written with. host.ts has the same formulas for sampling.
// Letters: B states, K network outputs, A numbers of an action, D dimensions of a KL.
import { headEpsilon, type PolicyHead } from "../../../models/policy/config.ts";
import type { ActorOutput } from "../../../models/policy/network.ts";
import { sum } from "../../../tensor/core.ts";
import { exp, mul } from "../../../tensor/elementwise.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { mean } from "../../../tensor/reduce.ts";
import { bernoulli } from "./bernoulli.ts";
import { categoricals } from "./categorical.ts";
import { gaussian, gsdeVariance } from "./gaussian.ts";

export interface Distribution {
  /** What it is made of: logits, or mean and log std ([A], for all states), or mean and variance. */
  readonly parameters: readonly Tensor[];
  /** [B]. @param actions [B, A]: i32 for discrete actions; for squashed ones the values before tanh. */
  logProb(actions: Tensor): Tensor;
  /** [B], in nats; undefined where there is no closed form (squashed Gaussians). */
  entropy(): Tensor | undefined;
  /** KL(this ‖ other) for each dimension, [B, D]: D is 1 for (multi-)categorical, A for the others. */
  klPerDimension(other: Distribution): Tensor;
  /**
   * The Fisher information of the parameters times a direction, summed over states: with J the Jacobian of the parameters, JᵀMJ is the
   * Hessian of Σ_B KL(π_old ‖ π) at π = π_old, of either direction of the KL.
   */
  fisher(tangents: readonly Tensor[]): Tensor[];
  /** [B, A]: the most probable action; squashed ones after tanh. */
  mode(): Tensor;
}

/** How the KL of several action dimensions becomes one number: `sum` is the KL of the joint distribution; `mean` is sb3-contrib's. */
export type KlReduction = "sum" | "mean";

/**
 * The distribution that a policy network describes.
 * @param masks [B, K] 1 where a discrete action is possible, in the dtype of the network. Default: all are.
 */
export function distributionOf(head: PolicyHead, { outputs, latent, logStd }: ActorOutput, masks?: Tensor): Distribution {
  if (head.kind === "gsde") return distributionFrom(head, [outputs, gsdeVariance(head, latent, logStd as Tensor)], masks);
  return distributionFrom(head, head.kind === "gaussian" ? [outputs, logStd as Tensor] : [outputs], masks);
}

/** The distribution with given parameters, such as those that an older policy had. */
export function distributionFrom(head: PolicyHead, parameters: readonly Tensor[], masks?: Tensor): Distribution {
  switch (head.kind) {
    case "categorical":
      return categoricals([head.n], parameters[0], masks);
    case "multi-categorical":
      return categoricals(head.dims, parameters[0], masks);
    case "bernoulli":
      return bernoulli(parameters[0]);
    case "gaussian": {
      const [, logStd] = parameters;
      return gaussian({
        parameters,
        variance: exp(mul(logStd, 2)),
        logStd,
        isShared: true,
        squash: head.squash,
        epsilon: head.epsilon ?? headEpsilon,
      });
    }
    case "gsde":
      return gaussian({ parameters, variance: parameters[1], isShared: false, squash: head.squash, epsilon: head.epsilon ?? headEpsilon });
  }
}

/** KL(p ‖ q) of each state, [B]. */
export function klOf(p: Distribution, q: Distribution, reduction: KlReduction = "sum"): Tensor {
  const perDimension = p.klPerDimension(q);
  return reduction === "sum" ? sum(perDimension, { axes: -1 }) : mean(perDimension, { axes: -1 });
}

/** What a KL of reduction `mean` is divided by, as against `sum`. */
export function klDimensions(head: PolicyHead): number {
  return head.kind === "categorical" || head.kind === "multi-categorical" ? 1 : head.kind === "bernoulli" ? head.n : head.size;
}
