// Independent bits, each with the probability σ(logit).
import { softplus } from "../../../tensor/activation.ts";
import { sum } from "../../../tensor/core.ts";
import { add, cast, greater, mul, sigmoid, sub } from "../../../tensor/elementwise.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import type { Distribution } from "./distribution.ts";

export function bernoulli(logits: Tensor): Distribution {
  return {
    parameters: [logits],
    // log σ(l) a + log σ(−l) (1 − a) = a l − log(1 + e^l)
    logProb: (actions) => sum(sub(mul(actions, logits), softplus(logits)), { axes: -1 }),
    entropy: () => sum(sub(softplus(logits), mul(logits, sigmoid(logits))), { axes: -1 }),
    klPerDimension: ({ parameters: [other] }) => add(mul(sigmoid(logits), sub(logits, other)), sub(softplus(other), softplus(logits))),
    fisher([tangent]) {
      const p = sigmoid(logits);
      return [mul(mul(p, sub(1, p)), tangent)];
    },
    mode: () => cast(greater(logits, 0), logits.dtype),
  };
}
