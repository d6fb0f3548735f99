// From several reward functions to advantages, as TRL does it: groups are adjacent rows, NaN marks a function that does not apply,
// functions are weighed and summed before or after normalisation (the latter: GDPO, Liu et al. 2026). Host code in float64.
import { UsageError } from "../../base/errors.ts";
import { meanOf, stdOf } from "./statistics.ts";

export interface RewardAdvantageOptions {
  /** Rows of a group, G; groups are adjacent. */
  numGenerations: number;
  /** One a function. Default 1 each. */
  weights?: readonly number[];
  /** Default sum_then_normalize. */
  aggregation?: "sum_then_normalize" | "normalize_then_sum";
  /** group: divided by the group's std; batch: by that of all rows; none: not divided (Dr. GRPO). Default group. */
  scaleRewards?: "group" | "batch" | "none";
  /** Added to the standard deviation. Default 1e-4 (TRL). */
  epsilon?: number;
}

export interface RewardAdvantages {
  /** Combined reward of each row; NaN where no function applied. */
  rewards: Float64Array;
  /** 0 where no function applied. */
  advantages: Float64Array;
  /** Whether the standard deviation that belongs to the row is 0: such a row teaches nothing. */
  stdIsZero: boolean[];
}

/** @param rewardsPerFunction [row][function]. @throws UsageError when rows, groups and weights do not fit. */
export function rewardAdvantages(
  rewardsPerFunction: readonly ArrayLike<number>[],
  { numGenerations, weights, aggregation = "sum_then_normalize", scaleRewards = "group", epsilon = 1e-4 }: RewardAdvantageOptions,
): RewardAdvantages {
  const numRows = rewardsPerFunction.length;
  checkGroups(numRows, numGenerations);
  if (aggregation === "normalize_then_sum") {
    const normalised = rewardsPerFunction.map((row) => Float64Array.from(row));
    for (let k = 0; k < (normalised[0]?.length ?? 0); k++) {
      const scaled = normaliseGroups(
        normalised.map((row) => row[k]),
        numGenerations,
        epsilon,
      );
      for (const [row, value] of scaled.entries()) normalised[row][k] = value;
    }
    const rewards = weightedSums(normalised, weights);
    const [mean, std] = [meanOf(rewards), stdOf(rewards)];
    return {
      rewards,
      advantages: rewards.map((reward) => numberOr0((reward - mean) / (std + epsilon))),
      stdIsZero: Array.from(rewards, () => isZero(std)),
    };
  }
  const rewards = weightedSums(rewardsPerFunction, weights);
  const advantages = new Float64Array(numRows);
  const stdIsZero: boolean[] = [];
  const batchStd = stdOf(rewards);
  for (let start = 0; start < numRows; start += numGenerations) {
    const group = rewards.subarray(start, start + numGenerations);
    const std = scaleRewards === "batch" ? batchStd : stdOf(group);
    const mean = meanOf(group);
    for (const [i, reward] of group.entries()) {
      advantages[start + i] = numberOr0(scaleRewards === "none" ? reward - mean : (reward - mean) / (std + epsilon));
      stdIsZero.push(isZero(std));
    }
  }
  return { rewards, advantages, stdIsZero };
}

/** TRL's RLOO: each row against the mean of the others of its group, then optionally whitened over all rows. A row without a reward gets 0. */
export function leaveOneOutAdvantages(
  rewards: ArrayLike<number>,
  { numGenerations, normalise = false, epsilon = 1e-4 }: { numGenerations: number; normalise?: boolean; epsilon?: number },
): Float64Array {
  checkGroups(rewards.length, numGenerations);
  const differences = Float64Array.from(rewards);
  for (let start = 0; start < rewards.length; start += numGenerations) {
    const group = differences.slice(start, start + numGenerations);
    const valid = group.filter((reward) => !Number.isNaN(reward));
    const sum = valid.reduce((total, reward) => total + reward, 0);
    for (const [i, reward] of group.entries())
      differences[start + i] = valid.length > 1 ? reward - (sum - reward) / (valid.length - 1) : reward * 0;
  }
  const [mean, std] = normalise ? [meanOf(differences), stdOf(differences) + epsilon] : [0, 1];
  return differences.map((difference) => numberOr0((difference - mean) / std));
}

/** Σ weight · reward over the functions that apply; NaN where none does. */
export function weightedSums(rewardsPerFunction: readonly ArrayLike<number>[], weights?: readonly number[]): Float64Array {
  return Float64Array.from(rewardsPerFunction, (row) => {
    if (weights && weights.length !== row.length)
      throw new UsageError(`reward weights: expected ${row.length}, one a reward function, got ${weights.length}`);
    let sum = Number.NaN;
    for (let k = 0; k < row.length; k++) {
      if (Number.isNaN(row[k])) continue;
      sum = (Number.isNaN(sum) ? 0 : sum) + row[k] * (weights?.[k] ?? 1);
    }
    return sum;
  });
}

function normaliseGroups(values: readonly number[], size: number, epsilon: number): number[] {
  const result: number[] = [];
  for (let start = 0; start < values.length; start += size) {
    const group = values.slice(start, start + size);
    const [mean, std] = [meanOf(group), stdOf(group)];
    result.push(...group.map((value) => (value - mean) / (std + epsilon)));
  }
  return result;
}

function checkGroups(numRows: number, size: number): void {
  if (!Number.isInteger(numRows / size)) throw new UsageError(`advantages: expected a multiple of ${size} rows, got ${numRows}`);
}

const numberOr0 = (value: number): number => (Number.isNaN(value) ? 0 : value);
/** As close to 0 as float32 rewards that are equal can come. */
const isZero = (std: number): boolean => std <= 1e-8;
