// Top-H (Baghaei Potraghloo et al. 2025): the most probable tokens, as long as their share of the entropy stays within a bound.
// As in transformers: over the 100 most probable tokens renormalised, token after token while sum -p ln p <= h * H.
import type { Candidates } from "./candidates.ts";

/** Only this many of the most probable tokens are considered. */
export const topHPoolSize = 100;

/** @param order scratch for 100 indices. */
export function applyTopH(candidates: Candidates, h: number, order: Int32Array): void {
  if (h <= 0) return;
  if (candidates.count > topHPoolSize) {
    const threshold = candidates.thresholds.find(candidates.bits, null, candidates.count, topHPoolSize);
    candidates.keepTop(threshold, topHPoolSize - candidates.thresholds.massAbove);
  }
  candidates.weigh();
  const bound = h * candidates.entropy();
  const { logits, weights, total, count } = candidates;
  sortDescending(logits, count, order);

  let sum = 0;
  let kept = 0;
  while (kept < count) {
    const probability = weights[order[kept]] / total;
    sum -= probability > 0 ? probability * Math.log(probability) : 0;
    if (sum > bound && kept > 0) break;
    kept++;
  }
  const threshold = logits[order[kept - 1]];
  let numTies = 0;
  while (numTies < kept && logits[order[kept - 1 - numTies]] === threshold) numTies++;
  candidates.keepTop(threshold, numTies);
}

/** Insertion sort of indices by value, largest first; stable, so that equal values stay in id order. */
function sortDescending(values: Float32Array, count: number, order: Int32Array): void {
  for (let i = 0; i < count; i++) {
    let j = i;
    for (; j > 0 && values[order[j - 1]] < values[i]; j--) order[j] = order[j - 1];
    order[j] = i;
  }
}

/** Scratch for {@link applyTopH}. */
export const topHScratch = (): Int32Array => new Int32Array(topHPoolSize);
