import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { bufferFrom } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { openBackend } from "../runtime/open.ts";
import { compile, spec } from "../runtime/program.ts";
import { orthogonalize } from "./newton-schulz.ts";
import { createOptimizer, type OptimizerExtras } from "./optimizer.ts";
import type { OptimizerOptions } from "./optimizer-options.ts";
import { arrayDifference, difference, fill, flatFrom, type Golden, golden, leafOf, translate } from "./testing/golden.ts";

let backend: Backend;
beforeAll(() => {
  ({ backend } = openBackend({ threads: 1 }));
});
afterAll(() => backend.dispose());

const cases = golden.cases.filter(({ optimiser }) => optimiser === "muon");
const muonDefaults = { iterations: 5, coefficients: [3.4445, -4.775, 2.0315], epsilon: 1e-7 } as const;

describe("golden updates", () => {
  test.each(cases.map((one) => [JSON.stringify(one.options), one] as const))("%s", (_, one) => {
    for (const [dtype, tolerance] of [
      ["f64", 1e-10],
      ["f32", 1e-4],
    ] as const) {
      const parameters = flatFrom(one.parameters, dtype);
      const gradients = flatFrom(one.gradients[0], dtype);
      using optimizer = createOptimizer(backend, translate(one), parameters, gradients);
      for (const [i, given] of one.gradients.entries()) {
        fill(gradients, given);
        optimizer.step();
        expect(difference(parameters, { weight: one.float64?.parametersAfter[i] ?? [] })).toBeLessThan(tolerance);
      }
      const momentum = (optimizer.options as { momentum: number }).momentum;
      const average = leafOf(optimizer.state().momentum, parameters, "weight").map((x) => x * (1 - momentum));
      // The reference keeps its momentum in float32.
      expect(arrayDifference(average, one.finalState.weight.momentum_buffer)).toBeLessThan(1e-6);
    }
  });
});

describe("Newton–Schulz iteration", () => {
  const singularValueRange = (values: Float64Array, rows: number, columns: number): number[] => {
    // Of a 2-row matrix: eigenvalues of the 2 × 2 Gram matrix.
    expect(rows).toBe(2);
    const dot = (i: number, j: number) => {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += values[i * columns + k] * values[j * columns + k];
      return sum;
    };
    const [a, b, d] = [dot(0, 0), dot(0, 1), dot(1, 1)];
    const root = Math.sqrt(((a - d) / 2) ** 2 + b * b);
    return [Math.sqrt((a + d) / 2 - root), Math.sqrt((a + d) / 2 + root)];
  };

  test("brings singular values that differ a hundredfold near 1, and tall matrices are the transposes of wide ones", () => {
    const values = [3, 0.1, -1, 2, 5, -2.9, -0.12, 1.1, -2.1, -5.05];
    const transposed = Array.from({ length: 10 }, (_, i) => values[(i % 2) * 5 + Math.floor(i / 2)]);
    const run = (shape: number[], data: number[]): Float64Array =>
      compile(backend, ({ x }) => ({ y: orthogonalize(x, muonDefaults) }), { x: spec("f64", shape) }).run({
        x: bufferFrom("f64", shape, data),
      }).y.data as Float64Array;
    const wide = run([2, 5], values);
    for (const value of singularValueRange(wide, 2, 5)) {
      expect(value).toBeGreaterThan(0.65);
      expect(value).toBeLessThan(1.25);
    }
    const tall = run([5, 2], transposed);
    for (let i = 0; i < 10; i++) expect(tall[i]).toBeCloseTo(wide[(i % 2) * 5 + Math.floor(i / 2)], 12);
  });

  test("a zero gradient is a zero step", () => {
    const parameters = flatFrom({
      w: [
        [1, 2],
        [3, 4],
      ],
    });
    using optimizer = createOptimizer(
      backend,
      { kind: "muon", weightDecay: 0 },
      parameters,
      flatFrom({
        w: [
          [0, 0],
          [0, 0],
        ],
      }),
    );
    optimizer.step();
    expect(
      difference(parameters, {
        w: [
          [1, 2],
          [3, 4],
        ],
      }),
    ).toBe(0);
  });
});

const arrays = {
  embedding: [
    [0.1, 0.2],
    [0.3, -0.4],
    [0.5, 0.6],
  ],
  qkv: [
    [1, 2],
    [3, -1],
    [0.5, 0.2],
    [2, 1],
    [-1, 1],
  ],
  bias: [0.1, 0.2, 0.3],
};
const slopes: Golden["gradientClipping"][number]["gradients"] = {
  embedding: [
    [1, -1],
    [0.5, 2],
    [0.1, 0.2],
  ],
  qkv: [
    [0.3, 1],
    [2, -0.7],
    [0.2, 0.1],
    [1, 0.4],
    [-0.6, 0.8],
  ],
  bias: [1, -2, 0.5],
};

function run(
  options: OptimizerOptions,
  given = arrays as Parameters<typeof flatFrom>[0],
  extras: OptimizerExtras = {},
): FlatBuffer<unknown> {
  const groupOf = (path: string) => (path === "embedding" ? "embeddings" : "body");
  const parameters = flatFrom(given, "f64", groupOf);
  const own = Object.fromEntries(Object.keys(given).map((name) => [name, slopes[name] ?? given[name]]));
  using optimizer = createOptimizer(backend, options, parameters, flatFrom(own, "f64", groupOf), {}, extras);
  for (let i = 0; i < 3; i++) optimizer.step({ learningRate: 0.02 });
  return parameters;
}
const leaf = (buffer: FlatBuffer<unknown>, path: string): Float64Array => buffer.leaves.get(path)?.data as Float64Array;

describe("leaves", () => {
  test("vectors and chosen groups go to AdamW", () => {
    const mixed = run({ kind: "muon", adamwGroups: ["embeddings"], adamw: { beta2: 0.95, weightDecay: 0.3, learningRateScale: 0.5 } });
    const adamw = createReference();
    for (const path of ["embedding", "bias"]) expect(leaf(mixed, path)).toEqual(leaf(adamw, path));
    expect(leaf(mixed, "qkv")).not.toEqual(leaf(adamw, "qkv"));
    expect(leaf(run({ kind: "muon" }), "embedding")).not.toEqual(leaf(adamw, "embedding"));

    function createReference(): FlatBuffer<unknown> {
      const parameters = flatFrom(arrays);
      using optimizer = createOptimizer(backend, { kind: "adamw", beta2: 0.95, weightDecay: 0.3 }, parameters, flatFrom(slopes));
      for (let i = 0; i < 3; i++) optimizer.step({ learningRate: 0.01 });
      return parameters;
    }
  });

  test("fused matrices are treated as if they were stored apart", () => {
    const rows = [2, 1, 2];
    const fused = leaf(run({ kind: "muon" }, arrays, { fusedRows: { qkv: rows } }), "qkv");
    let start = 0;
    for (const count of rows) {
      const parameters = flatFrom({ part: arrays.qkv.slice(start, start + count) });
      const gradients = flatFrom({ part: (slopes.qkv as number[][]).slice(start, start + count) });
      using optimizer = createOptimizer(backend, { kind: "muon" }, parameters, gradients);
      for (let i = 0; i < 3; i++) optimizer.step({ learningRate: 0.02 });
      expect(fused.slice(start * 2, (start + count) * 2)).toEqual(leaf(parameters, "part"));
      start += count;
    }
    expect(fused).not.toEqual(leaf(run({ kind: "muon" }), "qkv"));
  });

  test("mistakes", () => {
    expect(() => run({ kind: "muon", adamwGroups: ["embedings"] })).toThrow(
      expect.objectContaining({ name: "UsageError", hint: 'Did you mean "embeddings"?' }),
    );
    expect(() => run({ kind: "muon" }, arrays, { fusedRows: { qkv: [2, 2] } })).toThrow(ShapeError);
    expect(() => run({ kind: "muon" }, arrays, { fusedRows: { bias: [3] } })).toThrow(ShapeError);
    expect(() => run({ kind: "muon" }, arrays, { fusedRows: { kqv: [5] } })).toThrow(UsageError);
    expect(() => run({ kind: "muon", iterations: 0 })).toThrow(UsageError);
  });
});
