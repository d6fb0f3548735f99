// Conjugate gradients (Hestenes & Stiefel 1952) for A x = b with a symmetric positive definite A that is only known by its products:
// the natural gradient of TRPO (Schulman et al. 2015, appendix C). Host code in float64, whatever the products are computed in.
export interface ConjugateGradientOptions {
  /** Most products besides the first one. */
  maxSteps: number;
  /** Stop when the squared norm of the residual is below this. Default 1e-10. */
  residualTolerance?: number;
  /** Start. Default 0. */
  start?: ArrayLike<number>;
  /** Hears of the start and of every iterate, with the squared norm of its residual; NaN where that was not computed (the last step). */
  onIterate?(x: Float64Array, residualNormSquared: number): void;
}

export interface ConjugateGradientResult {
  x: Float64Array;
  steps: number;
}

/** @param product writes A v into `out`; it may keep neither. */
export function conjugateGradient(
  product: (v: Float64Array, out: Float64Array) => void,
  b: ArrayLike<number>,
  { maxSteps, residualTolerance = 1e-10, start, onIterate }: ConjugateGradientOptions,
): ConjugateGradientResult {
  const n = b.length;
  const x = start ? Float64Array.from(start) : new Float64Array(n);
  const residual = Float64Array.from(b);
  const ap = new Float64Array(n);
  if (start) {
    product(x, ap);
    for (let i = 0; i < n; i++) residual[i] -= ap[i];
  }
  let norm = dot(residual, residual);
  onIterate?.(x, norm);
  if (norm < residualTolerance || norm === 0) return { x, steps: 0 };
  const direction = residual.slice();
  for (let step = 1; step <= maxSteps; step++) {
    product(direction, ap);
    const alpha = norm / dot(direction, ap);
    for (let i = 0; i < n; i++) x[i] += alpha * direction[i];
    for (let i = 0; i < n; i++) residual[i] -= alpha * ap[i];
    const next = dot(residual, residual);
    onIterate?.(x, step === maxSteps ? Number.NaN : next);
    if (step === maxSteps || next < residualTolerance || next === 0) return { x, steps: step };
    const beta = next / norm;
    norm = next;
    for (let i = 0; i < n; i++) direction[i] = residual[i] + beta * direction[i];
  }
  return { x, steps: maxSteps };
}

/** Σ a b in float64. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
