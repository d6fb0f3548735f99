// Returns and advantages of a rollout of T steps in E environments, on the host in float64. Arrays are [T, E], step after step.
// A termination ends an episode with value 0; a truncation ends it with the value of what would have come (Pardo et al. 2018);
// the end of the buffer is bootstrapped with the value of the next observation.
import { invariant, UsageError } from "../../base/errors.ts";
import { whiten } from "../core/whitening.ts";

export interface RolloutView {
  readonly numSteps: number;
  readonly numEnvironments: number;
  readonly rewards: ArrayLike<number>;
  /** V of the observation that the step started from. */
  readonly values: ArrayLike<number>;
  readonly terminated: ArrayLike<number>;
  readonly truncated: ArrayLike<number>;
  /** V of the final observation where `truncated`; anything elsewhere. */
  readonly terminalValues: ArrayLike<number>;
  /** [E] V of the observation after the last step. */
  readonly lastValues: ArrayLike<number>;
}

export interface GaeOptions {
  /** γ */
  gamma: number;
  /** λ */
  lambda: number;
  /** Whether a truncated step counts γ V(final observation) as reward; if not, a truncation is an end with value 0. Default true. */
  bootstrapTruncation?: boolean;
}

export interface Advantages {
  readonly advantages: Float64Array;
  /** What the value network is fitted to. */
  readonly returns: Float64Array;
}

const allocateLike = ({ numSteps, numEnvironments }: RolloutView): Advantages => ({
  advantages: new Float64Array(numSteps * numEnvironments),
  returns: new Float64Array(numSteps * numEnvironments),
});

function check(rollout: RolloutView): void {
  const size = rollout.numSteps * rollout.numEnvironments;
  if (size === 0) throw new UsageError("estimator: expected a rollout of at least one step, got none");
  invariant(
    rollout.rewards.length >= size && rollout.lastValues.length >= rollout.numEnvironments,
    "a rollout of other sizes than it says",
  );
}

/** The reward of a step, with the value behind a truncation where that counts as reward. */
const bootstrapped = ({ rewards, truncated, terminated, terminalValues }: RolloutView, i: number, gamma: number): number =>
  rewards[i] + (truncated[i] && !terminated[i] ? gamma * terminalValues[i] : 0);

/**
 * Generalised advantage estimation (Schulman et al. 2016, Eq. 16), as Stable-Baselines3 computes it:
 * δ_t = r_t + γ (1 − d_t) V_{t+1} − V_t, Â_t = δ_t + γ λ (1 − d_t) Â_{t+1}, return = Â + V (TD(λ)).
 */
export function gae(
  rollout: RolloutView,
  { gamma, lambda, bootstrapTruncation = true }: GaeOptions,
  out = allocateLike(rollout),
): Advantages {
  check(rollout);
  const { numSteps, numEnvironments: E, rewards, values, terminated, truncated, lastValues } = rollout;
  for (let e = 0; e < E; e++) {
    let advantage = 0;
    for (let t = numSteps - 1; t >= 0; t--) {
      const i = t * E + e;
      const goesOn = terminated[i] || truncated[i] ? 0 : 1;
      const reward = bootstrapTruncation ? bootstrapped(rollout, i, gamma) : rewards[i];
      const nextValue = t === numSteps - 1 ? lastValues[e] : values[i + E];
      const delta = reward + gamma * nextValue * goesOn - values[i];
      advantage = delta + gamma * lambda * goesOn * advantage;
      out.advantages[i] = advantage;
      out.returns[i] = advantage + values[i];
    }
  }
  return out;
}

/** Rewards with the value behind a truncation added, as Stable-Baselines3 keeps them in its buffer. */
export function rewardsWithBootstrap(rollout: RolloutView, gamma: number): Float64Array {
  return Float64Array.from({ length: rollout.numSteps * rollout.numEnvironments }, (_, i) => bootstrapped(rollout, i, gamma));
}

export interface ReturnOptions {
  gamma: number;
  /** Values stand for what is cut off by truncations and by the buffer's end; else sums just stop there. Default true. */
  bootstrap?: boolean;
}

/** Monte-Carlo returns: discounted sums of rewards to the end of the episode. Advantages are returns − values. */
export function discountedReturns(
  rollout: RolloutView,
  { gamma, bootstrap = true }: ReturnOptions,
  out = allocateLike(rollout),
): Advantages {
  check(rollout);
  const { numSteps, numEnvironments: E, rewards, values, terminated, truncated, lastValues } = rollout;
  for (let e = 0; e < E; e++) {
    let sum = bootstrap ? lastValues[e] : 0;
    for (let t = numSteps - 1; t >= 0; t--) {
      const i = t * E + e;
      if (terminated[i] || truncated[i]) sum = bootstrap && truncated[i] && !terminated[i] ? rollout.terminalValues[i] : 0;
      sum = rewards[i] + gamma * sum;
      out.returns[i] = sum;
      out.advantages[i] = sum - values[i];
    }
  }
  return out;
}

/** n-step returns: n rewards, then the value of the state that was reached (Mnih et al. 2016, section 4). */
export function nStepReturns(rollout: RolloutView, { gamma, n }: { gamma: number; n: number }, out = allocateLike(rollout)): Advantages {
  check(rollout);
  if (!(Number.isInteger(n) && n > 0)) throw new UsageError(`n-step returns: expected a positive integer, got ${n}`);
  const { numSteps, numEnvironments: E, rewards, values, terminated, truncated, terminalValues, lastValues } = rollout;
  for (let e = 0; e < E; e++) {
    for (let t = 0; t < numSteps; t++) {
      let [sum, discount] = [0, 1];
      let k = t;
      let hasEnded = false;
      for (; k < Math.min(t + n, numSteps) && !hasEnded; k++) {
        const i = k * E + e;
        sum += discount * rewards[i];
        discount *= gamma;
        hasEnded = Boolean(terminated[i] || truncated[i]);
        if (truncated[i] && !terminated[i]) sum += discount * terminalValues[i];
      }
      if (!hasEnded) sum += discount * (k === numSteps ? lastValues[e] : values[k * E + e]);
      const i = t * E + e;
      out.returns[i] = sum;
      out.advantages[i] = sum - values[i];
    }
  }
  return out;
}

/**
 * Spinning Up's pair: GAE for the policy, and the discounted rewards-to-go (bootstrapped at cuts), not advantage + value, as the target
 * of the value network.
 */
export function spinningUpGae(rollout: RolloutView, options: GaeOptions, out = allocateLike(rollout)): Advantages {
  gae(rollout, options, out);
  const { returns } = discountedReturns(rollout, { gamma: options.gamma });
  out.returns.set(returns);
  return out;
}

/** Mean 0 and standard deviation 1. `sb3`: divided by (std with ddof 1) + 1e-8; `spinning-up`: by the population std. One value stays as it is. */
export function normaliseAdvantages(advantages: ArrayLike<number>, kind: "sb3" | "spinning-up" = "sb3"): Float64Array {
  if (advantages.length < 2) return Float64Array.from(advantages);
  const mask = new Uint8Array(advantages.length).fill(1);
  const options = kind === "sb3" ? ({ ddof: 1, epsilon: 1e-8, epsilonPlace: "std" } as const) : ({ ddof: 0, epsilon: 0 } as const);
  const normalised = whiten(advantages, mask, options);
  // Without an epsilon equal advantages would be 0 / 0: they teach nothing.
  return Number.isNaN(normalised[0]) && Array.prototype.every.call(advantages, Number.isFinite) ? normalised.fill(0) : normalised;
}

/** 1 − Var(returns − values) / Var(returns); NaN when the returns do not vary. */
export function explainedVariance(values: ArrayLike<number>, returns: ArrayLike<number>): number {
  const variance = (at: (i: number) => number): number => {
    let mean = 0;
    for (let i = 0; i < returns.length; i++) mean += at(i);
    mean /= returns.length;
    let sum = 0;
    for (let i = 0; i < returns.length; i++) sum += (at(i) - mean) ** 2;
    return sum / returns.length;
  };
  const total = variance((i) => returns[i]);
  return total === 0 ? Number.NaN : 1 - variance((i) => returns[i] - values[i]) / total;
}
