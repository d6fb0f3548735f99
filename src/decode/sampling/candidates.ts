// The tokens still in play and their logits, compact and in ascending id order, so that every step after a truncation costs
// what is left and not what the vocabulary holds. All memory is allocated once per vocabulary and reused for every token.
import { NotFiniteError, UsageError } from "../../base/errors.ts";
import { expNegative } from "./exp.ts";
import { MassThreshold } from "./mass-threshold.ts";

/**
 * What the first truncation will keep at most, so that the rest need not be loaded: the `largest` logits by number, or those
 * within `distance` of the largest.
 */
export type Preselection = { readonly largest: number } | { readonly distance: number };

const groupSize = 64;

export class Candidates {
  /** Entries in use of the arrays below. */
  count = 0;
  /** The largest logit. */
  max = 0;
  /** Sum of `weights`, once `weigh` was called. */
  total = 0;
  /** Token ids, ascending. */
  readonly ids: Int32Array;
  readonly logits: Float32Array;
  /** Unnormalised probabilities exp(logit - max), once `weigh` was called. */
  readonly weights: Float64Array;
  /** The logits as words, for the radix search. */
  readonly bits: Uint32Array;
  readonly thresholds: MassThreshold;
  readonly #maxima: Float32Array;
  readonly #maximaBits: Uint32Array;
  #weighed = false;

  constructor(vocabularySize: number) {
    this.ids = new Int32Array(vocabularySize);
    this.logits = new Float32Array(vocabularySize);
    this.bits = new Uint32Array(this.logits.buffer);
    this.weights = new Float64Array(vocabularySize);
    this.thresholds = new MassThreshold(vocabularySize);
    this.#maxima = new Float32Array(Math.ceil(vocabularySize / groupSize));
    this.#maximaBits = new Uint32Array(this.#maxima.buffer);
  }

  /**
   * Starts over with all tokens that are not forbidden, or with a superset of those that `preselection` asks for.
   * @throws NotFiniteError for a logit that is NaN or +Infinity, NoTokenLeftError when every token is forbidden.
   */
  load(logits_V: Float32Array, preselection?: Preselection): void {
    this.count = 0;
    this.max = Number.NEGATIVE_INFINITY;
    this.#weighed = false;
    if (preselection === undefined) this.#loadRange(logits_V, 0, logits_V.length, Number.NEGATIVE_INFINITY);
    else this.#loadPreselected(logits_V, preselection);
    if (this.count === 0) throw noTokenLeft();
    if (this.max === Number.POSITIVE_INFINITY) throw notFinite(logits_V);
  }

  #loadRange(logits_V: Float32Array, start: number, end: number, bound: number): void {
    const { ids, logits } = this;
    let { count, max } = this;
    for (let id = start; id < end; id++) {
      const logit = logits_V[id];
      if (logit > Number.NEGATIVE_INFINITY && logit >= bound) {
        if (logit > max) max = logit;
        ids[count] = id;
        // Adding zero turns -0 into 0: the radix search tells them apart, a comparison does not.
        logits[count++] = logit + 0;
      } else if (Number.isNaN(logit)) throw notFinite(logits_V);
    }
    this.count = count;
    this.max = max;
  }

  /** The maxima of small groups of tokens give a bound at the price of one comparison per token; few groups reach it. */
  #loadPreselected(logits_V: Float32Array, preselection: Preselection): void {
    const { length } = logits_V;
    const maxima = this.#maxima;
    const numGroups = Math.ceil(length / groupSize);
    let largest = Number.NEGATIVE_INFINITY;
    for (let group = 0; group < numGroups; group++) {
      const end = Math.min(length, (group + 1) * groupSize);
      let max = Number.NEGATIVE_INFINITY;
      for (let id = group * groupSize; id < end; id++) {
        const logit = logits_V[id];
        if (!(logit <= max)) {
          if (Number.isNaN(logit)) throw notFinite(logits_V);
          max = logit;
        }
      }
      maxima[group] = max + 0;
      if (max > largest) largest = max;
    }
    if (largest === Number.POSITIVE_INFINITY) throw notFinite(logits_V);
    let bound = largest;
    if ("distance" in preselection) bound -= preselection.distance;
    // The k-th largest of the groups' maxima is at most the k-th largest of all.
    else if (preselection.largest > numGroups) bound = Number.NEGATIVE_INFINITY;
    else bound = this.thresholds.find(this.#maximaBits, null, numGroups, preselection.largest);
    // A margin for the roundings of temperature, which must not tell a preselected from a full load.
    bound -= (Math.abs(largest) + Math.abs(bound)) * 2 ** -20 + 1e-30;
    for (let group = 0; group < numGroups; group++) {
      if (!(maxima[group] >= bound)) continue;
      this.#loadRange(logits_V, group * groupSize, Math.min(length, (group + 1) * groupSize), bound);
    }
  }

  /** Computes `weights` and `total` unless they are current. */
  weigh(): void {
    if (this.#weighed) return;
    const { logits, weights, count, max } = this;
    let total = 0;
    for (let i = 0; i < count; i++) total += weights[i] = expNegative(logits[i] - max);
    this.total = total;
    this.#weighed = true;
  }

  /** Entropy in nats. */
  entropy(): number {
    this.weigh();
    const { logits, weights, count, max, total } = this;
    let sum = 0;
    for (let i = 0; i < count; i++) sum += weights[i] * (logits[i] - max);
    return Math.log(total) - sum / total;
  }

  /** Divides every logit by `divisor` > 0, rounding to float32. */
  divide(divisor: number): void {
    const { logits, count } = this;
    this.#weighed = false;
    const max = Math.fround(this.max / divisor) + 0;
    // A tiny divisor overflows: then the logits are taken relative to the largest, which is the same distribution.
    const shift = Number.isFinite(max) ? 0 : this.max;
    this.max = Number.isFinite(max) ? max : 0;
    for (let i = 0; i < count; i++) logits[i] = (logits[i] - shift) / divisor + 0;
    if (shift !== 0) this.keepTop(-Number.MAX_VALUE);
  }

  /** Keeps the logits above `threshold`, and of those equal to it the first `numTies` in id order (default: all). */
  keepTop(threshold: number, numTies = Number.POSITIVE_INFINITY): void {
    const { ids, logits, weights, count } = this;
    const weighed = this.#weighed;
    let kept = 0;
    let ties = 0;
    let total = 0;
    for (let i = 0; i < count; i++) {
      const logit = logits[i];
      if (!(logit > threshold) && !(logit === threshold && ties++ < numTies)) continue;
      ids[kept] = ids[i];
      logits[kept] = logit;
      if (weighed) total += weights[kept] = weights[i];
      kept++;
    }
    this.count = kept;
    this.total = total;
  }

  /** Keeps the entries whose key is at least `threshold`; unlike the others it may drop the largest logit. */
  keepByKey(keys: Float32Array, threshold: number): void {
    const { ids, logits, count } = this;
    let kept = 0;
    let max = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      if (!(keys[i] >= threshold)) continue;
      ids[kept] = ids[i];
      logits[kept] = logits[i];
      if (logits[i] > max) max = logits[i];
      kept++;
    }
    this.count = kept;
    this.max = max;
    this.#weighed = false;
  }

  /** Adds to every logit what `change` says of its probability; -Infinity drops the token. Some token must stay. */
  rescore(change: (probability: number) => number): void {
    this.weigh();
    const { ids, logits, weights, count, total } = this;
    let kept = 0;
    let max = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < count; i++) {
      const logit = Math.fround(logits[i] + change(weights[i] / total)) + 0;
      if (logit === Number.NEGATIVE_INFINITY) continue;
      ids[kept] = ids[i];
      logits[kept++] = logit;
      if (logit > max) max = logit;
    }
    this.count = kept;
    this.max = max;
    this.#weighed = false;
  }

  /** Writes the logits back over the vocabulary: -Infinity for every token that was dropped. */
  store(logits_V: Float32Array): void {
    const { ids, logits, count } = this;
    logits_V.fill(Number.NEGATIVE_INFINITY);
    for (let i = 0; i < count; i++) logits_V[ids[i]] = logits[i];
  }
}

/** Every token has logit -Infinity, or a grammar cannot go on. */
export class NoTokenLeftError extends UsageError {}

export function noTokenLeft(): NoTokenLeftError {
  return new NoTokenLeftError("sampling: expected at least one token that is allowed, got none", {
    hint: "Loosen suppressTokens, badWordsIds, noRepeatNgramSize or minLength, or the mask of your own processor.",
  });
}

/** A logit is NaN or +Infinity. */
export function notFinite(logits_V: Float32Array): NotFiniteError {
  const id = logits_V.findIndex((logit) => Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY);
  return new NotFiniteError(`sampling: expected finite logits, got ${logits_V[id]} for token ${id}`, {
    hint: "The model's weights or activations overflowed; check the checkpoint and its dtype.",
  });
}
