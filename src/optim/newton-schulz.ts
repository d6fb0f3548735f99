// Newton–Schulz iteration to the nearest orthogonal matrix (Jordan et al. 2024, after Bernstein & Newhouse 2024): a fifth-degree
// polynomial of the singular values, with coefficients that bring all of them near 1 (0.7 to 1.2) rather than to 1 exactly.
// Deliberately different from GPU code: in the dtype of the matrix, as float32 costs no more than bfloat16 here.

import { sum } from "../tensor/core.ts";
import { add, div, maximum, mul, sqrt, square } from "../tensor/elementwise.ts";
import type { Tensor } from "../tensor/graph.ts";
import { matmul } from "../tensor/matmul.ts";

export interface NewtonSchulzOptions {
  iterations: number;
  coefficients: readonly [number, number, number];
  /** Smallest Frobenius norm that the matrix is divided by. */
  epsilon: number;
}

/** U Vᵀ, roughly, for the matrix U S Vᵀ: [rows, columns] → [rows, columns]. Dimensions are fixed. */
export function orthogonalize(matrix: Tensor, { iterations, coefficients: [a, b, c], epsilon }: NewtonSchulzOptions): Tensor {
  const [rows, columns] = matrix.shape as readonly number[];
  // The Gram matrix is taken over the longer side, so that it is the smaller one; no transpose is ever written out.
  const tall = rows > columns;
  let x = div(matrix, maximum(sqrt(sum(square(matrix))), epsilon));
  for (let i = 0; i < iterations; i++) {
    const gram = tall ? matmul(x, x, { transposeA: true }) : matmul(x, x, { transposeB: true });
    const polynomial = add(mul(gram, b), matmul(gram, gram, { alpha: c }));
    x = add(mul(x, a), tall ? matmul(x, polynomial) : matmul(polynomial, x));
  }
  return x;
}
