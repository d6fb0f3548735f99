// Epsilon sampling (Hewitt, Manning, Liang 2022): an absolute floor on the probability.
import type { Candidates } from "./candidates.ts";

/** Keeps p(x) >= epsilon, and the most probable token (with its ties) in any case. */
export function applyEpsilonCutoff(candidates: Candidates, epsilon: number): void {
  if (epsilon <= 0) return;
  candidates.weigh();
  const { max, total } = candidates;
  candidates.keepTop(Math.min(max, max + Math.log(epsilon * total)));
}
