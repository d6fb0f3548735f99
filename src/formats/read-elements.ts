// Elements of the types that weight files have, from the disk to memory, widened where memory has no such type; f64 to f32 rounds to nearest.
import { FormatError, invariant } from "../base/errors.ts";
import { bytesOf, readFully } from "../base/file-io.ts";
import { bytesPerElement, isFloat, type TypedArray } from "../tensor/dtype.ts";
import { float8Table } from "./float8.ts";
import { bfloat16ToFloat32, float16ToFloat32, widenFrom } from "./half.ts";
import { bitsPerSafetensorsElement, fromSafetensorsDType, type SafetensorsDType } from "./safetensors-dtype.ts";

/** Elements converted at a time: the only intermediate copy (at most 4 MB with its float32 form). */
const chunkElements = 1 << 18;

/**
 * Reads consecutive stored elements into an array of the type that they are read as (see `readableDType`) or, for floats, of float64.
 * @param label names the file in errors. @throws FormatError when the file ends, or a number does not fit.
 */
export function readElements(fd: number, stored: SafetensorsDType, position: number, target: TypedArray, label: string): void {
  if (isHeldAs(stored, target)) {
    readFully(fd, bytesOf(target), position, label);
    return;
  }
  if ((stored === "F16" || stored === "BF16") && target instanceof Float32Array) {
    const type = stored === "F16" ? "f16" : "bf16";
    if (widenFrom(type, target, (input, at) => readFully(fd, input, position + at, label))) return;
  }
  const size = bitsPerSafetensorsElement[stored] / 8;
  const raw = new Uint8Array(Math.min(target.length, chunkElements) * size);
  for (let at = 0; at < target.length; at += chunkElements) {
    const part = target.subarray(at, at + chunkElements);
    readFully(fd, raw.subarray(0, part.length * size), position + at * size, label);
    convert(stored, raw.buffer, part, label);
  }
}

/** Whether the array has the bits of the stored type. Float16 and bfloat16 bits never stand for themselves here. */
function isHeldAs(stored: SafetensorsDType, target: TypedArray): boolean {
  const dtype = fromSafetensorsDType(stored);
  if (dtype === undefined || dtype === "f16" || dtype === "bf16" || bytesPerElement[dtype] !== target.BYTES_PER_ELEMENT) return false;
  return isFloat(dtype) === (target instanceof Float32Array || target instanceof Float64Array);
}

/** `bytes` hold as many elements of the stored type as `target` has, from byte 0 on. */
function convert(stored: SafetensorsDType, bytes: ArrayBuffer, target: TypedArray, label: string): void {
  const count = target.length;
  const floats = target as Float32Array;
  switch (stored) {
    case "F16":
    case "BF16": {
      const wide = target instanceof Float32Array ? target : new Float32Array(count);
      (stored === "F16" ? float16ToFloat32 : bfloat16ToFloat32)(new Uint16Array(bytes, 0, count), wide);
      if (target !== wide) floats.set(wide);
      break;
    }
    case "F32":
      floats.set(new Float32Array(bytes, 0, count));
      break;
    case "F64":
      floats.set(new Float64Array(bytes, 0, count));
      break;
    case "F8_E4M3":
    case "F8_E5M2":
    case "F8_E8M0": {
      const [table, bits] = [float8Table(stored), new Uint8Array(bytes, 0, count)];
      for (let i = 0; i < count; i++) floats[i] = table[bits[i]];
      break;
    }
    case "I16":
      floats.set(new Int16Array(bytes, 0, count));
      break;
    case "U16":
      floats.set(new Uint16Array(bytes, 0, count));
      break;
    case "U32": {
      const values = new Uint32Array(bytes, 0, count);
      for (let i = 0; i < count; i++) (target as BigInt64Array)[i] = BigInt(values[i]);
      break;
    }
    case "U64": {
      (target as BigInt64Array).set(new BigInt64Array(bytes, 0, count));
      const beyond = (target as BigInt64Array).find((value) => value < 0n);
      if (beyond !== undefined) {
        throw new FormatError(`${label}: expected unsigned numbers below 2^63, got ${BigInt.asUintN(64, beyond)}`, {
          hint: "Read the bytes with readBytesInto.",
        });
      }
      break;
    }
    default:
      invariant(false, `no conversion from ${stored}`);
  }
}
