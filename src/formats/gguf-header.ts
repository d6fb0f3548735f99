// The head of a GGUF file (versions 2 and 3, little endian): metadata and the list of tensors. Every count and length is checked against
// the bytes that are left in the file before anything is allocated for it.
// Layout: "GGUF" | u32 version | u64 tensors | u64 keys | keys: string, u32 type, value | tensors: string, u32 rank, u64 dimensions
// (innermost first), u32 type, u64 offset | padding | data. Strings are a u64 length and UTF-8.
import { FormatError } from "../base/errors.ts";
import { readFully } from "../base/file-io.ts";
import { type GgufTypeName, ggufTensorBytes, ggufTypeName } from "./gguf-types.ts";
import type { TensorEntry } from "./tensor-source.ts";

/** Value types of metadata; the index is the number in the file. */
export const ggufValueTypes = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"] as const;
export type GgufValueType = (typeof ggufValueTypes)[number];

/** 64-bit integers beyond ±2^53 are bigints. Arrays of numbers are typed arrays; arrays of booleans have one byte an element. */
export type GgufValue = number | bigint | boolean | string | GgufArray;
export interface GgufArray {
  readonly type: GgufValueType;
  readonly values: readonly string[] | readonly GgufArray[] | GgufNumbers;
}
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

export interface GgufMetadataEntry {
  readonly type: GgufValueType;
  readonly value: GgufValue;
}

export interface GgufEntry extends TensorEntry {
  readonly dtype: GgufTypeName;
  /** Row-major, innermost last: the reverse of the order in the file. */
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly begin: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: ReadonlyMap<string, GgufMetadataEntry>;
  /** In the order of the data. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
}

const valueBytes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const numberArrays = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f32: Float32Array,
  bool: Uint8Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f64: Float64Array,
} as const;

const maxNameBytes = 1 << 16;
const maxRank = 4;
const maxArrayDepth = 4;
const maxAlignment = 1 << 16;
const damaged = "The file is damaged or no GGUF file; copy or download it again.";

/**
 * Reads and checks the head of an open file of `size` bytes.
 * @param label names the file in errors.
 * @throws FormatError saying what was expected, what was found and where.
 */
export function readGgufHeader(fd: number, size: number, label: string): GgufHeader {
  const cursor = new Cursor(fd, size, label);
  if (size < 24) throw cursor.error("a GGUF file of at least 24 bytes", `${size} bytes`);
  const magic = cursor.u32();
  if (magic !== 0x46554747) throw cursor.error('the letters "GGUF"', `0x${magic.toString(16).padStart(8, "0")}`);
  const version = cursor.u32();
  if (version !== 0 && (version & 0xffff) === 0) {
    throw new FormatError(`${label}: expected a little-endian GGUF file, got a big-endian one`, {
      hint: "Use the little-endian file of this model, or convert it with gguf's convert_endian script.",
    });
  }
  if (version !== 2 && version !== 3) {
    throw new FormatError(`${label}: expected GGUF version 2 or 3, got ${version}`, {
      hint: version === 1 ? "Convert the model again with a current llama.cpp." : "This version is not known.",
    });
  }
  // A tensor takes at least 8 + 4 + 8 + 4 + 8 bytes here, a key at least 8 + 4 + 1.
  const numTensors = cursor.count(32, "tensors");
  const numKeys = cursor.count(13, "keys");
  const metadata = new Map<string, GgufMetadataEntry>();
  for (let i = 0; i < numKeys; i++) {
    const key = cursor.string(maxNameBytes, "a key");
    if (metadata.has(key)) throw cursor.error("every key once", `${quote(key)} twice`);
    const type = cursor.valueType();
    metadata.set(key, { type, value: cursor.value(type, 0) });
  }
  const alignment = alignmentOf(metadata, label);
  const found: { name: string; dtype: GgufTypeName; shape: number[]; offset: number; bytes: number }[] = [];
  const names = new Set<string>();
  for (let i = 0; i < numTensors; i++) {
    const name = cursor.string(maxNameBytes, "the name of a tensor");
    if (names.has(name)) throw cursor.error("every tensor once", `${quote(name)} twice`);
    names.add(name);
    const rank = cursor.u32();
    if (rank > maxRank) throw cursor.error(`at most ${maxRank} dimensions of tensor ${quote(name)}`, String(rank));
    const shape: number[] = [];
    for (let axis = 0; axis < rank; axis++) shape.unshift(cursor.u64("a dimension"));
    const typeId = cursor.u32();
    const dtype = ggufTypeName(typeId);
    if (dtype === undefined) throw cursor.error(`a known element type of tensor ${quote(name)}`, String(typeId));
    const bytes = ggufTensorBytes(dtype, shape);
    if (Number.isNaN(bytes) || shape.includes(0)) {
      throw cursor.error(`dimensions of whole blocks of ${dtype} for tensor ${quote(name)}`, `[${shape.join(", ")}]`);
    }
    found.push({ name, dtype, shape, offset: cursor.u64("an offset"), bytes });
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const entries = placeTensors(found, dataStart, alignment, size, label);
  return { version, alignment, metadata, entries };
}

function alignmentOf(metadata: ReadonlyMap<string, GgufMetadataEntry>, label: string): number {
  const value = metadata.get("general.alignment")?.value ?? 32;
  if (typeof value !== "number" || value < 1 || value > maxAlignment || !Number.isInteger(Math.log2(value))) {
    throw new FormatError(`${label}: expected a power of two up to ${maxAlignment} as general.alignment, got ${String(value)}`, {
      hint: damaged,
    });
  }
  return value;
}

/** Aligned, inside the file, none over another. */
function placeTensors(
  found: { name: string; dtype: GgufTypeName; shape: number[]; offset: number; bytes: number }[],
  dataStart: number,
  alignment: number,
  size: number,
  label: string,
): Map<string, GgufEntry> {
  found.sort((a, b) => a.offset - b.offset);
  const entries = new Map<string, GgufEntry>();
  let end = 0;
  for (const { name, dtype, shape, offset, bytes } of found) {
    const place = `tensor ${quote(name)} (${dtype} [${shape.join(", ")}])`;
    if (offset % alignment !== 0) {
      throw new FormatError(`${label}: expected ${place} at a multiple of ${alignment}, got offset ${offset}`, { hint: damaged });
    }
    if (offset < end) {
      throw new FormatError(`${label}: expected ${place} at ${end} or later, got offset ${offset} (it overlaps another)`, {
        hint: damaged,
      });
    }
    end = offset + bytes;
    if (dataStart + end > size) {
      throw new FormatError(`${label}: expected ${dataStart + end} bytes for ${place}, got a file of ${size}`, {
        hint: "The file is cut short: copy or download it again.",
      });
    }
    entries.set(name, { name, dtype, shape, begin: dataStart + offset, bytes });
  }
  return entries;
}

const quote = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);

/** Sequential reads through a window of the file, so that a head of any length costs little memory at a time. */
class Cursor {
  position = 0;
  private readonly fd: number;
  private readonly size: number;
  private readonly label: string;
  private window: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  private view = new DataView(this.window.buffer);
  private windowStart = 0;

  constructor(fd: number, size: number, label: string) {
    this.fd = fd;
    this.size = size;
    this.label = label;
  }

  error(expected: string, got: string): FormatError {
    return new FormatError(`${this.label}: expected ${expected}, got ${got} before byte ${this.position}`, { hint: damaged });
  }

  u32(): number {
    const at = this.take(4); // may replace the view
    return this.view.getUint32(at, true);
  }

  /** @throws FormatError for numbers beyond 2^53. */
  u64(what: string): number {
    const at = this.take(8);
    const [low, high] = [this.view.getUint32(at, true), this.view.getUint32(at + 4, true)];
    if (high >= 0x200000) throw this.error(`${what} below 2^53`, `2^32 x ${high} + ${low}`);
    return high * 2 ** 32 + low;
  }

  /** A number of things that take at least `itemBytes` each. */
  count(itemBytes: number, what: string): number {
    const count = this.u64(`a number of ${what}`);
    if (count > (this.size - this.position) / itemBytes) {
      throw this.error(`at most ${Math.floor((this.size - this.position) / itemBytes)} ${what} in the rest of the file`, String(count));
    }
    return count;
  }

  /** Invalid UTF-8 (single bytes of old vocabularies) becomes U+FFFD. */
  string(maxBytes: number, what: string): string {
    const length = this.lengthOf(maxBytes, what);
    const at = this.take(length);
    return utf8.decode(this.window.subarray(at, at + length));
  }

  /** Of the string that begins here. */
  private lengthOf(maxBytes: number, what: string): number {
    const length = this.u64(`the length of ${what}`);
    const limit = Math.min(maxBytes, this.size - this.position);
    if (length > limit) throw this.error(`${what} of at most ${limit} bytes`, String(length));
    return length;
  }

  valueType(): GgufValueType {
    const id = this.u32();
    const type = ggufValueTypes[id];
    if (type === undefined) throw this.error(`a value type of 0 to ${ggufValueTypes.length - 1}`, String(id));
    return type;
  }

  value(type: GgufValueType, depth: number): GgufValue {
    const bytes = valueBytes[ggufValueTypes.indexOf(type)];
    switch (type) {
      case "string":
        return this.string(this.size, "a string");
      case "array":
        return this.array(depth);
      case "bool": {
        const value = this.u8();
        if (value > 1) throw this.error("a boolean of 0 or 1", String(value));
        return value === 1;
      }
      default: {
        const at = this.take(bytes);
        return numberAt(this.view, at, type);
      }
    }
  }

  private u8(): number {
    const at = this.take(1);
    return this.view.getUint8(at);
  }

  private array(depth: number): GgufArray {
    if (depth >= maxArrayDepth) throw this.error(`arrays at most ${maxArrayDepth} deep`, "deeper ones");
    const type = this.valueType();
    if (type === "string") {
      const length = this.count(8, "strings");
      const start = this.position;
      for (let i = 0; i < length; i++) this.take(this.lengthOf(this.size, "a string"));
      return lazyStrings(this.bytesFrom(start), length);
    }
    if (type === "array") {
      const length = this.count(12, "arrays");
      const values: GgufArray[] = [];
      for (let i = 0; i < length; i++) values.push(this.array(depth + 1));
      return { type, values };
    }
    const bytes = valueBytes[ggufValueTypes.indexOf(type)];
    const length = this.count(bytes, `values of ${type}`);
    // The host is little endian, as every platform of ONNX Runtime is.
    const raw = this.raw(length * bytes);
    return { type, values: new numberArrays[type](raw.buffer, 0, length) };
  }

  /** A copy of the next bytes. Small ones come from the window: many small arrays must not reload it each time. */
  private raw(length: number): Uint8Array<ArrayBuffer> {
    if (length <= windowBytes) {
      const at = this.take(length);
      return this.window.slice(at, at + length);
    }
    const bytes = new Uint8Array(length);
    readFully(this.fd, bytes, this.position, this.label);
    this.position += length;
    return bytes;
  }

  /** A copy of what was moved over since `start`: from the window, where it is all there. */
  private bytesFrom(start: number): Uint8Array<ArrayBuffer> {
    const from = start - this.windowStart;
    if (from >= 0) return this.window.slice(from, this.position - this.windowStart);
    const bytes = new Uint8Array(this.position - start);
    readFully(this.fd, bytes, start, this.label);
    return bytes;
  }

  /** Moves over `length` bytes and returns where in the window they begin. */
  private take(length: number): number {
    if (length > this.size - this.position) throw this.error(`${length} more bytes`, `the end of the file`);
    let at = this.position - this.windowStart;
    if (at < 0 || at + length > this.window.length) {
      const bytes = Math.min(Math.max(length, windowBytes), this.size - this.position);
      this.window = new Uint8Array(bytes);
      this.view = new DataView(this.window.buffer);
      readFully(this.fd, this.window, this.position, this.label);
      this.windowStart = this.position;
      at = 0;
    }
    this.position += length;
    return at;
  }
}

/** A vocabulary, of which most readers of a file want nothing: its strings are made when they are first asked for. */
function lazyStrings(bytes: Uint8Array<ArrayBuffer>, count: number): GgufArray {
  let stored: Uint8Array<ArrayBuffer> | undefined = bytes;
  let values: readonly string[] = [];
  return {
    type: "string",
    get values() {
      if (stored) values = decodeStrings(stored, count);
      stored = undefined;
      return values;
    },
  };
}

/** @param stored lengths and bytes as in the file, checked. */
function decodeStrings(stored: Uint8Array<ArrayBuffer>, count: number): string[] {
  const view = new DataView(stored.buffer);
  const strings: string[] = [];
  for (let i = 0, at = 0; i < count; i++) {
    const start = at + 8;
    at = start + view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    strings.push(utf8.decode(stored.subarray(start, at)));
  }
  return strings;
}

const windowBytes = 1 << 18;
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

function numberAt(view: DataView, at: number, type: Exclude<GgufValueType, "string" | "array" | "bool">): number | bigint {
  switch (type) {
    case "u8":
      return view.getUint8(at);
    case "i8":
      return view.getInt8(at);
    case "u16":
      return view.getUint16(at, true);
    case "i16":
      return view.getInt16(at, true);
    case "u32":
      return view.getUint32(at, true);
    case "i32":
      return view.getInt32(at, true);
    case "f32":
      return view.getFloat32(at, true);
    case "f64":
      return view.getFloat64(at, true);
    case "u64":
      return narrow(view.getBigUint64(at, true));
    case "i64":
      return narrow(view.getBigInt64(at, true));
  }
}

const narrow = (value: bigint): number | bigint => (Number.isSafeInteger(Number(value)) ? Number(value) : value);
