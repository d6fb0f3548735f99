// Whitening: zero mean and unit variance over the entries under a mask. Libraries differ in ddof and in where they add epsilon; the
// defaults are verl's and TRL's (unbiased variance, epsilon under the root). Host code in float64.

export interface WhitenOptions {
  /** Divisor of the variance: count − ddof. Default 1. */
  ddof?: 0 | 1;
  /** Default 1e-8. */
  epsilon?: number;
  /** variance: sqrt(variance + epsilon); std: sqrt(variance) + epsilon; floor: sqrt(max(variance, epsilon)). Default variance. */
  epsilonPlace?: "variance" | "std" | "floor";
  /** Keep the mean. Default false. */
  keepMean?: boolean;
  /** Added to the count (verl: 1e-8). Default 0. */
  countEpsilon?: number;
}

export interface MaskedMoments {
  mean: number;
  variance: number;
}

/** Mean and variance of the entries whose mask is not 0. */
export function maskedMoments(
  values: ArrayLike<number>,
  mask: ArrayLike<number>,
  { ddof = 1, countEpsilon = 0 }: Pick<WhitenOptions, "ddof" | "countEpsilon"> = {},
): MaskedMoments {
  let [sum, count] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    if (!mask[i]) continue;
    sum += values[i];
    count++;
  }
  const mean = sum / (count + countEpsilon);
  let squares = 0;
  for (let i = 0; i < values.length; i++) if (mask[i]) squares += (values[i] - mean) ** 2;
  const biased = squares / (count + countEpsilon);
  return { mean, variance: ddof === 0 ? biased : count > 1 ? biased * (count / (count - 1)) : 0 };
}

/** All entries moved and scaled by the moments of those under the mask (which is how verl does it); mask the result where that matters. */
export function whiten(values: ArrayLike<number>, mask: ArrayLike<number>, options: WhitenOptions = {}): Float64Array {
  const { epsilon = 1e-8, epsilonPlace = "variance", keepMean = false } = options;
  const { mean, variance } = maskedMoments(values, mask, options);
  const scale =
    epsilonPlace === "variance"
      ? Math.sqrt(variance + epsilon)
      : epsilonPlace === "std"
        ? Math.sqrt(variance) + epsilon
        : Math.sqrt(Math.max(variance, epsilon));
  return Float64Array.from(values, (value) => (value - mean) / scale + (keepMean ? mean : 0));
}
