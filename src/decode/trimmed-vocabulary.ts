// Drafting with a model that knows only some of the target's tokens, the frequent ones, so that its output layer is cheap (Zhao et al. 2025,
// "FR-Spec"). Its ids are numbers in a list of the target's; every other token is one id of its own, which is read but never drafted.
import { UsageError } from "../base/errors.ts";
import type { DraftVocabulary } from "./drafters/draft-model.ts";

export class TrimmedVocabulary implements DraftVocabulary {
  readonly toDraft: Int32Array;
  /** By draft id: the target's; the last draft id stands for all other tokens and has none. */
  readonly targetIds: Int32Array;
  readonly #logits: Float32Array;
  readonly #spelt: number[][];

  /**
   * @param targetIds ids of the target, each once, by draft id; the draft model has one id more, for all other tokens.
   * @throws UsageError for ids that the target does not have, or has twice in the list.
   */
  constructor(targetIds: ArrayLike<number>, targetSize: number) {
    this.targetIds = Int32Array.from(targetIds);
    this.toDraft = new Int32Array(targetSize).fill(-1);
    for (const [draft, id] of this.targetIds.entries()) {
      if (!(id >= 0 && id < targetSize) || this.toDraft[id] >= 0)
        throw new UsageError(`draft vocabulary: expected ids below ${targetSize}, each once, got ${id} at ${draft}`, {
          hint: "The draft model belongs to another target.",
        });
      this.toDraft[id] = draft;
    }
    this.#logits = new Float32Array(targetSize).fill(Number.NEGATIVE_INFINITY);
    this.#spelt = Array.from({ length: this.size + 1 }, (_, id) => [id]);
  }

  /** Tokens that can be drafted. */
  get size(): number {
    return this.targetIds.length;
  }

  /** The draft id of a token of the target: its own, or that of all others. */
  draftId(id: number): number {
    const own = this.toDraft[id];
    return own >= 0 ? own : this.size;
  }

  spell(id: number): ArrayLike<number> {
    return this.#spelt[this.draftId(id)];
  }

  spread(logits: Float32Array): Float32Array {
    // What is outside stays −Infinity.
    for (let draft = 0; draft < this.targetIds.length; draft++) this.#logits[this.targetIds[draft]] = logits[draft];
    return this.#logits;
  }

  /** @throws UsageError for a target or draft model of another vocabulary. */
  check(targetSize: number, draftSize: number): void {
    if (targetSize === this.toDraft.length && draftSize > this.size) return;
    throw new UsageError(
      `draft model: expected a target of ${this.toDraft.length} tokens and a draft model of at least ${this.size + 1}, got ${targetSize} and ${draftSize}`,
      { hint: "The draft model was trained for another model: train one for this one." },
    );
  }
}
