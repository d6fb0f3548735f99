// Adagrad (Duchi, Hazan & Singer 2011): the step of an element shrinks with the root of the sum of its squared gradients.
import { z } from "zod";
import { add, div, mul, sqrt, square } from "../../tensor/elementwise.ts";
import { epsilon, inGradient, learningRate, maximize, type UpdateRule, weightDecay } from "../update-rule.ts";

export const adagradSchema = z
  .strictObject({
    kind: z.literal("adagrad"),
    learningRate: learningRate(1e-2),
    learningRateDecay: z.number().min(0).describe("The rate of update t is divided by 1 + (t - 1) times this").default(0),
    initialAccumulatorValue: z.number().min(0).describe("Where the sum of squares starts").default(0),
    epsilon: epsilon(1e-10),
    weightDecay: weightDecay(0, inGradient),
    maximize,
  })
  .describe("Adagrad");

/** State: squareSum. */
export function adagrad({ learningRateDecay, initialAccumulatorValue, epsilon }: z.output<typeof adagradSchema>): UpdateRule {
  return {
    weightDecay: "gradient",
    state: { squareSum: initialAccumulatorValue },
    scalars: (step, learningRate) => ({ stepSize: learningRate / (1 + (step - 1) * learningRateDecay) }),
    update(gradient, state, { stepSize }) {
      const squareSum = add(state.squareSum, square(gradient));
      return { delta: mul(div(gradient, add(sqrt(squareSum), epsilon)), stepSize), state: { squareSum } };
    },
  };
}
