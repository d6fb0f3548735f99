// Stochastic gradient descent with (Nesterov) momentum, in the form of Sutskever et al. 2013 that keeps the learning rate out of the
// velocity: v ← μ v + (1 − dampening) g, p ← p − η v.
import { z } from "zod";
import { add, mul } from "../../tensor/elementwise.ts";
import { inGradient, learningRate, maximize, type UpdateRule, weightDecay } from "../update-rule.ts";

export const sgdSchema = z
  .strictObject({
    kind: z.literal("sgd"),
    learningRate: learningRate(1e-3),
    momentum: z.number().min(0).describe("Factor of the velocity; 0 keeps none").default(0),
    dampening: z.number().describe("Part of each gradient that the velocity leaves out, from the second update on").default(0),
    nesterov: z.boolean().describe("Nesterov momentum: look one step of the velocity ahead").default(false),
    weightDecay: weightDecay(0, inGradient),
    maximize,
  })
  .refine(({ nesterov, momentum, dampening }) => !nesterov || (momentum > 0 && dampening === 0), {
    path: ["nesterov"],
    message: "expected a momentum above 0 and a dampening of 0 beside it, got others",
  })
  .describe("Stochastic gradient descent");

/** State: velocity, when there is momentum. */
export function sgd({ momentum, dampening, nesterov }: z.output<typeof sgdSchema>): UpdateRule {
  return {
    weightDecay: "gradient",
    state: momentum === 0 ? {} : { velocity: 0 },
    // The first gradient becomes the velocity undampened.
    scalars: (step, learningRate) => ({ learningRate, gain: step === 1 ? 1 : 1 - dampening }),
    update(gradient, state, { learningRate, gain }): ReturnType<UpdateRule["update"]> {
      if (momentum === 0) return { delta: mul(gradient, learningRate), state: {} };
      const velocity = add(mul(state.velocity, momentum), dampening === 0 ? gradient : mul(gradient, gain));
      const direction = nesterov ? add(gradient, mul(velocity, momentum)) : velocity;
      return { delta: mul(direction, learningRate), state: { velocity } };
    },
  };
}
