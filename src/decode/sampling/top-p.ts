// Nucleus sampling (Holtzman et al. 2019): the smallest set of most probable tokens whose mass reaches p.
import type { Candidates } from "./candidates.ts";
import { expNegative } from "./exp.ts";

/**
 * Keeps a token when the mass of all tokens before it, from the most probable down, is below `p`; so at least one stays.
 * Equal logits are taken in id order, which makes the set minimal and independent of any sort.
 */
export function applyTopP(candidates: Candidates, p: number): void {
  if (p >= 1) return;
  candidates.weigh();
  const { max, total, thresholds } = candidates;
  const target = Math.max(p * total, Number.MIN_VALUE);
  // Tokens of weight below (1 - p) total / count have a mass below 1 - p altogether, so none of them is kept: dropping them
  // first is one comparison each. Half of it, to be clear of rounding.
  candidates.keepTop(max + Math.log(((1 - p) * total) / (2 * candidates.count)));
  const threshold = thresholds.find(candidates.bits, candidates.weights, candidates.count, target);
  const tieWeight = expNegative(threshold - max);
  const numTies = Math.max(1, Math.ceil((target - thresholds.massAbove) / tieWeight));
  candidates.keepTop(threshold, numTies);
}
