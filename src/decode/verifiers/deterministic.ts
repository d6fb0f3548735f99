// Rejection sampling of drafts that were chosen without chance (their q is one-hot): a static or top-k tree, a lookup, an argmax chain.
// A draft d is accepted with probability p(d); on rejection p(d) becomes 0, p is renormalised and the next sibling is tried; when
// none is left, the token comes from what remains of p. (Leviathan et al. 2023 with q one-hot; EAGLE's tree sampling.)
import { UsageError } from "../../base/errors.ts";
import { Residual } from "./residual.ts";
import type { Verifier } from "./verifier.ts";

/** Refuses trees with drawn tokens, for which it would not be lossless. */
export const deterministicVerifier: Verifier = {
  name: "deterministic",
  lossless: true,
  verify({ shape, ids, distributions }, target, chance) {
    if (distributions?.some((q) => q !== undefined))
      throw new UsageError("verifier deterministic: expected drafts that were chosen without chance, got drawn ones", {
        hint: "Use the verifier rejection or token-match for them.",
      });
    const residual = new Residual();
    for (let node = 0; ; ) {
      const p = residual.start(target.distribution(node));
      let child = shape.firstChild[node];
      while (child >= 0) {
        if (chance.accept(p.probability(ids[child]))) break;
        residual.remove(ids[child]);
        child = shape.nextSibling[child];
      }
      if (child < 0) return { node, token: chance.draw(p, shape.depths[node]) };
      node = child;
    }
  },
};
