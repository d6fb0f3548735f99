// A random permutation of 0 … n - 1 in constant memory: a keyed Feistel network (Luby and Rackoff 1988) over the next power of four,
// walked until it lands below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"; at most 4 steps on average).
import { UsageError } from "../base/errors.ts";
import { philox4x32 } from "../runtime/rng.ts";

const rounds = 8;
/** Small domains are walked from 2^8, where eight rounds already mix well. */
const minHalfBits = 4;

/**
 * The permutation of `size` elements for a seed and an epoch. `permute(i)` may be asked in any order.
 * @throws UsageError unless 1 <= size <= 2^52.
 */
export function permutation(size: number, seed: number, epoch: number): (index: number) => number {
  if (!Number.isSafeInteger(size) || size < 1 || size > 2 ** 52) {
    throw new UsageError(`permutation: expected 1 to 2^52 elements, got ${size}`);
  }
  const halfBits = Math.max(minHalfBits, Math.ceil(Math.log2(size) / 2));
  const half = 2 ** halfBits;
  const mask = half - 1;
  const keys = new Uint32Array(rounds);
  for (let block = 0; block < rounds / 4; block++) {
    philox4x32(block, epoch, Math.floor(epoch / 2 ** 32), shuffleStream, seed, Math.floor(seed / 2 ** 32), keys.subarray(block * 4));
  }
  const encipher = (value: number): number => {
    let left = Math.floor(value / half);
    let right = value % half;
    for (let round = 0; round < rounds; round++) {
      const mixed = (left ^ mix(right ^ keys[round])) & mask;
      left = right;
      right = mixed;
    }
    return left * half + right;
  };
  return (index) => {
    let value = encipher(index);
    while (value >= size) value = encipher(value);
    return value;
  };
}

/** Keeps these draws apart from others of the same seed. */
export const shuffleStream = 0x5368_7566;

/** MurmurHash3's 32-bit finaliser: every input bit reaches every output bit. */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
