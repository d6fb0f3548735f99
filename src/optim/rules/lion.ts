// Lion (Chen et al. 2023, Algorithm 2): p ← p − η (sign(β1 m + (1 − β1) g) + λ p), then m ← β2 m + (1 − β2) g.
// The state is A = m β1 / (1 − β1). Then the sign is that of A + g, and A ← β2 (A + g) + (k − β2) g with k = β1 (1 − β2) / (1 − β1)
// reads the old A once, which is what an update in place needs.
import { z } from "zod";
import { add, mul, sign } from "../../tensor/elementwise.ts";
import { decayRate, learningRate, maximize, onParameter, type UpdateRule, weightDecay } from "../update-rule.ts";

export const lionSchema = z
  .strictObject({
    kind: z.literal("lion"),
    learningRate: learningRate(1e-4),
    beta1: decayRate(0.9, "gradients, in the direction of the step"),
    beta2: decayRate(0.99, "gradients, in the momentum"),
    weightDecay: weightDecay(0, onParameter),
    maximize,
  })
  .describe("Lion: the sign of a momentum");

/** State: momentum. */
export function lion({ beta1, beta2 }: z.output<typeof lionSchema>): UpdateRule {
  const gain = (beta1 * (1 - beta2)) / (1 - beta1);
  return {
    weightDecay: "parameter",
    state: { momentum: 0 },
    scalars: (_, learningRate) => ({ learningRate }),
    update(gradient, state, { learningRate }) {
      const ahead = add(state.momentum, gradient);
      return {
        delta: mul(sign(ahead), learningRate),
        state: { momentum: add(mul(ahead, beta2), mul(gradient, gain - beta2)) },
      };
    },
  };
}
