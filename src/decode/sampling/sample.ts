// Choosing a token. Sampling inverts the cumulative distribution in id order in float64; its uniform is a pure function of
// (seed, request, position, draw), so that a request gives the same text in whatever batch and with whatever drafts it runs.
import { randomUniform, streamId } from "../../runtime/rng.ts";
import { noTokenLeft, notFinite } from "./candidates.ts";

const samplingStream = streamId("sampling");

/** Which random numbers a request uses. */
export interface SamplingKey {
  /** Integer in [0, 2^53). */
  seed: number;
  /** Number of the request (or of the sample of a prompt) under this seed. Default 0. */
  request?: number;
  /** What the uniform is for. Default: sampling a token; a verifier's acceptance tests use streams of their own. */
  stream?: number;
}

/**
 * The uniform on [0, 1) for the token at `position` (counted from the first id of the sequence).
 * @param draw for steps that need several uniforms at one position. Default 0.
 */
export function tokenUniform(key: SamplingKey, position: number, draw = 0): number {
  return randomUniform(key.seed, key.stream ?? samplingStream, key.request ?? 0, position, draw);
}

/**
 * The smallest id whose cumulative probability exceeds `uniform`. Tokens of probability zero are never chosen; when rounding
 * leaves the total at or below `uniform`, the last token with a probability is.
 * @throws LongwaveError when every probability is zero.
 */
export function sampleToken(probabilities_V: Float64Array | Float32Array, uniform: number): number {
  let cumulative = 0;
  let last = -1;
  for (let id = 0; id < probabilities_V.length; id++) {
    const probability = probabilities_V[id];
    if (!(probability > 0)) continue;
    cumulative += probability;
    last = id;
    if (uniform < cumulative) return id;
  }
  if (last < 0) throw noTokenLeft();
  return last;
}

/**
 * The id of the largest logit; of equal ones the lowest.
 * @throws NotFiniteError for NaN or +Infinity, LongwaveError when every logit is -Infinity.
 */
export function argmax(logits_V: Float32Array): number {
  let best = Number.NEGATIVE_INFINITY;
  let bestId = -1;
  for (let id = 0; id < logits_V.length; id++) {
    const logit = logits_V[id];
    // One comparison for nearly all tokens; NaN fails it as well.
    if (!(logit <= best)) {
      if (Number.isNaN(logit)) throw notFinite(logits_V);
      best = logit;
      bestId = id;
    }
  }
  if (bestId < 0) throw noTokenLeft();
  if (best === Number.POSITIVE_INFINITY) throw notFinite(logits_V);
  return bestId;
}
