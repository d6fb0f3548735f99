// Top-k (Fan, Lewis, Dauphin 2018): the k largest logits. Deliberately like transformers, tokens tied with the k-th all stay.
import type { Candidates } from "./candidates.ts";

/** Keeps the tokens whose logit is at least the k-th largest; all of them when k is 0 or not below their number. */
export function applyTopK(candidates: Candidates, k: number): void {
  const { bits, count, thresholds } = candidates;
  if (k <= 0 || k >= count) return;
  candidates.keepTop(thresholds.find(bits, null, count, k));
}
