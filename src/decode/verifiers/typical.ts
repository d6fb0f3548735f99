// Typical acceptance (Cai et al. 2024, Medusa, Sec. 3.3.2): LOSSY. A draft x stays where p(x) > min(threshold, alpha · exp(−H(p))),
// H the entropy of the target's distribution; of the longest accepted paths the most probable one wins; the token after it is the
// target's argmax, as in Medusa, whose roots are greedy. The entropy has 1e-5 inside its logarithm, as there.
import type { Distribution } from "../sampling/distribution.ts";
import type { Verifier } from "./verifier.ts";

export interface TypicalOptions {
  /** ε: a token of at least this probability is always accepted. Default 0.09. */
  threshold?: number;
  /** δ. Default 0.3 (√ε). */
  alpha?: number;
}

/** Changes the distribution of the text: it prefers likely tokens. */
export function typicalVerifier({ threshold = 0.09, alpha = 0.3 }: TypicalOptions = {}): Verifier {
  return {
    name: "typical",
    lossless: false,
    verify({ shape, ids }, target) {
      const logLikelihood = new Float64Array(shape.size).fill(Number.NEGATIVE_INFINITY);
      logLikelihood[0] = 0;
      let best = 0;
      for (let node = 0; node < shape.size; node++) {
        if (logLikelihood[node] === Number.NEGATIVE_INFINITY) continue;
        const deeper = shape.depths[node] > shape.depths[best];
        if (deeper || (shape.depths[node] === shape.depths[best] && logLikelihood[node] > logLikelihood[best])) best = node;
        if (shape.firstChild[node] < 0) continue;
        const p = target.distribution(node);
        const bound = Math.min(threshold, alpha * Math.exp(-entropy(p)));
        for (let child = shape.firstChild[node]; child >= 0; child = shape.nextSibling[child]) {
          const probability = p.probability(ids[child]);
          if (probability > bound) logLikelihood[child] = logLikelihood[node] + Math.log(probability);
        }
      }
      return { node: best, token: target.argmax(best) };
    },
  };
}

function entropy({ count, probabilities }: Distribution): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum -= probabilities[i] * Math.log(probabilities[i] + 1e-5);
  return sum;
}
