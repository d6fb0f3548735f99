import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { sum } from "./core.ts";
import { mul } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import type { Tensor } from "./graph.ts";
import { entropyFromLogits, l2Normalize, layerNorm, logSoftmax, rmsNorm, softmax } from "./norm.ts";
import { checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { at, type Dense, elementwise, mapRows, reduce, total } from "./testing/reference.ts";

const probabilities = (row: number[]): number[] => {
  const weights = row.map((x) => Math.exp(x - Math.max(...row)));
  return weights.map((weight) => weight / total(weights));
};
const shapes: [shape: number[], axis: number][] = [
  [[4], 0],
  [[2, 3], -1],
  [[2, 3], 0],
  [[2, 3, 2], 1],
  [[1, 2, 2, 3], -1],
  [[2, 1], 1],
  [[2, 0], 1],
  [[0, 2], 1],
];

describe("softmax", () => {
  for (const [shape, axis] of shapes) {
    checkDerivatives(`[${shape}] along ${axis}`, (x) => softmax(x, axis), [shape], {
      reference: (x) => mapRows(x, (axis + shape.length) % shape.length, probabilities),
    });
  }
});

describe("logSoftmax", () => {
  for (const [shape, axis] of shapes) {
    checkDerivatives(`[${shape}] along ${axis}`, (x) => logSoftmax(x, axis), [shape], {
      reference: (x) => mapRows(x, (axis + shape.length) % shape.length, (row) => probabilities(row).map(Math.log)),
    });
  }
});

describe("entropyFromLogits", () => {
  for (const shape of [[4], [2, 3], [2, 1, 3], [2, 1], [0, 3]]) {
    checkDerivatives(`[${shape}]`, entropyFromLogits, [shape], {
      reference: (x) => reduce(x, [shape.length - 1], false, (row) => -total(probabilities(row).map((p) => p * Math.log(p)))),
    });
  }
});

describe("softmax of extreme inputs in float32", () => {
  const rows = [
    [1e30, -1e30, 0, 1],
    [-1e30, -1e30, -1e30, -1e30],
    [-1e30, 3, -1e30, 3],
    [3e38, -3e38, 3e38, 0],
    [-1e4, -1e4 - 1, -1e4 - 2, -1e30],
    [0, 100, -100, 88],
  ];
  const x = bufferFrom("f32", [6, 4], rows.flat());
  const exact = rows.flatMap((row) => probabilities(row.map(Math.fround)));
  const threefold = (fn: (x: Tensor) => Tensor): number[][] =>
    evaluate(
      (logits) => {
        const y = fn(logits);
        // Weights that are not constant along a row: the derivative of a softmax's sum is 0.
        const weights = mul(y, 0.5);
        const [first] = gradients(sum(mul(y, weights)), [logits]);
        return [y, first, gradients(sum(mul(first, first)), [logits])[0]];
      },
      [x],
    ).map(({ data }) => data);

  test("softmax", () => {
    const [y, first, second] = threefold(softmax);
    close("softmax", y, exact, 1e-6);
    expect([...first, ...second].every(Number.isFinite)).toBe(true);
  });
  test("logSoftmax", () => {
    const [y] = threefold(logSoftmax);
    expect(y.every((value) => value <= 0)).toBe(true);
    close("exp of logSoftmax", y.map(Math.exp), exact, 2e-4);
    const [first, second] = evaluate(
      (logits) => {
        const [g] = gradients(sum(logSoftmax(logits), { axes: [0, 1] }), [logits]);
        return [g, gradients(sum(mul(g, g)), [logits])[0]];
      },
      [bufferFrom("f32", [5, 4], [...rows.slice(0, 3), ...rows.slice(4)].flat())],
    );
    expect([...first.data, ...second.data].every(Number.isFinite)).toBe(true);
  });
  test("entropy", () => {
    const masked = rows.filter((_, i) => i !== 3);
    const [y, first, second] = evaluate(
      (logits) => {
        const value = entropyFromLogits(logits);
        const [g] = gradients(sum(value), [logits]);
        return [value, g, gradients(sum(mul(g, g)), [logits])[0]];
      },
      [bufferFrom("f32", [5, 4], masked.flat())],
    );
    const entropy = masked.map((row) => -total(probabilities(row.map(Math.fround)).map((p) => (p > 0 ? p * Math.log(p) : 0))));
    close("entropy", y.data, entropy, 1e-3);
    expect([...first.data, ...second.data].every(Number.isFinite)).toBe(true);
  });
});

describe("layerNorm and rmsNorm", () => {
  const normalised = (x: Dense, scale: Dense, bias: Dense | undefined, epsilon: number, centre: boolean): Dense => {
    const axis = x.shape.length - 1;
    const rows = mapRows(x, axis, (row) => {
      const mean = centre ? total(row) / row.length : 0;
      const spread = Math.sqrt(total(row.map((value) => (value - mean) ** 2)) / row.length + epsilon);
      return row.map((value) => (value - mean) / spread);
    });
    const scaled = elementwise((a, b) => a * b, rows, scale);
    return bias ? elementwise((a, b) => a + b, scaled, bias) : scaled;
  };
  for (const shape of [[4], [3, 4], [2, 1, 3], [1, 2, 2, 3], [2, 1], [0, 3]]) {
    const width = [shape.at(-1) as number];
    checkDerivatives(`layerNorm [${shape}]`, (x, scale, bias) => layerNorm(x, scale, bias), [shape, width, width], {
      reference: (x, scale, bias) => normalised(x, scale, bias, 1e-5, true),
      tolerance: 1e-6,
      // A row of one element is divided by √ε: its derivative is a difference of large equal terms.
      float32: width[0] === 1 ? false : 1e-5,
    });
    checkDerivatives(`rmsNorm [${shape}]`, (x, scale) => rmsNorm(x, scale), [shape, width], {
      reference: (x, scale) => normalised(x, scale, undefined, 1e-6, false),
      tolerance: 1e-6,
      range: width[0] === 1 ? [0.5, 2] : [-2, 2],
    });
  }
  checkDerivatives("layerNorm without bias, other epsilon", (x, scale) => layerNorm(x, scale, undefined, { epsilon: 0.1 }), [[2, 3], [3]], {
    reference: (x, scale) => normalised(x, scale, undefined, 0.1, true),
  });
  checkDerivatives("rmsNorm, other epsilon", (x, scale) => rmsNorm(x, scale, { epsilon: 0.1 }), [[2, 3], [3]], {
    reference: (x, scale) => normalised(x, scale, undefined, 0.1, false),
  });
  // A single leaf in both places: the cotangents of the statistics meet those of the rows.
  checkDerivatives("rmsNorm of a row scaled by itself", (x) => rmsNorm(x, x), [[4]]);
  checkDerivatives("two norms in a row", (x, a, b) => layerNorm(rmsNorm(x, a), b), [[2, 4], [4], [4]], { tolerance: 1e-6 });

  test("large, small, constant and zero rows in float32", () => {
    const rows = [
      [1e15, -1e15, 5e14, 0],
      [1e-20, -1e-20, 5e-21, 0],
      [7, 7, 7, 7],
      [0, 0, 0, 0],
      [1e6, 1e6 + 1, 1e6 - 1, 1e6],
    ];
    const inputs = [bufferFrom("f32", [5, 4], rows.flat()), bufferFrom("f32", [4], [1, 2, -1, 0.5])];
    for (const [name, norm, centre, epsilon] of [
      ["layerNorm", layerNorm, true, 1e-5],
      ["rmsNorm", rmsNorm, false, 1e-6],
    ] as const) {
      const [y, first, second] = evaluate((x, scale) => {
        const value = norm(x, scale);
        const [g] = gradients(sum(mul(value, value)), [x]);
        return [value, g, gradients(sum(g), [x])[0]];
      }, inputs);
      const expected = normalised({ shape: [5, 4], data: rows.flat() }, { shape: [4], data: [1, 2, -1, 0.5] }, undefined, epsilon, centre);
      close(name, y.data, expected.data, centre ? 1e-2 : 1e-5);
      expect([...first.data, ...second.data].every(Number.isFinite), `derivatives of ${name}`).toBe(true);
    }
  });
  test("a scale of another size is refused", () => {
    const inputs = [bufferFrom("f32", [2, 3], new Float32Array(6)), bufferFrom("f32", [2], [1, 2])];
    expect(() => evaluate((x, scale) => layerNorm(x, scale), inputs)).toThrow(
      "layerNorm: expected scale and bias of the size of the last axis of f32[2, 3], got f32[2]",
    );
    expect(() => evaluate((x, scale) => rmsNorm(x, scale), inputs)).toThrow("rmsNorm: expected scale");
  });
});

describe("l2Normalize", () => {
  for (const [shape, axis] of [
    [[4], -1],
    [[2, 3], -1],
    [[2, 3], 0],
    [[2, 0], 1],
  ] as [number[], number][]) {
    const along = (axis + shape.length) % shape.length;
    checkDerivatives(`[${shape}] along ${axis}`, (x) => l2Normalize(x, { axis }), [shape], {
      reference: (x) => mapRows(x, along, (row) => row.map((value) => value / Math.sqrt(total(row.map((a) => a * a)) + 1e-6))),
    });
  }
  test("of zeros is 0 with a finite slope", () => {
    const [y, g] = evaluate((x) => [l2Normalize(x), gradients(sum(l2Normalize(x)), [x])[0]], [bufferFrom("f32", [1, 2], [0, 0])]);
    expect(y.data).toEqual([0, 0]);
    close("slope", g.data, [1e3, 1e3], 1e-5);
  });
});

test("each row of a softmax sums to 1, and shifting it changes nothing", () => {
  const x = { shape: [3, 5], data: Array.from({ length: 15 }, (_, i) => Math.sin(i) * 3) };
  const [y, shifted] = evaluate(
    (a, b) => [softmax(a), softmax(b)],
    [
      bufferFrom("f64", x.shape, x.data),
      bufferFrom(
        "f64",
        x.shape,
        x.data.map((v) => v + 50),
      ),
    ],
  );
  for (let row = 0; row < 3; row++) expect(total(Array.from({ length: 5 }, (_, i) => at(y, [row, i])))).toBeCloseTo(1, 14);
  close("shifted", shifted.data, y.data, 1e-13);
});
