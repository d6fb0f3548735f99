// Orthogonal initialisation (Saxe et al. 2014): gain times a matrix with orthonormal rows or columns, whichever are fewer.
// Rows of normal numbers, made orthonormal by Gram–Schmidt twice over ("twice is enough", Giraud et al. 2005), in float64.
import { fillNormal, type RandomKey } from "../runtime/rng-fill.ts";

/** Fills a row-major matrix of `rows` rows. Returns the same array. */
export function fillOrthogonal<A extends Float32Array | Float64Array>(target: A, rows: number, gain: number, key: RandomKey): A {
  const columns = target.length / rows;
  const isWide = rows <= columns;
  const [count, length] = isWide ? [rows, columns] : [columns, rows];
  const basis = fillNormal(new Float64Array(count * length), 0, 1, key);
  for (let i = 0; i < count; i++) {
    const own = basis.subarray(i * length, (i + 1) * length);
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = basis.subarray(j * length, (j + 1) * length);
        const overlap = dot(own, other);
        for (let k = 0; k < length; k++) own[k] -= overlap * other[k];
      }
    }
    const scale = 1 / Math.sqrt(dot(own, own));
    for (let k = 0; k < length; k++) own[k] *= scale;
  }
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) target[r * columns + c] = gain * (isWide ? basis[r * columns + c] : basis[c * rows + r]);
  return target;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
