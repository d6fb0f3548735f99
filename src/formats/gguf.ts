// Reader of GGUF files (versions 2 and 3): the head is read and checked whole, tensors are read by position straight into given memory,
// quantised ones block by block. Format: ggml-org/ggml, docs/gguf.md.
import { closeSync, fstatSync } from "node:fs";
import { BackendError, FormatError } from "../base/errors.ts";
import { bytesOf, openForReading, readFully } from "../base/file-io.ts";
import { allocate, sizeOf, type TensorBuffer } from "../runtime/buffer.ts";
import { type DType, isFloat, type TypedArray } from "../tensor/dtype.ts";
import { blockFormats, dequantiseBlocks } from "./gguf-blocks.ts";
import { type GgufEntry, type GgufMetadataEntry, type GgufValue, readGgufHeader } from "./gguf-header.ts";
import { type GgufTypeName, ggufTensorTypes } from "./gguf-types.ts";
import { readElements } from "./read-elements.ts";
import type { SafetensorsDType } from "./safetensors-dtype.ts";
import { missingTensor, type TensorSource } from "./tensor-source.ts";

/** Values converted at a time: a multiple of every block. */
const chunkValues = 1 << 16;

export interface GgufSource extends TensorSource {
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly path: string;
  readonly version: number;
  readonly alignment: number;
  /** Key–value pairs with the types they are stored in. */
  readonly metadata: ReadonlyMap<string, GgufMetadataEntry>;
  /** The value of a key, or undefined. */
  value(key: string): GgufValue | undefined;
  /**
   * Fills `buffer` (f32 or f64, of any shape) with consecutive values of a float or quantised tensor, from value `start` on. For
   * quantised tensors `start` and the length are whole blocks.
   * @throws FormatError when the tensor has fewer values.
   */
  readSliceInto(name: string, start: number, buffer: TensorBuffer): void;
  /** Copies stored bytes from byte `start` of a tensor on. */
  readBytesInto(name: string, target: Uint8Array, start?: number): void;
}

/**
 * Opens a GGUF file or, by the name of its first part (`…-00001-of-00003.gguf`), a model that gguf-split has split.
 * @throws FormatError when it is missing, damaged, truncated, big endian or makes claims that do not fit its size.
 */
export function openGguf(path: string): GgufSource {
  const first = new GgufFile(path);
  const count = first.value("split.count");
  if (typeof count !== "number" || count <= 1) return first;
  const parts = [first];
  try {
    const [, stem, number, total] = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(path) ?? [];
    if (Number(number) !== 1 || Number(total) !== count || first.value("split.no") !== 0) {
      throw new FormatError(
        `${path}: expected the first of ${count} parts, named …-00001-of-${String(count).padStart(5, "0")}.gguf, got another name`,
        {
          hint: "Give the first part under the name that it was published with; the others lie beside it.",
        },
      );
    }
    for (let i = 2; i <= count; i++) parts.push(new GgufFile(`${stem}-${String(i).padStart(5, "0")}-of-${total}.gguf`));
    return join(first, parts);
  } catch (cause) {
    for (const part of parts) part.close();
    throw cause;
  }
}

/** The metadata of the first part, the tensors of all. */
function join(first: GgufSource, parts: readonly GgufSource[]): GgufSource {
  const owner = new Map<string, GgufSource>();
  for (const part of parts) {
    for (const name of part.entries.keys()) {
      if (owner.has(name)) throw new FormatError(`${part.path}: expected every tensor in one part, got "${name}" again`);
      owner.set(name, part);
    }
  }
  const expected = first.value("split.tensors.count");
  if (typeof expected === "number" && expected !== owner.size) {
    throw new FormatError(`${first.path}: expected ${expected} tensors in ${parts.length} parts, got ${owner.size}`, {
      hint: "The parts do not belong together; download them again.",
    });
  }
  const of = (name: string): GgufSource => owner.get(name) ?? first;
  const close = (): void => {
    for (const part of parts) part.close();
  };
  return {
    path: first.path,
    version: first.version,
    alignment: first.alignment,
    metadata: first.metadata,
    entries: new Map(Array.from(owner, ([name, part]) => [name, part.entries.get(name) as GgufEntry])),
    value: (key) => first.value(key),
    readInto: (name, buffer) => of(name).readInto(name, buffer),
    readSliceInto: (name, start, buffer) => of(name).readSliceInto(name, start, buffer),
    readBytesInto: (name, target, start) => of(name).readBytesInto(name, target, start),
    read: (name) => of(name).read(name),
    close,
    [Symbol.dispose]: close,
  };
}

/** Plain element types as they are held in memory. */
const inMemory: Partial<Record<GgufTypeName, DType>> = {
  F32: "f32",
  F64: "f64",
  F16: "f16",
  BF16: "bf16",
  I8: "i8",
  I16: "i32",
  I32: "i32",
  I64: "i64",
};

class GgufFile implements GgufSource {
  readonly path: string;
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly version: number;
  readonly alignment: number;
  readonly metadata: ReadonlyMap<string, GgufMetadataEntry>;
  private fd: number | undefined;

  constructor(path: string) {
    this.path = path;
    const fd = openForReading(path);
    try {
      ({
        entries: this.entries,
        version: this.version,
        alignment: this.alignment,
        metadata: this.metadata,
      } = readGgufHeader(fd, fstatSync(fd).size, path));
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
    this.fd = fd;
  }

  value(key: string): GgufValue | undefined {
    return this.metadata.get(key)?.value;
  }

  readInto(name: string, buffer: TensorBuffer): void {
    const { shape } = this.entry(name);
    if (shape.join() !== buffer.shape.join()) {
      throw new FormatError(
        `${this.path}: expected shape [${buffer.shape.join(", ")}] for tensor "${name}", got [${shape.join(", ")}] in the file`,
        { hint: "The weights and the metadata do not belong together." },
      );
    }
    this.readSliceInto(name, 0, buffer);
  }

  readSliceInto(name: string, start: number, buffer: TensorBuffer): void {
    const fd = this.open();
    const { dtype, shape, begin } = this.entry(name);
    const { values, bytes } = ggufTensorTypes[dtype];
    const stored = inMemory[dtype];
    const isNumber = stored === undefined || isFloat(stored);
    const wantsFloat = buffer.dtype === "f32" || buffer.dtype === "f64";
    if (stored === undefined && blockFormats[dtype] === undefined) {
      throw new FormatError(`${this.path}: expected a supported element type for tensor "${name}", got ${dtype}`, {
        hint: "The codebook types IQ1, IQ2 and IQ3 are not read: take a file with K-quants, Q8_0 or Q4_0.",
      });
    }
    if (isNumber ? !wantsFloat && stored !== buffer.dtype : stored !== buffer.dtype) {
      throw new FormatError(`${this.path}: expected tensor "${name}" to be readable as ${buffer.dtype}, got ${dtype} in the file`, {
        hint: `Read it as ${isNumber ? "f32" : stored}.`,
      });
    }
    const count = buffer.data.length;
    const elements = sizeOf(shape);
    if (!Number.isSafeInteger(start) || start < 0 || start + count > elements || start % values !== 0 || count % values !== 0) {
      throw new FormatError(
        `${this.path}: expected whole blocks of ${values} among the ${elements} values of "${name}", got ${start} to ${start + count}`,
        { hint: "The weights and the metadata do not belong together." },
      );
    }
    const position = begin + (start / values) * bytes;
    if (stored === buffer.dtype && dtype !== "I16") readFully(fd, bytesOf(buffer.data), position, this.path);
    else this.convert(fd, dtype, position, buffer.data);
  }

  private convert(fd: number, dtype: GgufTypeName, position: number, target: TypedArray): void {
    const format = blockFormats[dtype];
    if (format === undefined) {
      readElements(fd, dtype as SafetensorsDType, position, target, this.path);
      return;
    }
    const { values, bytes } = ggufTensorTypes[dtype];
    const raw = new Uint8Array((Math.min(target.length, chunkValues) / values) * bytes);
    for (let at = 0; at < target.length; at += chunkValues) {
      const part = target.subarray(at, at + chunkValues);
      const chunk = raw.subarray(0, (part.length / values) * bytes);
      readFully(fd, chunk, position + (at / values) * bytes, this.path);
      dequantiseBlocks(format, chunk, part as Float32Array);
    }
  }

  readBytesInto(name: string, target: Uint8Array, start = 0): void {
    const { begin, bytes } = this.entry(name);
    if (start < 0 || start + target.length > bytes) {
      throw new FormatError(`${this.path}: expected part of the ${bytes} bytes of "${name}", got ${start} to ${start + target.length}`);
    }
    readFully(this.open(), target, begin + start, this.path);
  }

  read(name: string): TensorBuffer {
    const { dtype, shape } = this.entry(name);
    const stored = inMemory[dtype] ?? "f32";
    const buffer = allocate(isFloat(stored) ? "f32" : stored, shape);
    this.readInto(name, buffer);
    return buffer;
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private open(): number {
    if (this.fd === undefined) throw new BackendError(`${this.path}: expected an open file, got one that was closed`);
    return this.fd;
  }

  private entry(name: string): GgufEntry {
    const entry = this.entries.get(name);
    if (entry !== undefined) return entry;
    throw missingTensor(this.path, name, this.entries);
  }
}
