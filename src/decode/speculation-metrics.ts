// Counts of speculative decoding, under the names of vLLM's metrics in camel case, and what follows from them.

/** Plain numbers: JSON-serialisable. */
export interface SpeculationSummary {
  /** Steps with at least one drafted token (vLLM: spec_decode_num_drafts). */
  readonly numDrafts: number;
  /** Nodes of all trees, roots excluded (spec_decode_num_draft_tokens). */
  readonly numDraftTokens: number;
  /** Drafts that became text (spec_decode_num_accepted_tokens). */
  readonly numAcceptedTokens: number;
  /** By depth, from 0: accepted drafts (spec_decode_num_accepted_tokens_per_pos). */
  readonly numAcceptedTokensPerPos: readonly number[];
  /** By depth: drafted steps that reached so deep; for trees, by their deepest path. */
  readonly numDraftsPerPos: readonly number[];
  /** By depth: accepted / drafted. Position i counts only together with those before it, as in vLLM. */
  readonly acceptanceByPosition: readonly number[];
  /** Calls of the target. */
  readonly numSteps: number;
  /** Tokens that the steps committed, the target's own included. */
  readonly numTokens: number;
  /** Tokens a step, τ: 1 without drafts. */
  readonly tokensPerStep: number;
  /** Mean acceptance length over drafted steps, as vLLM logs it: 1 + accepted / drafts. */
  readonly meanAcceptanceLength: number;
  /** Seconds in the drafter, in the target, and in verification and commit. */
  readonly seconds: { readonly draft: number; readonly target: number; readonly verify: number };
}

export class SpeculationMetrics {
  #numDrafts = 0;
  #numDraftTokens = 0;
  #numAccepted = 0;
  #numSteps = 0;
  #numTokens = 0;
  readonly #acceptedPerPos: number[] = [];
  readonly #draftsPerPos: number[] = [];
  readonly #milliseconds = { draft: 0, target: 0, verify: 0 };

  /** @param numTokens that became text: fewer than accepted + 1 when the sequence ended inside the block. */
  step(numDrafted: number, maxDepth: number, numAccepted: number, numTokens: number): void {
    this.#numSteps++;
    this.#numTokens += numTokens;
    if (numDrafted === 0) return;
    this.#numDrafts++;
    this.#numDraftTokens += numDrafted;
    this.#numAccepted += numAccepted;
    for (let depth = 0; depth < maxDepth; depth++) {
      this.#draftsPerPos[depth] = (this.#draftsPerPos[depth] ?? 0) + 1;
      this.#acceptedPerPos[depth] = (this.#acceptedPerPos[depth] ?? 0) + (depth < numAccepted ? 1 : 0);
    }
  }

  time(draft: number, target: number, verify: number): void {
    this.#milliseconds.draft += draft;
    this.#milliseconds.target += target;
    this.#milliseconds.verify += verify;
  }

  summary(): SpeculationSummary {
    const { draft, target, verify } = this.#milliseconds;
    return {
      numDrafts: this.#numDrafts,
      numDraftTokens: this.#numDraftTokens,
      numAcceptedTokens: this.#numAccepted,
      numAcceptedTokensPerPos: [...this.#acceptedPerPos],
      numDraftsPerPos: [...this.#draftsPerPos],
      acceptanceByPosition: this.#acceptedPerPos.map((accepted, depth) => accepted / this.#draftsPerPos[depth]),
      numSteps: this.#numSteps,
      numTokens: this.#numTokens,
      tokensPerStep: this.#numSteps === 0 ? 0 : this.#numTokens / this.#numSteps,
      meanAcceptanceLength: this.#numDrafts === 0 ? 1 : 1 + this.#numAccepted / this.#numDrafts,
      seconds: { draft: draft / 1000, target: target / 1000, verify: verify / 1000 },
    };
  }
}
