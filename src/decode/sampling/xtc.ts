// XTC, "exclude top choices" (p-e-w 2024): with some probability, all tokens of at least a threshold's probability are left out but the least
// probable of them. The choice is not drawn: a token that is left out with probability p keeps the share 1 − p of its probability, which is
// the same distribution of tokens, and one that verifiers of drafts can use.
import type { Candidates } from "./candidates.ts";

/** @param threshold at most 0.5: above, there are never two such tokens. */
export function applyXtc(candidates: Candidates, probability: number, threshold: number): void {
  candidates.weigh();
  const { weights, count, total } = candidates;
  let numTop = 0;
  let mass = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < count; i++) {
    const own = weights[i] / total;
    if (own < threshold) continue;
    numTop++;
    mass += own;
    if (own < least) least = own;
  }
  if (numTop < 2) return;
  // At least the token that stays; rounding must not leave nothing.
  const rest = Math.max(1 - (mass - least), least);
  if (rest === 0) return;
  const share = Math.log(1 - probability + probability / rest);
  const lost = Math.log(1 - probability);
  // Of equal tokens the first one stays.
  let stays = false;
  candidates.rescore((own) => {
    if (own < threshold) return share;
    if (own === least && !stays) {
      stays = true;
      return share;
    }
    return lost;
  });
}
