// A bias on token sequences: added to the logit of the last id when the ids before it are the end of the text so far.
// Unlike transformers, a sequence whose beginning fills the whole text counts too (transformers wants one id more).
import { endsWith, type LogitsProcessor } from "./context.ts";

/** [ids, bias]. */
export type SequenceBias = readonly [ids: readonly number[], bias: number];

/** Of several biases for the same sequence, the last one counts. */
export function sequenceBiasProcessor(biases: readonly SequenceBias[]): LogitsProcessor {
  const distinct = [...new Map(biases.map((bias) => [bias[0].join(), bias])).values()];
  return (logits_V, context) => {
    for (const [ids, bias] of distinct) {
      if (endsWith(context, ids, ids.length - 1)) logits_V[ids[ids.length - 1]] += bias;
    }
  };
}
