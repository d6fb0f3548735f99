// Drafting with a model of another tokenizer (Timor et al. 2025, token-level intersection): the draft model is confined to tokens that both
// vocabularies spell with the same bytes, and what it reads of the target's text is spelt out in its own tokens, one target token at a time.
import { UsageError } from "../base/errors.ts";

/** What is needed of a tokenizer: how each of its tokens is spelt, and how bytes become its tokens. */
export interface VocabularySide {
  readonly size: number;
  /** Bytes of a token; undefined for one that stands for no text (special tokens). */
  bytesOf(id: number): Uint8Array | undefined;
}

export interface VocabularyMapOptions {
  readonly target: VocabularySide;
  readonly draft: VocabularySide;
  /** The draft model's tokens for a piece of text that is no single token of its. */
  encodeDraft(bytes: Uint8Array): ArrayLike<number>;
  /** Pairs of special tokens that mean the same, [target, draft]: beginning and end of a text. Default none. */
  readonly special?: readonly (readonly [number, number])[];
}

export class VocabularyMap {
  /** By draft id: the same token of the target, −1 where there is none. */
  readonly toTarget: Int32Array;
  /** By target id: the same token of the draft model, −1 where there is none. */
  readonly toDraft: Int32Array;
  /** Tokens that both have. */
  readonly size: number;
  readonly #options: VocabularyMapOptions;
  readonly #spelt = new Map<number, ArrayLike<number>>();
  readonly #logits: Float32Array;

  /** @throws UsageError when less than 1 % of the draft model's tokens are the target's as well. */
  constructor(options: VocabularyMapOptions) {
    const { target, draft, special = [] } = options;
    this.#options = options;
    this.toTarget = new Int32Array(draft.size).fill(-1);
    this.toDraft = new Int32Array(target.size).fill(-1);
    this.#logits = new Float32Array(target.size);
    const key = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
    const spelling = new Map<string, number>();
    for (let id = 0; id < target.size; id++) {
      const bytes = target.bytesOf(id);
      if (bytes && bytes.length > 0 && !spelling.has(key(bytes))) spelling.set(key(bytes), id);
    }
    let size = 0;
    const join = (targetId: number, draftId: number): void => {
      if (this.toTarget[draftId] >= 0 || this.toDraft[targetId] >= 0) return;
      this.toTarget[draftId] = targetId;
      this.toDraft[targetId] = draftId;
      size++;
    };
    for (const [targetId, draftId] of special) join(targetId, draftId);
    for (let id = 0; id < draft.size; id++) {
      const bytes = draft.bytesOf(id);
      const same = bytes && bytes.length > 0 ? spelling.get(key(bytes)) : undefined;
      if (same !== undefined) join(same, id);
    }
    this.size = size;
    if (size < draft.size / 100)
      throw new UsageError(`draft model: expected a vocabulary that shares tokens with the target's, got ${size} of ${draft.size}`, {
        hint: "Take a draft model whose tokenizer is nearer to the target's.",
      });
  }

  /** The draft model's ids for a token of the target: its own one, or its spelling. */
  spell(id: number): ArrayLike<number> {
    const same = this.toDraft[id];
    if (same >= 0) return [same];
    let ids = this.#spelt.get(id);
    if (!ids) {
      const bytes = this.#options.target.bytesOf(id);
      ids = bytes && bytes.length > 0 ? this.#options.encodeDraft(bytes) : [];
      this.#spelt.set(id, ids);
    }
    return ids;
  }

  /** The draft model's logits [V_draft] at the target's ids [V_target]; −Infinity for tokens that only one has. Overwritten by the next call. */
  spread(logits: Float32Array): Float32Array {
    this.#logits.fill(Number.NEGATIVE_INFINITY);
    const { toTarget } = this;
    for (let id = 0; id < toTarget.length; id++) if (toTarget[id] >= 0) this.#logits[toTarget[id]] = logits[id];
    return this.#logits;
  }

  /** @throws UsageError for a target or draft model of another vocabulary. */
  check(targetSize: number, draftSize: number): void {
    if (targetSize < this.toDraft.length || draftSize < this.toTarget.length)
      throw new UsageError(
        `draft model: expected vocabularies of ${this.toDraft.length} and ${this.toTarget.length} tokens, got ${targetSize} and ${draftSize}`,
        { hint: "The map was made for other tokenizers." },
      );
  }
}
