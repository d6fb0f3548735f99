// Every way in which a verified step can go, with its exact probability: a verifier's chance is replaced by a script of branches, and the
// script is advanced until all have been taken.
import type { Distribution } from "../../sampling/distribution.ts";
import type { Chance } from "../verifier.ts";

/** Probability of each outcome of `run`, which must be a function of its chance alone. */
export function enumerate(run: (chance: Chance) => string): Map<string, number> {
  const law = new Map<string, number>();
  let script: number[] = [];
  for (;;) {
    const taken: { branch: number; weights: number[] }[] = [];
    const next = (weights: number[]): number => {
      const branch = script[taken.length] ?? weights.findIndex((weight) => weight > 0);
      taken.push({ branch, weights });
      return branch;
    };
    const outcome = run({
      accept: (probability) => next([1 - probability, probability]) === 1,
      draw: ({ ids, probabilities, count }: Distribution) => ids[next(Array.from(probabilities.subarray(0, count)))],
    });
    const probability = taken.reduce((product, { branch, weights }) => product * weights[branch], 1);
    law.set(outcome, (law.get(outcome) ?? 0) + probability);
    // The last decision that has another branch takes it.
    let at = taken.length - 1;
    const another = ({ branch, weights }: { branch: number; weights: number[] }): number =>
      weights.findIndex((weight, i) => i > branch && weight > 0);
    while (at >= 0 && another(taken[at]) < 0) at--;
    if (at < 0) return law;
    script = [...taken.slice(0, at).map(({ branch }) => branch), another(taken[at])];
  }
}

/**
 * The law of sequences of `length` tokens that blocks emitted by a law and the target's own choices after them give: equal to the
 * target's exactly when the rule is lossless.
 * @param emitted probability of each emitted block, ids joined by commas
 * @param target probabilities [V] after a context, ids joined by commas ("" is the empty one)
 */
export function lawOfSequences(
  emitted: ReadonlyMap<string, number>,
  target: (context: string) => readonly number[],
  length: number,
): Map<string, number> {
  const law = new Map<string, number>();
  const go = (tokens: readonly string[], probability: number): void => {
    if (tokens.length >= length) {
      const key = tokens.slice(0, length).join();
      law.set(key, (law.get(key) ?? 0) + probability);
      return;
    }
    for (const [id, p] of target(tokens.join()).entries()) if (p > 0) go([...tokens, String(id)], probability * p);
  };
  for (const [block, probability] of emitted) go(block.split(","), probability);
  return law;
}
