// Top-n-sigma (Tang et al. 2024): logits within n standard deviations of the largest. Temperature does not change the set.
import type { Candidates } from "./candidates.ts";

/** Keeps logit >= max - n * sd, sd over all tokens that are not forbidden (population form). */
export function applyTopNSigma(candidates: Candidates, n: number): void {
  if (n <= 0) return;
  const { logits, count, max } = candidates;
  // Moments about the maximum: one pass, and small numbers.
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < count; i++) {
    const difference = logits[i] - max;
    sum += difference;
    squares += difference * difference;
  }
  const mean = sum / count;
  candidates.keepTop(max - n * Math.sqrt(Math.max(0, squares / count - mean * mean)));
}
