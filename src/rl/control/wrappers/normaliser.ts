// The arithmetic of Stable-Baselines3's VecNormalize, apart from any environment: observations by running mean and deviation, rewards by
// the deviation of their discounted sum (not centred). Statistics take a batch in before it is normalised.
import { UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import { RunningMoments } from "../../core/running-moments.ts";

export interface NormaliserOptions {
  /** Default true. */
  observations?: boolean;
  /** Default true. */
  rewards?: boolean;
  /** Normalised observations are cut to ±this; default 10. */
  clipObservation?: number;
  /** Normalised rewards are cut to ±this; default 10. */
  clipReward?: number;
  /** Discount of the sums whose deviation divides the rewards; default 0.99. */
  gamma?: number;
  /** Added to variances; default 1e-8. */
  epsilon?: number;
}

export class Normaliser {
  readonly settings: Required<NormaliserOptions>;
  /** Of the observations: [F]. */
  readonly observationMoments: RunningMoments;
  /** Of the discounted sums of rewards: [1]. */
  readonly returnMoments = new RunningMoments(1);

  /** @throws UsageError for a setting out of its range. */
  constructor(featureSize: number, options: NormaliserOptions = {}) {
    const settings = { observations: true, rewards: true, clipObservation: 10, clipReward: 10, gamma: 0.99, epsilon: 1e-8, ...options };
    if (!(settings.gamma >= 0 && settings.gamma <= 1)) throw new UsageError(`normalise: expected gamma from 0 to 1, got ${settings.gamma}`);
    for (const name of ["clipObservation", "clipReward", "epsilon"] as const)
      if (!(settings[name] > 0)) throw new UsageError(`normalise: expected ${name} > 0, got ${settings[name]}`);
    this.settings = settings;
    this.observationMoments = new RunningMoments(featureSize);
  }

  /** @param from [rows, F]. @param to where the normalised rows go; may be `from`. */
  normaliseObservations(from: ArrayLike<number>, to: Float32Array | Float64Array, row: number, rows: number): void {
    const { mean, variance } = this.observationMoments;
    const { epsilon, clipObservation: clip } = this.settings;
    const size = mean.length;
    for (let feature = 0; feature < size; feature++) {
      const deviation = Math.sqrt(variance[feature] + epsilon);
      for (let at = row * size + feature; at < (row + rows) * size; at += size)
        to[at] = Math.min(Math.max((from[at] - mean[feature]) / deviation, -clip), clip);
    }
  }

  /** @param sums [N] the discounted sums, which take in the rewards here. @param to may be `rewards`. */
  accumulate(rewards: ArrayLike<number>, sums: Float64Array): void {
    for (let i = 0; i < sums.length; i++) sums[i] = sums[i] * this.settings.gamma + rewards[i];
    this.returnMoments.update(sums);
  }

  /** @param to may be `rewards`. */
  normaliseRewards(rewards: ArrayLike<number>, to: Float64Array): void {
    const { epsilon, clipReward: clip } = this.settings;
    const deviation = Math.sqrt(this.returnMoments.variance[0] + epsilon);
    for (let i = 0; i < rewards.length; i++) to[i] = Math.min(Math.max(rewards[i] / deviation, -clip), clip);
  }

  /** The statistics, to be kept beside a trained policy. */
  saveState(): JsonRecord {
    return { observations: this.observationMoments.saveState(), returns: this.returnMoments.saveState() };
  }

  /** @throws CheckpointError for statistics of other observations. */
  restoreState(state: JsonRecord): void {
    this.observationMoments.restoreState(state.observations);
    this.returnMoments.restoreState(state.returns);
  }
}
