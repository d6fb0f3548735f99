// Exponentially growing preference for the end of sequence (transformers' exponential_decay_length_penalty).
import { type LogitsProcessor, numIdsOf } from "./context.ts";

/**
 * Once more than `startIndex` ids were generated, adds |logit| * (factor^(numGenerated - startIndex) - 1) to the logits of
 * the end-of-sequence ids. The absolute value makes it a push upwards for negative logits too.
 */
export function lengthDecayProcessor(startIndex: number, factor: number, eosTokenIds: readonly number[]): LogitsProcessor {
  return (logits_V, context) => {
    const excess = numIdsOf(context) - context.promptLength - startIndex;
    if (excess <= 0) return;
    const growth = factor ** excess - 1;
    for (const id of eosTokenIds) {
      const logit = logits_V[id];
      // A forbidden token stays forbidden: -Infinity + Infinity would be NaN.
      if (logit > Number.NEGATIVE_INFINITY) logits_V[id] = Math.min(logit + Math.abs(logit) * growth, 3e38);
    }
  };
}
