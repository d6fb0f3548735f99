// rl/estimators.json: running moments of three libraries, and the two normalisations of observations and rewards that use them.

import type { Environment } from "../../../src/rl/control/environment.ts";
import { Box, Discrete } from "../../../src/rl/control/spaces.ts";
import { normaliseReward } from "../../../src/rl/control/wrappers/normalise-reward.ts";
import { Normaliser } from "../../../src/rl/control/wrappers/normaliser.ts";
import { RunningMoments } from "../../../src/rl/core/running-moments.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { estimatorKind } from "../estimator-cases.ts";
import { asNumber, asNumbers, asObject, asObjects, type Fields } from "../fields.ts";

const tolerance: Tolerance = { relative: 1e-10, absolute: 1e-13 };

export const kind = estimatorKind({
  runningStatistics: runMoments,
  vecNormalize: runNormalise,
  gymnasiumNormalizeReward: runNormaliseReward,
});

function runMoments({ updates }: Fields, comparison: Comparison): void {
  const list = asObjects(updates, "updates");
  const size = asNumbers(list[0]?.batch, "updates[0].batch").shape[1];
  const batches = new RunningMoments(size);
  const moss = new RunningMoments(size, { initialCount: 1e-24 });
  const single = new RunningMoments(size, { initialCount: 0 });
  for (const [i, update] of list.entries()) {
    const { data, shape } = asNumbers(update.batch, `updates[${i}].batch`);
    batches.update(data, shape[0]);
    moss.update(data, shape[0]);
    for (let row = 0; row < shape[0]; row++) single.update(Array.from(data).slice(row * size, (row + 1) * size), 1);
    const check = (library: string, own: Readonly<Record<string, ArrayLike<number> | number>>): void => {
      const stored = asObject(update[library], `updates[${i}].${library}`);
      for (const [name, values] of Object.entries(own)) {
        const place = `updates[${i}].${library}.${name}`;
        if (typeof values === "number") comparison.numbers(place, [values], [asNumber(stored[name], place)], tolerance);
        else comparison.numbers(place, values, asNumbers(stored[name], place), tolerance);
      }
    };
    const { mean, variance, count } = single;
    check("sb3", { mean: batches.mean, var: batches.variance, count: batches.count });
    check("welford", {
      count,
      mean,
      m2: variance.map((value) => value * count),
      varPopulation: variance,
      varSample: single.sampleVariance(),
    });
    check("moss", { mean: moss.mean, var: moss.variance, std: moss.sampleVariance().map(Math.sqrt) });
  }
}

function runNormalise(fields: Fields, comparison: Comparison): void {
  const [first, later] = [asNumbers(fields.firstObs, "firstObs"), asNumbers(fields.obs, "obs")];
  const [rewards, dones] = [asNumbers(fields.rewards, "rewards"), asNumbers(fields.dones, "dones")];
  const [rows, features] = first.shape;
  const normaliser = new Normaliser(features, {
    gamma: asNumber(fields.gamma, "gamma"),
    clipObservation: asNumber(fields.clipObs, "clipObs"),
    clipReward: asNumber(fields.clipReward, "clipReward"),
    epsilon: asNumber(fields.epsilon, "epsilon"),
  });
  const { observationMoments, returnMoments } = normaliser;
  const sums = new Float64Array(rows);
  const observations = new Float64Array(rows * features);
  for (const [i, step] of asObjects(fields.steps, "steps").entries()) {
    const check = (name: string, own: ArrayLike<number>): void =>
      comparison.numbers(`steps[${i}].${name}`, own, asNumbers(step[name], `steps[${i}].${name}`), tolerance);
    const given = i === 0 ? Array.from(first.data) : Array.from(later.data).slice((i - 1) * rows * features, i * rows * features);
    observationMoments.update(given, rows);
    normaliser.normaliseObservations(given, observations, 0, rows);
    check("obs", observations);
    check("obsMean", observationMoments.mean);
    check("obsVar", observationMoments.variance);
    if (step.count !== undefined)
      comparison.numbers(`steps[${i}].count`, [observationMoments.count], [asNumber(step.count, "count")], tolerance);
    if (i === 0) continue;
    const earned = Float64Array.from({ length: rows }, (_, row) => rewards.data[(i - 1) * rows + row]);
    normaliser.accumulate(earned, sums);
    normaliser.normaliseRewards(earned, earned);
    for (let row = 0; row < rows; row++) if (dones.data[(i - 1) * rows + row]) sums[row] = 0;
    check("rewards", earned);
    check("returns", sums);
    comparison.numbers(`steps[${i}].returnMean`, returnMoments.mean, [asNumber(step.returnMean, "returnMean")], tolerance);
    comparison.numbers(`steps[${i}].returnVar`, returnMoments.variance, [asNumber(step.returnVar, "returnVar")], tolerance);
  }
}

function runNormaliseReward(fields: Fields, comparison: Comparison): void {
  const [rewards, terminated, truncated] = ["rewards", "terminated", "truncated"].map((name) => asNumbers(fields[name], name).data);
  let at = 0;
  /** Gives the stored rewards one after another. */
  const script: Environment = {
    observationSpace: Box(0, 1),
    actionSpace: Discrete(1),
    reset: () => [0],
    step: () => ({ observation: [0], reward: rewards[at], terminated: terminated[at] === 1, truncated: truncated[at++] === 1 }),
  };
  const wrapped = normaliseReward(script, { gamma: asNumber(fields.gamma, "gamma"), epsilon: asNumber(fields.epsilon, "epsilon") });
  wrapped.reset();
  for (const [i, step] of asObjects(fields.steps, "steps").entries()) {
    const { reward } = wrapped.step(0);
    const check = (name: string, own: number): void =>
      comparison.numbers(`steps[${i}].${name}`, [own], [asNumber(step[name], `steps[${i}].${name}`)], tolerance);
    check("reward", reward);
    check("mean", wrapped.moments.mean[0]);
    check("var", wrapped.moments.variance[0]);
    check("discounted", wrapped.discountedSum);
  }
}
