import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { broadcastTo, full, stopGradient, sum } from "./core.ts";
import {
  abs,
  add,
  cast,
  ceil,
  clamp,
  cos,
  div,
  equal,
  erf,
  exp,
  finite,
  floor,
  greater,
  greaterEqual,
  isNan,
  less,
  lessEqual,
  log,
  logicalAnd,
  logicalNot,
  logicalOr,
  maximum,
  minimum,
  mul,
  neg,
  notEqual,
  type Operand,
  pow,
  reciprocal,
  round,
  rsqrt,
  sigmoid,
  sign,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  where,
} from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import type { Tensor } from "./graph.ts";
import { bufferOf, checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { elementwise, randomDense } from "./testing/reference.ts";

type Binary = (a: Operand, b: Operand) => Tensor;
const arithmetic: [name: string, fn: Binary, reference: (a: number, b: number) => number, range: [number, number]][] = [
  ["add", add, (a, b) => a + b, [-2, 2]],
  ["sub", sub, (a, b) => a - b, [-2, 2]],
  ["mul", mul, (a, b) => a * b, [-2, 2]],
  ["div", div, (a, b) => a / b, [0.5, 2]],
  ["pow", pow, (a, b) => a ** b, [0.5, 2]],
  ["maximum", maximum, Math.max, [-2, 2]],
  ["minimum", minimum, Math.min, [-2, 2]],
];

const broadcasts: [a: number[], b: number[]][] = [
  [[], []],
  [[3], []],
  [[], [2, 3]],
  [
    [2, 3],
    [2, 3],
  ],
  [
    [2, 3],
    [1, 3],
  ],
  [
    [2, 1],
    [2, 3],
  ],
  [
    [2, 1],
    [1, 3],
  ],
  [[3], [2, 3]],
  [
    [2, 2, 3],
    [2, 1, 3],
  ],
  [
    [1, 2, 1],
    [2, 1, 2],
  ],
  [
    [2, 1, 2, 1],
    [3, 1, 2],
  ],
  [[1], [1, 1]],
  [[0], [1]],
  [
    [2, 0],
    [1, 1],
  ],
  [
    [2, 0, 3],
    [1, 0, 1],
  ],
];

describe.each(arithmetic)("%s", (name, fn, reference, range) => {
  // All of them go through the same rule; the two with the most different derivatives meet every pair of shapes.
  for (const [a, b] of name === "add" || name === "div" ? broadcasts : broadcasts.slice(5, 8)) {
    checkDerivatives(`[${a}] and [${b}]`, (x, y) => fn(x, y), [a, b], { reference: (x, y) => elementwise(reference, x, y), range });
  }
  checkDerivatives("a number on the right", (x) => fn(x, 0.7), [[2, 3]], {
    reference: (x) => elementwise((a) => reference(a, 0.7), x),
    range,
  });
  checkDerivatives("a number on the left", (x) => fn(1.3, x), [[2, 3]], {
    reference: (x) => elementwise((a) => reference(1.3, a), x),
    range,
  });
  checkDerivatives("an operand twice", (x) => fn(x, x), [[2, 2]], { reference: (x) => elementwise((a) => reference(a, a), x), range });
});

test("numbers alone are refused", () => {
  expect(() => add(1, 2)).toThrow("add: expected at least one tensor, got 1 and 2");
});

describe("pow with a constant exponent", () => {
  for (const exponent of [-2, -0.5, 0, 0.5, 1, 2, 3, 4]) {
    const reference = (a: number): number => a ** exponent;
    checkDerivatives(`${exponent}`, (x) => pow(x, exponent), [[4]], { reference: (x) => elementwise(reference, x), range: [0.5, 2] });
    if (Number.isInteger(exponent)) {
      checkDerivatives(`${exponent} of a negative base`, (x) => pow(x, exponent), [[3]], {
        reference: (x) => elementwise(reference, x),
        range: [-2, -0.5],
      });
    }
    checkDerivatives(`${exponent}, broadcast`, (x) => pow(x, full(x.graph, x.dtype, [3, 2], exponent)), [[2]], {
      reference: (x) =>
        elementwise(
          reference,
          elementwise((a) => a, x, { shape: [3, 2], data: new Float64Array(6) }),
        ),
      range: [0.5, 2],
    });
  }
});

const functions: [name: string, fn: (x: Tensor) => Tensor, reference: (x: number) => number, range?: [number, number]][] = [
  ["neg", neg, (x) => -x],
  ["abs", abs, Math.abs],
  ["sign", sign, Math.sign],
  ["exp", exp, Math.exp],
  ["log", log, Math.log, [0.3, 3]],
  ["sqrt", sqrt, Math.sqrt, [0.3, 3]],
  ["rsqrt", rsqrt, (x) => 1 / Math.sqrt(x), [0.3, 3]],
  ["reciprocal", reciprocal, (x) => 1 / x, [0.3, 3]],
  ["square", square, (x) => x * x],
  ["sin", sin, Math.sin],
  ["cos", cos, Math.cos],
  ["tanh", tanh, Math.tanh],
  ["sigmoid", sigmoid, (x) => 1 / (1 + Math.exp(-x))],
  ["floor", floor, Math.floor],
  ["ceil", ceil, Math.ceil],
  ["round", round, Math.round],
  ["clamp", (x) => clamp(x, -1, 0.5), (x) => Math.min(Math.max(x, -1), 0.5)],
];

describe.each(functions)("%s", (_, fn, reference, range) => {
  for (const shape of [[], [1, 2, 2, 2]]) {
    checkDerivatives(`[${shape}]`, fn, [shape], { reference: (x) => elementwise(reference, x), range });
  }
});

checkDerivatives("a function of nothing", (x) => tanh(exp(x)), [[2, 0]], { reference: (x) => x });

test("round takes halves to even", () => {
  const [y] = evaluate(round, [bufferFrom("f64", [6], [-1.5, -0.5, 0.5, 1.5, 2.5, 2.4])]);
  expect(y.data).toEqual([-2, 0, 0, 2, 2, 2]);
});

describe("erf", () => {
  // The Maclaurin series in 120-digit arithmetic.
  const table: [x: number, erf: number][] = [
    [0, 0],
    [1e-8, 1.1283791670955126e-8],
    [0.001, 0.0011283787909692365],
    [0.1, 0.1124629160182849],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [1.5, 0.9661051464753108],
    [2, 0.9953222650189527],
    [2.4, 0.999311486103355],
    [2.4999, 0.9995928300996666],
    [2.5, 0.999593047982555],
    [2.5001, 0.9995932657565293],
    [3, 0.9999779095030014],
    [4, 0.9999999845827421],
    [6, 1],
    [40, 1],
  ];
  const x = table.map(([at]) => at);
  const expected = table.map(([, value]) => value);

  test("float64 is exact to 2e-15, odd, and right in relative terms near 0", () => {
    const [y, z] = evaluate((a) => [erf(a), erf(neg(a))], [bufferFrom("f64", [x.length], x)]);
    for (const [i, value] of expected.entries()) {
      expect(Math.abs(y.data[i] - value), `erf(${x[i]})`).toBeLessThan(2e-15);
      if (x[i] > 0 && x[i] < 1) expect(Math.abs(y.data[i] / value - 1), `erf(${x[i]})`).toBeLessThan(1e-15);
      expect(z.data[i]).toBe(0 - y.data[i]);
    }
  });

  test("float32 agrees with the table", () => {
    const [y] = evaluate(erf, [bufferFrom("f32", [x.length], x)]);
    close("erf", y.data, expected, 1e-6);
  });

  checkDerivatives("derivatives", erf, [[2, 3]], { range: [-3, 3] });
});

describe("comparisons and logic", () => {
  const comparisons: [name: string, fn: Binary, reference: (a: number, b: number) => boolean][] = [
    ["equal", equal, (a, b) => a === b],
    ["notEqual", notEqual, (a, b) => a !== b],
    ["less", less, (a, b) => a < b],
    ["lessEqual", lessEqual, (a, b) => a <= b],
    ["greater", greater, (a, b) => a > b],
    ["greaterEqual", greaterEqual, (a, b) => a >= b],
  ];
  const a = { shape: [2, 1, 3], data: [-1, 0, 1, 2, 0, -2] };
  const b = { shape: [2, 1], data: [0, 1] };
  const dtypes = ["f32", "f64", "i32", "i64"] as const;
  test.each(comparisons)("%s", (_, fn, reference) => {
    for (const dtype of dtypes) {
      const [y, number] = evaluate((p, q) => [fn(p, q), fn(0, p)], [bufferOf(dtype, a), bufferOf(dtype, b)]);
      expect([y.dtype, y.shape]).toEqual(["bool", [2, 2, 3]]);
      expect(y.data).toEqual(Array.from(elementwise((p, q) => Number(reference(p, q)), a, b).data));
      expect(number.data).toEqual(a.data.map((p) => Number(reference(0, p))));
    }
  });

  test("logicalAnd, logicalOr, logicalNot", () => {
    const inputs = [bufferFrom("bool", [2, 1], [0, 1]), bufferFrom("bool", [2], [0, 1])];
    const outputs = evaluate((p, q) => [logicalAnd(p, q), logicalOr(p, q), logicalNot(p)], inputs);
    expect(outputs.map(({ data }) => data)).toEqual([
      [0, 0, 0, 1],
      [0, 1, 1, 1],
      [1, 0],
    ]);
  });

  test("isNan and finite", () => {
    for (const dtype of ["f32", "f64"] as const) {
      const values = bufferFrom(dtype, [6], [0, -1e30, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38]);
      const outputs = evaluate((x) => [isNan(x), finite(x)], [values]);
      expect(outputs.map(({ data }) => data)).toEqual([
        [0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 1],
      ]);
    }
  });
});

describe("where", () => {
  const shapes: [condition: number[], a: number[], b: number[]][] = [
    [
      [2, 3],
      [2, 3],
      [2, 3],
    ],
    [[3], [2, 3], []],
    [[2, 1], [3], [1, 3]],
    [[2, 1, 1], [3, 1], [2]],
    [[], [2], [2]],
    [[0], [1], [1]],
  ];
  for (const [condition, a, b] of shapes) {
    const bits = elementwise((x) => Number(x > 0), randomDense(5, condition));
    checkDerivatives(`[${condition}] ? [${a}] : [${b}]`, (x, y, c) => where(c, x, y), [a, b], {
      others: [bufferOf("bool", bits)],
      reference: (x, y, c) => elementwise((p, q, r) => (r ? p : q), x, y, c),
    });
  }
  checkDerivatives("numbers on one side", (x) => [where(greater(x, 0), x, 3), where(greater(x, 0), -1, x)], [[5]], {
    reference: (x) => [elementwise((a) => (a > 0 ? a : 3), x), elementwise((a) => (a > 0 ? -1 : a), x)],
  });

  test("the side that is not taken stays out of the derivative, even when it is not finite", () => {
    const [y, g] = evaluate(
      (x) => {
        const safe = where(greater(x, 0), x, 1);
        const value = where(greater(x, 0), log(safe), 0);
        return [value, gradients(sum(value), [x])[0]];
      },
      [bufferFrom("f64", [3], [-1, 0, 2])],
    );
    expect(y.data).toEqual([0, 0, Math.log(2)]);
    expect(g.data).toEqual([0, 0, 0.5]);
  });
});

describe("at kinks", () => {
  const slopes = (fn: (x: Tensor, y: Tensor) => Tensor, x: number[], y: number[]): number[][] =>
    evaluate((a, b) => gradients(sum(fn(a, b)), [a, b]), [bufferFrom("f64", [x.length], x), bufferFrom("f64", [y.length], y)]).map(
      ({ data }) => data,
    );
  test("maximum and minimum give a tie to the first operand", () => {
    expect(slopes(maximum, [1, 2, 3], [2, 2, 2])).toEqual([
      [0, 1, 1],
      [1, 0, 0],
    ]);
    expect(slopes(minimum, [1, 2, 3], [2, 2, 2])).toEqual([
      [1, 1, 0],
      [0, 0, 1],
    ]);
  });
  test("abs has slope 0 at 0, clamp 1 on its borders", () => {
    expect(slopes((x) => abs(x), [-1, 0, 1], [0])[0]).toEqual([-1, 0, 1]);
    expect(slopes((x) => clamp(x, -1, 1), [-2, -1, 0, 1, 2], [0])[0]).toEqual([0, 1, 1, 1, 0]);
  });
  test("pow at base 0", () => {
    expect(slopes((x) => pow(x, 3), [0], [0])[0]).toEqual([0]);
    expect(slopes(pow, [0, 0], [2, 3])[1]).toEqual([0, 0]);
  });
});

describe("cast", () => {
  test("truncates towards zero, and makes 0 and 1 of bool", () => {
    const [y, z] = evaluate(
      (x, b) => [cast(x, "i64"), cast(b, "f32")],
      [bufferFrom("f64", [4], [-1.7, -0.2, 0.9, 2]), bufferFrom("bool", [2], [0, 1])],
    );
    expect(y.data).toEqual([-1, 0, 0, 2]);
    expect([z.dtype, ...z.data]).toEqual(["f32", 0, 1]);
  });
  test("a derivative goes through floats and stops at integers", () => {
    const [g, h] = evaluate(
      (x) => {
        const smooth = sum(square(cast(cast(x, "f32"), "f64")));
        const cut = sum(mul(x, cast(cast(x, "i32"), "f64")));
        return [gradients(smooth, [x])[0], gradients(cut, [x])[0]];
      },
      [bufferFrom("f64", [2], [1.5, -2.5])],
    );
    expect(g.data).toEqual([3, -5]);
    expect(h.data).toEqual([1, -2]);
  });
});

describe("simplifications keep values, shapes and derivatives", () => {
  const same = (a: number): number => a;
  const cases: [name: string, fn: (x: Tensor) => Tensor, reference: (x: number) => number][] = [
    ["x · 1", (x) => mul(x, 1), same],
    ["1 · x", (x) => mul(1, x), same],
    ["x + 0", (x) => add(x, 0), same],
    ["0 + x", (x) => add(0, x), same],
    ["x − 0", (x) => sub(x, 0), same],
    ["0 − x", (x) => sub(0, x), (a) => -a],
    ["x / 1", (x) => div(x, 1), same],
    ["1 / x", (x) => div(1, x), (a) => 1 / a],
    ["−−x", (x) => neg(neg(x)), same],
    ["x · 0", (x) => mul(x, 0), () => 0],
    ["constants multiplied", (x) => mul(x, mul(full(x.graph, x.dtype, [2, 1], 3), full(x.graph, x.dtype, [3], -0.5))), (a) => -1.5 * a],
  ];
  for (const [name, fn, reference] of cases) {
    checkDerivatives(name, fn, [[2, 3]], { reference: (x) => elementwise(reference, x), range: [0.5, 2] });
  }
  test("those of the identity add no node", () => {
    evaluate(
      (x) => {
        for (const y of [mul(x, 1), mul(1, x), add(x, 0), add(0, x), sub(x, 0), div(x, 1), neg(neg(x)), pow(x, 1), cast(x, "f32")]) {
          expect(y).toBe(x);
        }
        return x;
      },
      [bufferFrom("f32", [2], [1, 2])],
    );
  });
  const wide = (x: Tensor, value: number): Tensor => full(x.graph, x.dtype, [2, 3], value);
  const widen: [name: string, fn: (x: Tensor) => Tensor, reference: (x: number) => number][] = [
    ["x · ones", (x) => mul(x, wide(x, 1)), same],
    ["ones · x", (x) => mul(wide(x, 1), x), same],
    ["x + zeros", (x) => add(x, wide(x, 0)), same],
    ["zeros + x", (x) => add(wide(x, 0), x), same],
    ["x − zeros", (x) => sub(x, wide(x, 0)), same],
    ["x / ones", (x) => div(x, wide(x, 1)), same],
    ["x to [2, 3]", (x) => broadcastTo(x, [2, 3]), same],
  ];
  for (const [name, fn, reference] of widen) {
    checkDerivatives(`${name} of a larger shape broadcasts`, fn, [[3]], {
      reference: (x) => elementwise((a) => reference(a), x, { shape: [2, 3], data: new Float64Array(6) }),
    });
  }
});

test("stopGradient keeps the value and cuts the derivative", () => {
  const [y, g] = evaluate(
    (x) => {
      const value = mul(x, stopGradient(square(x)));
      return [value, gradients(sum(value), [x])[0]];
    },
    [bufferFrom("f64", [2], [2, 3])],
  );
  expect([y.data, g.data]).toEqual([
    [8, 27],
    [4, 9],
  ]);
});

describe("mistakes", () => {
  const failing = (fn: (x: Tensor, y: Tensor) => Tensor) => () =>
    evaluate(fn, [bufferFrom("f32", [2], [1, 2]), bufferFrom("i64", [3], [1, 2, 3])]);
  test("are named with both types", () => {
    expect(failing((x) => add(x, full(x.graph, "f32", [3], 1)))).toThrow("add: expected shapes that broadcast, got [2] and [3]");
    expect(failing((x) => mul(x, cast(x, "i64")))).toThrow("mul: expected one dtype, got f32[2] and i64[2]");
    expect(failing((_, y) => exp(y))).toThrow("exp: expected a floating-point tensor, got i64[3]");
    expect(failing((x, y) => where(x, y, y))).toThrow("where: expected a bool condition, got f32[2]");
    expect(failing((_, y) => mul(y, 0.5))).toThrow("scalar: expected an integer for i64, got 0.5");
  });
});

describe("operands that were repeated explicitly", () => {
  checkDerivatives("both repeated keep the shape", (a, b) => mul(broadcastTo(a, [2, 3]), broadcastTo(b, [2, 3])), [[3], [2, 1]]);
  checkDerivatives("both repeated from scalars", (a, b) => sub(broadcastTo(a, [2, 2]), broadcastTo(b, [2, 2])), [[], []]);
  checkDerivatives("one repeated", (a, b) => div(broadcastTo(a, [2, 3]), add(2, square(b))), [
    [1, 3],
    [2, 3],
  ]);
});
