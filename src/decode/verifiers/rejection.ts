// Speculative rejection of a chain whose tokens were drawn from known distributions q (Leviathan et al. 2023, Alg. 1; Chen et al. 2023):
// x ~ q is accepted with probability min(1, p(x)/q(x)); at the first rejection the token comes from max(0, p − q), renormalised; when all
// are accepted, one more comes from p. A token without a distribution was chosen without chance: its q is one-hot.
import { UsageError } from "../../base/errors.ts";
import { Residual } from "./residual.ts";
import type { Verifier } from "./verifier.ts";

export const rejectionVerifier: Verifier = {
  name: "rejection",
  lossless: true,
  verify({ shape, ids, distributions }, target, chance) {
    if (!shape.isChain)
      throw new UsageError(`verifier rejection: expected a chain, got a tree of ${shape.size} nodes with branches`, {
        hint: "Use the verifier deterministic or token-match for trees.",
      });
    const residual = new Residual();
    for (let node = 0; ; node++) {
      const p = target.distribution(node);
      if (node + 1 === shape.size) return { node, token: chance.draw(p, node) };
      const draft = ids[node + 1];
      const q = distributions?.[node + 1];
      const qDraft = q ? q.probability(draft) : 1;
      // A token that its own distribution excludes is a defect of the drafter; 0/0 must not accept it.
      if (qDraft > 0 && chance.accept(Math.min(1, p.probability(draft) / qDraft))) continue;
      residual.start(p);
      if (q) residual.subtract(q);
      else residual.remove(draft);
      return { node, token: chance.draw(residual.current, node) };
    }
  },
};
