// Scores of several runs as one number with its uncertainty, after Agarwal et al. 2021, "Deep reinforcement learning at the edge of the
// statistical precipice" (rliable): the interquartile mean, and percentile intervals from a bootstrap that is stratified by task.
import { UsageError } from "../../base/errors.ts";
import { Random } from "../../runtime/rng.ts";
import { quantileOf } from "./statistics.ts";

/** Mean of the middle half of the values: a quarter is left out at each end (SciPy's trim_mean with 0.25). */
export function interquartileMean(values: ArrayLike<number>): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  const cut = Math.floor(sorted.length * 0.25);
  const kept = sorted.subarray(cut, sorted.length - cut);
  return kept.reduce((sum, value) => sum + value, 0) / kept.length;
}

export interface AggregateScore {
  readonly mean: number;
  readonly interquartileMean: number;
  /** 95 % interval of the interquartile mean. */
  readonly interval: readonly [low: number, high: number];
  readonly numRuns: number;
}

/**
 * @param scores of each task, one a run. Runs are drawn again within each task; values of all tasks together are then reduced, so give
 * tasks of different scales normalised scores.
 * @throws UsageError for a task without runs.
 */
export function aggregateScores(
  scores: readonly ArrayLike<number>[],
  { repetitions = 2000, confidence = 0.95, seed = 0 }: { repetitions?: number; confidence?: number; seed?: number } = {},
): AggregateScore {
  if (scores.length === 0 || scores.some(({ length }) => length === 0))
    throw new UsageError("scores: expected at least one run of each task, got none");
  const all = scores.flatMap((task) => Array.from(task));
  const random = new Random(seed, { stream: "bootstrap" });
  const drawn = new Float64Array(all.length);
  const means = Float64Array.from({ length: repetitions }, () => {
    let at = 0;
    for (const task of scores) for (let i = 0; i < task.length; i++) drawn[at++] = task[random.integer(task.length)];
    return interquartileMean(drawn);
  }).sort();
  const tail = (1 - confidence) / 2;
  return {
    mean: all.reduce((sum, value) => sum + value, 0) / all.length,
    interquartileMean: interquartileMean(all),
    interval: [quantileOf(means, tail), quantileOf(means, 1 - tail)],
    numRuns: Math.min(...scores.map(({ length }) => length)),
  };
}
