// Chances of acceptance, learnt from what became of proposals, also of those that were never verified: the tokens that follow tell as well
// whether a draft would have been right. Nothing has to be tried at a loss to be learnt.

export class AcceptanceTable {
  readonly #accepted: Float64Array;
  readonly #seen: Float64Array;
  readonly #window: number;

  /**
   * @param prior by class: the chance before anything was seen.
   * @param strength observations that the prior is worth. Default 6.
   * @param window about how many of the latest observations of a class count. Default 200.
   */
  constructor(prior: readonly number[], { strength = 6, window = 200 } = {}) {
    this.#accepted = Float64Array.from(prior, (chance) => chance * strength);
    this.#seen = new Float64Array(prior.length).fill(strength);
    this.#window = window;
  }

  observe(kind: number, accepted: boolean): void {
    // Forgetting, because a text changes: code follows after prose.
    if (this.#seen[kind] >= this.#window) {
      const keep = 1 - 1 / this.#window;
      this.#accepted[kind] *= keep;
      this.#seen[kind] *= keep;
    }
    this.#accepted[kind] += accepted ? 1 : 0;
    this.#seen[kind]++;
  }

  chance(kind: number): number {
    return this.#accepted[kind] / this.#seen[kind];
  }
}

/** What a token's own record is weighed against: so many observations of its class. */
const classWeight = 5;

/**
 * How often each token was followed by what was proposed behind it, in one text. A copy that leaves its source does so at the same places again:
 * behind the same words, at the ends of lines.
 */
export class TokenRecord {
  readonly #counts = new Map<number, { right: number; seen: number }>();

  clear(): void {
    this.#counts.clear();
  }

  observe(token: number, right: boolean): void {
    let counts = this.#counts.get(token);
    if (!counts) {
      counts = { right: 0, seen: 0 };
      this.#counts.set(token, counts);
    }
    if (right) counts.right++;
    counts.seen++;
  }

  /** The chance of a draft behind this token, of whose class it is `chance`. */
  adjust(token: number, chance: number): number {
    const counts = this.#counts.get(token);
    return counts ? (counts.right + classWeight * chance) / (counts.seen + classWeight) : chance;
  }
}

/** Classes of {@link matchClass}: chances that are usual in text that repeats now and then. */
export const matchPrior = [0.05, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.94, 0.97] as const;

/** Class of a match of so many tokens: 0, 1, 2, 3, 4–5, 6–8, 9–16, 17–32, more. */
export function matchClass(length: number): number {
  if (length <= 3) return length;
  if (length <= 5) return 4;
  if (length <= 8) return 5;
  return length <= 16 ? 6 : length <= 32 ? 7 : 8;
}

/** A proposal that waits for the tokens which tell how good it was. */
export class PendingProposal {
  readonly ids: Int32Array;
  readonly kinds: Int32Array;
  length = 0;
  /** Index in the sequence of the first proposed token. */
  start = -1;

  constructor(capacity: number) {
    this.ids = new Int32Array(capacity);
    this.kinds = new Int32Array(capacity);
  }

  /** Counts as many of its tokens as the sequence has by now, up to the first wrong one. */
  settle(ids: Int32Array, numIds: number, table: AcceptanceTable, record?: TokenRecord): void {
    const known = Math.min(this.length, numIds - this.start);
    for (let i = 0; i < known; i++) {
      const right = ids[this.start + i] === this.ids[i];
      table.observe(this.kinds[i], right);
      // A match of one token says too little of what should follow it.
      if (this.kinds[i] >= 2) record?.observe(ids[this.start + i - 1], right);
      if (!right) break;
    }
    this.length = 0;
  }
}
