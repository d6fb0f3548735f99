// One step of TRPO (Schulman et al. 2015) or of the natural policy gradient (Kakade 2001): g = ∇ E[r Â]; solve (F + c) x = g by conjugate
// gradients; scale x to the KL bound, √(2δ / xᵀ(F + c)x); shrink the step until it improves the surrogate within the bound, or keep the
// old policy. Defaults are sb3-contrib's, except that its start of conjugate gradients is random (1e-4 N(0, 1)) and the KL's mean over
// action dimensions is a switch.
import { conjugateGradient, dot } from "../../../optim/conjugate-gradient.ts";
import type { TrustRegionPrograms } from "./trust-region-programs.ts";

export interface TrustRegionOptions {
  /** δ: bound of the mean KL. */
  targetKl: number;
  cgMaxSteps: number;
  /** c */
  cgDamping: number;
  /** Conjugate gradients stop when the squared norm of the residual is below this. */
  cgResidualTolerance: number;
  /** Off: the whole step is taken, whatever it does (natural policy gradient). */
  lineSearch: boolean;
  lineSearchMaxIterations: number;
  lineSearchShrinkingFactor: number;
  /** Least share of the improvement that the gradient promises; 0: any improvement will do (modular_rl: 0.1). */
  minImprovementRatio: number;
}

export interface TrustRegionTry {
  coefficient: number;
  kl: number;
  surrogate: number;
  klBelow: boolean;
  improves: boolean;
}

export interface TrustRegionOutcome {
  /** Surrogate at the parameters that the step ended with. */
  surrogate: number;
  /** KL to the old policy there; 0 when the step was refused. */
  kl: number;
  surrogateBefore: number;
  gradient: Float64Array;
  searchDirection: Float64Array;
  /** (F + c) x */
  directionProduct: Float64Array;
  /** xᵀ (F + c) x */
  xHx: number;
  stepScale: number;
  expectedImprovement: number;
  tries: TrustRegionTry[];
  accepted: boolean;
  cgSteps: number;
}

/** The batch was given to `programs.prepare`, whose results are passed on. */
export function trustRegionStep(
  programs: TrustRegionPrograms,
  { surrogate: surrogateBefore, gradient }: { surrogate: number; gradient: Float64Array },
  options: TrustRegionOptions,
  hooks: { cgStart?: ArrayLike<number>; onIterate?: (x: Float64Array, residualNormSquared: number) => void } = {},
): TrustRegionOutcome {
  const { targetKl, cgMaxSteps, cgDamping, cgResidualTolerance } = options;
  const damped = (v: Float64Array, out: Float64Array): void => {
    programs.fisherProduct(v, out);
    for (let i = 0; i < v.length; i++) out[i] += cgDamping * v[i];
  };
  const { x, steps } = conjugateGradient(damped, gradient, {
    maxSteps: cgMaxSteps,
    residualTolerance: cgResidualTolerance,
    ...(hooks.cgStart ? { start: hooks.cgStart } : {}),
    ...(hooks.onIterate ? { onIterate: hooks.onIterate } : {}),
  });
  const directionProduct = new Float64Array(x.length);
  damped(x, directionProduct);
  const xHx = dot(x, directionProduct);
  const stepScale = Math.sqrt((2 * targetKl) / xHx);
  const promised = dot(gradient, x) * stepScale;
  const outcome: TrustRegionOutcome = {
    surrogate: surrogateBefore,
    kl: 0,
    surrogateBefore,
    gradient,
    searchDirection: x,
    directionProduct,
    xHx,
    stepScale,
    expectedImprovement: promised,
    tries: [],
    accepted: false,
    cgSteps: steps,
  };
  // A gradient of 0, or one that is not finite, gives no direction: the policy stays.
  if (Number.isFinite(stepScale)) search(programs, outcome, options);
  return outcome;
}

function search(programs: TrustRegionPrograms, outcome: TrustRegionOutcome, options: TrustRegionOptions): void {
  const { targetKl, lineSearch, lineSearchMaxIterations, lineSearchShrinkingFactor, minImprovementRatio } = options;
  const { searchDirection, stepScale, surrogateBefore, expectedImprovement } = outcome;
  const step = new Float64Array(searchDirection.length);
  let coefficient = 1;
  for (let j = 0; j < (lineSearch ? lineSearchMaxIterations : 1); j++, coefficient *= lineSearchShrinkingFactor) {
    for (let i = 0; i < step.length; i++) step[i] = coefficient * stepScale * searchDirection[i];
    const { surrogate, kl } = programs.try(step);
    const klBelow = kl < targetKl;
    const improves = surrogate - surrogateBefore > minImprovementRatio * coefficient * expectedImprovement;
    outcome.tries.push({ coefficient, kl, surrogate, klBelow, improves });
    const isTaken = lineSearch ? klBelow && improves : Number.isFinite(kl) && Number.isFinite(surrogate);
    if (!isTaken) continue;
    programs.accept();
    Object.assign(outcome, { surrogate, kl, accepted: true });
    return;
  }
}
