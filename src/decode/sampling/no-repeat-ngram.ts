// No n-gram twice (Paulus, Xiong, Socher 2017): a token is forbidden when it would complete n ids that occurred before,
// prompt included. Stateless, one scan over the sequence per token: branches of a token tree need no bookkeeping.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

export function noRepeatNgramProcessor(size: number): LogitsProcessor {
  return (logits_V, context) => {
    const { ids } = context;
    const numIds = numIdsOf(context);
    const prefixLength = size - 1;
    const prefixStart = numIds - prefixLength;
    for (let end = prefixLength; end < numIds; end++) {
      // Compared from the last id backwards: the cheapest way to find out that they differ.
      let matched = 0;
      while (matched < prefixLength && ids[end - 1 - matched] === ids[prefixStart + prefixLength - 1 - matched]) matched++;
      if (matched === prefixLength) logits_V[ids[end]] = Number.NEGATIVE_INFINITY;
    }
  };
}
