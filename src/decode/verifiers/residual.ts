// What is left of a target's distribution after rejections: max(0, p − q) or p without a token, renormalised.
import { Distribution } from "../sampling/distribution.ts";

export class Residual {
  /** The current distribution. */
  readonly current = new Distribution();
  readonly #before = new Distribution();

  /** Begins with a copy of `p`. */
  start(p: Distribution): Distribution {
    copy(p, this.current);
    return this.current;
  }

  /** p(id) = 0, renormalised. */
  remove(id: number): void {
    copy(this.current, this.#before);
    const { count, ids, probabilities } = this.current;
    for (let i = 0; i < count; i++) if (ids[i] === id) probabilities[i] = 0;
    this.#normalise();
  }

  /** max(0, weight · p − q), renormalised; returns what it summed to before. */
  subtract(q: Distribution, weight = 1): number {
    copy(this.current, this.#before);
    const { count, ids, probabilities } = this.current;
    let at = 0;
    for (let i = 0; i < count; i++) {
      // Both have ascending ids.
      while (at < q.count && q.ids[at] < ids[i]) at++;
      const taken = at < q.count && q.ids[at] === ids[i] ? q.probabilities[at] : 0;
      probabilities[i] = Math.max(0, weight * probabilities[i] - taken);
    }
    return this.#normalise();
  }

  #normalise(): number {
    const { count, probabilities } = this.current;
    let total = 0;
    for (let i = 0; i < count; i++) total += probabilities[i];
    if (total > 0) for (let i = 0; i < count; i++) probabilities[i] /= total;
    // A rejection has probability 1 − Σ min(p, q): where nothing is left, p and q were equal up to rounding.
    else copy(this.#before, this.current);
    return total;
  }
}

function copy({ count, ids, probabilities }: Distribution, target: Distribution): void {
  if (target.ids.length < count) {
    target.ids = new Int32Array(2 * count);
    target.probabilities = new Float64Array(2 * count);
  }
  for (let i = 0; i < count; i++) {
    target.ids[i] = ids[i];
    target.probabilities[i] = probabilities[i];
  }
  target.count = count;
}
