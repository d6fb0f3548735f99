// Rows or columns of an orthogonal initialisation are orthonormal up to the gain; the same key gives the same matrix.
import { expect, test } from "vitest";
import { fillOrthogonal } from "./orthogonal.ts";

test.each([
  [3, 8],
  [8, 3],
  [5, 5],
  [1, 64],
])("%i × %i", (rows, columns) => {
  const gain = Math.SQRT2;
  const matrix = fillOrthogonal(new Float64Array(rows * columns), rows, gain, { seed: 4, stream: 7 });
  const isWide = rows <= columns;
  const count = Math.min(rows, columns);
  const at = (i: number, k: number): number => (isWide ? matrix[i * columns + k] : matrix[k * columns + i]);
  for (let i = 0; i < count; i++)
    for (let j = 0; j < count; j++) {
      let dot = 0;
      for (let k = 0; k < Math.max(rows, columns); k++) dot += at(i, k) * at(j, k);
      expect(dot).toBeCloseTo(i === j ? gain ** 2 : 0, 12);
    }
  expect(fillOrthogonal(new Float64Array(rows * columns), rows, gain, { seed: 4, stream: 7 })).toEqual(matrix);
  expect(fillOrthogonal(new Float64Array(rows * columns), rows, gain, { seed: 5, stream: 7 })).not.toEqual(matrix);
});
