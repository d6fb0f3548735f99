// Aggregates of scores against values worked out by hand, and the laws of the interval.
import fc from "fast-check";
import { expect, test } from "vitest";
import { aggregateScores, interquartileMean } from "./aggregate-scores.ts";

test("the interquartile mean leaves out a quarter at each end, as SciPy's trimmed mean", () => {
  expect(interquartileMean([100, 1, 2, 3, 4, 5, 6, -100])).toBe((2 + 3 + 4 + 5) / 4);
  // Fewer than four values: nothing is left out.
  expect(interquartileMean([1, 2, 6])).toBe(3);
  // scipy.stats.trim_mean(range(10), 0.25) cuts two at each end.
  expect(interquartileMean([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])).toBe(4.5);
  expect(interquartileMean([])).toBeNaN();
});

test("the interval holds the value, lies within the scores, and is a point for one run", () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: -1000, max: 1000, noNaN: true }), { minLength: 1, maxLength: 12 }), (scores) => {
      const { interquartileMean: value, interval, mean } = aggregateScores([scores], { repetitions: 200 });
      const [low, high] = [Math.min(...scores), Math.max(...scores)];
      for (const x of [...interval, value, mean]) {
        expect(x).toBeGreaterThanOrEqual(low - 1e-9);
        expect(x).toBeLessThanOrEqual(high + 1e-9);
      }
      expect(interval[0]).toBeLessThanOrEqual(interval[1]);
      if (scores.length === 1) expect(interval[1] - interval[0]).toBe(0);
    }),
    { numRuns: 40 },
  );
});

test("the interval of many equal spreads covers the truth about as often as it says, and runs are drawn within their task", () => {
  // Tasks that do not vary leave no spread, however far they are apart: the bootstrap is stratified.
  expect(
    aggregateScores([
      [1, 1, 1],
      [9, 9, 9],
    ]).interval,
  ).toEqual([5, 5]);
  let covered = 0;
  const random = (
    (state) => () =>
      (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32
  )(7);
  for (let i = 0; i < 100; i++) {
    // Uniform on [−1, 1): the interquartile mean is 0.
    const scores = Array.from({ length: 20 }, () => 2 * random() - 1);
    const { interval } = aggregateScores([scores], { repetitions: 300, seed: i });
    if (interval[0] <= 0 && 0 <= interval[1]) covered++;
  }
  expect(covered).toBeGreaterThan(80);
});

test("a task without runs is an error", () => {
  expect(() => aggregateScores([[1], []])).toThrow(/at least one run of each task/);
});
