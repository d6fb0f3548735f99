// Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi et al. 2018).
// Averages are kept as decaying sums M, V with m = (1 − β1) M and v = (1 − β2) V; bias corrections and these factors are folded into
// two numbers a step, which leaves m̂ / (sqrt(v̂) + ε) in the form stepSize · M / (sqrt(V) + ε').
import { z } from "zod";
import { add, div, maximum, mul, sqrt, square } from "../../tensor/elementwise.ts";
import {
  beta1,
  beta2,
  decayingSum,
  epsilon,
  inGradient,
  learningRate,
  maximize,
  onParameter,
  type UpdateRule,
  weightDecay,
} from "../update-rule.ts";

const amsgrad = z.boolean().describe("Divide by the largest second moment so far (AMSGrad)").default(false);
const fields = { beta1, beta2, epsilon: epsilon(1e-8), amsgrad, maximize };

export const adamSchema = z
  .strictObject({ kind: z.literal("adam"), learningRate: learningRate(1e-3), weightDecay: weightDecay(0, inGradient), ...fields })
  .describe("Adam, with weight decay as L2");
export const adamwSchema = z
  .strictObject({ kind: z.literal("adamw"), learningRate: learningRate(1e-3), weightDecay: weightDecay(1e-2, onParameter), ...fields })
  .describe("Adam with decoupled weight decay");

export type AdamOptions = Pick<z.output<typeof adamwSchema>, "beta1" | "beta2" | "epsilon" | "amsgrad"> & { kind: "adam" | "adamw" };

/** State: firstMoment, secondMoment, and maxSecondMoment with `amsgrad`. */
export function adam({ kind, beta1, beta2, epsilon, amsgrad }: AdamOptions): UpdateRule {
  return {
    weightDecay: kind === "adamw" ? "parameter" : "gradient",
    state: { firstMoment: 0, secondMoment: 0, ...(amsgrad && { maxSecondMoment: 0 }) },
    scalars(step, learningRate) {
      const root = secondMomentRoot(step, beta2);
      return { stepSize: (learningRate * (1 - beta1)) / (1 - beta1 ** step) / root, epsilon: epsilon / root };
    },
    update(gradient, state, { stepSize, epsilon }) {
      const firstMoment = decayingSum(state.firstMoment, beta1, gradient);
      const secondMoment = decayingSum(state.secondMoment, beta2, square(gradient));
      const next: typeof state = amsgrad
        ? { firstMoment, secondMoment, maxSecondMoment: maximum(state.maxSecondMoment, secondMoment) }
        : { firstMoment, secondMoment };
      const denominator = add(sqrt(next.maxSecondMoment ?? secondMoment), epsilon);
      return { delta: mul(div(firstMoment, denominator), stepSize), state: next };
    },
  };
}

/** c with sqrt(v̂) = c sqrt(V): the root of (1 − β2) / (1 − β2^t). */
export const secondMomentRoot = (step: number, beta2: number): number => Math.sqrt((1 - beta2) / (1 - beta2 ** step));
