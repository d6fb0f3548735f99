// How per-token losses become one number. Every rule is linear, so it is a weight for each token: loss = Σ weight · token loss. The weights
// are computed on the host in float64; one compiled program serves every rule, and micro-batches add up to the whole batch exactly.
import { UsageError } from "../../base/errors.ts";

/**
 * Names of verl; what TRL calls them: `token-mean` is bnpo (and dapo, where the count is that of all micro-batches), `seq-mean-token-mean`
 * is grpo, `seq-mean-token-sum-norm` is dr_grpo (Liu et al. 2025), `seq-mean-token-sum` is luspo.
 */
export const aggregations = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] as const;
export type Aggregation = (typeof aggregations)[number];

export interface AggregationOptions {
  /** Tokens that count, of the whole batch. Default: those under the mask. */
  numTokens?: number;
  /** Sequences of the whole batch. Default: the rows of the mask. */
  numSequences?: number;
  /** Constant length of `seq-mean-token-sum-norm`. Default: T. */
  normalizer?: number;
  /** Added to the length of a sequence (verl: 1e-8). Default 0; an empty sequence counts as one of length 1. */
  lengthEpsilon?: number;
}

/**
 * @param mask [B, T] row-major: 1 where a token counts. @param length T.
 * @returns weights [B, T].
 */
export function aggregationWeights(
  aggregation: Aggregation,
  mask: ArrayLike<number>,
  length: number,
  options: AggregationOptions = {},
): Float64Array {
  const numRows = mask.length / length;
  if (!Number.isInteger(numRows))
    throw new UsageError(`aggregation: expected a mask of whole rows of ${length}, got ${mask.length} entries`);
  const { numSequences = numRows, normalizer = length, lengthEpsilon = 0 } = options;
  const lengths = new Float64Array(numRows);
  for (let i = 0; i < mask.length; i++) if (mask[i]) lengths[Math.floor(i / length)]++;
  const numTokens = options.numTokens ?? lengths.reduce((sum, count) => sum + count, 0);
  const ofRow = (row: number): number => {
    switch (aggregation) {
      case "token-mean":
        return 1 / Math.max(numTokens, 1);
      case "token-sum":
        return 1;
      case "seq-mean-token-sum":
        return 1 / numSequences;
      case "seq-mean-token-sum-norm":
        return 1 / (numSequences * normalizer);
      case "seq-mean-token-mean":
        return 1 / (numSequences * (lengthEpsilon > 0 ? lengths[row] + lengthEpsilon : Math.max(lengths[row], 1)));
    }
  };
  const weights = new Float64Array(mask.length);
  for (let row = 0; row < numRows; row++) {
    const weight = ofRow(row);
    for (let i = row * length; i < (row + 1) * length; i++) if (mask[i]) weights[i] = weight;
  }
  return weights;
}
