// Greedy verification (Stern et al. 2018): a draft stays while it is the target's most probable token. The text is that of greedy decoding.
import type { TokenTree } from "../token-tree.ts";
import type { TargetView, Verdict, Verifier } from "./verifier.ts";

export const greedyVerifier: Verifier = { name: "greedy", lossless: true, verify: (tree, target) => follow(tree, target, 0) };

/** Where several children hold the same token, the one that leads deepest, of equally deep ones the first. */
function follow(tree: TokenTree, target: TargetView, node: number): Verdict {
  const { shape, ids } = tree;
  const token = target.argmax(node);
  let best: Verdict = { node, token };
  for (let child = shape.firstChild[node]; child >= 0; child = shape.nextSibling[child]) {
    if (ids[child] !== token) continue;
    const verdict = follow(tree, target, child);
    if (shape.depths[verdict.node] > shape.depths[best.node]) best = verdict;
  }
  return best;
}
