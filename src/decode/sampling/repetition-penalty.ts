// Repetition penalty (Keskar et al. 2019, CTRL, section 4.1): logits of tokens that occurred are divided by the penalty when
// positive and multiplied when negative, once per token however often it occurred.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

export interface RepetitionPenaltyOptions {
  /** Above 1 discourages repetition, below 1 encourages it. */
  penalty: number;
  /** Whether tokens of the prompt count as having occurred. */
  penalizePrompt: boolean;
  vocabularySize: number;
}

export function repetitionPenaltyProcessor(options: RepetitionPenaltyOptions): LogitsProcessor {
  const { penalizePrompt, vocabularySize } = options;
  const penalty = Math.fround(options.penalty);
  const seen = new Uint8Array(vocabularySize);
  return (logits_V, context) => {
    const { ids, promptLength } = context;
    const numIds = numIdsOf(context);
    const start = penalizePrompt ? 0 : promptLength;
    for (let i = start; i < numIds; i++) {
      const id = ids[i];
      if (seen[id] !== 0) continue;
      seen[id] = 1;
      const logit = logits_V[id];
      logits_V[id] = logit < 0 ? logit * penalty : logit / penalty;
    }
    for (let i = start; i < numIds; i++) seen[ids[i]] = 0;
  };
}
