import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AcceptanceTable, matchClass, matchPrior, PendingProposal, TokenRecord } from "./acceptance-table.ts";
import { bestChainLength, StepCosts } from "./step-costs.ts";

/** Costs that were seen often: 10 ms and so many for each further token. */
function linear(slope: number, sizes = [1, 2, 4, 8, 16]): StepCosts {
  const costs = new StepCosts();
  for (let i = 0; i < 50; i++) for (const n of sizes) costs.observe(n, 10 + slope * (n - 1));
  return costs;
}

describe("costs", () => {
  test("lie on the measured line, between and beyond the sizes seen", () => {
    const costs = linear(1);
    for (const n of [1, 2, 3, 6, 16, 40]) expect(costs.at(n)).toBeCloseTo(10 + (n - 1), 6);
  });

  test("one slow call changes little, of a size that was seen often and of one that was not", () => {
    for (const sizes of [
      [1, 2, 4, 8, 16],
      [1, 2],
      [1, 2, 4],
      [1, 3],
    ]) {
      for (const slow of [1, 2, 4, 8, 12, 16, 32]) {
        for (const milliseconds of [40, 250, 2000, 1e6]) {
          const costs = linear(1, sizes);
          costs.observe(slow, 11);
          costs.observe(slow, milliseconds);
          for (const n of sizes) expect(Math.abs(costs.at(n) / (9 + n) - 1)).toBeLessThan(0.13);
          for (let n = 1; n < 40; n++) expect(costs.at(n + 1)).toBeGreaterThanOrEqual(costs.at(n));
          // Seen again as they are, costs are what they were.
          for (let i = 0; i < 60; i++) for (const n of sizes) costs.observe(n, 9 + n);
          for (const n of sizes) expect(Math.abs(costs.at(n) / (9 + n) - 1)).toBeLessThan(0.05);
        }
      }
    }
  });

  test("times that are none do not count", () => {
    const costs = linear(1);
    for (const n of [1, 4, 32]) for (const none of [0, -1, Number.NaN]) for (let i = 0; i < 3; i++) costs.observe(n, none);
    costs.observePrompt(100, 0);
    for (const n of [1, 3, 16, 32]) expect(costs.at(n)).toBeCloseTo(9 + n, 6);
  });

  test("of the first calls, in which weights are put in order, nothing is left", () => {
    const costs = new StepCosts();
    for (let i = 0; i < 8; i++) costs.observe(1, 20);
    expect(costs.at(1)).toBe(20);
    costs.observe(1, 10);
    expect(costs.at(1)).toBe(10);
  });

  test("a size that was seen once and slow is drawn to the line through the others; one that is seen often is what it was seen to be", () => {
    const costs = new StepCosts();
    for (let i = 0; i < 50; i++) for (const n of [1, 2, 8, 16]) costs.observe(n, 10 + (n - 1));
    for (let i = 0; i < 2; i++) costs.observe(4, 40);
    expect(costs.at(4)).toBeLessThan(17);
    expect(costs.at(5)).toBeGreaterThanOrEqual(costs.at(4));
    for (let i = 0; i < 500; i++) costs.observe(4, 15);
    expect(costs.at(4)).toBeCloseTo(15, 0);
    expect(costs.at(2)).toBeLessThan(11.3);
  });

  test("until several sizes were seen, a further token costs what one of a prompt did", () => {
    const costs = new StepCosts();
    costs.observePrompt(100, 900);
    costs.observePrompt(200, 800);
    costs.observePrompt(3, 1);
    for (let i = 0; i < 2; i++) costs.observe(1, 10);
    expect(costs.at(1)).toBe(10);
    expect(costs.at(4)).toBeCloseTo(10 + 3 * 4);
    for (let i = 0; i < 2; i++) costs.observe(3, 12);
    expect(costs.at(5)).toBeCloseTo(14);
    // A prompt that was slower than single tokens tells nothing.
    const slow = new StepCosts();
    slow.observePrompt(50, 1000);
    for (let i = 0; i < 2; i++) slow.observe(1, 10);
    expect(slow.at(2)).toBeCloseTo(10.8);
  });

  test("the first call of a size does not count, and nothing seen gives ratios", () => {
    const costs = new StepCosts();
    expect(costs.at(1)).toBe(1);
    expect(costs.at(9)).toBeGreaterThan(1);
    costs.observe(1, 900);
    costs.observe(1, 9);
    expect(costs.at(1)).toBe(9);
    costs.observe(100, 900);
    costs.observe(100, 90);
    expect(costs.at(100)).toBeCloseTo(90);
  });
});

describe("the length of a chain", () => {
  // Expected tokens a second by the definition, for every length.
  const bruteForce = (acceptance: number[], slope: number, draft: number): number => {
    const rates = Array.from({ length: acceptance.length + 1 }, (_, n) => {
      let expected = 1;
      for (let i = 1; i <= n; i++) expected += acceptance.slice(0, i).reduce((a, b) => a * b, 1);
      return expected / (10 + slope * n + n * draft) / (n === 0 ? 1 / 1.01 : 1);
    });
    return rates.indexOf(Math.max(...rates));
  };
  test("is the best of all lengths", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 0.99, noNaN: true }), { maxLength: 12 }),
        fc.constantFrom(0.2, 1, 3),
        fc.constantFrom(0, 0.5, 4),
        (acceptance, slope, draft) => {
          expect(bestChainLength(acceptance, linear(slope), draft)).toBe(bruteForce(acceptance, slope, draft));
        },
      ),
    );
  });

  test("is none where drafts are dear or wrong", () => {
    expect(bestChainLength([0.05, 0.05], linear(1))).toBe(0);
    expect(bestChainLength([0.9, 0.9], linear(10))).toBe(0);
    expect(bestChainLength([0.9, 0.9], linear(0.1), 20)).toBe(0);
    expect(bestChainLength(new Array(20).fill(0.99), linear(0.1))).toBe(20);
  });
});

test("chances go from what was assumed to what is seen", () => {
  const table = new AcceptanceTable([0.5, 0.9], { strength: 4, window: 50 });
  expect(table.chance(0)).toBe(0.5);
  for (let i = 0; i < 400; i++) table.observe(0, i % 4 === 0);
  expect(table.chance(0)).toBeGreaterThan(0.2);
  expect(table.chance(0)).toBeLessThan(0.3);
  expect(table.chance(1)).toBe(0.9);
  // The text changes, and within about a window the chance has followed.
  for (let i = 0; i < 150; i++) table.observe(0, true);
  expect(table.chance(0)).toBeGreaterThan(0.9);
  expect(matchPrior[matchClass(1000)]).toBe(0.97);
});

test("a token's own record counts against five observations of its class, from matches of two tokens on", () => {
  const record = new TokenRecord();
  expect(record.adjust(7, 0.9)).toBe(0.9);
  const table = new AcceptanceTable([0, 0.5, 0.9]);
  // Behind token 7 the copy leaves its source twice; behind token 8 it goes on. The last proposal is that of a match of one token.
  for (const [before, after, kind] of [
    [7, 1, 2],
    [7, 1, 2],
    [8, 9, 2],
    [8, 1, 1],
  ]) {
    const pending = new PendingProposal(2);
    pending.start = 1;
    pending.length = 1;
    pending.ids[0] = 9;
    pending.kinds[0] = kind;
    pending.settle(Int32Array.of(before, after), 2, table, record);
  }
  expect(record.adjust(7, 0.9)).toBeCloseTo((0 + 5 * 0.9) / (2 + 5), 12);
  expect(record.adjust(8, 0.9)).toBeCloseTo((1 + 5 * 0.9) / (1 + 5), 12);
  record.clear();
  expect(record.adjust(7, 0.9)).toBe(0.9);
});
