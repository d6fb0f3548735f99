// The target at the nodes of a tree that was just run: its processed distribution after the path to a node, computed when a verifier
// asks for it, because most nodes are never asked about.
import { Distribution } from "./sampling/distribution.ts";
import type { Sequence } from "./sequence.ts";
import type { TokenTree } from "./token-tree.ts";
import type { TargetView } from "./verifiers/verifier.ts";

export class SequenceView implements TargetView {
  readonly #sequence: Sequence;
  readonly #vocabSize: number;
  readonly #distribution = new Distribution();
  readonly #context: { ids: Int32Array; numIds: number; promptLength: number };
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
  }

  logits(node: number): Float32Array {
    return this.#logits.subarray(node * this.#vocabSize, (node + 1) * this.#vocabSize);
  }

  distribution(node: number): Distribution {
    return this.#sequence.processor.distribution(this.logits(node), this.#contextAt(node), this.#distribution);
  }

  argmax(node: number): number {
    const { processor } = this.#sequence;
    if (processor.greedy) return processor.select(this.logits(node), this.#contextAt(node), 0);
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
