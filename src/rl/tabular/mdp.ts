// Finite Markov decision processes as tables, and what they are worth under a policy, exactly: the theory that every sampled estimator in this
// folder's neighbours approximates. Notation of Sutton and Barto, ch. 13, and of Zhao, Mathematical Foundations of Reinforcement Learning, ch. 9.
// S states, A actions; P[s, a, s'] = p(s' | s, a); R[s, a] = E[r | s, a]. An absorbing state has P = 1 to itself and R = 0.
import { UsageError } from "../../base/errors.ts";
import { solve } from "./linear-system.ts";

export interface TabularMdp {
  readonly numStates: number;
  readonly numActions: number;
  /** [S, A, S] */
  readonly transitions: Float64Array;
  /** [S, A] */
  readonly rewards: Float64Array;
  /** γ in [0, 1). */
  readonly gamma: number;
  /** d_0 [S]: where episodes start. */
  readonly start: Float64Array;
  /** [S] 1 for states in which nothing happens any more. */
  readonly absorbing: Uint8Array;
}

export interface MdpDescription {
  numStates: number;
  numActions: number;
  /** Outcomes of an action in a state; probabilities sum to 1. */
  outcomes: (state: number, action: number) => readonly { probability: number; next: number; reward: number }[];
  gamma: number;
  /** A state, or a probability for each. */
  start: number | readonly number[];
  absorbing?: readonly number[];
}

/** @throws UsageError for sizes, probabilities or a discount that make no process. */
export function tabularMdp({ numStates, numActions, outcomes, gamma, start, absorbing = [] }: MdpDescription): TabularMdp {
  if (!(gamma >= 0 && gamma < 1)) throw new UsageError(`mdp: expected gamma in [0, 1), got ${gamma}`);
  const mdp: TabularMdp = {
    numStates,
    numActions,
    transitions: new Float64Array(numStates * numActions * numStates),
    rewards: new Float64Array(numStates * numActions),
    gamma,
    start: typeof start === "number" ? Float64Array.from({ length: numStates }, (_, s) => Number(s === start)) : Float64Array.from(start),
    absorbing: Uint8Array.from({ length: numStates }, (_, s) => Number(absorbing.includes(s))),
  };
  expectDistribution("start", mdp.start, numStates);
  for (let s = 0; s < numStates; s++) {
    for (let a = 0; a < numActions; a++) {
      const row = mdp.transitions.subarray((s * numActions + a) * numStates, (s * numActions + a + 1) * numStates);
      if (mdp.absorbing[s]) row[s] = 1;
      else
        for (const { probability, next, reward } of outcomes(s, a)) {
          row[next] += probability;
          mdp.rewards[s * numActions + a] += probability * reward;
        }
      expectDistribution(`outcomes of action ${a} in state ${s}`, row, numStates);
    }
  }
  return mdp;
}

function expectDistribution(what: string, values: Float64Array, size: number): void {
  const total = values.reduce((sum, value) => sum + value, 0);
  if (values.length !== size || values.some((value) => !(value >= 0)) || !(Math.abs(total - 1) < 1e-9))
    throw new UsageError(`mdp: expected ${size} probabilities that sum to 1 for the ${what}, got a sum of ${total}`);
}

/** π(a | s) [S, A]. */
export type TabularPolicy = Float64Array;

/** softmax over actions of preferences θ [S, A]. */
export function softmaxPolicy({ numStates, numActions }: TabularMdp, theta: ArrayLike<number>): TabularPolicy {
  const policy = new Float64Array(numStates * numActions);
  for (let s = 0; s < numStates; s++) {
    let top = Number.NEGATIVE_INFINITY;
    for (let a = 0; a < numActions; a++) top = Math.max(top, theta[s * numActions + a]);
    let total = 0;
    for (let a = 0; a < numActions; a++) total += policy[s * numActions + a] = Math.exp(theta[s * numActions + a] - top);
    for (let a = 0; a < numActions; a++) policy[s * numActions + a] /= total;
  }
  return policy;
}

/** P_π [S, S] and r_π [S]: the Markov reward process under a policy. */
export function underPolicy(mdp: TabularMdp, policy: TabularPolicy): { transitions: Float64Array; rewards: Float64Array } {
  const { numStates, numActions } = mdp;
  const transitions = new Float64Array(numStates * numStates);
  const rewards = new Float64Array(numStates);
  for (let s = 0; s < numStates; s++)
    for (let a = 0; a < numActions; a++) {
      const at = s * numActions + a;
      rewards[s] += policy[at] * mdp.rewards[at];
      for (let next = 0; next < numStates; next++) transitions[s * numStates + next] += policy[at] * mdp.transitions[at * numStates + next];
    }
  return { transitions, rewards };
}

/** v_π [S]: the solution of v = r_π + γ P_π v (Bellman's equation). */
export function stateValues(mdp: TabularMdp, policy: TabularPolicy): Float64Array {
  const { transitions, rewards } = underPolicy(mdp, policy);
  return solve(identityMinus(transitions, mdp.numStates, mdp.gamma), rewards);
}

/** q_π [S, A] = R + γ P v. */
export function actionValues(mdp: TabularMdp, values: ArrayLike<number>, gamma = mdp.gamma): Float64Array {
  const { numStates, numActions } = mdp;
  const q = Float64Array.from(mdp.rewards);
  for (let at = 0; at < numStates * numActions; at++)
    for (let next = 0; next < numStates; next++) q[at] += gamma * mdp.transitions[at * numStates + next] * values[next];
  return q;
}

/** Discounted visits η = d_0ᵀ (I − γ P_π)⁻¹ [S]; they sum to 1/(1 − γ). */
export function discountedVisits(mdp: TabularMdp, policy: TabularPolicy): Float64Array {
  const { transitions } = underPolicy(mdp, policy);
  return solve(transpose(identityMinus(transitions, mdp.numStates, mdp.gamma), mdp.numStates), mdp.start);
}

/** d_π [S]: d = dᵀ P_π, Σ d = 1. Unique where every state can be reached from every other one. @throws UsageError where it is not unique. */
export function stationaryDistribution(mdp: TabularMdp, policy: TabularPolicy): Float64Array {
  const { numStates } = mdp;
  const matrix = transpose(identityMinus(underPolicy(mdp, policy).transitions, numStates, 1), numStates);
  // One of the equations follows from the others; the sum takes its place.
  matrix.fill(1, (numStates - 1) * numStates);
  const right = new Float64Array(numStates);
  right[numStates - 1] = 1;
  return solve(matrix, right);
}

/** The average reward of a step r̄_π = d_πᵀ r_π, and the differential values v − r̄ relative to it (Σ_s d_π(s) v(s) = 0). */
export function averageReward(
  mdp: TabularMdp,
  policy: TabularPolicy,
): { average: number; visits: Float64Array; differential: Float64Array } {
  const { numStates } = mdp;
  const { transitions, rewards } = underPolicy(mdp, policy);
  const visits = stationaryDistribution(mdp, policy);
  const average = dot(visits, rewards);
  // Poisson's equation v = r_π − r̄ + P_π v; adding dᵀ v to every row fixes the constant at dᵀ v = 0.
  const matrix = identityMinus(transitions, numStates, 1);
  for (let s = 0; s < numStates; s++) for (let next = 0; next < numStates; next++) matrix[s * numStates + next] += visits[next];
  return {
    average,
    visits,
    differential: solve(
      matrix,
      rewards.map((reward) => reward - average),
    ),
  };
}

/** J_0 = d_0ᵀ v_π: the discounted return from the start. */
export const startValue = (mdp: TabularMdp, policy: TabularPolicy): number => dot(mdp.start, stateValues(mdp, policy));

/** v̄_π = dᵀ v_π for weights d [S] that do not depend on the policy; by default the stationary ones, which do: then r̄ = (1 − γ) v̄. */
export const averageValue = (mdp: TabularMdp, policy: TabularPolicy, weights = stationaryDistribution(mdp, policy)): number =>
  dot(weights, stateValues(mdp, policy));

/** Best values and a greedy policy, by iterating v ← max_a q until it moves by less than `tolerance`. */
export function valueIteration(mdp: TabularMdp, tolerance = 1e-10): { values: Float64Array; policy: Int32Array } {
  const { numStates, numActions } = mdp;
  let values = new Float64Array(numStates);
  for (;;) {
    const q = actionValues(mdp, values);
    const next = new Float64Array(numStates);
    const policy = new Int32Array(numStates);
    let moved = 0;
    for (let s = 0; s < numStates; s++) {
      for (let a = 1; a < numActions; a++) if (q[s * numActions + a] > q[s * numActions + policy[s]] + 1e-12) policy[s] = a;
      next[s] = q[s * numActions + policy[s]];
      moved = Math.max(moved, Math.abs(next[s] - values[s]));
    }
    values = next;
    if (moved < tolerance) return { values, policy };
  }
}

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

function identityMinus(matrix: Float64Array, size: number, factor: number): Float64Array {
  const result = matrix.map((value) => -factor * value);
  for (let i = 0; i < size; i++) result[i * size + i] += 1;
  return result;
}

function transpose(matrix: Float64Array, size: number): Float64Array {
  return matrix.map((_, i) => matrix[(i % size) * size + Math.floor(i / size)]);
}
