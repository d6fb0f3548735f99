// Laws of running moments; values of three libraries are golden (test/golden/rl/statistics).
import fc from "fast-check";
import { expect, test } from "vitest";
import { CheckpointError } from "../../base/errors.ts";
import { RunningMoments } from "./running-moments.ts";

const samples = fc.array(fc.tuple(fc.double({ min: -50, max: 50, noNaN: true }), fc.double({ min: -50, max: 50, noNaN: true })), {
  minLength: 2,
  maxLength: 20,
});

test("do not depend on how samples are cut into batches, and are the moments of all of them", () => {
  fc.assert(
    fc.property(samples, fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 20, maxLength: 20 }), (rows, cuts) => {
      const moments = new RunningMoments(2, { initialCount: 0 });
      for (let at = 0, cut = 0; at < rows.length; at += cuts[cut++]) moments.update(rows.slice(at, at + cuts[cut]).flat());
      for (const feature of [0, 1]) {
        const values = rows.map((row) => row[feature]);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
        expect(moments.mean[feature]).toBeCloseTo(mean, 9);
        expect(moments.variance[feature]).toBeCloseTo(squares / values.length, 8);
        expect(moments.sampleVariance()[feature]).toBeCloseTo(squares / (values.length - 1), 8);
      }
    }),
  );
});

test("keep digits far from zero, where sums of squares lose them", () => {
  const moments = new RunningMoments(1, { initialCount: 0 });
  for (let i = 0; i < 1000; i++) moments.update([1e9 + (i % 2)]);
  expect(moments.variance[0]).toBeCloseTo(0.25, 6);
});

test("are saved and restored exactly; foreign states are refused", () => {
  const moments = new RunningMoments(2);
  moments.update([1, 2, 3, 5]);
  const copy = new RunningMoments(2);
  copy.restoreState(JSON.parse(JSON.stringify(moments.saveState())));
  expect(copy).toEqual(moments);
  moments.update([], 0);
  expect(copy).toEqual(moments);
  for (const state of [undefined, {}, { count: 1, mean: [1], variance: [1] }, { count: -1, mean: [1, 1], variance: [1, 1] }])
    expect(() => copy.restoreState(state)).toThrow(CheckpointError);
});
