// Eta sampling (Hewitt, Manning, Liang 2022): the floor on the probability falls when the entropy H is high,
// eta = min(epsilon, sqrt(epsilon) exp(-H)).

import type { Candidates } from "./candidates.ts";
import { applyEpsilonCutoff } from "./epsilon-cutoff.ts";

/** Keeps p(x) >= eta, and the most probable token (with its ties) in any case. */
export function applyEtaCutoff(candidates: Candidates, epsilon: number): void {
  if (epsilon <= 0) return;
  applyEpsilonCutoff(candidates, Math.min(epsilon, Math.sqrt(epsilon) * Math.exp(-candidates.entropy())));
}
