// RMSprop (Hinton 2012, lecture 6e; centred: Graves 2013), with epsilon outside the root (PyTorch) or inside it and a second moment
// that starts at 1 (TensorFlow, which A2C's published results used).
// With the decaying sum V, sqrt(v) is c sqrt(V), c = sqrt(1 − α): c moves into the learning rate and epsilon, so the velocity is c
// times that of PyTorch. A centred variance below 0, which only rounding produces, counts as 0; elsewhere it becomes NaN.
import { z } from "zod";
import { add, div, maximum, mul, sqrt, square, sub } from "../../tensor/elementwise.ts";
import { decayingSum, decayRate, epsilon, inGradient, learningRate, maximize, type UpdateRule, weightDecay } from "../update-rule.ts";

const fields = {
  learningRate: learningRate(1e-2),
  alpha: decayRate(0.99, "squared gradients"),
  epsilon: epsilon(1e-8),
  momentum: z.number().min(0).describe("Factor of the velocity; 0 keeps none").default(0),
  centered: z.boolean().describe("Divide by the standard deviation instead of the root mean square").default(false),
  weightDecay: weightDecay(0, inGradient),
  maximize,
};

export const rmspropSchema = z.strictObject({ kind: z.literal("rmsprop"), ...fields }).describe("RMSprop");
export const rmspropTfLikeSchema = z
  .strictObject({ kind: z.literal("rmsprop-tf-like"), ...fields })
  .describe("RMSprop as TensorFlow has it: epsilon inside the root, second moment from 1");

type RmspropOptions = z.output<typeof rmspropSchema> | z.output<typeof rmspropTfLikeSchema>;

/** State: secondMoment; firstMoment when centred; velocity when there is momentum. */
export function rmsprop({ kind, alpha, epsilon, momentum, centered }: RmspropOptions): UpdateRule {
  const tfLike = kind === "rmsprop-tf-like";
  const root = Math.sqrt(1 - alpha);
  return {
    weightDecay: "gradient",
    state: {
      secondMoment: tfLike ? 1 / (1 - alpha) : 0,
      ...(centered && { firstMoment: 0 }),
      ...(momentum > 0 && { velocity: 0 }),
    },
    scalars: (_, learningRate) => ({ stepSize: learningRate / root, epsilon: tfLike ? epsilon / (1 - alpha) : epsilon / root }),
    update(gradient, state, { stepSize, epsilon }) {
      const next: Record<string, typeof gradient> = { secondMoment: decayingSum(state.secondMoment, alpha, square(gradient)) };
      let variance = next.secondMoment;
      if (centered) {
        next.firstMoment = decayingSum(state.firstMoment, alpha, gradient);
        variance = maximum(sub(variance, mul(square(next.firstMoment), 1 - alpha)), 0);
      }
      const direction = div(gradient, tfLike ? sqrt(add(variance, epsilon)) : add(sqrt(variance), epsilon));
      if (momentum > 0) next.velocity = add(mul(state.velocity, momentum), direction);
      return { delta: mul(next.velocity ?? direction, stepSize), state: next };
    },
  };
}
