// What a verifier is: a pure function that walks a tree of drafted tokens and picks a path and one more token. All chance comes through
// `Chance`, so that a test can take every branch with its exact probability.
import type { Distribution } from "../sampling/distribution.ts";
import type { TokenTree } from "../token-tree.ts";

/** The target model's answer at the nodes of a tree, computed when asked for. */
export interface TargetView {
  /** What the target would append after `node`, processed as it would be without drafts. Valid until the next call. */
  distribution(node: number): Distribution;
  /** The most probable token after `node`, of equal ones the lowest; the only allowed one when decoding is greedy. */
  argmax(node: number): number;
}

export interface Chance {
  /** True with this probability. */
  accept(probability: number): boolean;
  /** A token of the distribution, at the position after a node of this depth: the same uniform as plain decoding takes there. */
  draw(distribution: Distribution, depth: number): number;
}

export interface Verdict {
  /** The last accepted node: 0 (the root) when nothing was. */
  node: number;
  /** What follows it: a correction, or a token of the target's own. */
  token: number;
}

export interface Verifier {
  readonly name: string;
  /** Every emitted token has exactly the target's distribution. */
  readonly lossless: boolean;
  verify(tree: TokenTree, target: TargetView, chance: Chance): Verdict;
}

/** The child of `node` that holds token `id`, or −1. */
export function childWith({ shape, ids }: TokenTree, node: number, id: number): number {
  let child = shape.firstChild[node];
  while (child >= 0 && ids[child] !== id) child = shape.nextSibling[child];
  return child;
}
