// Forbidden tokens: always, or only as the first generated token.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

export function suppressTokensProcessor(tokenIds: readonly number[]): LogitsProcessor {
  return (logits_V) => {
    for (const id of tokenIds) logits_V[id] = Number.NEGATIVE_INFINITY;
  };
}

/** @param afterForcedBos the first token is forced, so the second one is where generation begins (for prompts of one id or none). */
export function beginSuppressTokensProcessor(tokenIds: readonly number[], afterForcedBos: boolean): LogitsProcessor {
  return (logits_V, context) => {
    const begin = context.promptLength + (afterForcedBos && context.promptLength <= 1 ? 1 : 0);
    if (numIdsOf(context) !== begin) return;
    for (const id of tokenIds) logits_V[id] = Number.NEGATIVE_INFINITY;
  };
}
