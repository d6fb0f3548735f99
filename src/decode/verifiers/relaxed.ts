// Relaxed acceptance (TensorRT-LLM's relaxed_topk and relaxed_delta): LOSSY. A draft stays where it is among the target's k most probable tokens
// and its probability is at most delta below the largest; the token after the path is the target's own.
import type { Distribution } from "../sampling/distribution.ts";
import type { Verifier } from "./verifier.ts";

export interface RelaxedOptions {
  /** Default 10. */
  topK?: number;
  /** Largest distance to the most probable token's probability. Default 0.6; 0 accepts only tokens as probable as that one. */
  delta?: number;
}

/** Changes the distribution of the text: it takes the drafter's word where the target is undecided. */
export function relaxedVerifier({ topK = 10, delta = 0.6 }: RelaxedOptions = {}): Verifier {
  return {
    name: "relaxed",
    lossless: false,
    verify({ shape, ids }, target, chance) {
      for (let node = 0; ; ) {
        const p = target.distribution(node);
        let best = -1;
        let bestProbability = 0;
        const top = largest(p);
        for (let child = shape.firstChild[node]; child >= 0; child = shape.nextSibling[child]) {
          const probability = p.probability(ids[child]);
          if (probability <= bestProbability || probability < top - delta || rankOf(p, probability) >= topK) continue;
          best = child;
          bestProbability = probability;
        }
        if (best < 0) return { node, token: chance.draw(p, shape.depths[node]) };
        node = best;
      }
    },
  };
}

function largest({ probabilities, count }: Distribution): number {
  let top = 0;
  for (let i = 0; i < count; i++) if (probabilities[i] > top) top = probabilities[i];
  return top;
}

/** Tokens that are more probable. */
function rankOf({ probabilities, count }: Distribution, probability: number): number {
  let rank = 0;
  for (let i = 0; i < count; i++) if (probabilities[i] > probability) rank++;
  return rank;
}
