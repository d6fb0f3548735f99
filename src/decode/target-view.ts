// The target at the nodes of a tree that was just run: its processed distribution after the path to a node, computed when a verifier
// asks for it, because most nodes are never asked about. After some drafts no token may be allowed (a grammar that the vocabulary cannot
// spell further). Plain decoding fails when it has written such a token and not before; so what lies behind one is left out of the verdict.
import { NoTokenLeftError } from "./sampling/candidates.ts";
import { Distribution } from "./sampling/distribution.ts";
import type { Sequence } from "./sequence.ts";
import type { TokenTree } from "./token-tree.ts";
import type { TargetView, Verdict } from "./verifiers/verifier.ts";

export class SequenceView implements TargetView {
  readonly #sequence: Sequence;
  readonly #vocabSize: number;
  readonly #distribution = new Distribution();
  readonly #context: { ids: Int32Array; numIds: number; promptLength: number };
  readonly #deadEnds = new Set<number>();
  #tree: TokenTree | undefined;
  #logits: Float32Array = new Float32Array(0);

  constructor(sequence: Sequence, vocabSize: number) {
    this.#sequence = sequence;
    this.#vocabSize = vocabSize;
    this.#context = { ids: sequence.ids, numIds: 0, promptLength: sequence.prompt.length };
  }

  /** @param logits_NV rows of the tree's nodes. */
  load(tree: TokenTree, logits_NV: Float32Array): void {
    this.#tree = tree;
    this.#logits = logits_NV;
    this.#deadEnds.clear();
  }

  logits(node: number): Float32Array {
    return this.#logits.subarray(node * this.#vocabSize, (node + 1) * this.#vocabSize);
  }

  /** @throws NoTokenLeftError at the root, where the text itself cannot go on. */
  distribution(node: number): Distribution {
    try {
      return this.#sequence.processor.distribution(this.logits(node), this.#contextAt(node), this.#distribution);
    } catch (error) {
      if (node === 0 || !(error instanceof NoTokenLeftError)) throw error;
      this.#deadEnds.add(node);
      // Some token, so that the verifier comes to its end: `upToDeadEnd` takes back whatever it makes of it.
      return this.#distribution.setOneHot(0);
    }
  }

  /** The verdict up to the first token of its path after which there is none: that token is its last. */
  upToDeadEnd(verdict: Verdict): Verdict {
    if (this.#deadEnds.size === 0) return verdict;
    const { shape, ids } = this.#tree as TokenTree;
    let result = verdict;
    for (let at = verdict.node; at > 0; at = shape.parents[at])
      if (this.#deadEnds.has(at)) result = { node: shape.parents[at], token: ids[at] };
    return result;
  }

  argmax(node: number): number {
    const { count, ids, probabilities } = this.distribution(node);
    let best = 0;
    for (let i = 1; i < count; i++) if (probabilities[i] > probabilities[best]) best = i;
    return ids[best];
  }

  /** The committed ids with the path to `node` behind them. */
  #contextAt(node: number): { ids: Int32Array; numIds: number; promptLength: number } {
    const { shape, ids } = this.#tree as TokenTree;
    const { count } = this.#sequence;
    const depth = shape.depths[node];
    const context = this.#context;
    context.numIds = count + depth;
    if (this.#sequence.processor.dependsOnSequence)
      for (let at = node, i = count + depth - 1; at > 0; at = shape.parents[at]) context.ids[i--] = ids[at];
    return context;
  }
}
