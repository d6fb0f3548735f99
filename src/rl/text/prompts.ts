// Prompts with the columns of their records, and the order in which training visits them: a new permutation for every pass, as a function
// of (seed, place) alone, so that a resumed run reads on where it stopped.
import { UsageError } from "../../base/errors.ts";
import { Random } from "../../runtime/rng.ts";

export interface Prompt {
  readonly text: string;
  /** Token ids, at least one. */
  readonly ids: Int32Array;
  /** Further columns of the record, given to reward functions by name. */
  readonly columns: Readonly<Record<string, unknown>>;
}

/** Names that a column may not have: reward functions get something else under them. */
const reservedColumns = ["prompt", "completion", "completionIds", "isComplete"];

/** @throws UsageError for no prompts, prompts that fill the context, and columns whose name is taken. */
export function checkPrompts(prompts: readonly Prompt[], contextLength: number, what = "prompts"): void {
  if (prompts.length === 0) throw new UsageError(`${what}: expected at least one, got none`);
  for (const [index, { text, ids, columns }] of prompts.entries()) {
    const place = `${what}[${index}] (${JSON.stringify(text.length > 40 ? `${text.slice(0, 37)}...` : text)})`;
    if (ids.length === 0) throw new UsageError(`${place}: expected at least one token, got none`);
    if (ids.length >= contextLength)
      throw new UsageError(`${place}: expected fewer tokens than the model's context of ${contextLength}, got ${ids.length}`, {
        hint: "Shorten the prompt or leave it out: there is no room for a completion.",
      });
    const taken = reservedColumns.find((name) => Object.hasOwn(columns, name));
    if (taken !== undefined) throw new UsageError(`${place}: expected a column of another name than "${taken}"`);
  }
}

export class PromptOrder {
  readonly #count: number;
  readonly #seed: number;
  #epoch = -1;
  #order: Uint32Array = new Uint32Array();

  constructor(count: number, seed: number) {
    this.#count = count;
    this.#seed = seed;
  }

  /** Index of the prompt at a place of the endless sequence of passes. */
  at(place: number): number {
    const epoch = Math.floor(place / this.#count);
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#order = new Random(this.#seed, { stream: "prompts", request: epoch }).permutation(this.#count);
    }
    return this.#order[place % this.#count];
  }
}
