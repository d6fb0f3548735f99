// The policy gradient theorem, exactly: ∇J = Σ_s η(s) Σ_a ∇π(a|s) q(s, a), with visits η and values q that depend on the metric J
// (Sutton et al. 2000, Theorem 1; Zhao, Theorem 9.1–9.5). Gradients are with respect to the preferences θ [S, A] of a softmax policy, where
//   ∂π(a|s)/∂θ(s, b) = π(a|s) (1[a = b] − π(b|s)).
import {
  actionValues,
  averageReward,
  discountedVisits,
  softmaxPolicy,
  stateValues,
  stationaryDistribution,
  type TabularMdp,
  type TabularPolicy,
} from "./mdp.ts";

/** Σ_s η(s) Σ_a ∇π(a|s) q(s, a) [S, A]. */
export function gradientOf(mdp: TabularMdp, policy: TabularPolicy, visits: ArrayLike<number>, q: ArrayLike<number>): Float64Array {
  const { numStates, numActions } = mdp;
  const gradient = new Float64Array(numStates * numActions);
  for (let s = 0; s < numStates; s++) {
    let value = 0;
    for (let a = 0; a < numActions; a++) value += policy[s * numActions + a] * q[s * numActions + a];
    for (let a = 0; a < numActions; a++) {
      const at = s * numActions + a;
      gradient[at] = visits[s] * policy[at] * (q[at] - value);
    }
  }
  return gradient;
}

/** ∇J_0 of the discounted return from the start: η = d_0ᵀ (I − γP_π)⁻¹, q = q_π. Exact. */
export function startValueGradient(mdp: TabularMdp, theta: ArrayLike<number>): Float64Array {
  const policy = softmaxPolicy(mdp, theta);
  return gradientOf(mdp, policy, discountedVisits(mdp, policy), actionValues(mdp, stateValues(mdp, policy)));
}

/** ∇r̄ of the average reward: η = d_π and the differential q. Exact, without discount. */
export function averageRewardGradient(mdp: TabularMdp, theta: ArrayLike<number>): Float64Array {
  const policy = softmaxPolicy(mdp, theta);
  const { visits, differential, average } = averageReward(mdp, policy);
  const q = actionValues(mdp, differential, 1).map((value) => value - average);
  return gradientOf(mdp, policy, visits, q);
}

/** ∇v̄ of the average value under weights that do not depend on the policy: η = dᵀ (I − γP_π)⁻¹. Exact. */
export function averageValueGradient(mdp: TabularMdp, theta: ArrayLike<number>, weights: Float64Array): Float64Array {
  return startValueGradient({ ...mdp, start: weights }, theta);
}

/**
 * What discounted methods follow in a task without end: visits d_π with the discounted q. It approaches ∇r̄ as γ → 1 and differs from it by
 * a term of order (1 − γ) (Zhao, Theorem 9.3).
 */
export function discountedApproximation(mdp: TabularMdp, theta: ArrayLike<number>): Float64Array {
  const policy = softmaxPolicy(mdp, theta);
  return gradientOf(mdp, policy, stationaryDistribution(mdp, policy), actionValues(mdp, stateValues(mdp, policy)));
}

/**
 * The baseline b(s) with the least variance of ∇log π(A|s) (q(s, A) − b): E[‖∇log π‖² q] / E[‖∇log π‖²] (Zhao, Eq. 10.5; Greensmith et al.
 * 2004). For a softmax over preferences ‖∇log π(a|s)‖² = 1 − 2π(a|s) + Σ_b π(b|s)².
 */
export function optimalBaseline({ numStates, numActions }: TabularMdp, policy: TabularPolicy, q: ArrayLike<number>): Float64Array {
  const baseline = new Float64Array(numStates);
  for (let s = 0; s < numStates; s++) {
    const pi = policy.subarray(s * numActions, (s + 1) * numActions);
    const squares = pi.reduce((sum, p) => sum + p * p, 0);
    let [above, below] = [0, 0];
    for (let a = 0; a < numActions; a++) {
      const weight = pi[a] * (1 - 2 * pi[a] + squares);
      above += weight * q[s * numActions + a];
      below += weight;
    }
    baseline[s] = below > 0 ? above / below : 0;
  }
  return baseline;
}
