// Conjugate gradients against a system solved by hand, and the law that n steps solve n equations.
import fc from "fast-check";
import { expect, test } from "vitest";
import { conjugateGradient } from "./conjugate-gradient.ts";

const times =
  (matrix: readonly (readonly number[])[]) =>
  (v: Float64Array, out: Float64Array): void => {
    for (const [i, row] of matrix.entries()) out[i] = row.reduce((sum, a, j) => sum + a * v[j], 0);
  };

const a = [
  [4, 1, 0],
  [1, 3, 1],
  [0, 1, 2],
];

test("the iterates of a 3 × 3 system, the last of which is 2/9, 1/9, 13/9", () => {
  const expected: Record<number, number[]> = { 1: [0.28, 0.56, 0.84], 2: [0.04923077, 0.32923077, 1.30153846], 3: [2 / 9, 1 / 9, 13 / 9] };
  for (const [steps, solution] of Object.entries(expected)) {
    const { x } = conjugateGradient(times(a), [1, 2, 3], { maxSteps: Number(steps) });
    for (const [i, value] of solution.entries()) expect(x[i]).toBeCloseTo(value, 8);
  }
});

test("it stops when the residual is small, from any start, and tells every iterate", () => {
  const told: number[] = [];
  const { x, steps } = conjugateGradient(times(a), [1, 2, 3], {
    maxSteps: 50,
    start: [5, -5, 1],
    onIterate: (_, residual) => told.push(residual),
  });
  expect(x[2]).toBeCloseTo(13 / 9, 5);
  expect(steps).toBeLessThanOrEqual(4);
  expect(told).toHaveLength(steps + 1);
  expect(told[steps]).toBeLessThan(1e-10);
});

test("n steps solve any positive definite system of n equations", () => {
  const entry = fc.double({ min: -1, max: 1, noNaN: true });
  fc.assert(
    fc.property(fc.array(fc.array(entry, { minLength: 4, maxLength: 4 }), { minLength: 4, maxLength: 4 }), (m) => {
      // M Mᵀ + I
      const matrix = m.map((row, i) => m.map((other, j) => row.reduce((sum, x, k) => sum + x * other[k], i === j ? 1 : 0)));
      const solution = [1, -2, 3, 0.5];
      const b = matrix.map((row) => row.reduce((sum, x, j) => sum + x * solution[j], 0));
      const { x } = conjugateGradient(times(matrix), b, { maxSteps: 4, residualTolerance: 0 });
      for (const [i, value] of solution.entries()) expect(x[i]).toBeCloseTo(value, 7);
    }),
  );
});
