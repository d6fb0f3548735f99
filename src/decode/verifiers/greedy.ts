// Greedy verification (Stern et al. 2018): a draft stays while it is the target's most probable token. The text is that of greedy decoding.
import { childWith, type Verifier } from "./verifier.ts";

export const greedyVerifier: Verifier = {
  name: "greedy",
  lossless: true,
  verify(tree, target) {
    for (let node = 0; ; ) {
      const token = target.argmax(node);
      const child = childWith(tree, node, token);
      if (child < 0) return { node, token };
      node = child;
    }
  },
};
