import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocateFlat, type FlatBuffer } from "../runtime/flat.ts";
import { openBackend } from "../runtime/open.ts";
import { spec } from "../runtime/program.ts";
import { clipFactor, createNorm, createValueClipping } from "./clipping.ts";
import { difference, flatFrom, golden } from "./testing/golden.ts";

let backend: Backend;
beforeAll(() => {
  ({ backend } = openBackend({ threads: 2 }));
});
afterAll(() => backend.dispose());

describe("golden clipping", () => {
  test.each(golden.gradientClipping.map((one, i) => [i, one] as const))("case %i", (_, one) => {
    const gradients = flatFrom(one.gradients);
    using norm = createNorm(backend, gradients, { normType: Number(one.normType) });
    expect(norm.compute()).toBeCloseTo(one.totalNorm, 10);
    const factor = clipFactor(norm.compute(), one.maxNorm);
    const scaled = flatFrom(one.gradients);
    const { data } = scaled.buffer;
    for (let i = 0; i < data.length; i++) (data as Float64Array)[i] *= factor;
    expect(difference(scaled, one.clipped)).toBeLessThan(1e-10);
    using clipping = createValueClipping(backend, gradients, one.maxNorm);
    clipping.run();
    expect(difference(gradients, one.clippedByValue)).toBe(0);
  });
});

function longGradients(dtype: "f32" | "f64", length: number): FlatBuffer<unknown> {
  const gradients = allocateFlat({ g: spec(dtype, [length]) });
  const data = gradients.buffer.data as Float64Array;
  for (let i = 0; i < length; i++) data[i] = Math.sin(1 + i * 0.37) * 10 ** (i % 5);
  return gradients as FlatBuffer<unknown>;
}

describe("norm of long buffers", () => {
  // Shorter than a row, a row and a bit, more rows than one run takes.
  test.each([1, 1023, 1025, 4096 * 1024 + 1024 * 3 + 5])("%i elements", (length) => {
    for (const [dtype, tolerance] of [
      ["f64", 1e-12],
      ["f32", 1e-7],
    ] as const) {
      const gradients = longGradients(dtype, length);
      let exact = 0;
      for (const x of gradients.buffer.data as Float64Array) exact += x * x;
      using norm = createNorm(backend, gradients);
      const first = norm.compute();
      expect(Math.abs(first / Math.sqrt(exact) - 1)).toBeLessThan(tolerance);
      for (let i = 0; i < 5; i++) expect(norm.compute()).toBe(first);
    }
  });

  test("is not finite when a gradient is not", () => {
    for (const normType of [1, 2, 3, Number.POSITIVE_INFINITY]) {
      const gradients = longGradients("f32", 3000);
      using norm = createNorm(backend, gradients, { normType });
      (gradients.buffer.data as Float32Array)[2999] = Number.NEGATIVE_INFINITY;
      expect(norm.compute()).toBe(Number.POSITIVE_INFINITY);
      (gradients.buffer.data as Float32Array)[1500] = Number.NaN;
      expect(norm.compute()).toEqual(normType === Number.POSITIVE_INFINITY ? normType : Number.NaN);
    }
  });
});

test("clipFactor never scales up, and says when the norm is no number", () => {
  expect(clipFactor(0, 1)).toBe(1);
  expect(clipFactor(0.5, 1)).toBe(1);
  expect(clipFactor(4, 1)).toBeCloseTo(0.25, 6);
  expect(clipFactor(Number.POSITIVE_INFINITY, 1)).toBe(0);
  expect(clipFactor(Number.NaN, 1)).toBeNaN();
  expect(clipFactor(1, Number.POSITIVE_INFINITY)).toBe(1);
  expect(() => clipFactor(1, -1)).toThrow(UsageError);
  expect(() => createNorm(backend, flatFrom({ x: [1] }), { normType: 0 })).toThrow(UsageError);
  expect(() => createValueClipping(backend, flatFrom({ x: [1] }), -1)).toThrow(UsageError);
});
