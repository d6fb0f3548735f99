// One or several independent categorical distributions whose logits lie beside each other. A forbidden action has the logit −1e8, as in
// sb3-contrib's maskable policies (Huang & Ontañón 2022): probability 0, and no part in the entropy.
import { reshape, sum } from "../../../tensor/core.ts";
import { add, cast, exp, greater, mul, sub, where } from "../../../tensor/elementwise.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { labelLogProbs } from "../../../tensor/loss.ts";
import { entropyFromLogits, logSoftmax, softmax } from "../../../tensor/norm.ts";
import { argmax } from "../../../tensor/reduce.ts";
import { concat, expandDims, slice, split } from "../../../tensor/shape.ts";
import type { Distribution } from "./distribution.ts";

/** Logit of a forbidden action. */
export const forbiddenLogit = -1e8;

/** @param dims actions of each; their sum is K. */
export function categoricals(dims: readonly number[], logits: Tensor, masks?: Tensor): Distribution {
  const allowed = masks ? where(greater(masks, 0), logits, forbiddenLogit) : logits;
  const parts = split(allowed, dims, 1);
  const sumOf = (terms: readonly Tensor[]): Tensor => terms.reduce((a, b) => add(a, b));
  return {
    parameters: [logits],
    logProb(actions) {
      const column = (i: number): Tensor => reshape(dims.length === 1 ? actions : slice(actions, 1, i, i + 1), [actions.shape[0]]);
      return sumOf(parts.map((part, i) => labelLogProbs(part, column(i))));
    },
    entropy: () => sumOf(parts.map(entropyFromLogits)),
    klPerDimension(other) {
      const theirs = split(masks ? where(greater(masks, 0), other.parameters[0], forbiddenLogit) : other.parameters[0], dims, 1);
      const terms = parts.map((part, i) => {
        const own = logSoftmax(part);
        return sum(mul(exp(own), sub(own, logSoftmax(theirs[i]))), { axes: -1 });
      });
      return expandDims(sumOf(terms), 1);
    },
    // diag(p) − p pᵀ of each state.
    fisher([tangent]) {
      const products = split(tangent, dims, 1).map((v, i) => {
        const p = softmax(parts[i]);
        const pv = mul(p, v);
        return sub(pv, mul(p, sum(pv, { axes: -1, keepDims: true })));
      });
      return [products.length === 1 ? products[0] : concat(products, 1)];
    },
    mode() {
      const best = parts.map((part) => cast(argmax(part, { axis: -1, keepDims: true }), logits.dtype));
      return best.length === 1 ? best[0] : concat(best, 1);
    },
  };
}
