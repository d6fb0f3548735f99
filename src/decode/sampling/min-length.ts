// No end of sequence before a minimum length, with the prompt or without it.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

/** @param minLength ids in all, prompt included. */
export function minLengthProcessor(minLength: number, eosTokenIds: readonly number[]): LogitsProcessor {
  return (logits_V, context) => {
    if (numIdsOf(context) < minLength) for (const id of eosTokenIds) logits_V[id] = Number.NEGATIVE_INFINITY;
  };
}

/** @param minNewTokens generated ids, end of sequence not counted. */
export function minNewTokensProcessor(minNewTokens: number, eosTokenIds: readonly number[]): LogitsProcessor {
  return (logits_V, context) => {
    if (numIdsOf(context) - context.promptLength < minNewTokens) {
      for (const id of eosTokenIds) logits_V[id] = Number.NEGATIVE_INFINITY;
    }
  };
}
