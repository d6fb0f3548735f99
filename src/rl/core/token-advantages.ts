// Generalised advantage estimation over the tokens of responses (Schulman et al. 2016, equation 16, for language models as in InstructGPT and
// verl): rows are responses, and tokens outside the mask (what a tool wrote, padding) are passed over as if they were not there.
import { invariant } from "../../base/errors.ts";

export interface TokenAdvantages {
  /** [B, T]; 0 outside the mask. Not whitened: see `whiten`. */
  readonly advantages: Float64Array;
  /** [B, T], targets of the critic: advantage plus value; 0 outside the mask. */
  readonly returns: Float64Array;
}

/**
 * Â_t = δ_t + γ λ Â_{t'}, δ_t = r_t + γ V_{t'} − V_t, where t' is the next token inside the mask; behind the last one there is nothing.
 * @param rewards, values, mask [B, T] as one array each, rows of `length`.
 */
export function tokenGae(
  rewards: ArrayLike<number>,
  values: ArrayLike<number>,
  mask: ArrayLike<number>,
  { length, gamma = 1, lambda = 0.95 }: { length: number; gamma?: number; lambda?: number },
): TokenAdvantages {
  const size = rewards.length;
  invariant(values.length === size && mask.length === size && size % length === 0, `rows of ${length} for ${size} rewards and values`);
  const [advantages, returns] = [new Float64Array(size), new Float64Array(size)];
  for (let row = 0; row < size; row += length) {
    let [nextValue, next] = [0, 0];
    for (let i = row + length - 1; i >= row; i--) {
      if (!mask[i]) continue;
      next = rewards[i] + gamma * nextValue - values[i] + gamma * lambda * next;
      nextValue = values[i];
      advantages[i] = next;
      returns[i] = next + values[i];
    }
  }
  return { advantages, returns };
}

/**
 * ReMax (Li et al. 2023, equation 6): the reward from a token on, less the reward of the greedy response to the same prompt. Outside the mask
 * both are the reward that is still to come, as in verl; losses leave such places out.
 * @param baselines [B], total rewards of the greedy responses.
 */
export function remaxAdvantages(
  rewards: ArrayLike<number>,
  mask: ArrayLike<number>,
  baselines: ArrayLike<number>,
  length: number,
): TokenAdvantages {
  const [advantages, returns] = [new Float64Array(rewards.length), new Float64Array(rewards.length)];
  for (let row = 0; row < rewards.length; row += length) {
    let toCome = 0;
    for (let i = row + length - 1; i >= row; i--) {
      if (mask[i]) toCome += rewards[i];
      returns[i] = toCome;
      advantages[i] = mask[i] ? toCome - baselines[row / length] : toCome;
    }
  }
  return { advantages, returns };
}
