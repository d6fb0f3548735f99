// What is left of a target's distribution after rejections: max(0, p − q) or p without a token, renormalised.
import { Distribution } from "../sampling/distribution.ts";

export class Residual {
  /** The current distribution. */
  readonly current = new Distribution();
  #p: Distribution = this.current;

  /** Begins with a copy of `p`. */
  start(p: Distribution): Distribution {
    const { count, ids, probabilities } = p;
    const { current } = this;
    this.#p = p;
    if (current.ids.length < count) {
      current.ids = new Int32Array(2 * count);
      current.probabilities = new Float64Array(2 * count);
    }
    for (let i = 0; i < count; i++) {
      current.ids[i] = ids[i];
      current.probabilities[i] = probabilities[i];
    }
    current.count = count;
    return current;
  }

  /** p(id) = 0, renormalised. */
  remove(id: number): void {
    const { count, ids, probabilities } = this.current;
    for (let i = 0; i < count; i++) if (ids[i] === id) probabilities[i] = 0;
    this.#normalise();
  }

  /** max(0, p − q), renormalised. Both have ascending ids. */
  subtract(q: Distribution): void {
    const { count, ids, probabilities } = this.current;
    let at = 0;
    for (let i = 0; i < count; i++) {
      while (at < q.count && q.ids[at] < ids[i]) at++;
      if (at < q.count && q.ids[at] === ids[i]) probabilities[i] = Math.max(0, probabilities[i] - q.probabilities[at]);
    }
    this.#normalise();
  }

  #normalise(): void {
    const { count, probabilities } = this.current;
    let total = 0;
    for (let i = 0; i < count; i++) total += probabilities[i];
    if (total > 0) for (let i = 0; i < count; i++) probabilities[i] /= total;
    // A rejection has probability 1 − Σ min(p, q): where nothing is left, p and q were equal up to rounding.
    else this.start(this.#p);
  }
}
