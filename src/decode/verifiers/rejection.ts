// Speculative rejection (Leviathan et al. 2023, Alg. 1; Chen et al. 2023), over siblings as in SpecInfer (Miao et al. 2024): a draft x that was
// drawn from q is accepted with probability min(1, p(x)/q(x)); at a rejection p becomes max(0, p − q), renormalised, and the next sibling
// is tried with the distribution that it was drawn from; when none is left, the token comes from what remains of p. A chain is the case of
// one sibling. A token without a distribution was chosen without chance: its q is one-hot.
import { Residual } from "./residual.ts";
import type { Verifier } from "./verifier.ts";

/**
 * Lossless when siblings are drawn in their order, each from the distribution that the tree tells: independently, or without replacement
 * from q without the siblings before, renormalised.
 */
export const rejectionVerifier: Verifier = {
  name: "rejection",
  lossless: true,
  verify({ shape, ids, distributions }, target, chance) {
    const residual = new Residual();
    for (let node = 0; ; ) {
      const p = residual.start(target.distribution(node));
      let child = shape.firstChild[node];
      for (; child >= 0; child = shape.nextSibling[child]) {
        const draft = ids[child];
        const q = distributions?.[child];
        const qDraft = q ? q.probability(draft) : 1;
        // A token that its own distribution excludes is a defect of the drafter; 0/0 must not accept it.
        if (qDraft > 0 && chance.accept(Math.min(1, p.probability(draft) / qDraft))) break;
        if (q) residual.subtract(q);
        else residual.remove(draft);
      }
      if (child < 0) return { node, token: chance.draw(p, shape.depths[node]) };
      node = child;
    }
  },
};
