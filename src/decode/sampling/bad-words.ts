// Forbidden token sequences: the last id of a sequence is forbidden when the ids before it are the end of the text so far.
import { endsWith, type LogitsProcessor } from "./context.ts";

/** @param eosTokenIds never forbidden by a sequence that is one of them alone (as in transformers): generation must end. */
export function badWordsProcessor(badWordsIds: readonly (readonly number[])[], eosTokenIds: readonly number[]): LogitsProcessor {
  const sequences = badWordsIds.filter((ids) => !(ids.length === 1 && eosTokenIds.includes(ids[0])));
  return (logits_V, context) => {
    for (const ids of sequences) {
      if (endsWith(context, ids, ids.length - 1)) logits_V[ids[ids.length - 1]] = Number.NEGATIVE_INFINITY;
    }
  };
}
