// rl/estimators.json: group advantages of verl and TRL, leave-one-out, process supervision, whitening of five libraries.
import { type GroupEstimator, groupAdvantages, groupEstimators, processAdvantages, tokenReturns } from "../../../src/rl/core/advantages.ts";
import {
  leaveOneOutAdvantages,
  type RewardAdvantageOptions,
  rewardAdvantages,
  weightedSums,
} from "../../../src/rl/core/reward-advantages.ts";
import { remaxAdvantages, tokenGae } from "../../../src/rl/core/token-advantages.ts";
import { maskedMoments, type WhitenOptions, whiten } from "../../../src/rl/core/whitening.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { estimatorKind } from "../estimator-cases.ts";
import { asIntegers, asNamedNumbers, asNumber, asNumbers, asObject, asObjects, asText, type Fields, Malformed } from "../fields.ts";

const exact: Tolerance = { relative: 1e-10, absolute: 1e-14 };

export const kind = estimatorKind({
  groupAdvantages: runGroups,
  trlGroupAdvantages: runTrl,
  trlRloo: runRloo,
  processSupervision: runProcess,
  tokenGae: runTokens,
  whitening: runWhitening,
});

function runGroups(fields: Fields, comparison: Comparison): void {
  const [scores, groups] = [asNumbers(fields.scores, "scores").data, asIntegers(fields.groups, "groups")];
  const lengths = asIntegers(fields.lengths, "lengths");
  for (const [name, expected] of asNamedNumbers(fields.advantages, "advantages")) {
    if (!groupEstimators.includes(name as GroupEstimator)) throw new Malformed(`advantages: got "${name}"`);
    comparison.numbers(`advantages.${name}`, groupAdvantages(name as GroupEstimator, scores, groups, { lengths }), expected, exact);
  }
}

function rewardsOf(fields: Fields): Float64Array[] {
  const { data, shape } = asNumbers(fields.rewardsPerFunction, "rewardsPerFunction");
  const [rows, count] = shape;
  return Array.from({ length: rows }, (_, row) => Float64Array.from({ length: count }, (_, k) => data[row * count + k]));
}

function runTrl(fields: Fields, comparison: Comparison): void {
  const computed = rewardAdvantages(rewardsOf(fields), {
    numGenerations: asNumber(fields.numGenerations, "numGenerations"),
    weights: asNumbers(fields.weights, "weights").data as number[],
    aggregation: asText(fields.aggregation, "aggregation") as RewardAdvantageOptions["aggregation"],
    scaleRewards: asText(fields.scaleRewards, "scaleRewards") as RewardAdvantageOptions["scaleRewards"],
  });
  comparison.numbers("rewards", computed.rewards, asNumbers(fields.rewards, "rewards"), exact);
  comparison.numbers("advantages", computed.advantages, asNumbers(fields.advantages, "advantages"), exact);
  comparison.exact("stdIsZero", computed.stdIsZero.map(Number), fields.stdIsZero);
}

function runRloo(fields: Fields, comparison: Comparison): void {
  const rewards = weightedSums(rewardsOf(fields), asNumbers(fields.weights, "weights").data as number[]);
  const advantages = leaveOneOutAdvantages(rewards, {
    numGenerations: asNumber(fields.numGenerations, "numGenerations"),
    normalise: fields.normaliseAdvantages === true,
  });
  comparison.numbers("advantages", advantages, asNumbers(fields.advantages, "advantages"), exact);
}

function runProcess(fields: Fields, comparison: Comparison): void {
  const outputs = asObjects(fields.outputs, "outputs").map((output, i) => ({
    length: asNumber(output.length, `outputs[${i}].length`),
    stepEnds: asIntegers(output.stepEnds, `outputs[${i}].stepEnds`),
    stepRewards: asNumbers(output.stepRewards, `outputs[${i}].stepRewards`).data as number[],
  }));
  const ddof = asNumber(fields.ddof, "ddof") as 0 | 1;
  const computed = processAdvantages(outputs, { ddof, epsilon: asNumber(fields.epsilon, "epsilon") });
  const expected = fields.advantages as unknown[];
  for (const [i, advantages] of computed.entries())
    comparison.numbers(`advantages[${i}]`, advantages, asNumbers(expected?.[i], `advantages[${i}]`), exact);
}

function runTokens(fields: Fields, comparison: Comparison): void {
  const [rewards, values, mask] = ["tokenRewards", "values", "mask"].map((name) => asNumbers(fields[name], name));
  const length = rewards.shape[1];
  const [gamma, lambda] = [asNumber(fields.gamma, "gamma"), asNumber(fields.lam, "lam")];
  const check = (place: string, actual: ArrayLike<number>, expected: unknown): void =>
    comparison.numbers(place, actual, asNumbers(expected, place), exact);
  const inside = (all: Float64Array): Float64Array => all.map((value, i) => (mask.data[i] ? value : 0));
  const { advantages, returns } = tokenGae(rewards.data, values.data, mask.data, { length, gamma, lambda });
  check("advantagesRaw", advantages, fields.advantagesRaw);
  check("returns", returns, fields.returns);
  check("advantagesWhitened", inside(whiten(advantages, mask.data, { countEpsilon: 1e-8 })), fields.advantagesWhitened);
  const plus = asObject(fields.reinforcePlusPlus, "reinforcePlusPlus");
  const discounted = tokenReturns(rewards.data, mask.data, length, gamma);
  check("reinforcePlusPlus.returns", discounted, plus.returns);
  check("reinforcePlusPlus.advantages", inside(whiten(discounted, mask.data, { countEpsilon: 1e-8 })), plus.advantages);
  const remax = asObject(fields.remax, "remax");
  const greedy = remaxAdvantages(rewards.data, mask.data, asNumbers(remax.baselines, "remax.baselines").data, length);
  check("remax.returns", greedy.returns, remax.returns);
  check("remax.advantages", greedy.advantages, remax.advantages);
}

function runWhitening(fields: Fields, comparison: Comparison): void {
  const [{ data: values }, { data: mask }] = [asNumbers(fields.values, "values"), asNumbers(fields.mask, "mask")];
  const countEpsilon = 1e-8;
  const verl = asObject(fields.verl, "verl");
  const check = (place: string, actual: ArrayLike<number>, expected: unknown): void =>
    comparison.numbers(place, actual, asNumbers(expected, place), exact);
  check("verl.maskedMean", [maskedMoments(values, mask, { countEpsilon }).mean], [verl.maskedMean]);
  check("verl.maskedVarUnbiased", [maskedMoments(values, mask, { countEpsilon }).variance], [verl.maskedVarUnbiased]);
  check("verl.maskedVarBiased", [maskedMoments(values, mask, { countEpsilon, ddof: 0 }).variance], [verl.maskedVarBiased]);
  check("verl.whiten", whiten(values, mask, { countEpsilon }), verl.whiten);
  check("verl.whitenKeepMean", whiten(values, mask, { countEpsilon, keepMean: true }), verl.whitenKeepMean);
  const under = (options: WhitenOptions): Float64Array => whiten(values, mask, options);
  const entries = (all: Float64Array): Float64Array => all.filter((_, i) => mask[i] !== 0);
  const zeroed = (all: Float64Array): Float64Array => all.map((value, i) => (mask[i] !== 0 ? value : 0));
  const of = (name: string, field: string): unknown => asObject(fields[name], name)[field];
  check("sb3.normalised", entries(under({ epsilonPlace: "std" })), of("sb3", "normalised"));
  check("spinningUp.normalised", entries(under({ ddof: 0, epsilon: 0 })), of("spinningUp", "normalised"));
  check("moss.whiten", zeroed(under({ ddof: 0, epsilon: 1e-6 })), of("moss", "whiten"));
  check("openRlhf.normalised", zeroed(under({ ddof: 0, epsilonPlace: "floor" })), of("openRlhf", "normalised"));
}
