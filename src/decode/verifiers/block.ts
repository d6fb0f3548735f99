// Block verification of a drawn chain (Sun et al. 2025, Alg. 2): the drafts are accepted or rejected together, which keeps at least as many
// of them as one by one. With w_0 = 1, w_i = min(1, w_{i−1} p(x_i)/q(x_i)) and s_i = Σ max(0, w_i p − q) after i drafts, the longest block
// whose test of probability s_i / (s_i + 1 − w_i) succeeds is kept (w_γ for the whole chain); the token after it comes from max(0, w_i p − q),
// renormalised, or from p after the whole chain.
import { UsageError } from "../../base/errors.ts";
import { Distribution } from "../sampling/distribution.ts";
import { Residual } from "./residual.ts";
import type { Verifier } from "./verifier.ts";

export const blockVerifier: Verifier = {
  name: "block",
  lossless: true,
  verify({ shape, ids, distributions }, target, chance) {
    if (!shape.isChain)
      throw new UsageError(`verifier block: expected a chain, got a tree of ${shape.size} nodes with branches`, {
        hint: "Use the verifier rejection for trees.",
      });
    const last = shape.size - 1;
    const oneHots = Array.from({ length: shape.size }, (_, node) => new Distribution().setOneHot(ids[node]));
    const draftedFrom = (node: number): Distribution => distributions?.[node] ?? oneHots[node];
    const weights = new Float64Array(shape.size).fill(1);
    for (let node = 1; node <= last; node++) {
      const q = draftedFrom(node).probability(ids[node]);
      const ratio = q > 0 ? target.distribution(node - 1).probability(ids[node]) / q : 0;
      weights[node] = Math.min(1, weights[node - 1] * ratio);
    }
    const residual = new Residual();
    for (let node = last; ; node--) {
      const p = residual.start(target.distribution(node));
      const weight = weights[node];
      if (node === last) {
        if (node === 0 || chance.accept(weight)) return { node, token: chance.draw(p, node) };
        continue;
      }
      const left = residual.subtract(draftedFrom(node + 1), weight);
      if (node === 0 || chance.accept(left === 0 ? 0 : left / (left + 1 - weight))) return { node, token: chance.draw(p, node) };
    }
  },
};
