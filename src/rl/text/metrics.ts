// Metrics of a step, under the names of TRL's GRPOTrainer, so that dashboards made for it work.
import { meanOf, stdOf } from "../core/statistics.ts";
import { groupStds, type Sample } from "./experience.ts";
import type { PolicyRow } from "./grid.ts";

/** Of completions and rewards: everything that is known before the update. */
export function rolloutMetrics(samples: readonly Sample[], names: readonly string[], groupSize: number): Record<string, number> {
  const lengths = samples.map(({ completion }) => completion.ids.length);
  const ended = samples.filter(({ completion }) => completion.finish === "end").map(({ completion }) => completion.ids.length);
  const rewards = samples.map(({ reward }) => reward);
  const stds = groupStds(samples, groupSize);
  const metrics: Record<string, number> = {
    reward: meanOf(rewards),
    reward_std: meanOf(stds),
    frac_reward_zero_std: stds.filter((std) => std <= 1e-8).length / stds.length,
    "completions/mean_length": meanOf(lengths),
    "completions/min_length": Math.min(...lengths),
    "completions/max_length": Math.max(...lengths),
    "completions/clipped_ratio": 1 - ended.length / samples.length,
    "completions/mean_terminated_length": ended.length > 0 ? meanOf(ended) : 0,
    "completions/min_terminated_length": ended.length > 0 ? Math.min(...ended) : 0,
    "completions/max_terminated_length": ended.length > 0 ? Math.max(...ended) : 0,
  };
  for (const [k, name] of names.entries()) {
    const values = samples.map((sample) => sample.rewards[k]);
    metrics[`rewards/${name}/mean`] = meanOf(values);
    metrics[`rewards/${name}/std`] = stdOf(values);
  }
  // A reward that applied to no sample has no mean; there is no number to tell.
  return Object.fromEntries(Object.entries(metrics).filter(([, value]) => !Number.isNaN(value)));
}

/** Sums over the tokens of all updates of a step. */
export class UpdateMetrics {
  #loss = 0;
  #numUpdates = 0;
  #tokens = 0;
  #sums: Record<string, number> = {};
  /** One value a completion: the share of its tokens that were clipped. */
  readonly #low: number[] = [];
  readonly #high: number[] = [];
  readonly #region: number[] = [];
  readonly #clipped = { low: 0, high: 0, region: 0, count: 0 };
  #difference = { sum: 0, max: 0, count: 0 };

  addUpdate(loss: number): void {
    this.#loss += loss;
    this.#numUpdates++;
  }

  /** @param values by name, on the grid [R, C]: their means over the counted tokens are told. */
  addTokens(rows: readonly PolicyRow[], columns: number, values: Readonly<Record<string, Float32Array | undefined>>): void {
    for (const [r, { completion, counts }] of rows.entries()) {
      if (!counts) continue;
      const [start, end] = [r * columns, r * columns + completion.ids.length];
      this.#tokens += end - start;
      for (const [name, grid] of Object.entries(values)) {
        if (!grid) continue;
        let sum = 0;
        for (let i = start; i < end; i++) sum += grid[i];
        this.#sums[name] = (this.#sums[name] ?? 0) + sum;
      }
    }
  }

  /** @param low, high flags [R, C], or [R] for ratios of sequences. */
  addClipping(rows: readonly PolicyRow[], columns: number, low: Float32Array, high: Float32Array): void {
    const width = low.length >= rows.length * columns ? columns : 1;
    for (const [r, { completion, counts }] of rows.entries()) {
      if (!counts) continue;
      const count = width === 1 ? 1 : completion.ids.length;
      let [numLow, numHigh] = [0, 0];
      for (let i = r * width; i < r * width + count; i++) {
        numLow += low[i];
        numHigh += high[i];
      }
      this.#low.push(numLow / count);
      this.#high.push(numHigh / count);
      this.#region.push((numLow + numHigh) / count);
      this.#clipped.low += numLow;
      this.#clipped.high += numHigh;
      this.#clipped.count += count;
    }
  }

  /** |log p while sampling − log p in training| of each token: what the two programs' rounding, or stale weights, come to. */
  addSamplingDifference(recorded: ArrayLike<number>, computed: ArrayLike<number>): void {
    for (let t = 0; t < recorded.length; t++) {
      const difference = Math.abs(recorded[t] - computed[t]);
      this.#difference.sum += difference;
      this.#difference.max = Math.max(this.#difference.max, difference);
    }
    this.#difference.count += recorded.length;
  }

  result(): Record<string, number> {
    const { low, high, count } = this.#clipped;
    const share = (value: number): number => (count > 0 ? value / count : 0);
    return {
      loss: this.#loss / Math.max(1, this.#numUpdates),
      ...Object.fromEntries(Object.entries(this.#sums).map(([name, sum]) => [name, sum / Math.max(1, this.#tokens)])),
      "clip_ratio/low_mean": share(low),
      "clip_ratio/low_min": Math.min(...this.#low, ...(this.#low.length > 0 ? [] : [0])),
      "clip_ratio/high_mean": share(high),
      "clip_ratio/high_max": Math.max(...this.#high, 0),
      "clip_ratio/region_mean": share(low + high),
      ...(this.#difference.count > 0
        ? {
            "sampling/sampling_logp_difference/mean": this.#difference.sum / this.#difference.count,
            "sampling/sampling_logp_difference/max": this.#difference.max,
          }
        : {}),
    };
  }
}
