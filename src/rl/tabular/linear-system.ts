// A x = b by Gaussian elimination with partial pivoting, float64: for the hundreds of states that exact theory is shown on.
import { UsageError } from "../../base/errors.ts";

/**
 * @param matrix [n, n] row-major; stays as it is.
 * @throws UsageError for a singular matrix.
 */
export function solve(matrix: Float64Array, right: ArrayLike<number>): Float64Array {
  const size = right.length;
  const a = Float64Array.from(matrix);
  const x = Float64Array.from(right);
  for (let column = 0; column < size; column++) {
    let pivot = column;
    for (let row = column + 1; row < size; row++) if (Math.abs(a[row * size + column]) > Math.abs(a[pivot * size + column])) pivot = row;
    if (Math.abs(a[pivot * size + column]) < 1e-12)
      throw new UsageError("linear system: expected one solution, got a singular matrix", {
        hint: "A stationary distribution is unique only where every state can be reached from every other one.",
      });
    if (pivot !== column) {
      for (let k = column; k < size; k++) [a[pivot * size + k], a[column * size + k]] = [a[column * size + k], a[pivot * size + k]];
      [x[pivot], x[column]] = [x[column], x[pivot]];
    }
    for (let row = column + 1; row < size; row++) {
      const factor = a[row * size + column] / a[column * size + column];
      if (factor === 0) continue;
      for (let k = column; k < size; k++) a[row * size + k] -= factor * a[column * size + k];
      x[row] -= factor * x[column];
    }
  }
  for (let row = size - 1; row >= 0; row--) {
    for (let k = row + 1; k < size; k++) x[row] -= a[row * size + k] * x[k];
    x[row] /= a[row * size + row];
  }
  return x;
}
