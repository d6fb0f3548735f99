import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatBytes, formatCount, formatDate, formatDuration, formatNumber } from "./format.ts";
import { linearTicks, logTicks, paddedDomain, position } from "./scale.ts";
import { evenly, extremes, smooth } from "./series.ts";
import { layoutTree } from "./tree-layout.ts";

describe("numbers", () => {
  it("have as many digits as they need, a true minus and their unit", () => {
    expect(
      [0, 3, 2.31256, -0.5, 12_345.6, 55.000000000000007, 3e-4, 1.5e-7, -2e10, Number.NaN, -Infinity].map((x) => formatNumber(x)),
    ).toEqual(["0", "3", "2.313", "−0.5000", "12,346", "55", "3.00e−4", "1.50e−7", "−2.00e10", "NaN", "−∞"]);
    expect([999, 999_700, 2_163_456, 0.5].map(formatCount)).toEqual(["999", "1.00 M", "2.16 M", "0.500"]);
    expect([512, 1536, 5 * 2 ** 30].map(formatBytes)).toEqual(["512 B", "1.5 KiB", "5.0 GiB"]);
    expect([0.84, 42, 192, 7500, Number.NaN].map(formatDuration)).toEqual(["0.8 s", "42 s", "3 min 12 s", "2 h 05 min", "unknown"]);
    expect([0, Number.NaN, 1e300].map(formatDate)).toEqual(["1970-01-01 00:00 UTC", "unknown", "unknown"]);
  });
});

describe("axes", () => {
  const interval = fc
    .tuple(fc.double({ min: -1e9, max: 1e9, noNaN: true }), fc.double({ min: 1e-9, max: 1e9, noNaN: true }))
    .filter(([low, width]) => width > Math.abs(low) * 1e-6)
    .map(([low, width]) => [low, low + width] as const);

  it("have a handful of evenly spaced ticks inside the interval", () => {
    fc.assert(
      fc.property(interval, ([low, high]) => {
        const ticks = linearTicks(low, high, 4);
        expect(ticks.length).toBeGreaterThanOrEqual(2);
        expect(ticks.length).toBeLessThanOrEqual(8);
        const step = ticks[1] - ticks[0];
        for (const [i, tick] of ticks.entries()) {
          expect(tick).toBeGreaterThanOrEqual(low - step * 1e-6);
          expect(tick).toBeLessThanOrEqual(high + step * 1e-6);
          if (i > 0) expect((tick - ticks[i - 1]) / step).toBeCloseTo(1, 3);
        }
      }),
    );
    expect(linearTicks(0, 1, 4)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(linearTicks(1, 3, 5, true)).toEqual([1, 2, 3]);
    expect(logTicks(0.5, 200)).toEqual([1, 3, 10, 30, 100]);
    expect(linearTicks(2, 2, 4)).toEqual([2]);
  });

  it("leave room around the values, and none beyond zero", () => {
    expect(paddedDomain(1, 10)[0]).toBe(0);
    expect(paddedDomain(-10, -1)[1]).toBe(0);
    expect(paddedDomain(100, 101)[0]).toBeGreaterThan(99.9);
    expect(paddedDomain(0, 0)).toEqual([0, 1]);
    expect(paddedDomain(5, 5)).toEqual([4.5, 5.5]);
  });

  it("put the ends of the domain at the ends of the range", () => {
    for (const kind of ["linear", "log"] as const) {
      const scale = { kind, domain: [1, 100], range: [10, 50] } as const;
      expect([1, 100].map((value) => position(scale, value))).toEqual([10, 50]);
      expect(position(scale, 10)).toBeCloseTo(kind === "log" ? 30 : 13.636, 3);
    }
  });
});

describe("series", () => {
  const seriesOf = (values: number[]) => ({ steps: values.map((_, i) => i + 1), values });

  it("smoothing leaves straight lines as they are, does not lag, and passes over what is not finite", () => {
    const line = Array.from({ length: 400 }, (_, i) => 3 + 0.5 * i);
    line[100] = Number.NaN;
    const smoothed = smooth(seriesOf(line), 50)!;
    expect(smoothed.steps).toHaveLength(50);
    smoothed.steps.forEach((step, i) => {
      // The edges have neighbours on one side only.
      if (step > 25 && step < 375 && Math.abs(step - 101) > 25) expect(smoothed.values[i]).toBeCloseTo(3 + 0.5 * (step - 1), 9);
      expect(Number.isFinite(smoothed.values[i])).toBe(true);
    });
    expect(smooth(seriesOf([1, 2, 3]), 50)).toBeUndefined();
  });

  it("thinning keeps first, last, lowest and highest", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.double({ noNaN: true }), fc.constant(Number.NaN)), { minLength: 1, maxLength: 300 }),
        fc.integer({ min: 8, max: 60 }),
        (values, limit) => {
          const chosen = extremes(values, limit);
          expect(chosen.length).toBeLessThanOrEqual(limit);
          expect([chosen[0], chosen[chosen.length - 1]]).toEqual([0, values.length - 1]);
          const finite = values.filter((value) => !Number.isNaN(value));
          const kept = chosen.map((i) => values[i]).filter((value) => !Number.isNaN(value));
          if (finite.length > 0) expect([Math.min(...kept), Math.max(...kept)]).toEqual([Math.min(...finite), Math.max(...finite)]);
        },
      ),
    );
    expect(evenly(10, 4)).toEqual([0, 3, 6, 9]);
    expect(evenly(3, 9)).toEqual([0, 1, 2]);
  });
});

describe("tree layout", () => {
  const trees = fc
    .array(fc.nat(), { maxLength: 60 })
    .map((choices) => [
      { id: "0", parent: undefined },
      ...choices.map((choice, i) => ({ id: String(i + 1), parent: String(choice % (i + 1)) })),
    ]);

  it("gives every leaf a row of its own, puts parents amid their children, and lets no two nodes of a depth touch", () => {
    fc.assert(
      fc.property(trees, (nodes) => {
        const { placed, rows } = layoutTree(nodes);
        expect(placed).toHaveLength(nodes.length);
        const children = placed.map((_, i) => placed.filter(({ parent }) => parent === i));
        const leaves = placed.filter((_, i) => children[i].length === 0).map(({ row }) => row);
        expect(leaves.toSorted((a, b) => a - b)).toEqual(Array.from({ length: rows }, (_, i) => i));
        placed.forEach(({ row, depth }, i) => {
          const below = children[i].map((child) => child.row);
          if (below.length > 0) expect(row).toBe((Math.min(...below) + Math.max(...below)) / 2);
          for (const child of children[i]) expect(child.depth).toBe(depth + 1);
          for (const other of placed)
            if (other !== placed[i] && other.depth === depth) expect(Math.abs(other.row - row)).toBeGreaterThanOrEqual(1);
        });
      }),
    );
  });

  it("survives orphans, cycles, repeated ids and chains of any length", () => {
    const node = (id: string, parent?: string) => ({ id, parent });
    expect(layoutTree([node("a"), node("b", "missing")]).placed.map(({ depth }) => depth)).toEqual([0, 0]);
    expect(layoutTree([node("a", "b"), node("b", "a"), node("c")]).placed.map(({ node: { id } }) => id)).toEqual(["c"]);
    expect(layoutTree([node("a"), node("a")]).placed).toHaveLength(1);
    const chain = Array.from({ length: 20_000 }, (_, i) => node(String(i), i === 0 ? undefined : String(i - 1)));
    expect(layoutTree(chain)).toMatchObject({ depth: 19_999, rows: 1 });
    expect(layoutTree([])).toEqual({ placed: [], depth: 0, rows: 0 });
  });
});
