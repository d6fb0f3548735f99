// Laws of the estimators, and the derivative of the loss against finite differences; the values themselves are golden (test/golden/rl).
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import { gradients } from "../../tensor/gradient.ts";
import { uniforms } from "../../tensor/testing/reference.ts";
import { groupAdvantages, tokenReturns } from "./advantages.ts";
import { type Aggregation, aggregations, aggregationWeights } from "./aggregation.ts";
import { klDivergenceOf } from "./kl.ts";
import { type PolicyLossOptions, policyLoss, ratioLevels } from "./policy-loss.ts";
import { type PolicyPreset, policyPresets } from "./presets.ts";
import { rewardAdvantages } from "./reward-advantages.ts";
import { whiten } from "./whitening.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const finite = fc.double({ min: -100, max: 100, noNaN: true });

describe("advantages", () => {
  test("of a group add up to 0, and do not see a constant that is added to all rewards", () => {
    fc.assert(
      fc.property(fc.array(finite, { minLength: 2, maxLength: 8 }), finite, (scores, shift) => {
        const groups = scores.map(() => 7);
        for (const estimator of ["grpoNoStd", "rloo"] as const) {
          const own = groupAdvantages(estimator, scores, groups);
          const moved = groupAdvantages(
            estimator,
            scores.map((score) => score + shift),
            groups,
          );
          expect(Math.abs(own.reduce((a, b) => a + b, 0))).toBeLessThan(1e-9);
          for (const [i, value] of own.entries()) expect(moved[i]).toBeCloseTo(value, 9);
        }
      }),
    );
  });

  test("a group whose rewards are all equal teaches nothing, and is counted", () => {
    const { advantages, stdIsZero } = rewardAdvantages([[1], [1], [0], [1]], { numGenerations: 2 });
    expect([...advantages.subarray(0, 2)]).toEqual([0, 0]);
    expect(stdIsZero).toEqual([true, true, false, false]);
  });

  test("a row to which no reward applies has the advantage 0 and does not move its group", () => {
    const some = rewardAdvantages([[1], [Number.NaN], [0]], { numGenerations: 3 });
    expect(some.advantages[1]).toBe(0);
    expect(some.rewards[1]).toBeNaN();
    const without = rewardAdvantages([[1], [0]], { numGenerations: 2 });
    expect(some.advantages[0]).toBeCloseTo(without.advantages[0], 12);
  });

  test("rows that are no whole groups, and weights of another count, are errors", () => {
    expect(() => rewardAdvantages([[1], [2], [3]], { numGenerations: 2 })).toThrow(/expected a multiple of 2 rows, got 3/);
    expect(() => rewardAdvantages([[1], [2]], { numGenerations: 2, weights: [1, 2] })).toThrow(/reward weights: expected 1/);
    expect(() => groupAdvantages("opo", [1, 2], [0, 0])).toThrow(/opo: expected 2 lengths, got 0/);
    expect(() => groupAdvantages("passAtK", [1], [0])).toThrow(/passAtK: expected at least two samples/);
  });

  test("token returns of REINFORCE++ against verl", () => {
    const rewards = [0.2509, 0.006, -0.167, -0.2213, 0.2336, -0.0545];
    const expected = [0.0477, -0.2032, -0.2092, -0.0422, 0.1791, -0.0545];
    for (const [i, value] of tokenReturns(
      rewards,
      rewards.map(() => 1),
      6,
    ).entries())
      expect(value).toBeCloseTo(expected[i], 12);
    expect([...tokenReturns([1, 9, 2, 4], [1, 0, 1, 1], 4, 0.5)]).toEqual([1 + 0.5 * 4, 0, 4, 4]);
  });

  test("whitened values have mean 0 and variance 1 under the mask", () => {
    const values = [3, 1, 4, 1, 5, 9, 2, 6];
    const white = whiten(values, [1, 1, 1, 1, 0, 0, 1, 1], { epsilon: 0 });
    const kept = white.filter((_, i) => i !== 4 && i !== 5);
    expect(kept.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12);
    expect(kept.reduce((a, b) => a + b * b, 0) / (kept.length - 1)).toBeCloseTo(1, 12);
  });
});

test("k3 and k2 are never negative, agree to second order, and survive extreme inputs", () => {
  fc.assert(
    fc.property(finite, finite, (a, b) => {
      expect(klDivergenceOf(a, b, "k3")).toBeGreaterThanOrEqual(0);
      expect(klDivergenceOf(a, b, "k2")).toBeGreaterThanOrEqual(0);
    }),
  );
  for (const d of [1e-3, -1e-3]) expect(Math.abs(klDivergenceOf(d, 0, "k3") - klDivergenceOf(d, 0, "k2"))).toBeLessThan(1e-9);
  expect(klDivergenceOf(-800, 0, "k3")).toBeLessThan(Number.POSITIVE_INFINITY);
});

test.each(aggregations)("%s: micro-batches add up to the batch", (aggregation: Aggregation) => {
  const mask = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0];
  const whole = aggregationWeights(aggregation, mask, 3);
  const options = { numTokens: 6, numSequences: 4 };
  const parts = [mask.slice(0, 6), mask.slice(6)].flatMap((part) => [...aggregationWeights(aggregation, part, 3, options)]);
  expect(parts).toEqual([...whole]);
});

const [rows, length] = [3, 4];
const mask = [1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0];

/** Loss and gradient at given log-probabilities, in float64. */
function lossAt(options: PolicyLossOptions, withOld = true) {
  const next = uniforms(3);
  const grid = spec("f64", [rows, length]);
  const numbers = (scale: number, shift: number) => Float64Array.from({ length: rows * length }, () => scale * next() + shift);
  const values = {
    logProbs: numbers(1, -2),
    oldLogProbs: numbers(1, -2),
    refLogProbs: numbers(1, -2),
    entropies: numbers(1, 0),
    weights: aggregationWeights("seq-mean-token-mean", mask, length),
    mask: Float64Array.from(mask),
    advantages: Float64Array.of(0.7, -1.1, 0.4),
  };
  const program = compile(
    backend,
    ({ oldLogProbs, ...inputs }) => {
      const result = policyLoss({ ...inputs, ...(withOld ? { oldLogProbs } : {}) }, options);
      return { loss: result.loss, gradient: gradients(result.loss, inputs.logProbs) };
    },
    {
      logProbs: grid,
      oldLogProbs: grid,
      refLogProbs: grid,
      entropies: grid,
      weights: grid,
      mask: grid,
      advantages: spec("f64", [rows, 1]),
    },
    { threads: 1 },
  );
  const buffers = Object.fromEntries(
    Object.entries(values).map(([name, data]) => [name, bufferFrom("f64", name === "advantages" ? [rows, 1] : [rows, length], data)]),
  ) as unknown as Record<keyof typeof values, TensorBuffer<"f64">>;
  const bound = program.bind(buffers as never);
  const outputs = bound.outputs as unknown as Record<"loss" | "gradient", TensorBuffer<"f64">>;
  return {
    values: buffers,
    run: (): { loss: number; gradient: Float64Array } => {
      bound.run();
      return { loss: outputs.loss.data[0], gradient: outputs.gradient.data.slice() };
    },
    dispose: () => program.dispose(),
  };
}

describe("the policy loss", () => {
  const clips: PolicyLossOptions["clip"][] = [
    { kind: "none" },
    { kind: "log-prob" },
    { kind: "ppo", low: 0.2, high: 0.28, dual: 2 },
    { kind: "soft", positive: 1, negative: 1.05 },
  ];
  const smooth = ["token", "sequence", "trajectory"] as const;
  const cases = clips.flatMap((clip) => smooth.map((ratio) => ({ name: `${clip.kind}, ratio of a ${ratio}`, clip, ratio })));

  test.each(cases)("$name: gradient against finite differences", ({ clip, ratio }) => {
    const loss = lossAt({ clip, ratio, beta: 0.3, biasCorrectedKl: clip.kind === "none", entropyCoefficient: 0.1 });
    const { gradient } = loss.run();
    const { data } = loss.values.logProbs;
    const step = 1e-6;
    for (let i = 0; i < data.length; i++) {
      const saved = data[i];
      const along = (sign: number): number => {
        data[i] = saved + sign * step;
        return loss.run().loss;
      };
      const difference = (along(1) - along(-1)) / (2 * step);
      data[i] = saved;
      expect(Math.abs(difference - gradient[i])).toBeLessThan(1e-7);
    }
    loss.dispose();
  });

  test("in the first update after a rollout every ratio is 1: all clips have REINFORCE's gradient", () => {
    const reference = lossAt({ clip: { kind: "log-prob" } }, false);
    const expected = reference.run().gradient;
    reference.dispose();
    for (const clip of [...clips.slice(0, 3), { kind: "cispo", max: 5 } as const]) {
      for (const ratio of ratioLevels) {
        // The ratio of a trajectory has that gradient without the division by the length.
        if (ratio === "trajectory") continue;
        const loss = lossAt({ clip, ratio }, false);
        const { gradient } = loss.run();
        for (const [i, value] of gradient.entries()) expect(value).toBeCloseTo(expected[i], 12);
        loss.dispose();
      }
    }
  });

  test.each(Object.entries(policyPresets))("the preset %s is finite where ratios are extreme", (_, preset: PolicyPreset) => {
    const loss = lossAt({ ...preset.loss, beta: preset.kl?.place === "loss" ? preset.kl.beta : 0 });
    loss.values.logProbs.data.set([-800, 0, -1, -1, -1, -300, 0, -1, 0, 0, 0, 0]);
    const { loss: value, gradient } = loss.run();
    expect(Number.isFinite(value)).toBe(true);
    expect(gradient.every(Number.isFinite)).toBe(true);
    loss.dispose();
  });
});
