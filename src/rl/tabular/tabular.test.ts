// Exact theory against finite differences and laws; sampled estimates against exact theory.
import { describe, expect, test } from "vitest";
import { Random } from "../../runtime/rng.ts";
import { drawPolicy, gridWorld } from "./grid-world.ts";
import {
  actionValues,
  averageReward,
  averageValue,
  discountedVisits,
  dot,
  softmaxPolicy,
  startValue,
  stateValues,
  stationaryDistribution,
  type TabularMdp,
  tabularMdp,
  valueIteration,
} from "./mdp.ts";
import {
  averageRewardGradient,
  averageValueGradient,
  discountedApproximation,
  optimalBaseline,
  startValueGradient,
} from "./policy-gradient.ts";
import { actorCritic, addReinforceGradient, type ReinforceOptions, sampleEpisode } from "./sampled.ts";

/** A random process in which every state follows every other one. */
function randomMdp(seed: number, gamma = 0.9, absorbing: number[] = []): TabularMdp {
  const random = new Random(seed);
  const [numStates, numActions] = [4, 3];
  return tabularMdp({
    numStates,
    numActions,
    gamma,
    start: [0.5, 0.3, 0.2, 0],
    absorbing,
    outcomes: () => {
      const weights = Array.from({ length: numStates }, () => 0.05 + random.uniform());
      const total = weights.reduce((a, b) => a + b, 0);
      return weights.map((weight, next) => ({ probability: weight / total, next, reward: 2 * random.uniform() - 1 }));
    },
  });
}
const preferences = (mdp: TabularMdp, seed: number): Float64Array => {
  const random = new Random(seed);
  return Float64Array.from({ length: mdp.numStates * mdp.numActions }, () => 2 * random.uniform() - 1);
};
function differences(theta: Float64Array, f: (theta: Float64Array) => number, h = 1e-5): Float64Array {
  return theta.map((_, i) => {
    const at = (d: number): number => f(theta.map((value, j) => (j === i ? value + d : value)));
    return (at(h) - at(-h)) / (2 * h);
  });
}
const near = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): void => {
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i]), `entry ${i}`).toBeLessThan(tolerance);
};

describe("exact gradients are those of their metrics", () => {
  test.each([1, 2, 3])("process %i", (seed) => {
    const mdp = randomMdp(seed);
    const theta = preferences(mdp, seed + 10);
    near(
      startValueGradient(mdp, theta),
      differences(theta, (t) => startValue(mdp, softmaxPolicy(mdp, t))),
      1e-8,
    );
    near(
      averageRewardGradient(mdp, theta),
      differences(theta, (t) => averageReward(mdp, softmaxPolicy(mdp, t)).average),
      1e-8,
    );
    const weights = Float64Array.of(0.1, 0.2, 0.3, 0.4);
    near(
      averageValueGradient(mdp, theta, weights),
      differences(theta, (t) => averageValue(mdp, softmaxPolicy(mdp, t), weights)),
      1e-8,
    );
  });

  test("the discounted one in a task without end approaches that of the average reward", () => {
    const errors = [0.9, 0.99, 0.999].map((gamma) => {
      const mdp = randomMdp(4, gamma);
      const theta = preferences(mdp, 5);
      const [exact, approximate] = [averageRewardGradient(mdp, theta), discountedApproximation(mdp, theta)];
      return Math.max(...exact.map((value, i) => Math.abs(value - approximate[i])));
    });
    expect(errors[1]).toBeLessThan(errors[0] / 5);
    expect(errors[2]).toBeLessThan(errors[1] / 5);
  });
});

describe("laws of values", () => {
  const mdp = randomMdp(6);
  const policy = softmaxPolicy(mdp, preferences(mdp, 7));
  test("the average reward is (1 − γ) times the average value under the stationary distribution", () => {
    expect(averageReward(mdp, policy).average).toBeCloseTo((1 - mdp.gamma) * averageValue(mdp, policy), 12);
    expect(stationaryDistribution(mdp, policy).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
  });
  test("discounted visits sum to 1/(1 − γ) and weigh rewards into the start value", () => {
    const visits = discountedVisits(mdp, policy);
    expect(visits.reduce((a, b) => a + b, 0)).toBeCloseTo(10, 10);
    const rewards = stateValues({ ...mdp, gamma: 0 }, policy);
    expect(dot(visits, rewards)).toBeCloseTo(startValue(mdp, policy), 10);
  });
  test("values are the mean of action values, and the best ones are at least as large", () => {
    const values = stateValues(mdp, policy);
    const q = actionValues(mdp, values);
    const best = valueIteration(mdp).values;
    for (let s = 0; s < 4; s++) {
      expect(dot(policy.subarray(3 * s, 3 * s + 3), q.subarray(3 * s, 3 * s + 3))).toBeCloseTo(values[s], 10);
      expect(best[s]).toBeGreaterThanOrEqual(values[s]);
    }
  });
});

describe("sampled gradients", () => {
  const mdp = randomMdp(8, 0.9, [3]);
  const theta = preferences(mdp, 9);
  const policy = softmaxPolicy(mdp, theta);
  const exact = startValueGradient(mdp, theta);
  const values = stateValues(mdp, policy);
  const q = actionValues(mdp, values);
  /** Mean and total variance of single-episode estimates. */
  const estimate = (options: ReinforceOptions, episodes = 20_000) => {
    const random = new Random(21);
    const [sum, squares] = [new Float64Array(12), new Float64Array(12)];
    for (let i = 0; i < episodes; i++) {
      const one = new Float64Array(12);
      addReinforceGradient(mdp, policy, sampleEpisode(mdp, policy, random), one, options);
      for (let k = 0; k < 12; k++) {
        sum[k] += one[k];
        squares[k] += one[k] ** 2;
      }
    }
    const mean = sum.map((value) => value / episodes);
    const variances = squares.map((value, k) => value / episodes - mean[k] ** 2);
    return { mean, errors: variances.map((v) => Math.sqrt(v / episodes)), variance: variances.reduce((a, b) => a + b, 0) };
  };
  const none = estimate({});
  const withValues = estimate({ baseline: values });
  const optimal = estimate({ baseline: optimalBaseline(mdp, policy, q) });

  test("have the exact one as their mean, whatever the baseline", () => {
    for (const { mean, errors } of [none, withValues, optimal])
      for (let k = 0; k < 12; k++) expect(Math.abs(mean[k] - exact[k])).toBeLessThan(4.5 * errors[k] + 1e-12);
  });
  test("vary less with a baseline, and not less with another than with the optimal one", () => {
    expect(withValues.variance).toBeLessThan(none.variance);
    expect(optimal.variance).toBeLessThan(1.02 * withValues.variance);
  });
  test("the optimal baseline has the least variance of one state's term", () => {
    const variance = (baseline: Float64Array, s: number): number => {
      let second = 0;
      for (let a = 0; a < 3; a++) {
        const norm = [0, 1, 2].reduce((sum, b) => sum + (Number(a === b) - policy[3 * s + b]) ** 2, 0);
        second += policy[3 * s + a] * norm * (q[3 * s + a] - baseline[s]) ** 2;
      }
      return second;
    };
    const best = optimalBaseline(mdp, policy, q);
    for (let s = 0; s < 3; s++)
      for (const d of [-0.1, 0.1])
        expect(variance(best, s)).toBeLessThan(
          variance(
            best.map((value) => value + d),
            s,
          ),
        );
  });
  test("without γ^t they are another direction", () => {
    const { mean, errors } = estimate({ discountStates: false });
    expect(Math.max(...mean.map((value, k) => Math.abs(value - exact[k]) / (errors[k] + 1e-12)))).toBeGreaterThan(8);
  });
});

describe("actor-critic in a grid world", () => {
  const world = gridWorld({ map: ["S...", ".##.", "...T"], gamma: 0.9 });
  const { mdp } = world;
  const best = startValue(mdp, softmaxPolicy(mdp, greedyPreferences(mdp)));
  test.each([
    ["qac", { kind: "qac", actorRate: 0.05, criticRate: 0.2, steps: 60_000 }],
    ["a2c", { kind: "a2c", actorRate: 0.1, criticRate: 0.2, steps: 60_000 }],
    // Another policy acts: uniformly.
    [
      "a2c off-policy",
      { kind: "a2c", actorRate: 0.05, criticRate: 0.1, steps: 150_000, behaviour: softmaxPolicy(mdp, new Float64Array(60)) },
    ],
  ] as const)("%s comes near the best policy", (_, options) => {
    const { theta } = actorCritic(mdp, new Float64Array(60), new Random(3), options);
    expect(startValue(mdp, softmaxPolicy(mdp, theta))).toBeGreaterThan(best - 0.12);
  });
  test("an off-policy critic learns the target policy's values", () => {
    const target = preferences(mdp, 2).subarray(0, 60);
    const { critic } = actorCritic(mdp, Float64Array.from(target), new Random(4), {
      kind: "a2c",
      actorRate: 0,
      criticRate: 0.01,
      steps: 400_000,
      behaviour: softmaxPolicy(mdp, new Float64Array(60)),
    });
    const exact = stateValues(mdp, softmaxPolicy(mdp, target));
    for (let s = 0; s < 11; s++) expect(Math.abs(critic[s] - exact[s])).toBeLessThan(0.25);
  });
  test("is drawn", () => {
    const drawing = drawPolicy(world, softmaxPolicy(mdp, greedyPreferences(mdp)));
    expect(drawing.split("\n")).toHaveLength(3);
    expect(drawing).toContain("T");
    expect(() => gridWorld({ map: ["..", "."] })).toThrow("one length");
  });
});

function greedyPreferences(mdp: TabularMdp): Float64Array {
  const { policy } = valueIteration(mdp);
  const theta = new Float64Array(mdp.numStates * mdp.numActions);
  for (let s = 0; s < mdp.numStates; s++) theta[s * mdp.numActions + policy[s]] = 50;
  return theta;
}
