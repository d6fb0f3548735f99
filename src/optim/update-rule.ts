// What an elementwise optimiser is: options, named state, a few numbers a step, and a formula. Everything else (weight decay,
// clipping, maximising, chunks, parameter groups) is the same for all of them and lives in elementwise-update.ts.
import { z } from "zod";
import { add, mul } from "../tensor/elementwise.ts";
import type { Tensor } from "../tensor/graph.ts";

/** Where weight decay goes: into the gradient (L2), or straight onto the parameter (Loshchilov & Hutter 2019). */
export type WeightDecayPlace = "gradient" | "parameter";

export interface UpdateRule {
  readonly weightDecay: WeightDecayPlace;
  /** State buffers, each as long as the parameters, with the value that they start from. */
  readonly state: Readonly<Record<string, number>>;
  /** Numbers of update `step` (1 for the first), computed in float64 and rounded to the dtype of the parameters. */
  scalars(step: number, learningRate: number): Record<string, number>;
  /**
   * What is subtracted from the parameters, and the new state. Elementwise. An old state must be read before the new one is written:
   * whatever reads it must be part of the formula of the new one.
   */
  update(
    gradient: Tensor,
    state: Readonly<Record<string, Tensor>>,
    scalars: Readonly<Record<string, Tensor>>,
  ): { delta: Tensor; state: Record<string, Tensor> };
}

/**
 * S ← β S + x. The exponential average of the papers, β m + (1 − β) x, is (1 − β) S: kept as a sum it costs one pass less, and the
 * factor vanishes in numbers that are computed once a step.
 */
export const decayingSum = (sum: Tensor, beta: number, x: Tensor): Tensor => add(mul(sum, beta), x);

// ---- fields that several kinds have

export const learningRate = (value: number) =>
  z.number().min(0).describe("Learning rate of a step that is given none, and the base of a schedule").default(value);
export const weightDecay = (value: number, place: string) => z.number().min(0).describe(`Weight decay, ${place}`).default(value);
export const inGradient = "added to the gradient (L2)";
export const onParameter = "applied to the weights, times the learning rate";
export const maximize = z.boolean().describe("Go up the gradient instead of down").default(false);
export const decayRate = (value: number, what: string) =>
  z.number().min(0).lt(1).describe(`Decay rate of the average of ${what}`).default(value);
export const beta1 = decayRate(0.9, "gradients");
export const beta2 = decayRate(0.999, "squared gradients");
// Above zero: an element whose gradient has always been 0 would otherwise become 0 / 0.
export const epsilon = (value: number) => z.number().positive().describe("Added to the denominator").default(value);
