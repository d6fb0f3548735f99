// Estimators against closed forms; numbers of Stable-Baselines3 and Spinning Up are golden (test/golden/rl/control).
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { discountedReturns, explainedVariance, gae, normaliseAdvantages, nStepReturns, type RolloutView } from "./estimators.ts";

function rollout(numSteps: number, numEnvironments: number, seed: () => number): RolloutView {
  const size = numSteps * numEnvironments;
  const fill = (n: number, next: () => number): Float64Array => Float64Array.from({ length: n }, next);
  const terminated = fill(size, () => (seed() < 0.15 ? 1 : 0));
  return {
    numSteps,
    numEnvironments,
    rewards: fill(size, () => seed() - 0.5),
    values: fill(size, seed),
    terminated,
    truncated: terminated.map((ended) => (ended ? 0 : seed() < 0.15 ? 1 : 0)),
    terminalValues: fill(size, seed),
    lastValues: fill(numEnvironments, seed),
  };
}

const generator = (start: number): (() => number) => {
  let state = start;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
};

describe("gae", () => {
  test("the case G1: a buffer with an episode that ends inside", () => {
    const { advantages, returns } = gae(
      {
        numSteps: 5,
        numEnvironments: 1,
        rewards: [1, 0, -1, 2, 0.5],
        values: [0.5, 0.25, -0.5, 1, 0.75],
        terminated: [0, 0, 1, 0, 0],
        truncated: [0, 0, 0, 0, 0],
        terminalValues: [0, 0, 0, 0, 0],
        lastValues: [0.3],
      },
      { gamma: 0.99, lambda: 0.95 },
    );
    const expected = [-0.39544262, -1.21525, -0.5, 1.7867035, 0.047];
    for (const [i, value] of expected.entries()) expect(advantages[i]).toBeCloseTo(value, 8);
    expect(returns[0]).toBeCloseTo(0.10455738, 8);
  });

  test("λ = 1 gives Monte-Carlo returns, λ = 0 and n = 1 the same one-step targets", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 }), (seed, steps, envs) => {
        const view = rollout(steps, envs, generator(seed));
        const gamma = 0.93;
        const long = gae(view, { gamma, lambda: 1 });
        const sums = discountedReturns(view, { gamma });
        const short = gae(view, { gamma, lambda: 0 });
        const one = nStepReturns(view, { gamma, n: 1 });
        for (let i = 0; i < steps * envs; i++) {
          expect(long.returns[i]).toBeCloseTo(sums.returns[i], 10);
          expect(short.returns[i]).toBeCloseTo(one.returns[i], 10);
          // As many rewards as there are: the sum to the end of the buffer.
          expect(nStepReturns(view, { gamma, n: steps }).returns[i]).toBeCloseTo(sums.returns[i], 10);
        }
      }),
    );
  });

  test("constant reward and the value that belongs to it: no advantage, wherever time limits cut", () => {
    const gamma = 0.98;
    const value = 1 / (1 - gamma);
    const all = new Float64Array(24).fill(value);
    const view: RolloutView = {
      numSteps: 12,
      numEnvironments: 2,
      rewards: new Float64Array(24).fill(1),
      values: all,
      terminated: new Uint8Array(24),
      truncated: Uint8Array.from({ length: 24 }, (_, i) => (i % 5 === 4 ? 1 : 0)),
      terminalValues: all,
      lastValues: all,
    };
    for (const advantage of gae(view, { gamma, lambda: 0.9 }).advantages) expect(advantage).toBeCloseTo(0, 9);
    // Without the value behind the cut it looks like an end.
    const without = gae(view, { gamma, lambda: 0.9, bootstrapTruncation: false }).advantages;
    expect(Math.min(...without)).toBeCloseTo(1 - value, 9);
  });

  test("a rollout without steps is an error", () => {
    const none = { ...rollout(1, 1, generator(1)), numSteps: 0 };
    expect(() => gae(none, { gamma: 0.9, lambda: 0.9 })).toThrow(/expected a rollout of at least one step/);
    expect(() => nStepReturns(rollout(2, 1, generator(1)), { gamma: 1, n: 0 })).toThrow(/positive integer/);
  });
});

test("normalised advantages have mean 0 and deviation 1; a single one stays", () => {
  const normalised = normaliseAdvantages([3, 1, 4, 1, 5]);
  expect(normalised.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12);
  expect(normalised.reduce((a, b) => a + b * b, 0) / 4).toBeCloseTo(1, 6);
  expect([...normaliseAdvantages([7])]).toEqual([7]);
  for (const kind of ["sb3", "spinning-up"] as const) expect([...normaliseAdvantages([2, 2, 2], kind)]).toEqual([0, 0, 0]);
  // What is wrong stays visible.
  expect(normaliseAdvantages([1, Number.NaN], "spinning-up")[0]).toBeNaN();
});

test("explained variance: 1 for perfect values, 0 for constant ones, NaN for returns that do not vary", () => {
  expect(explainedVariance([1, 2, 3], [1, 2, 3])).toBe(1);
  expect(explainedVariance([2, 2, 2], [1, 2, 3])).toBeCloseTo(0, 12);
  expect(explainedVariance([1, 2, 3], [5, 5, 5])).toBeNaN();
});
