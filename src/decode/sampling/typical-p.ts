// Locally typical sampling (Meister et al. 2022): the tokens whose information content -ln p(x) is nearest to the entropy,
// until their mass reaches `mass`. As in transformers, all tokens as near as the last one stay.
import type { Candidates } from "./candidates.ts";

/** Scratch of {@link applyTypicalP}: one float32 key per token, and the same memory as words. */
export interface TypicalScratch {
  readonly keys: Float32Array;
  readonly bits: Uint32Array;
}

export function typicalScratch(vocabularySize: number): TypicalScratch {
  const keys = new Float32Array(vocabularySize);
  return { keys, bits: new Uint32Array(keys.buffer) };
}

/** Keeps the typical set of mass `mass` (1 keeps all). It need not hold the most probable token. */
export function applyTypicalP(candidates: Candidates, mass: number, scratch: TypicalScratch): void {
  if (mass >= 1) return;
  const entropy = candidates.entropy();
  const { logits, weights, count, max, total, thresholds } = candidates;
  const logTotal = Math.log(total);
  // Negated, because the search starts from the largest key; adding zero turns -0 into 0.
  for (let i = 0; i < count; i++) scratch.keys[i] = -Math.abs(logTotal + max - logits[i] - entropy) + 0;
  const threshold = thresholds.find(scratch.bits, weights, count, mass * total);
  candidates.keepByKey(scratch.keys, threshold);
}
