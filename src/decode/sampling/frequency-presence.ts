// Frequency and presence penalties as OpenAI defines them: logit - frequency * count - presence * (count > 0), where count is
// how often the token was generated. The prompt does not count.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

export interface FrequencyPresenceOptions {
  frequencyPenalty: number;
  presencePenalty: number;
  vocabularySize: number;
}

export function frequencyPresenceProcessor(options: FrequencyPresenceOptions): LogitsProcessor {
  const { frequencyPenalty, presencePenalty, vocabularySize } = options;
  const counts = new Uint32Array(vocabularySize);
  return (logits_V, context) => {
    const { ids, promptLength } = context;
    const numIds = numIdsOf(context);
    for (let i = promptLength; i < numIds; i++) counts[ids[i]]++;
    for (let i = promptLength; i < numIds; i++) {
      const id = ids[i];
      const count = counts[id];
      if (count === 0) continue;
      logits_V[id] -= frequencyPenalty * count + presencePenalty;
      counts[id] = 0;
    }
  };
}
