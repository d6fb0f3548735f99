// The same gradients from experience alone: REINFORCE with reward-to-go and a baseline (Williams 1992), actor-critic updates step by step
// (QAC, A2C: Zhao, Alg. 10.1 and 10.2), and off-policy actor-critic with importance weights (Alg. 10.3). Tables instead of networks, so that
// every estimate can be held against its exact value.
import type { Random } from "../../runtime/rng.ts";
import { softmaxPolicy, type TabularMdp, type TabularPolicy } from "./mdp.ts";

export interface TabularEpisode {
  readonly states: readonly number[];
  readonly actions: readonly number[];
  readonly rewards: readonly number[];
}

export function draw(random: Random, probabilities: ArrayLike<number>): number {
  let uniform = random.uniform();
  let last = 0;
  for (let i = 0; i < probabilities.length; i++) {
    if (probabilities[i] === 0) continue;
    last = i;
    uniform -= probabilities[i];
    if (uniform < 0) break;
  }
  return last;
}

/** One step: the next state, and the expected reward R[s, a] (noise of rewards would only add variance). */
export function step(mdp: TabularMdp, random: Random, state: number, action: number): { next: number; reward: number } {
  const at = state * mdp.numActions + action;
  const row = mdp.transitions.subarray(at * mdp.numStates, (at + 1) * mdp.numStates);
  return { next: draw(random, row), reward: mdp.rewards[at] };
}

const actionsOf = (mdp: TabularMdp, policy: TabularPolicy, state: number): Float64Array =>
  policy.subarray(state * mdp.numActions, (state + 1) * mdp.numActions);

/** From the start until an absorbing state, or `maxSteps` steps. */
export function sampleEpisode(mdp: TabularMdp, policy: TabularPolicy, random: Random, maxSteps = 1000): TabularEpisode {
  const [states, actions, rewards]: number[][] = [[], [], []];
  for (let state = draw(random, mdp.start); !mdp.absorbing[state] && states.length < maxSteps; ) {
    const action = draw(random, actionsOf(mdp, policy, state));
    const { next, reward } = step(mdp, random, state, action);
    states.push(state);
    actions.push(action);
    rewards.push(reward);
    state = next;
  }
  return { states, actions, rewards };
}

export interface ReinforceOptions {
  /** b [S], taken off the reward-to-go. Default none. */
  baseline?: ArrayLike<number>;
  /** Weigh step t by γ^t, as the theorem for J_0 asks. Practical code does not. Default true. */
  discountStates?: boolean;
}

/**
 * Adds the REINFORCE estimate of ∇J_0 of one episode to `gradient` [S, A]: Σ_t γ^t ∇log π(a_t|s_t) (G_t − b(s_t)), G_t = Σ_k γ^k r_{t+k}.
 */
export function addReinforceGradient(
  mdp: TabularMdp,
  policy: TabularPolicy,
  { states, actions, rewards }: TabularEpisode,
  gradient: Float64Array,
  { baseline, discountStates = true }: ReinforceOptions = {},
): void {
  const { numActions, gamma } = mdp;
  let returns = 0;
  for (let t = states.length - 1; t >= 0; t--) {
    returns = rewards[t] + gamma * returns;
    const advantage = (returns - (baseline?.[states[t]] ?? 0)) * (discountStates ? gamma ** t : 1);
    for (let a = 0; a < numActions; a++) {
      const at = states[t] * numActions + a;
      gradient[at] += advantage * (Number(a === actions[t]) - policy[at]);
    }
  }
}

export interface ActorCriticOptions {
  /** qac: a critic of q by SARSA, whose value weighs ∇log π. a2c: a critic of v, whose TD error does. */
  kind: "qac" | "a2c";
  /** α of the actor and of the critic. */
  actorRate: number;
  criticRate: number;
  /** Steps in all; episodes start anew in absorbing states. */
  steps: number;
  /** β(a|s) [S, A] that acts instead of π; weighs updates by π/β. Only for a2c. Default: π acts. */
  behaviour?: TabularPolicy;
}

/** Learns preferences θ [S, A] in place, and returns them with the critic's v [S] (a2c) or q [S, A] (qac). */
export function actorCritic(
  mdp: TabularMdp,
  theta: Float64Array,
  random: Random,
  { kind, actorRate, criticRate, steps, behaviour }: ActorCriticOptions,
): { theta: Float64Array; critic: Float64Array } {
  const { numStates, numActions, gamma } = mdp;
  const critic = new Float64Array(kind === "qac" ? numStates * numActions : numStates);
  let state = draw(random, mdp.start);
  let policy = softmaxPolicy(mdp, theta);
  let action = draw(random, actionsOf(mdp, behaviour ?? policy, state));
  for (let t = 0; t < steps; t++) {
    const { next, reward } = step(mdp, random, state, action);
    const ended = mdp.absorbing[next] === 1;
    const nextAction = draw(random, actionsOf(mdp, behaviour ?? policy, next));
    const at = state * numActions + action;
    const ratio = behaviour ? policy[at] / behaviour[at] : 1;
    let signal: number;
    if (kind === "qac") {
      const target = reward + (ended ? 0 : gamma * critic[next * numActions + nextAction]);
      signal = critic[at];
      critic[at] += criticRate * (target - critic[at]);
    } else {
      signal = reward + (ended ? 0 : gamma * critic[next]) - critic[state];
      critic[state] += criticRate * ratio * signal;
    }
    for (let a = 0; a < numActions; a++) {
      const preference = state * numActions + a;
      theta[preference] += actorRate * ratio * signal * (Number(a === action) - policy[preference]);
    }
    policy = refreshed(mdp, theta, policy, state);
    state = ended ? draw(random, mdp.start) : next;
    action = ended || !behaviour ? draw(random, actionsOf(mdp, behaviour ?? policy, state)) : nextAction;
  }
  return { theta, critic };
}

/** The policy after θ changed in one state alone. */
function refreshed({ numActions }: TabularMdp, theta: Float64Array, policy: TabularPolicy, state: number): TabularPolicy {
  const from = state * numActions;
  let top = Number.NEGATIVE_INFINITY;
  for (let a = 0; a < numActions; a++) top = Math.max(top, theta[from + a]);
  let total = 0;
  for (let a = 0; a < numActions; a++) total += policy[from + a] = Math.exp(theta[from + a] - top);
  for (let a = 0; a < numActions; a++) policy[from + a] /= total;
  return policy;
}
