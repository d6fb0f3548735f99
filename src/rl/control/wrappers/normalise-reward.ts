// Gymnasium's NormalizeReward around one environment. It differs from Stable-Baselines3's (normalised-environments.ts): the discounted sum
// is cleared before the reward of a terminal step is added, a truncation does not clear it, and nothing is clipped.
import { UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import { RunningMoments } from "../../core/running-moments.ts";
import type { Environment, EnvironmentStep, Value } from "../environment.ts";
import { savedNumbers } from "../environments/native-environment.ts";
import { EnvironmentWrapper } from "./environment-wrapper.ts";

export interface NormaliseRewardOptions {
  /** Discount of the sum whose deviation divides the rewards; default 0.99. */
  gamma?: number;
  /** Added to the variance; default 1e-8. */
  epsilon?: number;
}

/** Rewards divided by the standard deviation of their discounted sum. */
export class NormalisedReward extends EnvironmentWrapper {
  /** False: the statistics stay as they are, for evaluation. */
  training = true;
  readonly moments = new RunningMoments(1);
  readonly #gamma: number;
  readonly #epsilon: number;
  readonly #sum = new Float64Array(1);
  readonly #result: EnvironmentStep = { observation: 0, reward: 0.5, terminated: false, truncated: false, info: undefined };

  constructor(inner: Environment, gamma: number, epsilon: number) {
    super(inner);
    this.#gamma = gamma;
    this.#epsilon = epsilon;
  }

  /** The discounted sum after the last step. */
  get discountedSum(): number {
    return this.#sum[0];
  }

  step(action: Value): EnvironmentStep {
    const { observation, reward, terminated, truncated, info } = this.inner.step(action);
    this.#sum[0] = (terminated ? 0 : this.#sum[0] * this.#gamma) + reward;
    if (this.training) this.moments.update(this.#sum);
    const result = this.#result;
    result.observation = observation;
    result.reward = reward / Math.sqrt(this.moments.variance[0] + this.#epsilon);
    result.terminated = terminated;
    result.truncated = truncated;
    result.info = info;
    return result;
  }

  protected override pack(): JsonRecord {
    return { moments: this.moments.saveState(), sum: [this.#sum[0]] };
  }

  protected override unpack(state: JsonRecord): void {
    this.moments.restoreState(state.moments);
    this.#sum.set(savedNumbers(state, "sum", 1));
  }
}

/** @throws UsageError unless 0 <= gamma <= 1 and epsilon > 0. */
export function normaliseReward(inner: Environment, { gamma = 0.99, epsilon = 1e-8 }: NormaliseRewardOptions = {}): NormalisedReward {
  if (!(gamma >= 0 && gamma <= 1)) throw new UsageError(`normaliseReward: expected gamma from 0 to 1, got ${gamma}`);
  if (!(epsilon > 0)) throw new UsageError(`normaliseReward: expected epsilon > 0, got ${epsilon}`);
  return new NormalisedReward(inner, gamma, epsilon);
}
