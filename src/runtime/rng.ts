// Random numbers by counting: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A number is a pure function of (seed, stream, request, position, draw), so that it does not depend on what was drawn before,
// on the batch it is drawn in, or on the number of threads. Key = seed (64 bits), counter = [draw, position, request, stream].
// The high word of a 32 x 32 bit product is put together from 16-bit halves with Math.imul: exact, without BigInt.
import { UsageError } from "../base/errors.ts";

// Round multipliers, low and high halves, and the Weyl increments of the key (table 2 and section 3.2 of the paper).
const multiplier0 = 0xd2511f53;
const multiplier0Low = multiplier0 & 0xffff;
const multiplier0High = multiplier0 >>> 16;
const multiplier1 = 0xcd9e8d57;
const multiplier1Low = multiplier1 & 0xffff;
const multiplier1High = multiplier1 >>> 16;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;

const twoTo32 = 2 ** 32;

/**
 * One block of Philox 4x32-10: four independent 32-bit words for a counter of four words and a key of two.
 * All arguments are taken modulo 2^32 as integers.
 * @param out receives the four words.
 */
export function philox4x32(
  counter0: number,
  counter1: number,
  counter2: number,
  counter3: number,
  key0: number,
  key1: number,
  out: Uint32Array,
): void {
  let c0 = counter0 | 0;
  let c1 = counter1 | 0;
  let c2 = counter2 | 0;
  let c3 = counter3 | 0;
  let k0 = key0 | 0;
  let k1 = key1 | 0;
  for (let round = 0; round < 10; round++) {
    const low0 = c0 & 0xffff;
    const high0 = c0 >>> 16;
    // Every partial sum stays below 2^32, so wrapping to int32 loses nothing.
    const a0 = (Math.imul(high0, multiplier0Low) + (Math.imul(low0, multiplier0Low) >>> 16)) | 0;
    const b0 = (Math.imul(low0, multiplier0High) + (a0 & 0xffff)) | 0;
    const productHigh0 = (Math.imul(high0, multiplier0High) + (a0 >>> 16) + (b0 >>> 16)) | 0;
    const productLow0 = Math.imul(c0, multiplier0);

    const low1 = c2 & 0xffff;
    const high1 = c2 >>> 16;
    const a1 = (Math.imul(high1, multiplier1Low) + (Math.imul(low1, multiplier1Low) >>> 16)) | 0;
    const b1 = (Math.imul(low1, multiplier1High) + (a1 & 0xffff)) | 0;
    const productHigh1 = (Math.imul(high1, multiplier1High) + (a1 >>> 16) + (b1 >>> 16)) | 0;
    const productLow1 = Math.imul(c2, multiplier1);

    c0 = productHigh1 ^ c1 ^ k0;
    c1 = productLow1;
    c2 = productHigh0 ^ c3 ^ k1;
    c3 = productLow0;
    k0 = (k0 + weyl0) | 0;
    k1 = (k1 + weyl1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// Scratch of the scalar functions below: written and read within one call, so it carries nothing from call to call.
const block = new Uint32Array(4);

/** The high word of a seed (an integer in [0, 2^53)); the low word is the seed modulo 2^32. */
export const seedHigh = (seed: number): number => Math.floor(seed / twoTo32);

function fillBlock(seed: number, stream: number, request: number, position: number, draw: number): void {
  philox4x32(draw, position, request, stream, seed, seedHigh(seed), block);
}

/**
 * A uniform 32-bit word.
 * @param seed integer in [0, 2^53).
 * @param stream what the number is for (see {@link streamId}); `request`, `position` and `draw` count within it. All in [0, 2^32).
 */
export function randomU32(seed: number, stream: number, request: number, position: number, draw: number): number {
  fillBlock(seed, stream, request, position, draw);
  return block[0];
}

/** Uniform on [0, 1), a multiple of 2^-53. Arguments as in {@link randomU32}. */
export function randomUniform(seed: number, stream: number, request: number, position: number, draw: number): number {
  fillBlock(seed, stream, request, position, draw);
  return uniform53Of(block[0], block[1]);
}

/** Uniform on [0, 1), a multiple of 2^-24 (exact in float32). Arguments as in {@link randomU32}. */
export function randomUniform24(seed: number, stream: number, request: number, position: number, draw: number): number {
  fillBlock(seed, stream, request, position, draw);
  return (block[0] >>> 8) * 2 ** -24;
}

/** Standard normal (Box and Muller 1958; the cosine of the pair). Arguments as in {@link randomU32}. */
export function randomNormal(seed: number, stream: number, request: number, position: number, draw: number): number {
  fillBlock(seed, stream, request, position, draw);
  // 1 - u lies in (0, 1], where the logarithm is finite.
  const radius = Math.sqrt(-2 * Math.log(1 - uniform53Of(block[0], block[1])));
  return radius * Math.cos(2 * Math.PI * uniform53Of(block[2], block[3]));
}

/** Exponential of rate 1 (by inversion). Arguments as in {@link randomU32}. */
export function randomExponential(seed: number, stream: number, request: number, position: number, draw: number): number {
  // log1p keeps the small values exact; subtracting from zero avoids -0.
  return 0 - Math.log1p(-randomUniform(seed, stream, request, position, draw));
}

function uniform53Of(high: number, low: number): number {
  return ((high >>> 5) * 67108864 + (low >>> 6)) * 2 ** -53;
}

/** A stream number for a purpose, such as "dropout" or the path of a parameter (FNV-1a, 32 bits, over UTF-16 code units). */
export function streamId(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    const unit = name.charCodeAt(i);
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193);
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193);
  }
  return hash >>> 0;
}

/** All that a {@link Random} is: plain numbers that go into a checkpoint. */
export interface RandomState {
  seed: number;
  stream: number;
  request: number;
  /** How many numbers were drawn. */
  index: number;
}

/**
 * A sequence of random numbers over the keyed functions above: draw number `index` of (seed, stream, request).
 * Every method that returns one number consumes exactly one index, so that states are comparable and restorable.
 */
export class Random {
  readonly seed: number;
  readonly stream: number;
  readonly request: number;
  #index: number;

  /**
   * @param stream a number, or a name that {@link streamId} turns into one. Default 0.
   * @throws UsageError unless the seed is an integer in [0, 2^53).
   */
  constructor(seed: number, options: { stream?: number | string; request?: number; index?: number } = {}) {
    const { stream = 0, request = 0, index = 0 } = options;
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new UsageError(`seed: expected an integer in [0, 2^53), got ${seed}`, { hint: "Pass a whole, non-negative number." });
    }
    if (!Number.isSafeInteger(index) || index < 0) throw new UsageError(`Random: expected a non-negative whole index, got ${index}`);
    this.seed = seed;
    this.stream = typeof stream === "string" ? streamId(stream) : stream >>> 0;
    this.request = request >>> 0;
    this.#index = index;
  }

  static fromState(state: RandomState): Random {
    return new Random(state.seed, state);
  }

  get state(): RandomState {
    return { seed: this.seed, stream: this.stream, request: this.request, index: this.#index };
  }

  /** Uniform 32-bit word. */
  u32(): number {
    const index = this.#index++;
    return randomU32(this.seed, this.stream, this.request, Math.floor(index / twoTo32), index);
  }

  /** Uniform on [0, 1) with 53 bits. */
  uniform(): number {
    const index = this.#index++;
    return randomUniform(this.seed, this.stream, this.request, Math.floor(index / twoTo32), index);
  }

  /** Standard normal. */
  normal(): number {
    const index = this.#index++;
    return randomNormal(this.seed, this.stream, this.request, Math.floor(index / twoTo32), index);
  }

  /** Exponential of rate 1. */
  exponential(): number {
    const index = this.#index++;
    return randomExponential(this.seed, this.stream, this.request, Math.floor(index / twoTo32), index);
  }

  /** Uniform integer in [0, bound). One draw, whatever the bound; the bias is below bound / 2^53. */
  integer(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** Shuffles in place (Fisher and Yates, Durstenfeld's form) and returns the same array. */
  shuffle<A extends { [index: number]: unknown; readonly length: number }>(items: A): A {
    const array = items as { [index: number]: unknown };
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const item = array[i];
      array[i] = array[j];
      array[j] = item;
    }
    return items;
  }

  /** A random order of 0 .. length - 1. */
  permutation(length: number): Uint32Array {
    const order = new Uint32Array(length);
    for (let i = 0; i < length; i++) order[i] = i;
    return this.shuffle(order);
  }
}
