import { afterAll, beforeAll, expect, test } from "vitest";
import { ShapeError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { bufferFrom } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { compile, spec } from "../runtime/program.ts";
import { residualNorm } from "./residual-norm.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const values = (length: number, seed: number): Float64Array => Float64Array.from({ length }, (_, i) => Math.sin(i * 1.7 + seed) * 2 + 0.3);
const epsilon = 1e-3;

/** The definition, in float64. */
function reference(kind: "layer" | "rms", width: number, x: Float64Array, delta: Float64Array, scale: Float64Array, bias: Float64Array) {
  const sum = x.map((value, i) => value + delta[i]);
  const normed = new Float64Array(sum.length);
  for (let start = 0; start < sum.length; start += width) {
    const row = sum.subarray(start, start + width);
    const centre = kind === "layer" ? row.reduce((a, b) => a + b, 0) / width : 0;
    const spread = row.reduce((a, b) => a + (b - centre) ** 2, 0) / width;
    for (let i = 0; i < width; i++)
      normed[start + i] = ((row[i] - centre) / Math.sqrt(spread + epsilon)) * scale[i] + (kind === "layer" ? bias[i] : 0);
  }
  return { sum, normed };
}

test.each([
  ["rms", [3, 24], "f32"],
  ["rms", [2, 3, 24], "f32"],
  ["rms", [3, 24], "f64"],
  ["layer", [3, 24], "f32"],
  ["layer", [2, 3, 24], "f32"],
  ["layer", [3, 24], "f64"],
  // No kernel for this rank: composed.
  ["rms", [1, 2, 3, 24], "f32"],
] as const)("%s norm of %j in %s is its definition", (kind, shape, dtype) => {
  const size = shape.reduce((a: number, b) => a * b, 1);
  const [x, delta, scale, bias] = [values(size, 1), values(size, 2), values(24, 3), values(24, 4)];
  using program = compile(
    backend,
    ({ x, delta, scale, bias }) => residualNorm(x, delta, { scale, ...(kind === "layer" ? { bias } : {}) }, { kind, epsilon }),
    { x: spec(dtype, shape), delta: spec(dtype, shape), scale: spec(dtype, [24]), bias: spec(dtype, [24]) },
  );
  if (dtype === "f32" && shape.length < 4) expect(program.nodeCount).toBe(1);
  const outputs = program.run({
    x: bufferFrom(dtype, shape, x),
    delta: bufferFrom(dtype, shape, delta),
    scale: bufferFrom(dtype, [24], scale),
    bias: bufferFrom(dtype, [24], bias),
  });
  const expected = reference(kind, 24, x, delta, scale, bias);
  const tolerance = dtype === "f64" ? 1e-12 : 3e-6;
  for (const key of ["sum", "normed"] as const) {
    const got = outputs[key].data as Float64Array;
    for (const [i, value] of expected[key].entries()) expect(Math.abs(got[i] - value)).toBeLessThan(tolerance);
  }
});

test("shapes that do not fit are refused", () => {
  expect(() =>
    compile(backend, ({ x, delta, scale }) => residualNorm(x, delta, { scale }, { kind: "rms", epsilon }), {
      x: spec("f32", [3, 24]),
      delta: spec("f32", [4, 24]),
      scale: spec("f32", [24]),
    }),
  ).toThrow(ShapeError);
});
