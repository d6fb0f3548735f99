// Writer of GGUF files, version 3. The head is laid out first; then tensors go to the disk one after another, converted or quantised a
// chunk at a time.
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { stageFile, storageError } from "../base/atomic.ts";
import { FormatError } from "../base/errors.ts";
import { bytesOf, writeFully } from "../base/file-io.ts";
import {
  type GgufArray,
  type GgufMetadataEntry,
  type GgufNumbers,
  type GgufValue,
  type GgufValueType,
  ggufValueTypes,
} from "./gguf-header.ts";
import { isQuantisable, quantisers } from "./gguf-quantise.ts";
import { type GgufTypeName, ggufTensorBytes, ggufTensorTypes, ggufTypeName } from "./gguf-types.ts";
import { float32ToBfloat16, float32ToFloat16 } from "./half.ts";

export interface GgufTensor {
  readonly name: string;
  readonly dtype: GgufTypeName;
  /** Row-major, innermost last. */
  readonly shape: readonly number[];
  /**
   * A Float32Array is converted to F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0; anything else is written as it is and has exactly
   * the bytes of the tensor. A function is called when its turn comes, so that large tensors need not be in memory together.
   */
  readonly data: ArrayBufferView | (() => ArrayBufferView);
}

export interface GgufWriteOptions {
  /** In this order. `general.architecture` is required by readers. */
  metadata?: Iterable<readonly [key: string, entry: GgufMetadataEntry]>;
  /** Tensors begin at multiples of this many bytes: a power of two. Default 32. */
  alignment?: number;
}

/** Metadata entries by type, for {@link writeGguf}. */
export const ggufEntry = {
  u32: (value: number): GgufMetadataEntry => ({ type: "u32", value }),
  f32: (value: number): GgufMetadataEntry => ({ type: "f32", value }),
  bool: (value: boolean): GgufMetadataEntry => ({ type: "bool", value }),
  string: (value: string): GgufMetadataEntry => ({ type: "string", value }),
  strings: (values: readonly string[]): GgufMetadataEntry => ({ type: "array", value: { type: "string", values } }),
  i32s: (values: Int32Array): GgufMetadataEntry => ({ type: "array", value: { type: "i32", values } }),
  f32s: (values: Float32Array): GgufMetadataEntry => ({ type: "array", value: { type: "f32", values } }),
} as const;

const chunkValues = 1 << 16;
const isPowerOfTwo = (value: number): boolean => value >= 1 && Number.isInteger(Math.log2(value));

/**
 * Writes a GGUF file atomically and synced.
 * @throws FormatError for equal names, shapes that are no whole blocks, data of another size or a type that is not written; CheckpointError
 *   when the disk refuses.
 */
export function writeGguf(path: string, tensors: Iterable<GgufTensor>, options: GgufWriteOptions = {}): void {
  const { alignment = 32 } = options;
  if (!isPowerOfTwo(alignment)) throw new FormatError(`${path}: expected a power of two as alignment, got ${alignment}`);
  const list = [...tensors];
  const metadata = new Map(options.metadata ?? []);
  if (alignment !== 32) metadata.set("general.alignment", ggufEntry.u32(alignment));
  const { head, offsets } = layOut(path, list, metadata, alignment);
  const staged = stageFile(path);
  let fd: number | undefined;
  try {
    fd = openSync(staged.path, "r+");
    writeFully(fd, head, 0);
    for (const [index, tensor] of list.entries()) writeTensor(fd, tensor, head.length + offsets[index], path);
    // The last tensor is padded too: readers that map the file count on it.
    ftruncateSync(fd, head.length + offsets[list.length]);
    closeSync(fd);
    fd = undefined;
    staged.commit();
  } catch (cause) {
    if (fd !== undefined) closeSync(fd);
    staged.discard();
    throw storageError(cause, path);
  }
}

function layOut(
  path: string,
  tensors: readonly GgufTensor[],
  metadata: ReadonlyMap<string, GgufMetadataEntry>,
  alignment: number,
): { head: Uint8Array; offsets: number[] } {
  const out = new ByteSink();
  out.u32(0x46554747);
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, { type, value }] of metadata) {
    out.string(key);
    out.u32(ggufValueTypes.indexOf(type));
    out.value(type, value);
  }
  const names = new Set<string>();
  const offsets = [0];
  for (const { name, dtype, shape } of tensors) {
    if (names.has(name)) throw new FormatError(`${path}: expected every tensor once, got "${name}" twice`);
    names.add(name);
    const bytes = ggufTypeName(ggufTensorTypes[dtype]?.id ?? -1) === undefined ? Number.NaN : ggufTensorBytes(dtype, shape);
    if (Number.isNaN(bytes) || shape.length > 4 || shape.some((dimension) => !Number.isSafeInteger(dimension) || dimension < 1)) {
      throw new FormatError(`${path}: expected at most four dimensions of whole blocks for "${name}", got ${dtype} [${shape.join(", ")}]`, {
        hint: "Store matrices with other row lengths as F16 or F32.",
      });
    }
    out.string(name);
    out.u32(shape.length);
    for (const dimension of shape.toReversed()) out.u64(dimension);
    out.u32(ggufTensorTypes[dtype].id);
    out.u64(offsets.at(-1)!);
    offsets.push(Math.ceil((offsets.at(-1)! + bytes) / alignment) * alignment);
  }
  out.padTo(alignment);
  return { head: out.bytes(), offsets };
}

function writeTensor(fd: number, { name, dtype, shape, data: given }: GgufTensor, position: number, label: string): void {
  const data = typeof given === "function" ? given() : given;
  const total = ggufTensorBytes(dtype, shape);
  const elements = shape.reduce((product, dimension) => product * dimension, 1);
  const convert = data instanceof Float32Array && dtype !== "F32" ? converterOf(dtype) : undefined;
  if (convert === undefined ? data.byteLength !== total : (data as Float32Array).length !== elements) {
    throw new FormatError(`${label}: expected the ${elements} values of "${name}" as ${dtype}, got ${data.byteLength} bytes`, {
      hint: "Give a Float32Array of all values, or the bytes as they are to be stored.",
    });
  }
  if (convert === undefined) {
    writeFully(fd, bytesOf(data), position);
    return;
  }
  const { values, bytes } = ggufTensorTypes[dtype];
  const chunk = new Uint8Array((Math.min(chunkValues, elements) / values) * bytes);
  for (let at = 0; at < elements; at += chunkValues) {
    const part = (data as Float32Array).subarray(at, at + chunkValues);
    const target = chunk.subarray(0, (part.length / values) * bytes);
    convert(part, target);
    writeFully(fd, target, position + (at / values) * bytes);
  }
}

function converterOf(dtype: GgufTypeName): ((values: Float32Array, target: Uint8Array) => void) | undefined {
  if (isQuantisable(dtype)) {
    const { bytes } = ggufTensorTypes[dtype];
    return (values, target) => {
      for (let at = 0, to = 0; at < values.length; at += 32, to += bytes) quantisers[dtype](values.subarray(at, at + 32), target, to);
    };
  }
  const words = (target: Uint8Array): Uint16Array => new Uint16Array(target.buffer, target.byteOffset, target.length / 2);
  if (dtype === "F16") return (values, target) => float32ToFloat16(values, words(target));
  if (dtype === "BF16") return (values, target) => float32ToBfloat16(values, words(target));
  if (dtype === "F64") return (values, target) => new Float64Array(target.buffer, target.byteOffset, values.length).set(values);
  return undefined;
}

const numberWriters: Record<
  Exclude<GgufValueType, "string" | "array" | "bool" | "u64" | "i64">,
  [bytes: number, write: (view: DataView, value: number) => void]
> = {
  u8: [1, (view, value) => view.setUint8(0, value)],
  i8: [1, (view, value) => view.setInt8(0, value)],
  u16: [2, (view, value) => view.setUint16(0, value, true)],
  i16: [2, (view, value) => view.setInt16(0, value, true)],
  u32: [4, (view, value) => view.setUint32(0, value, true)],
  i32: [4, (view, value) => view.setInt32(0, value, true)],
  f32: [4, (view, value) => view.setFloat32(0, value, true)],
  f64: [8, (view, value) => view.setFloat64(0, value, true)],
};

/** Bytes that grow. */
class ByteSink {
  private data = new Uint8Array(1 << 12);
  private length = 0;

  u32(value: number): void {
    this.view(4).setUint32(0, value, true);
  }

  u64(value: number | bigint): void {
    this.view(8).setBigUint64(0, BigInt(value), true);
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.append(bytes);
  }

  value(type: GgufValueType, value: GgufValue): void {
    if (type === "string") this.string(value as string);
    else if (type === "array") this.array(value as GgufArray);
    else if (type === "bool") this.view(1).setUint8(0, value === true ? 1 : 0);
    else if (type === "u64" || type === "i64") this.u64(BigInt.asUintN(64, BigInt(value as number | bigint)));
    else {
      const [bytes, write] = numberWriters[type];
      write(this.view(bytes), value as number);
    }
  }

  array({ type, values }: GgufArray): void {
    this.u32(ggufValueTypes.indexOf(type));
    this.u64(values.length);
    if (type === "string") for (const text of values as readonly string[]) this.string(text);
    else if (type === "array") for (const inner of values as readonly GgufArray[]) this.array(inner);
    else this.append(bytesOf(values as GgufNumbers));
  }

  padTo(alignment: number): void {
    this.append(new Uint8Array((alignment - (this.length % alignment)) % alignment));
  }

  bytes(): Uint8Array {
    return this.data.subarray(0, this.length);
  }

  private view(bytes: number): DataView {
    this.reserve(bytes);
    this.length += bytes;
    return new DataView(this.data.buffer, this.length - bytes, bytes);
  }

  private append(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.data.set(bytes, this.length);
    this.length += bytes.length;
  }

  private reserve(more: number): void {
    if (this.length + more <= this.data.length) return;
    const grown = new Uint8Array(Math.max(2 * this.data.length, this.length + more));
    grown.set(this.bytes());
    this.data = grown;
  }
}
