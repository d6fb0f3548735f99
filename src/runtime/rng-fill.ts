// Whole arrays of random numbers, for the initialisation of weights and for noise. Element i is a pure function of
// (seed, stream, request, i): word i mod 4 of Philox block i div 4. Float32 and float64 arrays get the same draws, so that a
// model initialised in either differs by rounding only.
import { UsageError } from "../base/errors.ts";
import { normalDistribution, normalQuantile } from "./normal-distribution.ts";
import { philox4x32, seedHigh } from "./rng.ts";

/** Which random numbers to use. */
export interface RandomKey {
  /** Integer in [0, 2^53). */
  seed: number;
  /** What the numbers are for, e.g. `streamId("layers.3.attention.query")`. Default 0. */
  stream?: number;
  /** Default 0. */
  request?: number;
}

type FloatArray = Float32Array | Float64Array;

const twoToMinus32 = 2 ** -32;

/** Uniform on [low, high) in steps of (high - low) / 2^24. Returns the same array. */
export function fillUniform<A extends FloatArray>(array: A, low: number, high: number, key: RandomKey): A {
  const { seed, stream = 0, request = 0 } = key;
  const keyHigh = seedHigh(seed);
  const scale = (high - low) * 2 ** -24;
  const words = new Uint32Array(4);
  for (let start = 0, blockIndex = 0; start < array.length; start += 4, blockIndex++) {
    philox4x32(blockIndex, 0, request, stream, seed, keyHigh, words);
    const end = Math.min(4, array.length - start);
    for (let i = 0; i < end; i++) array[start + i] = low + (words[i] >>> 8) * scale;
  }
  return array;
}

/**
 * Normal with the given mean and standard deviation (Box and Muller 1958, both halves of each pair).
 * The uniforms have 32 bits, which bounds the values at 6.7 standard deviations. Returns the same array.
 */
export function fillNormal<A extends FloatArray>(array: A, mean: number, standardDeviation: number, key: RandomKey): A {
  const { seed, stream = 0, request = 0 } = key;
  const keyHigh = seedHigh(seed);
  const words = new Uint32Array(4);
  const { length } = array;
  for (let start = 0, blockIndex = 0; start < length; start += 4, blockIndex++) {
    philox4x32(blockIndex, 0, request, stream, seed, keyHigh, words);
    for (let pair = 0; pair < 4 && start + pair < length; pair += 2) {
      const radius = standardDeviation * Math.sqrt(-2 * Math.log((words[pair] + 0.5) * twoToMinus32));
      const angle = 2 * Math.PI * twoToMinus32 * words[pair + 1];
      array[start + pair] = mean + radius * Math.cos(angle);
      if (start + pair + 1 < length) array[start + pair + 1] = mean + radius * Math.sin(angle);
    }
  }
  return array;
}

/** Where a truncated normal is cut, in standard deviations from the mean. */
export interface Truncation {
  /** Default -2. */
  low?: number;
  /** Default 2. */
  high?: number;
}

/**
 * Normal conditioned on mean + low * sd <= x <= mean + high * sd, by inversion. Returns the same array.
 * `standardDeviation` is that of the normal before it is cut: at +-2 the result's own is 0.8796 of it.
 * @throws UsageError when low >= high.
 */
export function fillTruncatedNormal<A extends FloatArray>(
  array: A,
  mean: number,
  standardDeviation: number,
  key: RandomKey,
  truncation: Truncation = {},
): A {
  const { low = -2, high = 2 } = truncation;
  if (!(low < high)) {
    throw new UsageError(`fillTruncatedNormal: expected low < high, got ${low} and ${high}`, {
      hint: "Bounds are in standard deviations from the mean.",
    });
  }
  const { seed, stream = 0, request = 0 } = key;
  const keyHigh = seedHigh(seed);
  // An interval in the upper tail is mirrored, because probabilities near 1 have no precision left.
  const sign = low > 0 ? -1 : 1;
  const from = sign > 0 ? low : -high;
  const to = sign > 0 ? high : -low;
  const fromProbability = normalDistribution(from);
  const scale = (normalDistribution(to) - fromProbability) * twoToMinus32;
  const words = new Uint32Array(4);
  for (let start = 0, blockIndex = 0; start < array.length; start += 4, blockIndex++) {
    philox4x32(blockIndex, 0, request, stream, seed, keyHigh, words);
    const end = Math.min(4, array.length - start);
    for (let i = 0; i < end; i++) {
      const z = normalQuantile(fromProbability + (words[i] + 0.5) * scale);
      array[start + i] = mean + sign * standardDeviation * Math.min(to, Math.max(from, z));
    }
  }
  return array;
}
