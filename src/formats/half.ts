// float16 (IEEE 754 binary16) and bfloat16, in bulk, to and from float32. Narrowing rounds to nearest, ties to even; NaN stays NaN.
import { bytesOf } from "../base/file-io.ts";
import { inputBytes, kernels } from "./kernels/kernels.ts";

/** Exact. `bits` and `target` have the same length. */
export function float16ToFloat32(bits: Uint16Array, target: Float32Array): void {
  if (widenInChunks("f16", bits, target)) return;
  const out = new Uint32Array(target.buffer, target.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i];
    const sign = (half & 0x8000) << 16;
    const magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00)
      out[i] = sign | 0x7f800000 | (magnitude << 13); // infinity, NaN
    else if (magnitude >= 0x0400)
      out[i] = sign | ((magnitude << 13) + 0x38000000); // rebias 15 -> 127
    else {
      target[i] = magnitude * 2 ** -24; // zero and subnormals
      out[i] |= sign;
    }
  }
}

/** Exact: a bfloat16 is the upper half of a float32. */
export function bfloat16ToFloat32(bits: Uint16Array, target: Float32Array): void {
  if (widenInChunks("bf16", bits, target)) return;
  const out = new Uint32Array(target.buffer, target.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i] << 16;
}

/** Numbers from which a chunk is worth the way through another memory. */
const fewNumbers = 64;

function widenInChunks(type: "f16" | "bf16", bits: Uint16Array, target: Float32Array): boolean {
  const bytes = bytesOf(bits);
  return (
    bits.length >= fewNumbers &&
    widenFrom(type, target.subarray(0, bits.length), (input, at) => input.set(bytes.subarray(at, at + input.length)))
  );
}

/**
 * Widens as many stored numbers as `target` has, chunk by chunk.
 * @param fill puts the bytes from byte `at` on into `input`, all of it.
 * @returns false, with nothing done, where only loops can do it.
 */
export function widenFrom(type: "f16" | "bf16", target: Float32Array, fill: (input: Uint8Array, at: number) => void): boolean {
  const fast = kernels();
  if (fast === undefined) return false;
  // As integers: a NaN that passes through a float may come out another one.
  const [from, to] = [bytesOf(fast.floats), bytesOf(target)];
  const chunk = inputBytes / 2;
  for (let at = 0; at < target.length; at += chunk) {
    const count = Math.min(chunk, target.length - at);
    fill(fast.input.subarray(0, count * 2), at * 2);
    fast.widen(type, count);
    to.set(from.subarray(0, count * 4), at * 4);
  }
  return true;
}

/** Values beyond 65504 become infinity. */
export function float32ToFloat16(source: Float32Array, target: Uint16Array): void {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] >>> 16) & 0x8000;
    const magnitude = bits[i] & 0x7fffffff;
    if (magnitude > 0x7f800000) target[i] = sign | 0x7e00;
    else if (magnitude >= 0x477ff000)
      target[i] = sign | 0x7c00; // 65520 and above round to infinity
    else if (magnitude >= 0x38800000) {
      const rebiased = magnitude - 0x38000000;
      target[i] = sign | ((rebiased + 0x0fff + ((rebiased >>> 13) & 1)) >>> 13);
    } else target[i] = sign | roundToEven(Math.abs(source[i]) * 2 ** 24); // subnormal: multiples of 2^-24
  }
}

export function float32ToBfloat16(source: Float32Array, target: Uint16Array): void {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i];
    // A NaN whose payload sits in the lower half must not round to infinity.
    if ((value & 0x7fffffff) > 0x7f800000) target[i] = (value >>> 16) | 0x0040;
    else target[i] = (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
}

/** `value` is exact in float64 and below 1025. */
function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
