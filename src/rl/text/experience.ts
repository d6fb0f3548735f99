// From completions and their rewards to rows with an advantage for every token.
import { invariant } from "../../base/errors.ts";
import { tokenReturns } from "../core/advantages.ts";
import { klDivergenceOf } from "../core/kl.ts";
import { leaveOneOutAdvantages, rewardAdvantages, weightedSums } from "../core/reward-advantages.ts";
import { stdOf } from "../core/statistics.ts";
import { whiten } from "../core/whitening.ts";
import { maskOf, type PolicyRow } from "./grid.ts";
import type { GroupPolicySettings } from "./options.ts";
import type { Prompt } from "./prompts.ts";
import type { RewardTable } from "./rewards.ts";
import type { Completion } from "./rollouts.ts";

/** One completion with everything that is told of it. */
export interface Sample {
  readonly prompt: Prompt;
  readonly completion: Completion;
  /** Text of the completion. */
  readonly text: string;
  /** One a reward function; NaN where it does not apply. */
  readonly rewards: Float64Array;
  /** Weighted sum; NaN where none applies. */
  readonly reward: number;
}

/** Standard deviation of the rewards of each group of `size` adjacent samples. */
export const groupStds = (samples: readonly Pick<Sample, "reward">[], size: number): number[] =>
  Array.from({ length: samples.length / size }, (_, g) => stdOf(samples.slice(g * size, (g + 1) * size).map(({ reward }) => reward)));

export function rowsOf(samples: readonly Sample[], settings: GroupPolicySettings): PolicyRow[] {
  return samples.map(({ prompt, completion }, i) => ({
    promptIds: prompt.ids,
    completion,
    group: Math.floor(i / settings.numGenerations),
    counts: !settings.maskTruncatedCompletions || completion.finish === "end",
    advantages: new Float64Array(completion.ids.length),
    oldLogProbs: completion.logProbs,
    refLogProbs: undefined,
    factors: importanceFactors(completion, settings),
    entropies: undefined,
  }));
}

/** Truncated importance weights of what was sampled from (TIS); undefined where nothing has to be corrected. */
function importanceFactors({ logProbs, samplingLogProbs }: Completion, settings: GroupPolicySettings): Float64Array | undefined {
  const { importanceCorrection, importanceCap } = settings;
  if (importanceCorrection === "none") return undefined;
  const differences = logProbs.map((logProb, t) => logProb - samplingLogProbs[t]);
  if (importanceCorrection === "token") return differences.map((difference) => Math.min(Math.exp(difference), importanceCap));
  const total = differences.reduce((sum, difference) => sum + difference, 0);
  return differences.fill(Math.min(Math.exp(total), importanceCap));
}

/** Fills the advantages of all rows. The rows' old (and, for a KL in the reward, reference) log-probabilities must be there. */
export function fillAdvantages(
  rows: readonly PolicyRow[],
  table: Pick<RewardTable, "values" | "weights">,
  settings: GroupPolicySettings,
): void {
  const { advantage, numGenerations, scaleRewards, multiObjectiveAggregation: aggregation, beta, klPlace } = settings;
  const { values, weights } = table;
  const penalties = beta > 0 && klPlace === "reward" ? rows.map((row) => tokenPenalties(row, beta)) : undefined;
  const whole = (penalty: Float64Array): number => penalty.reduce((sum, value) => sum + value, 0);
  if (advantage === "batch") {
    fillTokenReturns(rows, weightedSums(values, weights), penalties);
    return;
  }
  let perRow: Float64Array;
  if (advantage === "group" && !penalties)
    perRow = rewardAdvantages(values, { numGenerations, weights, aggregation, scaleRewards }).advantages;
  else {
    const sums = weightedSums(values, weights).map((reward, i) => reward - (penalties ? whole(penalties[i]) : 0));
    const list = Array.from(sums, (reward) => [reward]);
    if (advantage === "group") perRow = rewardAdvantages(list, { numGenerations, scaleRewards }).advantages;
    else if (advantage === "leave-one-out") perRow = leaveOneOutAdvantages(sums, { numGenerations });
    else perRow = sums.map((reward) => (Number.isNaN(reward) ? 0 : reward));
  }
  for (const [i, row] of rows.entries()) row.advantages.fill(perRow[i]);
}

/** β · k1 of each token. */
function tokenPenalties({ oldLogProbs, refLogProbs }: PolicyRow, beta: number): Float64Array {
  invariant(refLogProbs, "a KL in the reward without a reference");
  return oldLogProbs.map((logProb, t) => beta * klDivergenceOf(logProb, refLogProbs[t], "k1"));
}

/** REINFORCE++: the reward at the last token, less the penalty of each token; undiscounted returns, whitened over the batch. */
function fillTokenReturns(rows: readonly PolicyRow[], rewards: Float64Array, penalties: readonly Float64Array[] | undefined): void {
  const { mask, length } = maskOf(rows);
  const tokenRewards = new Float64Array(mask.length);
  for (const [r, { completion }] of rows.entries()) {
    const count = completion.ids.length;
    if (Number.isNaN(rewards[r])) mask.fill(0, r * length, (r + 1) * length);
    for (let t = 0; t < count; t++) tokenRewards[r * length + t] = -(penalties?.[r][t] ?? 0);
    tokenRewards[r * length + count - 1] += rewards[r];
  }
  const whitened = whiten(tokenReturns(tokenRewards, mask, length), mask);
  for (const [r, row] of rows.entries())
    for (let t = 0; t < row.advantages.length; t++) row.advantages[t] = mask[r * length + t] ? whitened[r * length + t] : 0;
}
