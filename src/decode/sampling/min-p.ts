// Min-p (Nguyen et al. 2024): probability at least minP times that of the most probable token.
import type { Candidates } from "./candidates.ts";

/** Keeps p(x) >= minP * max p, that is logit >= max + ln(minP): no softmax is needed. */
export function applyMinP(candidates: Candidates, minP: number): void {
  if (minP > 0) candidates.keepTop(candidates.max + Math.log(minP));
}
