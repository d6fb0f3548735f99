// Masks that leave out tokens of the policy term. Host code.
import { quantileOf } from "./statistics.ts";

/**
 * 1 for the tokens whose entropy is at or above the given quantile of all tokens that count (Wang et al. 2025, "Beyond the 80/20 rule"):
 * 0.8 keeps the fifth with the highest entropy. 0 elsewhere; all 0 where nothing counts.
 */
export function highEntropyMask(entropies: ArrayLike<number>, mask: ArrayLike<number>, quantile: number): Float64Array {
  const counted = Float64Array.from(Array.from(mask).flatMap((value, i) => (value ? [entropies[i]] : []))).sort();
  const kept = new Float64Array(mask.length);
  if (counted.length === 0) return kept;
  const threshold = quantileOf(counted, quantile);
  for (let i = 0; i < mask.length; i++) if (mask[i] && entropies[i] >= threshold) kept[i] = 1;
  return kept;
}
