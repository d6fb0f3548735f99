// What a call of the target on n new tokens costs, learnt while it decodes, and how many drafts pay at that price. v(n) of a CPU is far
// from 1 for all n, and it differs between machines and kinds of weights: a number that was fixed beforehand would be wrong for most.

/** The share of one token's cost that a further token is taken to cost until a prompt or a draft was measured. */
const assumedSlope = 0.08;
/** Prompts shorter than this tell little of what a token of a call costs. */
const leastPrompt = 16;
/** Weight of a new time in the running mean of its size. */
const rate = 0.1;
/** A time beyond so many times what was expected is the machine's doing, and counts as this much. */
const outlier = 2;
/** Calls of a size count in the line through all sizes up to this number; so many, too, make a size's own mean worth as much as the line. */
const fewCalls = 10;
/** In the first calls kernels put weights in order: their times hold until there are later ones. */
const settlingCalls = 8;
/** Drafts must promise this much to be made: what they cost besides the target's time is not free. */
const leastGain = 1.01;

export class StepCosts {
  /** Running means in milliseconds by number of tokens; 0: never seen. */
  #means = new Float64Array(64);
  /** Calls by number of tokens, the first one included. */
  #counts = new Int32Array(64);
  #calls = 0;
  /** Sizes seen, ascending, and for each its mean drawn to the line, at least that of the size before. */
  readonly #sizes: number[] = [];
  readonly #costs: number[] = [];
  /** The slope of the line through the means, milliseconds for a token. */
  #slope = 0;
  /** What a token of a prompt took at least: no further token of a call is much dearer, and without it drafts would have to find that out. */
  #prompt = Number.POSITIVE_INFINITY;

  /** A prompt of so many tokens took so long, in calls of whatever size. Counts until calls of several sizes were measured. */
  observePrompt(tokens: number, milliseconds: number): void {
    if (tokens >= leastPrompt && milliseconds > 0) this.#prompt = Math.min(this.#prompt, milliseconds / tokens);
  }

  /** A call on so many tokens took so long. The first call of a size does not count: it finds nothing bound and caches cold. */
  observe(tokens: number, milliseconds: number): void {
    if (!(milliseconds > 0)) return;
    if (tokens >= this.#means.length) this.#grow(tokens);
    this.#calls++;
    if (this.#counts[tokens]++ === 0) return;
    const mean = this.#means[tokens];
    if (mean === 0) {
      this.#means[tokens] = this.#sizes.length === 0 ? milliseconds : Math.min(milliseconds, outlier * this.at(tokens));
      const at = this.#sizes.findIndex((size) => size > tokens);
      this.#sizes.splice(at < 0 ? this.#sizes.length : at, 0, tokens);
    } else {
      const weight = Math.max(rate, 1 / (this.#counts[tokens] - 1));
      this.#means[tokens] = mean + weight * (Math.min(milliseconds, outlier * mean) - mean);
    }
    if (this.#calls <= settlingCalls) this.#counts[tokens] = 1;
    this.#fit();
  }

  /** Milliseconds of a call on so many tokens; 1 for one token when nothing was seen yet, so that ratios are right. */
  at(tokens: number): number {
    const sizes = this.#sizes;
    if (sizes.length === 0) return 1 + assumedSlope * (tokens - 1);
    const first = sizes[0];
    if (sizes.length === 1) {
      const mean = this.#means[first];
      if (first === 1 && this.#prompt < mean) return mean + this.#prompt * (tokens - 1);
      return (mean * (1 + assumedSlope * (tokens - 1))) / (1 + assumedSlope * (first - 1));
    }
    let next = 1;
    while (next < sizes.length - 1 && sizes[next] < tokens) next++;
    const [a, b] = [sizes[next - 1], sizes[next]];
    const [atA, atB] = [this.#costs[next - 1], this.#costs[next]];
    if (tokens > b) return atB + this.#slope * (tokens - b);
    return Math.max(atA * 0.5, atA + ((tokens - a) * (atB - atA)) / (b - a));
  }

  /**
   * The line of least squares through the means, each weighted by its calls, and what sizes cost: their means, drawn to the line the less often
   * they were seen. One slow call of a size would else keep drafts of that length away, and with them the calls that tell better. Noise must not
   * make more tokens cheaper than fewer, nor a line that begins below zero any of them.
   */
  #fit(): void {
    let [calls, tokens, time, squares, products] = [0, 0, 0, 0, 0];
    for (const size of this.#sizes) {
      const weight = Math.min(Math.max(1, this.#counts[size] - 1), fewCalls);
      const mean = this.#means[size];
      calls += weight;
      tokens += weight * size;
      time += weight * mean;
      squares += weight * size * size;
      products += weight * size * mean;
    }
    const spread = calls * squares - tokens * tokens;
    let slope = spread > 0 ? Math.max(0, (calls * products - tokens * time) / spread) : 0;
    let start = (time - slope * tokens) / calls;
    if (start < 0) [start, slope] = [0, products / squares];
    this.#slope = slope;
    let least = 0;
    for (const [i, size] of this.#sizes.entries()) {
      const own = Math.max(1, this.#counts[size] - 1);
      const onLine = start + slope * size;
      least = Math.max(least, onLine + ((this.#means[size] - onLine) * own) / (own + fewCalls));
      this.#costs[i] = least;
    }
  }

  #grow(tokens: number): void {
    const size = 2 ** Math.ceil(Math.log2(tokens + 1));
    const [means, counts] = [new Float64Array(size), new Int32Array(size)];
    means.set(this.#means);
    counts.set(this.#counts);
    this.#means = means;
    this.#counts = counts;
  }
}

/**
 * The number of drafts in a chain with the most expected tokens a second: (1 + Σ_i Π_{j<=i} a_j) / (v(n + 1) + n·draft). 0 where no number beats
 * plain decoding.
 * @param acceptance a_i: the chance that draft i is accepted once those before it were; as many drafts as there are.
 * @param draftMilliseconds of each draft. Default 0: they are there already.
 */
export function bestChainLength(acceptance: ArrayLike<number>, costs: StepCosts, draftMilliseconds = 0): number {
  let best = 0;
  let bestRate = leastGain / costs.at(1);
  let reach = 1;
  let expected = 1;
  for (let n = 1; n <= acceptance.length; n++) {
    reach *= acceptance[n - 1];
    expected += reach;
    const tokenRate = expected / (costs.at(n + 1) + n * draftMilliseconds);
    if (tokenRate > bestRate) [best, bestRate] = [n, tokenRate];
  }
  return best;
}
