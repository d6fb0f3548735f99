// Wrappers of environments and batches, against closed forms. VecNormalize's and Gymnasium's numbers are golden (test/golden/rl/statistics).
import { describe, expect, test } from "vitest";
import { CheckpointError, UsageError } from "../../../base/errors.ts";
import type { Environment, Value } from "../environment.ts";
import { CartPole } from "../environments/cart-pole.ts";
import { Pendulum } from "../environments/pendulum.ts";
import { Taxi } from "../environments/taxi.ts";
import { Box, Discrete } from "../spaces.ts";
import { counter } from "../testing/worker-environments.ts";
import { batchEnvironments } from "../vector.ts";
import { clipAction, rescaleAction } from "./actions.ts";
import { EpisodeMonitor } from "./episode-monitor.ts";
import { frameStack } from "./frame-stack.ts";
import { normaliseReward } from "./normalise-reward.ts";
import { normalise } from "./normalised-environments.ts";
import { timeLimit } from "./time-limit.ts";

/** Keeps the actions that it gets. */
function listener(low: number[], high: number[]): Environment & { heard: number[][] } {
  const heard: number[][] = [];
  return {
    heard,
    observationSpace: Box(-1, 1),
    actionSpace: Box(low, high),
    reset: () => [0],
    step: (action: Value) => {
      heard.push(Array.from(action as ArrayLike<number>));
      return { observation: [0], reward: 1, terminated: false, truncated: false };
    },
  };
}

test("a time limit truncates from its step on, and not in the next episode", () => {
  const limited = timeLimit(new Pendulum(), 3);
  for (let episode = 0; episode < 2; episode++) {
    limited.reset();
    expect(Array.from({ length: 4 }, () => limited.step([0]).truncated)).toEqual([false, false, true, true]);
  }
  expect(() => timeLimit(new Pendulum(), 0)).toThrow(UsageError);
});

test("actions are clipped to the bounds, or scaled onto them", () => {
  const clipped = listener([-1, 0], [1, 5]);
  const clipping = clipAction(clipped);
  expect(clipping.actionSpace).toEqual(Box(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, [2]));
  clipping.step([-7, 7]);
  clipping.step([0.5, 3]);
  expect(clipped.heard).toEqual([
    [-1, 5],
    [0.5, 3],
  ]);
  const scaled = listener([-2, 0], [2, 6]);
  const scaling = rescaleAction(scaled);
  expect(scaling.actionSpace).toEqual(Box(-1, 1, [2]));
  for (const action of [
    [-1, -1],
    [0, 0.5],
    [1, 1],
    [9, -9],
  ])
    scaling.step(action);
  expect(scaled.heard).toEqual([
    [-2, 0],
    [0, 4.5],
    [2, 6],
    [2, 0],
  ]);
  const other = listener([0], [1]);
  rescaleAction(other, 0, 4).step([1]);
  expect(other.heard).toEqual([[0.25]]);
  for (const wrong of [
    () => clipAction(new CartPole()),
    () => rescaleAction(new CartPole()),
    () => rescaleAction(clipping),
    () => rescaleAction(scaled, 1, 1),
  ])
    expect(wrong).toThrow(UsageError);
});

test("a stack holds the last frames, newest last", () => {
  const stacked = frameStack(counter(4, { length: 9 }), 3);
  expect(stacked.observationSpace).toMatchObject({ kind: "box", shape: [3, 3] });
  const steps = (observation: Value): number[] => [2, 5, 8].map((at) => (observation as ArrayLike<number>)[at]);
  expect([...(stacked.reset({ seed: 8 }) as Float32Array)]).toEqual([4, 8, 0, 4, 8, 0, 4, 8, 0]);
  expect([1, 2, 3, 4].map(() => steps(stacked.step(0).observation))).toEqual([
    [0, 0, 1],
    [0, 1, 2],
    [1, 2, 3],
    [2, 3, 4],
  ]);
  const state = JSON.parse(JSON.stringify(stacked.saveState?.()));
  const copy = frameStack(counter(4, { length: 9 }), 3);
  copy.restoreState?.(state);
  expect(steps(copy.step(0).observation)).toEqual([3, 4, 5]);
  const padded = frameStack(counter(4), 2, { padding: "zero" });
  expect([...(padded.reset({ seed: 8 }) as Float32Array)]).toEqual([0, 0, 0, 4, 8, 0]);
  expect(() => frameStack(new Taxi(), 2)).toThrow(UsageError);
  expect(() => frameStack(counter(0), 0)).toThrow(UsageError);
});

test("wrappers pass on masks, drawings and states, and lack what the environment lacks", () => {
  const taxi = new Taxi();
  const wrapped = timeLimit(timeLimit(taxi, 50), 40);
  wrapped.reset({ seed: 1 });
  expect(wrapped.actionMask?.()).toBe(taxi.actionMask());
  expect(wrapped.drawing?.()).toEqual(taxi.drawing());
  for (let i = 0; i < 30; i++) wrapped.step(i % 4);
  const copy = timeLimit(timeLimit(new Taxi(), 50), 40);
  copy.restoreState?.(JSON.parse(JSON.stringify(wrapped.saveState?.())));
  expect(Array.from({ length: 10 }, () => copy.step(1).truncated).lastIndexOf(false)).toBe(8);
  expect(() => copy.restoreState?.({ steps: 1 })).toThrow(CheckpointError);
  const bare = timeLimit(listener([0], [1]), 5);
  expect([bare.actionMask, bare.drawing, bare.saveState]).toEqual([undefined, undefined, undefined]);
});

test("Gymnasium's reward normalisation can be frozen and saved", () => {
  const wrapped = normaliseReward(new Pendulum(), { gamma: 0.9 });
  wrapped.reset({ seed: 2 });
  for (let i = 0; i < 20; i++) wrapped.step([1]);
  const copy = normaliseReward(new Pendulum(), { gamma: 0.9 });
  copy.restoreState?.(JSON.parse(JSON.stringify(wrapped.saveState?.())));
  expect(copy.step([1]).reward).toBe(wrapped.step([1]).reward);
  copy.training = false;
  const { variance } = copy.moments;
  const before = variance[0];
  const raw = new Pendulum();
  raw.restoreState((copy.saveState as () => { inner: Record<string, never> })().inner);
  expect(copy.step([0.3]).reward).toBe(raw.step([0.3]).reward / Math.sqrt(before + 1e-8));
  expect(variance[0]).toBe(before);
  expect(() => normaliseReward(new Pendulum(), { gamma: 1.1 })).toThrow(UsageError);
  expect(() => normaliseReward(new Pendulum(), { epsilon: 0 })).toThrow(UsageError);
});

describe("a normalised batch", () => {
  const make = (options: Parameters<typeof normalise>[1] = {}) =>
    normalise(
      batchEnvironments((index) => counter(index, { length: 3 }), 2),
      options,
    );

  test("shows observations in deviations from the mean so far, and keeps the originals", () => {
    const batch = make();
    expect(batch.observationSpace).toEqual(Box(-10, 10, [3]));
    batch.reset(5);
    batch.step(Int32Array.of(1, 3));
    expect([...batch.originalObservations]).toEqual([0, 5, 1, 1, 6, 1]);
    expect([...batch.originalRewards]).toEqual([1, 3]);
    // Rows 0 and 1 differ by 1 in the first two features: mean ½, deviation ½, but for the first guess of weight 1e-4.
    expect(
      [...batch.observations.subarray(0, 1), ...batch.observations.subarray(3, 4)].map((value) => Math.round(value * 1e3) / 1e3),
    ).toEqual([-1, 1]);
    // Steps 0 and 1 were seen, twice each.
    expect(batch.observations[2]).toBeCloseTo(1, 3);
  });

  test("normalises final observations by the same statistics, and clears sums at every end", () => {
    const batch = make({ gamma: 0.5 });
    batch.reset(5);
    for (let i = 0; i < 3; i++) batch.step(Int32Array.of(2, 2));
    const { mean, variance } = batch.normaliser.observationMoments;
    for (const row of [0, 1]) {
      const final = [row, 5 + row, 3].map((value, i) => (value - mean[i]) / Math.sqrt(variance[i] + 1e-8));
      expect([...batch.finalObservations.subarray(3 * row, 3 * row + 3)]).toEqual(final.map(Math.fround));
    }
    expect(batch.finishedEpisodes.map(({ return: sum }) => sum)).toEqual([6, 6]);
    expect((batch.saveState() as { sums: number[] }).sums).toEqual([0, 0]);
    // The sums were 2, 3 and 3.5 in both rows, over the first guess.
    expect(batch.normaliser.returnMoments.mean[0]).toBeCloseTo((2 + 3 + 3.5) / 3, 3);
    const deviation = Math.sqrt(batch.normaliser.returnMoments.variance[0] + 1e-8);
    expect([...batch.rewards]).toEqual([2 / deviation, 2 / deviation]);
  });

  test("for evaluation shares statistics, changes none, and leaves rewards alone", () => {
    const training = make();
    training.reset(5);
    training.step(Int32Array.of(1, 2));
    const evaluating = normalise(
      batchEnvironments((index) => counter(index), 2),
      { normaliser: training.normaliser, training: false },
    );
    const before = JSON.stringify(training.normaliser.saveState());
    evaluating.reset(9);
    evaluating.step(Int32Array.of(3, 1));
    expect(JSON.stringify(training.normaliser.saveState())).toBe(before);
    expect([...evaluating.rewards]).toEqual([3, 1]);
    const { mean, variance } = training.normaliser.observationMoments;
    expect(evaluating.observations[5]).toBe(Math.fround((1 - mean[2]) / Math.sqrt(variance[2] + 1e-8)));
  });

  test("is saved with its statistics", () => {
    const first = make();
    first.reset(1);
    for (let i = 0; i < 4; i++) first.step(Int32Array.of(i % 4, 1));
    const second = make();
    second.restoreState(JSON.parse(JSON.stringify(first.saveState())));
    expect(second.observations).toEqual(first.observations);
    for (let i = 0; i < 5; i++) {
      first.step(Int32Array.of(2, i % 4));
      second.step(Int32Array.of(2, i % 4));
      expect([second.observations, second.rewards]).toEqual([first.observations, first.rewards]);
      // Rows that did not end hold what once was there.
      if (first.terminated[0]) expect(second.finalObservations).toEqual(first.finalObservations);
    }
    expect(() => second.restoreState({})).toThrow(CheckpointError);
  });

  test("can leave observations or rewards as they are; refuses what makes no sense", () => {
    const rewardsOnly = make({ observations: false });
    expect(rewardsOnly.observations).toBe(rewardsOnly.originalObservations);
    const observationsOnly = make({ rewards: false });
    observationsOnly.reset(0);
    observationsOnly.step(Int32Array.of(3, 2));
    expect([...observationsOnly.rewards]).toEqual([3, 2]);
    const taxis = batchEnvironments(() => new Taxi(), 1);
    expect(() => normalise(taxis)).toThrow(/expected observations in a Box, got Discrete\(500\)/);
    expect(normalise(taxis, { observations: false }).observationSpace).toEqual(Discrete(500));
    expect(() => make({ clipReward: 0 })).toThrow(UsageError);
    expect(() => make({ gamma: 2 })).toThrow(UsageError);
    const { normaliser } = make();
    expect(() => make({ normaliser, gamma: 0.5 })).toThrow(UsageError);
    expect(() =>
      normalise(
        batchEnvironments(() => new CartPole(), 1),
        { normaliser },
      ),
    ).toThrow(/4 features, got 3/);
  });
});

test("a monitor looks back on a window of episodes", () => {
  const monitor = new EpisodeMonitor(3);
  expect(monitor.meanReturn).toBeNaN();
  const episode = (sum: number, length: number) => ({ row: 0, return: sum, length });
  monitor.record([episode(1, 10), episode(2, 20)]);
  expect([monitor.meanReturn, monitor.meanLength, monitor.numEpisodes]).toEqual([1.5, 15, 2]);
  monitor.record([episode(3, 30), episode(7, 40)]);
  expect([monitor.meanReturn, monitor.meanLength, monitor.numEpisodes]).toEqual([4, 30, 4]);
  expect([...monitor.returns]).toEqual([2, 3, 7]);
  const copy = new EpisodeMonitor(3);
  copy.restoreState(JSON.parse(JSON.stringify(monitor.saveState())));
  copy.record([episode(11, 50)]);
  expect([...copy.returns]).toEqual([3, 7, 11]);
  expect(() => new EpisodeMonitor(4).restoreState(monitor.saveState())).toThrow(CheckpointError);
  expect(() => new EpisodeMonitor(0)).toThrow(UsageError);
});
