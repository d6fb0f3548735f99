// Advantages from one score a sample: each is compared with the other samples of its group (prompt). Host code in float64.
// GRPO: Shao et al. 2024, DeepSeekMath, section 4.1; without the std: Liu et al. 2025, Dr. GRPO; leave-one-out: Ahmadian et al. 2024;
// OPO: Hao et al. 2025; GPG: Chu et al. 2025; REINFORCE++: Hu 2025; pass@k: Tang et al. 2025. Conventions of verl, where a group of one keeps its score.
import { invariant, UsageError } from "../../base/errors.ts";
import { meanOf, stdOf } from "./statistics.ts";
import { whiten } from "./whitening.ts";

export const groupEstimators = ["grpo", "grpoNoStd", "rloo", "opo", "gpg", "passAtK", "reinforcePlusPlusBaseline"] as const;
export type GroupEstimator = (typeof groupEstimators)[number];

export interface GroupAdvantageOptions {
  /** Tokens of each sample: for the estimators that weigh by length (opo, reinforcePlusPlusBaseline). */
  lengths?: ArrayLike<number>;
  /** Added to the standard deviation. Default 1e-6 (verl). */
  epsilon?: number;
}

/**
 * @param scores one a sample. @param groups number of the group (prompt) of each sample; groups need not be adjacent.
 * @returns one advantage a sample; every token of the sample has it.
 * @throws UsageError for lengths that an estimator needs and did not get, and for pass@k with a group of one.
 */
export function groupAdvantages(
  estimator: GroupEstimator,
  scores: ArrayLike<number>,
  groups: ArrayLike<number>,
  options: GroupAdvantageOptions = {},
): Float64Array {
  const { lengths, epsilon = 1e-6 } = options;
  invariant(scores.length === groups.length, `${scores.length} scores in ${groups.length} groups`);
  if ((estimator === "opo" || estimator === "reinforcePlusPlusBaseline") && lengths?.length !== scores.length)
    throw new UsageError(`${estimator}: expected ${scores.length} lengths, got ${lengths?.length ?? 0}`);
  const result = new Float64Array(scores.length);
  for (const members of membersOf(groups)) {
    const own = members.map((i) => scores[i]);
    const advantages = ofGroup(estimator, own, lengths ? members.map((i) => lengths[i]) : [], epsilon);
    for (const [place, i] of members.entries()) result[i] = advantages[place];
  }
  if (estimator === "gpg") {
    // Samples without any score carry no gradient: the others are weighed up.
    const numNonZero = Array.from(scores).filter((score) => score !== 0).length;
    const factor = numNonZero > 0 ? scores.length / numNonZero : 1;
    return result.map((advantage) => advantage * factor);
  }
  return estimator === "reinforcePlusPlusBaseline" ? whitenByLength(result, lengths as ArrayLike<number>) : result;
}

function membersOf(groups: ArrayLike<number>): number[][] {
  const members = new Map<number, number[]>();
  for (let i = 0; i < groups.length; i++) {
    const list = members.get(groups[i]);
    if (list) list.push(i);
    else members.set(groups[i], [i]);
  }
  return [...members.values()];
}

function ofGroup(estimator: GroupEstimator, scores: readonly number[], lengths: readonly number[], epsilon: number): number[] {
  const count = scores.length;
  if (estimator === "passAtK") return passAtK(scores, epsilon);
  if (count === 1) return estimator === "grpo" ? [scores[0] / (1 + epsilon)] : [scores[0]];
  const mean = meanOf(scores);
  switch (estimator) {
    case "grpo": {
      const std = stdOf(scores);
      return scores.map((score) => (score - mean) / (std + epsilon));
    }
    case "rloo":
      return scores.map((score) => ((score - mean) * count) / (count - 1));
    case "opo": {
      const total = lengths.reduce((sum, length) => sum + length, 0);
      const baseline = scores.reduce((sum, score, i) => sum + score * lengths[i], 0) / total;
      return scores.map((score) => score - baseline);
    }
    default:
      return scores.map((score) => score - mean);
  }
}

/** The best sample alone is credited, with its lead over the second best. */
function passAtK(scores: readonly number[], epsilon: number): number[] {
  if (scores.length < 2) throw new UsageError("passAtK: expected at least two samples of each prompt, got one");
  const best = scores.indexOf(Math.max(...scores));
  const second = Math.max(...scores.filter((_, i) => i !== best));
  return scores.map((score, i) => (i === best ? (score - second) / (stdOf(scores) + epsilon) : 0));
}

/** Whitening over tokens when all tokens of a sample share its value. */
function whitenByLength(values: Float64Array, lengths: ArrayLike<number>): Float64Array {
  const longest = Math.max(...Array.from(lengths));
  const tokens = new Float64Array(values.length * longest);
  const mask = new Uint8Array(tokens.length);
  for (let i = 0; i < values.length; i++) {
    tokens.fill(values[i], i * longest, i * longest + lengths[i]);
    mask.fill(1, i * longest, i * longest + lengths[i]);
  }
  // A sample without tokens has no place to read its value from.
  const whitened = whiten(tokens, mask, { countEpsilon: 1e-8 });
  return values.map((_, i) => (lengths[i] > 0 ? whitened[i * longest] : 0));
}

/**
 * Discounted returns of token rewards [B, T], from the last token back; tokens outside the mask are skipped and get 0
 * (REINFORCE++, Hu 2025, which then whitens them over the batch).
 */
export function tokenReturns(rewards: ArrayLike<number>, mask: ArrayLike<number>, length: number, gamma = 1): Float64Array {
  const returns = new Float64Array(rewards.length);
  for (let row = 0; row < rewards.length; row += length) {
    let running = 0;
    for (let i = row + length - 1; i >= row; i--) {
      if (!mask[i]) continue;
      running = rewards[i] + gamma * running;
      returns[i] = running;
    }
  }
  return returns;
}

export interface ProcessRewards {
  /** Tokens of the output. */
  readonly length: number;
  /** Index of the last token of each step, rising. */
  readonly stepEnds: readonly number[];
  readonly stepRewards: readonly number[];
}

/**
 * Process supervision (DeepSeekMath, section 4.1.3): the rewards of all steps of a group are normalised together; the advantage of a
 * token is the sum over the steps that end at it or later.
 */
export function processAdvantages(
  outputs: readonly ProcessRewards[],
  { ddof = 1, epsilon = 1e-4 }: { ddof?: 0 | 1; epsilon?: number } = {},
): Float64Array[] {
  const all = outputs.flatMap(({ stepRewards }) => stepRewards);
  const [mean, std] = [meanOf(all), stdOf(all, ddof)];
  return outputs.map(({ length, stepEnds, stepRewards }) => {
    const advantages = new Float64Array(length);
    for (const [step, end] of stepEnds.entries()) {
      const normalised = (stepRewards[step] - mean) / (std + epsilon);
      for (let t = 0; t <= end; t++) advantages[t] += normalised;
    }
    return advantages;
  });
}
