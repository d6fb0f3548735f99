// The batch in one thread: what happens at ends of episodes, what is refused, what stays after an error, and that nothing is allocated.
import { describe, expect, test } from "vitest";
import { EnvironmentError, UsageError } from "../../base/errors.ts";
import type { Environment, EnvironmentStep, Value } from "./environment.ts";
import { CartPole } from "./environments/cart-pole.ts";
import { Pendulum } from "./environments/pendulum.ts";
import { Box, Discrete, MultiBinary, MultiDiscrete, type Space } from "./spaces.ts";
import { counter } from "./testing/worker-environments.ts";
import { batchEnvironments } from "./vector.ts";
import type { BatchOptions } from "./vector-slice.ts";

const step = (partial: Partial<EnvironmentStep> = {}): EnvironmentStep => ({
  observation: [0],
  reward: 0,
  terminated: false,
  truncated: false,
  ...partial,
});

/** Gives what it is told to give. */
function scripted(result: unknown, spaces: { observations?: Space; actions?: Space; first?: Value } = {}): Environment {
  return {
    observationSpace: spaces.observations ?? Box(-10, 10, [1]),
    actionSpace: spaces.actions ?? Discrete(2),
    reset: () => spaces.first ?? [0],
    step: () => result as EnvironmentStep,
  };
}

/** Allows its first action, and after a step what is given. */
function maskedLater(mask: number[]): Environment {
  let hasStepped = false;
  return {
    ...scripted(step()),
    reset: () => {
      hasStepped = false;
      return [0];
    },
    step: () => {
      hasStepped = true;
      return step();
    },
    actionMask: () => (hasStepped ? mask : [1, 0]),
  };
}

describe("the end of an episode", () => {
  // Row 0 terminates, row 1 is truncated, both at their third step.
  const run = (options: BatchOptions) => {
    const batch = batchEnvironments(counter, 2, options);
    batch.reset(5);
    const play = (...actions: number[]) => {
      batch.step(Int32Array.from(actions));
      return { steps: [batch.observations[2], batch.observations[5]], ends: [[...batch.terminated], [...batch.truncated]] };
    };
    play(1, 1);
    play(2, 1);
    return { batch, play };
  };

  test("same-step: the next observation is the first of the new episode", () => {
    const { batch, play } = run({});
    expect(play(3, 1)).toEqual({
      steps: [0, 0],
      ends: [
        [1, 0],
        [0, 1],
      ],
    });
    expect([...batch.finalObservations]).toEqual([0, 5, 3, 1, 6, 3]);
    expect(batch.finishedEpisodes).toEqual([
      { row: 0, return: 6, length: 3 },
      { row: 1, return: 3, length: 3 },
    ]);
    expect([...batch.rewards]).toEqual([3, 1]);
    expect(play(0, 0)).toEqual({
      steps: [1, 1],
      ends: [
        [0, 0],
        [0, 0],
      ],
    });
    expect(batch.finishedEpisodes).toEqual([]);
  });

  test("next-step: the step after it ignores the action and resets", () => {
    const { batch, play } = run({ autoreset: "next-step" });
    expect(play(3, 1)).toEqual({
      steps: [3, 3],
      ends: [
        [1, 0],
        [0, 1],
      ],
    });
    expect(play(3, 3)).toEqual({
      steps: [0, 0],
      ends: [
        [0, 0],
        [0, 0],
      ],
    });
    expect([...batch.rewards]).toEqual([0, 0]);
    expect(play(1, 1).steps).toEqual([1, 1]);
    play(1, 1);
    play(1, 1);
    expect(batch.finishedEpisodes).toEqual([
      { row: 0, return: 3, length: 3 },
      { row: 1, return: 3, length: 3 },
    ]);
  });

  test("disabled: it must be reset by hand", () => {
    const { batch, play } = run({ autoreset: "disabled" });
    expect(play(3, 1).steps).toEqual([3, 3]);
    batch.resetRows([0]);
    expect(batch.finishedEpisodes).toEqual([]);
    expect([...batch.truncated]).toEqual([0, 1]);
    expect(() => play(0, 0)).toThrow(/environment 1, step 4 .*: expected a running episode/);
    batch.reset();
    expect(play(0, 0).steps).toEqual([1, 1]);
  });

  test("a limit of steps truncates, unless the task has ended", () => {
    const batch = batchEnvironments((index) => counter(index, { length: index === 0 ? 4 : 100 }), 2, { maxEpisodeSteps: 4 });
    batch.reset(0);
    for (let i = 0; i < 4; i++) batch.step(Int32Array.of(0, 0));
    expect([[...batch.terminated], [...batch.truncated]]).toEqual([
      [1, 0],
      [0, 1],
    ]);
  });
});

test("an environment is seeded by its row; without a seed its randomness goes on", () => {
  const batch = batchEnvironments(() => new CartPole(), 3);
  batch.reset(7);
  const third = new CartPole();
  const single = third.reset({ seed: 9 });
  expect([...batch.observations.subarray(8)]).toEqual([...single]);
  batch.reset();
  expect([...batch.observations.subarray(8)]).toEqual([...third.reset()]);
  const [a, b] = [batchEnvironments(() => new CartPole(), 2), batchEnvironments(() => new CartPole(), 2)];
  a.reset();
  b.reset(0);
  expect(a.observations).toEqual(b.observations);
  expect([...a.observations.subarray(0, 4)]).not.toEqual([...a.observations.subarray(4)]);
});

test.each<[what: string, environment: Environment, message: RegExp]>([
  [
    "NaN in an observation",
    scripted(step({ observation: [Number.NaN] })),
    /step 1 .*expected finite numbers in the observation, got NaN at entry 0/,
  ],
  ["what float32 cannot hold", scripted(step({ observation: [1e39] })), /got 1e\+39 at entry 0/],
  ["a text", scripted(step({ observation: ["1"] as never })), /expected finite numbers/],
  ["another shape", scripted(step({ observation: [1, 2] })), /expected an observation of 1 numbers for Box\(1\), got 2 numbers/],
  ["no observation", scripted({ reward: 0, terminated: false, truncated: false }), /expected an observation of 1 numbers .*got undefined/],
  ["an infinite reward", scripted(step({ reward: Number.POSITIVE_INFINITY })), /expected a finite reward, got Infinity/],
  ["no reward", scripted(step({ reward: undefined as never })), /expected a finite reward, got undefined/],
  ["a promise", scripted(Promise.resolve(step())), /expected \{ observation, reward, terminated, truncated \} from step, got a promise/],
  ["Gym's old done", scripted({ observation: [0], reward: 0, done: true }), /expected \{ observation/],
  [
    "a number outside of a discrete space",
    scripted(step({ observation: 3 }), { observations: Discrete(3), first: 0 }),
    /Discrete\(3\), got 3/,
  ],
  [
    "a fraction in a multi-discrete space",
    scripted(step({ observation: [0, 0.5] }), { observations: MultiDiscrete([2, 2]), first: [0, 0] }),
    /expected an observation in MultiDiscrete\(2, 2\), got 2 numbers/,
  ],
  ["a mask that allows nothing", maskedLater([0, 0]), /expected an action mask that allows at least one action/],
  ["a mask of another size", maskedLater([1]), /expected an action mask of 2 entries/],
])("%s is an error that names environment and step; buffers keep the last good step", (_, faulty, message) => {
  // The neighbour steps before the faulty one.
  const neighbour: Environment = { ...scripted(step({ observation: [5], reward: 2 })), actionMask: faulty.actionMask && (() => [1, 1]) };
  const batch = batchEnvironments(
    (index) =>
      index === 0
        ? {
            ...neighbour,
            observationSpace: faulty.observationSpace,
            reset: faulty.reset,
            step: () => step({ observation: faulty.reset() }),
          }
        : faulty,
    2,
  );
  batch.reset(0);
  const before = [...batch.observations, ...batch.rewards];
  const failing = (): void => batch.step(Int32Array.of(0, 0));
  expect(failing).toThrow(EnvironmentError);
  batch.reset(0);
  expect(failing).toThrow(message);
  expect([...batch.observations, ...batch.rewards]).toEqual(before);
  expect(failing).toThrow(/failed before/);
});

test("errors of reset and step keep their cause", () => {
  const cause = new TypeError("no wheels");
  const fail = (): never => {
    throw cause;
  };
  const bad = batchEnvironments(() => ({ ...scripted(step()), reset: fail }), 1, { name: "cart" });
  expect(() => bad.reset()).toThrow(
    expect.objectContaining({ message: expect.stringMatching(/^cart, environment 0, reset: .*TypeError: no wheels/), cause }),
  );
  const worse = batchEnvironments(() => ({ ...scripted(step()), step: fail }), 1);
  worse.reset();
  expect(() => worse.step(Int32Array.of(0))).toThrow(expect.objectContaining({ cause }));
});

describe("actions", () => {
  const batchOf = (actions: Space, options: BatchOptions = {}) => {
    const seen: number[][] = [];
    const environment = {
      ...scripted(step(), { actions }),
      step: (action: Value) => {
        seen.push(typeof action === "number" ? [action] : Array.from(action));
        return step();
      },
    };
    const batch = batchEnvironments(() => environment, 1, options);
    batch.reset();
    return { batch, seen };
  };

  test("in a box are cut to its bounds, or refused beyond them", () => {
    const clipping = batchOf(Box([-1, -0.1], [1, 0.1]));
    clipping.batch.step(Float32Array.of(-3, 0.5));
    expect(clipping.seen).toEqual([[-1, 0.1]]);
    expect(() => clipping.batch.step(Float32Array.of(Number.NaN, 0))).toThrow(/expected an action in Box\(2\), got NaN/);
    const strict = batchOf(Box([-1, -0.1], [1, 0.1]), { clipActions: false });
    // The float32 next to 0.1 lies a little above it.
    strict.batch.step(Float32Array.of(1, 0.1));
    expect(() => strict.batch.step(Float32Array.of(1.001, 0))).toThrow(/got 1.00/);
  });

  test.each<[Space, number[], number[]]>([
    [Discrete(3, 5), [5], [4]],
    [Discrete(3), [2], [3]],
    [Discrete(3), [0], [0.5]],
    [MultiDiscrete([2, 3]), [1, 2], [2, 0]],
    [MultiBinary(2), [1, 0], [2, 0]],
  ])("in %o", (space, good, wrong) => {
    const { batch, seen } = batchOf(space);
    batch.step(Float64Array.from(good));
    expect(seen).toEqual([good]);
    expect(() => batch.step(Float64Array.from(wrong))).toThrow(EnvironmentError);
  });

  test("of another number, or before a reset, are refused", () => {
    const { batch } = batchOf(Discrete(2));
    expect(() => batch.step(Int32Array.of(0, 1))).toThrow(/expected 1 numbers for the actions of 1 environments, got 2/);
    const fresh = batchEnvironments(() => scripted(step()), 1);
    expect(() => fresh.step(Int32Array.of(0))).toThrow(/that were reset, got new ones/);
    batch.dispose();
    expect(() => batch.reset()).toThrow(/disposed/);
  });
});

test("masks follow the environments", () => {
  const masked = (index: number): Environment => {
    let count = 0;
    return {
      ...scripted(step(), { actions: MultiDiscrete([2, 2]) }),
      step: () => step({ reward: ++count }),
      actionMask: () => [1, 0, index, 1 + count],
    };
  };
  const batch = batchEnvironments(masked, 2);
  batch.reset();
  expect([...(batch.actionMasks ?? [])]).toEqual([1, 0, 0, 1, 1, 0, 1, 1]);
  expect(batchEnvironments(counter, 1).actionMasks).toBeUndefined();
  expect(() => batchEnvironments(() => ({ ...scripted(step()), actionSpace: Box(0, 1), actionMask: () => [1] }), 1)).toThrow(UsageError);
});

test("a saved batch goes on as if it had not been interrupted, in the middle of episodes", () => {
  const play = (batch: ReturnType<typeof batchEnvironments>, steps: number): number[] => {
    const out: number[] = [];
    for (let i = 0; i < steps; i++) {
      batch.step(Int32Array.of(i % 2, (i >> 1) % 2));
      out.push(
        ...batch.observations,
        ...batch.rewards,
        ...batch.finishedEpisodes.flatMap(({ row, return: sum, length }) => [row, sum, length]),
      );
    }
    return out;
  };
  const first = batchEnvironments(() => new CartPole(), 2);
  first.reset(1);
  play(first, 30);
  const state = JSON.parse(JSON.stringify(first.saveState()));
  const second = batchEnvironments(() => new CartPole(), 2);
  second.restoreState(state);
  expect(second.observations).toEqual(first.observations);
  expect(play(second, 60)).toEqual(play(first, 60));
  expect(() => batchEnvironments(() => new CartPole(), 3).restoreState(state)).toThrow(/3 environments/);
  expect(() => batchEnvironments(() => new Pendulum(), 2).restoreState(state)).toThrow(/observations/);
  const forgetful = batchEnvironments(() => scripted(step()), 1);
  forgetful.reset();
  expect(forgetful.saveState()).toBeUndefined();
});

test("refuses environments with different spaces, and wrong options", () => {
  expect(() => batchEnvironments((index) => (index === 0 ? new CartPole() : new Pendulum()), 2)).toThrow(
    /environment 1: expected observations in Box\(4\) like its neighbours, got Box\(3\)/,
  );
  expect(() => batchEnvironments(counter, 0)).toThrow(UsageError);
  expect(() => batchEnvironments(counter, 1, { maxEpisodeSteps: 0 })).toThrow(UsageError);
  expect(() => batchEnvironments(counter, 1, { autoreset: "never" as never })).toThrow(UsageError);
});
