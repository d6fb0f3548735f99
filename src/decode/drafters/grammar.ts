// Drafting what a grammar leaves no choice about: keys, quotes and brackets of JSON. The tokens cost nothing to find; where there is no such
// text, another drafter may propose.
import type { DraftContext, Drafter, DrafterNeeds, DraftTarget, StepOutcome } from "../drafter.ts";
import type { TargetRows } from "../runner-calls.ts";
import type { GrammarStep } from "../sampling/context.ts";
import { rootOnly, type TokenTree, TreeShape } from "../token-tree.ts";

export interface GrammarDrafterOptions {
  /** Default: the grammar of the request. */
  grammar?: GrammarStep;
  /** Proposes where the grammar forces nothing; it stays its maker's. Default: none. */
  otherwise?: Drafter;
  /** Most tokens of a draft. Default 32. */
  maxTokens?: number;
}

export class GrammarDrafter implements Drafter {
  readonly name: string;
  readonly needs: DrafterNeeds;
  readonly #grammar: GrammarStep | undefined;
  readonly #otherwise: Drafter | undefined;
  readonly #maxTokens: number;
  readonly #ids: Int32Array;

  constructor({ grammar, otherwise, maxTokens = 32 }: GrammarDrafterOptions = {}) {
    this.#grammar = grammar;
    this.#otherwise = otherwise;
    this.#maxTokens = maxTokens;
    this.#ids = new Int32Array(maxTokens + 1);
    this.name = otherwise ? `grammar, ${otherwise.name}` : "grammar";
    this.needs = otherwise?.needs ?? {};
  }

  begin(target: DraftTarget): void {
    this.#otherwise?.begin(target);
  }

  observePrompt(ids: ArrayLike<number>, rows: TargetRows): void {
    this.#otherwise?.observePrompt?.(ids, rows);
  }

  propose(context: DraftContext): TokenTree {
    const { ids, numIds, maxNodes, maxDepth, processor } = context;
    const grammar = this.#grammar ?? processor.grammar;
    const limit = Math.min(this.#maxTokens, maxNodes - 1, maxDepth);
    const forced = grammar && limit > 0 ? grammar.forced(context, limit) : [];
    if (forced.length === 0) return this.#otherwise?.propose(context) ?? rootOnly(ids[numIds - 1], this.#ids);
    this.#ids[0] = ids[numIds - 1];
    for (const [i, token] of forced.entries()) this.#ids[i + 1] = token;
    return { shape: TreeShape.chain(forced.length), ids: this.#ids };
  }

  observe(outcome: StepOutcome): void {
    this.#otherwise?.observe(outcome);
  }

  forget(): void {
    this.#otherwise?.forget?.();
  }

  dispose(): void {}

  [Symbol.dispose](): void {}
}
