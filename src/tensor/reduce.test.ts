import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { type ReduceOptions, sum } from "./core.ts";
import { mul } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import type { Tensor } from "./graph.ts";
import { argmax, cumsum, logSumExp, max, mean, min, topK, variance } from "./reduce.ts";
import { bufferOf, checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { type Dense, mapRows, randomDense, reduce, tabulate, total } from "./testing/reference.ts";

const average = (values: number[]): number => total(values) / values.length;
const spread = (values: number[], ddof: number): number => total(values.map((x) => (x - average(values)) ** 2)) / (values.length - ddof);

const reductions: [name: string, fn: (x: Tensor, options: ReduceOptions) => Tensor, reference: (values: number[]) => number][] = [
  ["sum", sum, total],
  ["mean", mean, average],
  ["max", max, (values) => Math.max(...values)],
  ["min", min, (values) => Math.min(...values)],
  ["logSumExp", logSumExp, (values) => Math.log(total(values.map(Math.exp)))],
  ["variance", variance, (values) => spread(values, 0)],
  ["sample variance", (x, options) => variance(x, { ...options, ddof: 1 }), (values) => spread(values, 1)],
];

describe.each(reductions)("%s", (name, fn, reference) => {
  const cases: [shape: number[], axes: number | number[] | undefined, keepDims: boolean][] = [
    [[2, 3], undefined, false],
    [[2, 3], 0, false],
    [[2, 3], -1, true],
    [[2, 2, 3], 1, false],
    [[2, 2, 3], [0, 2], false],
    [[2, 2, 3], [-1, 0], true],
    [[2, 1, 2, 2], [1, 3], false],
    [[2, 1, 2, 2], undefined, true],
  ];
  for (const [shape, axes, keepDims] of cases) {
    const list = (axes === undefined ? shape.map((_, axis) => axis) : [axes].flat()).map((axis) => (axis < 0 ? axis + shape.length : axis));
    checkDerivatives(`[${shape}] over ${axes ?? "all"}${keepDims ? ", kept" : ""}`, (x) => fn(x, { axes, keepDims }), [shape], {
      reference: (x) => reduce(x, list, keepDims, reference),
    });
  }
  if (name === "sample variance") return;
  checkDerivatives("over an axis of size 1", (x) => fn(x, { axes: 1 }), [[3, 1]], { reference: (x) => reduce(x, [1], false, reference) });
  checkDerivatives("over no axes", (x) => fn(x, { axes: [] }), [[2, 2]], { reference: (x) => reduce(x, [], false, reference) });
  checkDerivatives("of a scalar", (x) => fn(x, {}), [[]], { reference: (x) => reduce(x, [], false, reference) });
  checkDerivatives("with an empty axis that stays", (x) => fn(x, { axes: 1 }), [[0, 2]], {
    reference: (x) => reduce(x, [1], false, reference),
  });
});

describe("of nothing", () => {
  const empty = bufferFrom("f64", [2, 0], []);
  test("the sum is 0 and the mean NaN", () => {
    const outputs = evaluate((x) => [sum(x, { axes: 1 }), sum(x), mean(x), variance(x)], [empty]);
    expect(outputs.map(({ data }) => data)).toEqual([[0, 0], [0], [Number.NaN], [Number.NaN]]);
  });
  test("max, min and logSumExp are refused", () => {
    for (const fn of [max, min, logSumExp]) {
      expect(() => evaluate((x) => fn(x), [empty])).toThrow("expected at least one element along the reduced axes, got f64[2, 0]");
    }
  });
});

test("equal extremes share the derivative", () => {
  const [low, high] = evaluate(
    (x) => [gradients(sum(min(x, { axes: 1 })), [x])[0], gradients(sum(max(x, { axes: 1 })), [x])[0]],
    [bufferFrom("f64", [2, 4], [1, 3, 1, 3, 2, 2, 2, 2])],
  );
  expect(low.data).toEqual([0.5, 0, 0.5, 0, 0.25, 0.25, 0.25, 0.25]);
  expect(high.data).toEqual([0, 0.5, 0, 0.5, 0.25, 0.25, 0.25, 0.25]);
});

test("logSumExp keeps to the range of float32", () => {
  const rows = [1e30, 1e30, -1e30, 0, -1e30, -1e30, 88, 89, 90, -1e4, -1e4, -1e4];
  const [y, g, h] = evaluate(
    (x) => {
      const value = logSumExp(x, { axes: 1 });
      const [slope] = gradients(sum(value), [x]);
      return [value, slope, gradients(sum(mul(slope, slope)), [x])[0]];
    },
    [bufferFrom("f32", [4, 3], rows)],
  );
  close(
    "logSumExp",
    y.data.map((v, i) => v / [1e30, 1, 100, 1e4][i]),
    [1, 0, (90 + Math.log(1 + Math.exp(-1) + Math.exp(-2))) / 100, -1],
    1e-3,
  );
  close("its derivative", g.data.slice(0, 6), [0.5, 0.5, 0, 1, 0, 0], 1e-6);
  expect(h.data.every(Number.isFinite)).toBe(true);
});

describe("cumsum", () => {
  const running = (exclusive: boolean, reverse: boolean) => (row: number[]) =>
    row.map((own, i) => total(reverse ? row.slice(i) : row.slice(0, i + 1)) - (exclusive ? own : 0));
  for (const exclusive of [false, true]) {
    for (const reverse of [false, true]) {
      for (const [shape, axis] of [
        [[4], 0],
        [[2, 3], 0],
        [[2, 3, 2], 1],
        [[2, 0], 1],
        [[1, 3, 1], -1],
      ] as [number[], number][]) {
        const name = `${exclusive ? "exclusive " : ""}${reverse ? "reverse " : ""}[${shape}] along ${axis}`;
        checkDerivatives(name, (x) => cumsum(x, { axis, exclusive, reverse }), [shape], {
          reference: (x) => mapRows(x, axis < 0 ? axis + shape.length : axis, running(exclusive, reverse)),
        });
      }
    }
  }
});

test("argmax is the first of equals", () => {
  for (const dtype of ["f32", "f64"] as const) {
    const [last, first, kept] = evaluate(
      (x) => [argmax(x), argmax(x, { axis: 0 }), argmax(x, { keepDims: true })],
      [bufferFrom(dtype, [2, 3], [1, 5, 5, 7, 0, 5])],
    );
    expect([last.dtype, last.shape, last.data]).toEqual(["i64", [2], [1, 0]]);
    expect([first.shape, first.data]).toEqual([[3], [1, 0, 0]]);
    expect(kept.shape).toEqual([2, 1]);
  }
});

describe("topK", () => {
  const best = (x: Dense, k: number, axis: number, largest: boolean): Dense => {
    const sorted = mapRows(x, axis, (row) => row.sort((a, b) => (largest ? b - a : a - b)));
    return tabulate(
      x.shape.map((size, i) => (i === axis ? k : size)),
      (...index) => sorted.data[index.reduce((flat, i, a) => flat * x.shape[a] + i, 0)],
    );
  };
  for (const [shape, k, axis, largest] of [
    [[5], 2, 0, true],
    [[2, 4], 3, 1, true],
    [[3, 2, 2], 2, 0, false],
    [[2, 3], 3, 1, false],
    [[2, 1], 1, 1, true],
    [[2, 3], 0, 1, true],
    [[0, 3], 2, 1, true],
  ] as [number[], number, number, boolean][]) {
    checkDerivatives(
      `${k} ${largest ? "largest" : "smallest"} of [${shape}] along ${axis}`,
      (x) => topK(x, k, { axis, largest }).values,
      [shape],
      {
        reference: (x) => best(x, k, axis, largest),
      },
    );
  }
  test("indices point at the values, the first of equals first", () => {
    const [values, indices] = evaluate((x) => Object.values(topK(x, 3)), [bufferFrom("f32", [2, 4], [1, 4, 4, 2, 0, 0, 0, 0])]);
    expect(values.data).toEqual([4, 4, 2, 0, 0, 0]);
    expect(indices.data).toEqual([1, 2, 3, 0, 1, 2]);
  });
  test("of too many is refused", () => {
    expect(() => evaluate((x) => topK(x, 4).values, [bufferOf("f32", randomDense(1, [2, 3]))])).toThrow(
      "topK: expected k between 0 and 3, got 4",
    );
  });
});

test("a wrong axis is named", () => {
  expect(() => evaluate((x) => mean(x, { axes: 2 }), [bufferFrom("f32", [1, 1], [0])])).toThrow("mean: expected an axis in [-2, 2), got 2");
});
