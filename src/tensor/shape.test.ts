import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { broadcastTo, constant, full, onesLike, reshape, scalar, zerosLike } from "./core.ts";
import { mul } from "./elementwise.ts";
import type { Tensor } from "./graph.ts";
import { concat, expandDims, pad, slice, split, squeeze, stack, transpose } from "./shape.ts";
import { checkDerivatives, evaluate } from "./testing/derivatives.ts";
import { at, type Dense, tabulate } from "./testing/reference.ts";

const reshaped = (x: Dense, shape: number[]): Dense => ({ shape, data: x.data });

describe("reshape", () => {
  for (const [from, to, result] of [
    [
      [2, 3],
      [3, 2],
    ],
    [[2, 3], [-1], [6]],
    [[6], [2, -1], [2, 3]],
    [[], [1, 1]],
    [[1], []],
    [
      [2, 2, 3],
      [2, -1],
      [2, 6],
    ],
    [
      [2, 0],
      [0, 5],
    ],
    [
      [0, 4],
      [4, 0],
    ],
    [
      [0, 4],
      [-1, 2],
      [0, 2],
    ],
    [[3, 0, 2], [0]],
  ] as [number[], number[], number[]?][]) {
    checkDerivatives(`[${from}] to [${to}]`, (x) => reshape(x, to), [from], { reference: (x) => reshaped(x, result ?? to) });
  }
  checkDerivatives("twice is once", (x) => reshape(reshape(x, [3, -1]), [2, 2, 3]), [[4, 3]], { reference: (x) => reshaped(x, [2, 2, 3]) });
  test("to the same shape, or there and back, is nothing", () => {
    evaluate(
      (x) => {
        expect(reshape(x, [2, 3])).toBe(x);
        expect(reshape(x, [-1, 3])).toBe(x);
        expect(reshape(reshape(x, [6]), [2, 3])).toBe(x);
        expect(reshape(reshape(x, [6]), [3, 2]).node?.inputs[0]).toBe(x);
        return x;
      },
      [bufferFrom("f32", [2, 3], [1, 2, 3, 4, 5, 6])],
    );
  });
  test("to another number of elements is refused", () => {
    const failing = (shape: number[]) => () => evaluate((x) => reshape(x, shape), [bufferFrom("f32", [2, 3], [1, 2, 3, 4, 5, 6])]);
    expect(failing([2, 2])).toThrow("reshape: expected a shape with as many elements as f32[2, 3], got [2, 2]");
    expect(failing([4, -1])).toThrow("got [4, -1]");
    expect(failing([-1, 0])).toThrow("got [-1, 0]");
    expect(failing([-1, -1])).toThrow("got [-1, -1]");
  });
});

describe("broadcastTo", () => {
  for (const [from, to] of [
    [[], [2, 3]],
    [[3], [2, 3]],
    [
      [2, 1],
      [2, 3],
    ],
    [[1], [1, 1, 2]],
    [
      [2, 1, 2],
      [3, 2, 2, 2],
    ],
    [[1], [0]],
    [
      [2, 1],
      [2, 0],
    ],
    [
      [2, 2],
      [2, 2],
    ],
  ]) {
    checkDerivatives(`[${from}] to [${to}]`, (x) => broadcastTo(x, to), [from], {
      reference: (x) => tabulate(to, (...index) => at(x, index)),
    });
  }
  test("to a smaller or other shape is refused", () => {
    const failing = (shape: number[]) => () => evaluate((x) => broadcastTo(x, shape), [bufferFrom("f32", [2, 1], [1, 2])]);
    expect(failing([1, 3])).toThrow("broadcastTo: expected a shape that f32[2, 1] broadcasts to, got [1, 3]");
    expect(failing([3, 3])).toThrow("broadcastTo: expected shapes that broadcast, got [2, 1] and [3, 3]");
    expect(failing([2])).toThrow("broadcastTo");
  });
});

describe("transpose", () => {
  for (const [shape, perm] of [
    [[2, 3], undefined],
    [[2, 3, 2], undefined],
    [
      [2, 3, 2],
      [2, 0, 1],
    ],
    [
      [2, 1, 3, 2],
      [3, 1, 0, 2],
    ],
    [
      [2, 0],
      [1, 0],
    ],
    [
      [2, 3],
      [0, 1],
    ],
    [[4], [0]],
  ] as [number[], number[] | undefined][]) {
    const order = perm ?? shape.map((_, i) => (i < shape.length - 2 ? i : 2 * shape.length - 3 - i));
    checkDerivatives(`[${shape}] by ${perm ?? "default"}`, (x) => transpose(x, perm), [shape], {
      reference: (x) =>
        tabulate(
          order.map((axis) => shape[axis]),
          (...index) =>
            at(
              x,
              shape.map((_, axis) => index[order.indexOf(axis)]),
            ),
        ),
    });
  }
  checkDerivatives("twice is one", (x) => transpose(transpose(x, [1, 2, 0]), [1, 0, 2]), [[2, 3, 4]], {
    reference: (x) => tabulate([4, 3, 2], (i, j, k) => at(x, [k, j, i])),
  });
  test("of a scalar or a vector, and there and back, is nothing", () => {
    evaluate(
      (x, y) => {
        expect(transpose(transpose(x, [1, 2, 0]), [2, 0, 1])).toBe(x);
        expect(transpose(y)).toBe(y);
        expect(transpose(scalar(y.graph, "f32", 2)).rank).toBe(0);
        return x;
      },
      [bufferFrom("f32", [1, 2, 1], [1, 2]), bufferFrom("f32", [1], [1])],
    );
  });
  test("by anything but a permutation is refused", () => {
    for (const perm of [[0], [0, 0], [0, 2], [1, 0, 2]]) {
      expect(() => evaluate((x) => transpose(x, perm), [bufferFrom("f32", [1, 1], [1])])).toThrow(
        "transpose: expected a permutation of the 2 axes of f32[1, 1]",
      );
    }
  });
});

describe("expandDims and squeeze", () => {
  for (const [axis, shape] of [
    [0, [1, 2, 3]],
    [1, [2, 1, 3]],
    [-1, [2, 3, 1]],
  ] as [number, number[]][]) {
    checkDerivatives(`axis ${axis}`, (x) => expandDims(x, axis), [[2, 3]], { reference: (x) => reshaped(x, shape) });
    checkDerivatives(`axis ${axis} dropped`, (x) => squeeze(x, axis), [shape], { reference: (x) => reshaped(x, [2, 3]) });
  }
  test("an axis of another size is refused", () => {
    expect(() => evaluate((x) => squeeze(x, 0), [bufferFrom("f32", [2, 1], [1, 2])])).toThrow(
      "squeeze: expected axis 0 to have size 1, got f32[2, 1]",
    );
  });
});

describe("slice and pad", () => {
  for (const [shape, axis, start, end] of [
    [[5], 0, 1, 4],
    [[2, 4], 1, -3, undefined],
    [[4, 2], 0, 0, -1],
    [[2, 3, 2], -2, 2, 3],
    [[3], 0, 2, 2],
    [[2, 0], 1, 0, 0],
  ] as [number[], number, number, number | undefined][]) {
    const along = axis < 0 ? axis + shape.length : axis;
    const place = (position: number): number => (position < 0 ? position + shape[along] : position);
    const [from, to] = [place(start), end === undefined ? shape[along] : place(end)];
    checkDerivatives(`[${shape}] from ${start} to ${end} along ${axis}`, (x) => slice(x, axis, start, end), [shape], {
      reference: (x) =>
        tabulate(
          shape.map((size, i) => (i === along ? to - from : size)),
          (...index) =>
            at(
              { ...x, shape: shape.map((size) => size) },
              index.map((i, a) => (a === along ? i + from : i)),
            ),
        ),
    });
  }
  for (const [shape, axis, before, after, value] of [
    [[3], 0, 1, 2, 0],
    [[2, 2], 0, 0, 1, 7],
    [[2, 2, 2], 1, 2, 0, -7],
    [[2, 0], 1, 1, 1, 3],
    [[0, 2], 1, 1, 1, 3],
  ] as [number[], number, number, number, number][]) {
    checkDerivatives(
      `[${shape}] with ${before} and ${after} of ${value} along ${axis}`,
      (x) => pad(x, { axis, before, after, value }),
      [shape],
      {
        reference: (x) =>
          tabulate(
            shape.map((size, i) => (i === axis ? size + before + after : size)),
            (...index) => {
              const i = index[axis] - before;
              return i < 0 || i >= shape[axis]
                ? value
                : x.data[index.reduce((flat, own, a) => flat * shape[a] + (a === axis ? i : own), 0)];
            },
          ),
      },
    );
  }
  test("positions outside, and negative widths, are refused", () => {
    const x = [bufferFrom("f32", [3], [1, 2, 3])];
    expect(() => evaluate((a) => slice(a, 0, 1, 4), x)).toThrow("slice: expected 0 <= start <= end <= 3 along axis 0, got [1, 4)");
    expect(() => evaluate((a) => slice(a, 0, 2, 1), x)).toThrow("got [2, 1)");
    expect(() => evaluate((a) => pad(a, { before: -1 }), x)).toThrow("pad: expected non-negative integers, got -1 and 0");
  });
});

describe("concat, stack and split", () => {
  const joined = (axis: number, ...parts: Dense[]): Dense => {
    const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, { shape }) => sum + shape[axis], 0));
    const size = parts.reduce((sum, { shape }) => sum + shape[axis], 0);
    return tabulate(
      parts[0].shape.map((own, a) => (a === axis ? size : own)),
      (...index) => {
        const part = starts.findLastIndex((start, i) => index[axis] >= start && parts[i].shape[axis] > 0);
        return parts[part].data[index.reduce((flat, i, a) => flat * parts[part].shape[a] + (a === axis ? i - starts[part] : i), 0)];
      },
    );
  };
  for (const [axis, shapes] of [
    [0, [[2], [3]]],
    [
      1,
      [
        [2, 1],
        [2, 2],
        [2, 3],
      ],
    ],
    [
      0,
      [
        [1, 2, 2],
        [2, 2, 2],
      ],
    ],
    [
      1,
      [
        [2, 2],
        [2, 0],
        [2, 1],
      ],
    ],
    [
      0,
      [
        [0, 2],
        [0, 2],
      ],
    ],
  ] as [number, number[][]][]) {
    checkDerivatives(`${shapes.map((shape) => `[${shape}]`)} along ${axis}`, (...x) => concat(x, axis), shapes, {
      reference: (...x) => joined(axis, ...x),
    });
  }
  checkDerivatives("the same tensor twice", (x) => concat([x, x, mul(x, 2)], -1), [[2, 2]], {
    reference: (x) => joined(1, x, x, { shape: x.shape, data: Array.from(x.data, (a) => 2 * a) }),
  });
  checkDerivatives(
    "stack",
    (x, y) => stack([x, y], 1),
    [
      [2, 3],
      [2, 3],
    ],
    {
      reference: (x, y) => tabulate([2, 2, 3], (i, j, k) => at(j === 0 ? x : y, [i, k])),
    },
  );
  for (const [shape, sizes, axis] of [
    [[6], [1, 2, 3], 0],
    [[2, 4], [2, 2], 1],
    [[2, 4], [0, 3, 1], 1],
    [[3, 2], [3], 0],
    [[0, 4], [1, 3], 1],
  ] as [number[], number[], number][]) {
    checkDerivatives(`[${shape}] into ${sizes} along ${axis}`, (x) => split(x, sizes, axis), [shape], {
      reference: (x) =>
        sizes.map((size, part) => {
          const start = sizes.slice(0, part).reduce((a, b) => a + b, 0);
          return tabulate(
            shape.map((own, a) => (a === axis ? size : own)),
            (...index) => x.data[index.reduce((flat, i, a) => flat * shape[a] + (a === axis ? i + start : i), 0)],
          );
        }),
    });
  }
  checkDerivatives("a part that is not used has derivative 0", (x) => split(x, [1, 2], 1)[1], [[2, 3]]);
  test("parts that do not fit are refused", () => {
    const x = [bufferFrom("f32", [2, 2], [1, 2, 3, 4]), bufferFrom("f32", [1, 3], [1, 2, 3]), bufferFrom("i32", [2, 2], [1, 2, 3, 4])];
    expect(() => evaluate((a, b) => concat([a, b], 0), x)).toThrow(
      "concat: expected equal shapes except along axis 0, got f32[2, 2] and f32[1, 3]",
    );
    expect(() => evaluate((a, _, c) => concat([a, c], 0), x)).toThrow("concat: expected one dtype, got f32[2, 2] and i32[2, 2]");
    for (const sizes of [2, [], undefined])
      expect(() => evaluate((a) => split(a, sizes as never, 0), x)).toThrow(
        `split: expected the sizes of at least one part, got ${Array.isArray(sizes) ? "[]" : sizes}`,
      );
    expect(() => evaluate((a) => split(a, [1, 2], 0), x)).toThrow("split: expected sizes that add up to axis 0 of f32[2, 2], got [1, 2]");
    expect(() => evaluate(() => concat([]), x)).toThrow("concat: expected at least one tensor, got none");
  });
});

describe("constants", () => {
  test("of every dtype", () => {
    const outputs = evaluate(
      (x) => {
        const { graph } = x;
        return [
          constant(graph, "f64", [2], Float64Array.of(1.5, -0)),
          constant(graph, "i32", [1, 1], Int32Array.of(7)),
          constant(graph, "i64", [], BigInt64Array.of(2n ** 40n)),
          constant(graph, "bool", [2], Uint8Array.of(0, 1)),
          constant(graph, "i8", [1], Int8Array.of(-3)),
          constant(graph, "f32", [0, 3], new Float32Array(0)),
          full(graph, "i64", [2], 5),
          full(graph, "f32", [0], 5),
          zerosLike(x),
          onesLike(x),
        ];
      },
      [bufferFrom("f32", [2], [3, 4])],
    );
    expect(outputs.map(({ dtype, shape, data }) => [dtype, shape, data])).toEqual([
      ["f64", [2], [1.5, 0]],
      ["i32", [1, 1], [7]],
      ["i64", [], [2 ** 40]],
      ["bool", [2], [0, 1]],
      ["i8", [1], [-3]],
      ["f32", [0, 3], []],
      ["i64", [2], [5, 5]],
      ["f32", [0], []],
      ["f32", [2], [0, 0]],
      ["f32", [2], [1, 1]],
    ]);
  });
  test("large ones are stored each, small ones once", () => {
    const large = (x: Tensor, first: number): Tensor =>
      constant(
        x.graph,
        "f32",
        [20],
        Float32Array.from({ length: 20 }, (_, i) => first + i),
      );
    const [sum, shared] = evaluate(
      (x) => {
        expect(scalar(x.graph, "f32", 2)).toBe(scalar(x.graph, "f32", 2));
        expect(scalar(x.graph, "f32", 0)).not.toBe(scalar(x.graph, "f32", -0));
        return [mul(large(x, 0), large(x, 1)), mul(x, scalar(x.graph, "f32", Number.NaN))];
      },
      [bufferFrom("f32", [1], [3])],
    );
    expect(sum.data).toEqual(Array.from({ length: 20 }, (_, i) => i * (i + 1)));
    expect(shared.data).toEqual([Number.NaN]);
  });
  test("of another type or length are refused", () => {
    const failing = (fn: (x: Tensor) => Tensor) => () => evaluate(fn, [bufferFrom("f32", [1], [3])]);
    expect(failing((x) => constant(x.graph, "i32", [2], Float32Array.of(1, 2)))).toThrow(
      "constant: expected 2 elements of i32 for [2], got 2 of Float32Array",
    );
    expect(failing((x) => constant(x.graph, "f32", [3], Float32Array.of(1, 2)))).toThrow(
      "constant: expected 3 elements of f32 for [3], got 2 of Float32Array",
    );
  });
});
