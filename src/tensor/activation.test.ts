import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import {
  atanh,
  elu,
  eluPlusOne,
  gelu,
  huber,
  leakyRelu,
  logSigmoid,
  quickGelu,
  relu,
  silu,
  softCap,
  softplus,
  squaredRelu,
} from "./activation.ts";
import { sum } from "./core.ts";
import { gradients } from "./gradient.ts";
import type { Tensor } from "./graph.ts";
import { checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { elementwise } from "./testing/reference.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const activations: [name: string, fn: (x: Tensor) => Tensor, reference: ((x: number) => number) | undefined, range?: [number, number]][] = [
  ["relu", relu, (x) => Math.max(x, 0)],
  ["silu", silu, (x) => x * sigmoid(x)],
  ["quickGelu", quickGelu, (x) => x * sigmoid(1.702 * x)],
  // Values of the exact one are checked against the table below.
  ["gelu", gelu, undefined, [-3, 3]],
  [
    "gelu tanh",
    (x) => gelu(x, { approximate: "tanh" }),
    (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  ],
  ["softplus", softplus, (x) => Math.log1p(Math.exp(x))],
  ["logSigmoid", logSigmoid, (x) => Math.log(sigmoid(x))],
  ["elu", elu, (x) => (x > 0 ? x : Math.expm1(x))],
  ["elu with alpha", (x) => elu(x, { alpha: 0.3 }), (x) => (x > 0 ? x : 0.3 * Math.expm1(x))],
  ["eluPlusOne", eluPlusOne, (x) => (x > 0 ? x + 1 : Math.exp(x))],
  ["leakyRelu", (x) => leakyRelu(x, { slope: 0.1 }), (x) => (x > 0 ? x : 0.1 * x)],
  ["squaredRelu", squaredRelu, (x) => Math.max(x, 0) ** 2],
  ["softCap", (x) => softCap(x, 3), (x) => 3 * Math.tanh(x / 3)],
  ["huber", huber, (x) => (Math.abs(x) < 1 ? (x * x) / 2 : Math.abs(x) - 0.5)],
  ["huber with delta", (x) => huber(x, { delta: 0.5 }), (x) => (Math.abs(x) < 0.5 ? (x * x) / 2 : 0.5 * (Math.abs(x) - 0.25))],
  ["atanh", atanh, Math.atanh, [-0.8, 0.8]],
];

describe.each(activations)("%s", (_, fn, reference, range) => {
  for (const shape of [[], [2, 1, 3]]) {
    checkDerivatives(`[${shape}]`, fn, [shape], { reference: reference && ((x) => elementwise(reference, x)), range });
  }
});

describe("high-precision values", () => {
  // [x, gelu, gelu tanh, silu, softplus], from 120-digit arithmetic.
  const table = [
    [-40, 0, 0, -1.6993417021166355e-16, 4.248354255291589e-18],
    [-6, -5.9195258702261885e-9, -8.439646700762297e-11, -0.014835738939808645, 0.0024756851377304495],
    [-3, -0.0040496940948902835, -0.003637392081773019, -0.14227761953270035, 0.04858735157374206],
    [-1.5, -0.1002108019032871, -0.10042842301976708, -0.2736382857095345, 0.2014132779827524],
    [-0.5, -0.15426876936299344, -0.15428599017485609, -0.18877033439907273, 0.4740769841801067],
    [-1e-4, -4.9996010577202634e-5, -4.999601057720267e-5, -4.9997500000002084e-5, 0.6930971818099453],
    [0, 0, 0, 0, Math.LN2],
    [0.3, 0.1853734266566858, 0.18537092354275925, 0.1723327550434977, 0.8543552444685271],
    [1, 0.8413447460685429, 0.8411919906082767, 0.7310585786300049, 1.3132616875182228],
    [2, 1.9544997361036416, 1.954597694087775, 1.7615941559557649, 2.1269280110429727],
    [3.5, 3.4991857982233756, 3.499383802344626, 3.397407192370253, 3.5297504182726205],
    [6, 5.999999994080474, 5.9999999999156035, 5.985164261060191, 6.00247568513773],
    [40, 40, 40, 40, 40],
  ];
  const x = table.map(([at]) => at);
  const columns = (x: Tensor): Tensor[] => [gelu(x), gelu(x, { approximate: "tanh" }), silu(x), softplus(x)];
  const names = ["gelu", "gelu tanh", "silu", "softplus"];
  test.each([
    ["f64", 4e-16],
    ["f32", 4e-7],
  ] as const)("%s", (dtype, tolerance) => {
    const outputs = evaluate(columns, [bufferFrom(dtype, [x.length], x)]);
    for (const [i, { data }] of outputs.entries()) {
      for (const [j, value] of data.entries()) {
        const expected = table[j][i + 1];
        const error = Math.abs(value - expected);
        expect(error, `${names[i]}(${x[j]}): ${value} for ${expected}`).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(x[j])));
      }
    }
  });
});

describe("extreme inputs", () => {
  // Limits for x → −∞ and +∞ of the value and the derivative, where they are finite.
  const limits: [name: string, fn: (x: Tensor) => Tensor, low: number, high: (x: number) => number][] = [
    ["relu", relu, 0, (x) => x],
    ["silu", silu, 0, (x) => x],
    ["quickGelu", quickGelu, 0, (x) => x],
    ["gelu", gelu, 0, (x) => x],
    ["gelu tanh", (x) => gelu(x, { approximate: "tanh" }), 0, (x) => x],
    ["softplus", softplus, 0, (x) => x],
    ["elu", elu, -1, (x) => x],
    ["eluPlusOne", eluPlusOne, 0, (x) => x + 1],
    ["softCap", (x) => softCap(x, 30), -30, () => 30],
  ];
  test.each(limits)("%s and its derivatives stay finite", (name, fn, low, high) => {
    const inputs = [-1e30, -1e10, -1e4, -200, 200, 1e4, 1e10, 1e30].filter((x) => name !== "gelu tanh" || Math.abs(x) < 1e12);
    for (const dtype of ["f32", "f64"] as const) {
      const [y, first, second] = evaluate(
        (x) => {
          const value = fn(x);
          const [slope] = gradients(sum(value), [x]);
          return [value, slope, gradients(sum(slope), [x])[0]];
        },
        [bufferFrom(dtype, [inputs.length], inputs)],
      );
      const slopes = inputs.map((x) => (x > 0 && high(1) !== high(2) ? 1 : 0));
      close(
        `${name} ${dtype}`,
        y.data.map((value, i) => value / Math.max(1, Math.abs(inputs[i]))),
        inputs.map((x) => (x < 0 ? low : high(x)) / Math.max(1, Math.abs(x))),
        1e-3,
      );
      close(`slope of ${name} ${dtype}`, first.data, slopes, 1e-2);
      close(
        `curvature of ${name} ${dtype}`,
        second.data,
        inputs.map(() => 0),
        1e-2,
      );
    }
  });

  test("logSigmoid falls linearly", () => {
    const [y, g] = evaluate((x) => [logSigmoid(x), gradients(sum(logSigmoid(x)), [x])[0]], [bufferFrom("f32", [3], [-1e30, 0, 1e30])]);
    close("logSigmoid", [y.data[0] / 1e30, y.data[1], y.data[2]], [-1, -Math.LN2, 0], 1e-6);
    expect(g.data).toEqual([1, 0.5, 0]);
  });
});

test("slopes at 0", () => {
  const slope = (fn: (x: Tensor) => Tensor): number =>
    evaluate((x) => gradients(sum(fn(x)), [x])[0], [bufferFrom("f64", [1], [0])])[0].data[0];
  expect([relu, leakyRelu, elu, eluPlusOne, squaredRelu, huber].map(slope)).toEqual([0, 0.01, 1, 1, 0, 0]);
});

test("an integer tensor is refused", () => {
  expect(() => evaluate((x) => gelu(x), [bufferFrom("i64", [1], [0])])).toThrow("gelu: expected a floating-point tensor, got i64[1]");
});
