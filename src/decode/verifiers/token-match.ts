// Token match: the target draws its own token at every node, and a draft stays while it is that token. Lossless for any drafter whose
// drafts do not depend on the draws, with any tree, and with the uniforms of plain decoding the text is the same as without drafts.
// For deterministic drafts it accepts exactly as often as rejection does: the sum of the siblings' probabilities.
import { childWith, type Verifier } from "./verifier.ts";

export const tokenMatchVerifier: Verifier = {
  name: "token-match",
  lossless: true,
  verify(tree, target, chance) {
    for (let node = 0; ; ) {
      const token = chance.draw(target.distribution(node), tree.shape.depths[node]);
      const child = childWith(tree, node, token);
      if (child < 0) return { node, token };
      node = child;
    }
  },
};
