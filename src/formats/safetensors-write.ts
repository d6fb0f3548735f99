// Writer of safetensors files. Tensors go from their own memory to the disk; nothing the size of the file is ever held.
// Order in the file: larger element types first, then by name, so that every tensor is aligned to its element size.
import { closeSync, openSync } from "node:fs";
import { type Staged, stageFile, storageError } from "../base/atomic.ts";
import { BackendError, FormatError } from "../base/errors.ts";
import { bytesOf, writeFully } from "../base/file-io.ts";
import type { DType } from "../tensor/dtype.ts";
import { float32ToBfloat16, float32ToFloat16 } from "./half.ts";
import { bitsPerSafetensorsElement, isSafetensorsDType, type SafetensorsDType, toSafetensorsDType } from "./safetensors-dtype.ts";
import { type SafetensorsEntry, serialiseHeader, tensorBytes } from "./safetensors-header.ts";

export interface SafetensorsSpec {
  readonly name: string;
  /** The type in the file: longwave's short name or the format's. */
  readonly dtype: DType | SafetensorsDType;
  readonly shape: readonly number[];
}

export interface SafetensorsTensor extends SafetensorsSpec {
  /** The elements, row-major, in the type of the file; a Float32Array may also be stored as f16 or bf16 (rounded to nearest even). */
  readonly data: ArrayBufferView;
}

export interface SafetensorsWriteOptions {
  /** Default `{ format: "pt" }`: Hugging Face transformers refuses files without it. */
  metadata?: Readonly<Record<string, string>>;
}

/** Float32 elements rounded to 16 bits at a time. */
const chunkElements = 1 << 20;

/**
 * Writes tensors to `path` atomically and synced.
 * @throws FormatError for equal names or data that does not fit its shape, CheckpointError when the disk refuses.
 */
export function writeSafetensors(path: string, tensors: Iterable<SafetensorsTensor>, options: SafetensorsWriteOptions = {}): void {
  const list = [...tensors];
  const writer = new SafetensorsWriter(path, list, options);
  try {
    const byName = new Map(list.map((tensor) => [tensor.name, tensor]));
    for (const name of writer.names) writer.append(name, byName.get(name)!.data);
    writer.commit();
  } finally {
    writer.discard();
  }
}

/** The incremental form: the header is fixed first, then the data arrives in parts, in any order of tensors. */
export class SafetensorsWriter {
  /** In file order: appending in this order writes the disk sequentially. */
  readonly names: readonly string[];
  private readonly path: string;
  private readonly staged: Staged;
  private readonly places = new Map<string, { entry: SafetensorsEntry; written: number }>();
  private readonly dataStart: number;
  private fd: number | undefined;

  /** Lays out the file beside `path`. @throws FormatError for names or shapes that cannot be stored, CheckpointError. */
  constructor(path: string, specs: Iterable<SafetensorsSpec>, options: SafetensorsWriteOptions = {}) {
    this.path = path;
    const entries = layOut(path, specs);
    const header = serialiseHeader(entries, new Map(Object.entries(options.metadata ?? { format: "pt" })));
    this.names = entries.map((entry) => entry.name);
    for (const entry of entries) this.places.set(entry.name, { entry, written: 0 });
    this.dataStart = header.length;
    this.staged = stageFile(path);
    this.attempt(() => {
      this.fd = openSync(this.staged.path, "r+");
      writeFully(this.fd, header, 0);
    });
  }

  /**
   * Writes the next elements of a tensor. A Float32Array given for a tensor of type f16 or bf16 is rounded.
   * @throws FormatError for an unknown name or too many bytes, CheckpointError when the disk refuses.
   */
  append(name: string, data: ArrayBufferView): void {
    const { fd } = this;
    if (fd === undefined) throw new BackendError(`${this.path}: expected an open writer, got one that was committed or given up`);
    const place = this.places.get(name);
    if (place === undefined) throw new FormatError(`${this.path}: expected one of the declared tensors, got "${name}"`);
    const { dtype } = place.entry;
    const half = data instanceof Float32Array && (dtype === "F16" || dtype === "BF16");
    const bytes = half ? data.length * 2 : data.byteLength;
    const total = place.entry.end - place.entry.begin;
    if (place.written + bytes > total) {
      throw new FormatError(`${this.path}: expected ${total} bytes for tensor "${name}", got at least ${place.written + bytes}`);
    }
    const position = this.dataStart + place.entry.begin + place.written;
    this.attempt(() => {
      if (half) writeHalf(fd, dtype, data, position);
      else writeFully(fd, bytesOf(data), position);
    });
    place.written += bytes;
  }

  /** Syncs and moves the file to its place. @throws FormatError when a tensor is incomplete, CheckpointError. */
  commit(): void {
    for (const { entry, written } of this.places.values()) {
      if (written !== entry.end - entry.begin) {
        throw new FormatError(`${this.path}: expected ${entry.end - entry.begin} bytes for tensor "${entry.name}", got ${written}`);
      }
    }
    this.closeFile();
    this.staged.commit();
  }

  /** Gives the file up. Does nothing after `commit`. */
  discard(): void {
    this.closeFile();
    this.staged.discard();
  }

  [Symbol.dispose](): void {
    this.discard();
  }

  private attempt(write: () => void): void {
    try {
      write();
    } catch (cause) {
      this.discard();
      throw storageError(cause, this.path);
    }
  }

  private closeFile(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }
}

function layOut(path: string, specs: Iterable<SafetensorsSpec>): SafetensorsEntry[] {
  const seen = new Set<string>();
  const list = [...specs].map(({ name, dtype: given, shape }) => {
    const dtype = isSafetensorsDType(given) ? given : toSafetensorsDType(given);
    if (name === "__metadata__" || seen.has(name)) {
      throw new FormatError(`${path}: expected tensor names once each and none called __metadata__, got "${name}"`);
    }
    seen.add(name);
    const bytes = tensorBytes(dtype, shape);
    if (!Number.isSafeInteger(bytes) || shape.some((dimension) => !Number.isSafeInteger(dimension) || dimension < 0)) {
      throw new FormatError(`${path}: expected non-negative integer dimensions for "${name}", got [${shape.join(", ")}]`);
    }
    return { name, dtype, shape, bytes, bits: bitsPerSafetensorsElement[dtype] };
  });
  list.sort((a, b) => b.bits - a.bits || (a.name < b.name ? -1 : 1));
  let position = 0;
  return list.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, begin: position, end: (position += bytes) }));
}

function writeHalf(fd: number, dtype: "F16" | "BF16", data: Float32Array, position: number): void {
  const bits = new Uint16Array(Math.min(chunkElements, data.length));
  const round = dtype === "F16" ? float32ToFloat16 : float32ToBfloat16;
  for (let at = 0; at < data.length; at += chunkElements) {
    const part = data.subarray(at, at + chunkElements);
    round(part, bits);
    writeFully(fd, bytesOf(bits.subarray(0, part.length)), position + at * 2);
  }
}
