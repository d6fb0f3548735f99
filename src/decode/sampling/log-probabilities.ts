// Log-probabilities of tokens under the raw logits or under a temperature alone (what reinforcement learning records):
// log softmax with float64 accumulation, in two passes over the vocabulary and without allocating it.
import { UsageError } from "../../base/errors.ts";
import { expNegative } from "./exp.ts";

/** ln sum exp(logits / temperature). */
export function logSumExp(logits_V: Float32Array, temperature = 1): number {
  if (!(temperature > 0)) {
    throw new UsageError(`temperature of a log-probability: expected a positive number, got ${temperature}`, {
      hint: "Greedy decoding has no finite log-probabilities of its own; ask for those at temperature 1.",
    });
  }
  let max = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits_V.length; id++) if (logits_V[id] > max) max = logits_V[id];
  if (max === Number.NEGATIVE_INFINITY) return max;
  const inverse = 1 / temperature;
  let sum = 0;
  for (let id = 0; id < logits_V.length; id++) sum += expNegative((logits_V[id] - max) * inverse);
  return max * inverse + Math.log(sum);
}

/** ln p(id) under softmax(logits / temperature). -Infinity for a forbidden token. */
export function tokenLogProbability(logits_V: Float32Array, id: number, temperature = 1): number {
  return logits_V[id] / temperature - logSumExp(logits_V, temperature);
}

/** The most probable tokens, best first; of equal ones the lowest id first. */
export interface TopLogProbabilities {
  ids: number[];
  logProbabilities: number[];
}

/** The `n` most probable tokens under softmax(logits / temperature); fewer when fewer are allowed. */
export function topLogProbabilities(logits_V: Float32Array, n: number, temperature = 1): TopLogProbabilities {
  const normalizer = logSumExp(logits_V, temperature);
  const ids: number[] = [];
  for (let id = 0; id < logits_V.length && n > 0; id++) {
    const logit = logits_V[id];
    if (!(logit > (ids.length < n ? Number.NEGATIVE_INFINITY : logits_V[ids[n - 1]]))) continue;
    if (ids.length === n) ids.pop();
    let slot = ids.length;
    while (slot > 0 && logits_V[ids[slot - 1]] < logit) slot--;
    ids.splice(slot, 0, id);
  }
  return { ids, logProbabilities: ids.map((id) => logits_V[id] / temperature - normalizer) };
}
