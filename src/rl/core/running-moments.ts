// Mean and variance of a stream of vectors, batch by batch: the parallel form of Chan, Golub and LeVeque (1979), which for batches of
// one is Welford's (1962). The start differs between libraries: `initialCount` says how much the first guess (mean 0, variance 1) counts.
import { CheckpointError, invariant } from "../../base/errors.ts";

/** Plain numbers, for checkpoints. */
export type RunningMomentsState = {
  readonly count: number;
  readonly mean: readonly number[];
  readonly variance: readonly number[];
};

export class RunningMoments {
  /** Samples so far, and the weight of the first guess. */
  count: number;
  /** [size] */
  readonly mean: Float64Array;
  /** [size] of the population: squares divided by `count`. */
  readonly variance: Float64Array;

  /**
   * @param size entries of one sample.
   * @param initialCount 1e-4 in Stable-Baselines3 and Gymnasium (the default), 1e-24 in MOSS-RLHF, 0 for exact moments.
   */
  constructor(size: number, { initialCount = 1e-4 }: { initialCount?: number } = {}) {
    this.count = initialCount;
    this.mean = new Float64Array(size);
    this.variance = new Float64Array(size).fill(1);
  }

  /** Takes in `samples` [rows, size]; nothing for 0 rows. */
  update(samples: ArrayLike<number>, rows = samples.length / this.mean.length): void {
    if (rows === 0) return;
    const size = this.mean.length;
    invariant(samples.length >= rows * size, `RunningMoments: ${samples.length} numbers for ${rows} samples of ${size}`);
    const total = this.count + rows;
    for (let feature = 0; feature < size; feature++) {
      let sum = 0;
      for (let at = feature; at < rows * size; at += size) sum += samples[at];
      const batchMean = sum / rows;
      let squares = 0;
      for (let at = feature; at < rows * size; at += size) squares += (samples[at] - batchMean) ** 2;
      const delta = batchMean - this.mean[feature];
      this.mean[feature] += (delta * rows) / total;
      // With a count of 0 the first guess drops out.
      const merged = this.variance[feature] * this.count + squares + (delta * delta * this.count * rows) / total;
      this.variance[feature] = merged / total;
    }
    this.count = total;
  }

  /** [size] divided by count − 1 (Bessel); 0 for fewer than two samples. */
  sampleVariance(): Float64Array {
    const factor = this.count > 1 ? this.count / (this.count - 1) : 0;
    return this.variance.map((variance) => variance * factor);
  }

  saveState(): RunningMomentsState {
    return { count: this.count, mean: [...this.mean], variance: [...this.variance] };
  }

  /** @throws CheckpointError for a state of another size, or none. */
  restoreState(state: unknown): void {
    const { count, mean, variance } = (state ?? {}) as Partial<RunningMomentsState>;
    const size = this.mean.length;
    const isVector = (list: unknown): list is number[] => Array.isArray(list) && list.length === size && list.every(Number.isFinite);
    if (typeof count !== "number" || !(count >= 0) || !isVector(mean) || !isVector(variance))
      throw new CheckpointError(`running moments: expected a count, ${size} means and ${size} variances, got something else`, {
        hint: "The state was saved with observations of another shape.",
      });
    this.count = count;
    this.mean.set(mean);
    this.variance.set(variance);
  }
}
