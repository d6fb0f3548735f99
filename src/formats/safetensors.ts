// Reader of safetensors files, single or sharded: opens, checks the whole header, then reads tensors straight into given memory.
// Format: https://huggingface.co/docs/safetensors. Positional reads instead of a memory map, which Node does not have.
import { closeSync, existsSync, fstatSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { BackendError, FormatError } from "../base/errors.ts";
import { bytesOf, openForReading, readFully } from "../base/file-io.ts";
import { allocate, sizeOf, type TensorBuffer } from "../runtime/buffer.ts";
import { readJsonObject } from "./json-file.ts";
import { readElements } from "./read-elements.ts";
import { bitsPerSafetensorsElement, fromSafetensorsDType, readableDType } from "./safetensors-dtype.ts";
import { maxHeaderBytes, parseHeader, type SafetensorsEntry } from "./safetensors-header.ts";
import { missingTensor, type TensorSource } from "./tensor-source.ts";

export interface SafetensorsSource extends TensorSource {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** The `__metadata__` strings (of a sharded checkpoint: those of its first shard). */
  readonly metadata: ReadonlyMap<string, string>;
  /**
   * Fills `buffer` (of any shape) with consecutive elements of a tensor from element `start` on: one part of a fused matrix, one expert.
   * @throws FormatError when the tensor has fewer elements.
   */
  readSliceInto(name: string, start: number, buffer: TensorBuffer): void;
  /** Copies the stored bytes of a tensor of any element type. `target` has exactly their number. */
  readBytesInto(name: string, target: Uint8Array): void;
}

/**
 * Opens a `.safetensors` file, a `model.safetensors.index.json`, or a checkpoint folder that holds one of the two.
 * @throws FormatError when the file is missing, damaged, truncated or makes claims that do not fit its size.
 */
export function openSafetensors(path: string): SafetensorsSource {
  const file = locate(path);
  return file.endsWith(".json") ? openShards(file) : new SafetensorsFile(file);
}

function locate(path: string): string {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined) {
    throw new FormatError(`${path}: expected a safetensors file or a checkpoint folder, got nothing there`, { hint: "Check the path." });
  }
  if (!status.isDirectory()) return path;
  for (const name of ["model.safetensors", "model.safetensors.index.json"]) if (existsSync(join(path, name))) return join(path, name);
  throw new FormatError(`${path}: expected model.safetensors or model.safetensors.index.json in it, got neither`, {
    hint: "Name the file itself, or convert the checkpoint to safetensors.",
  });
}

class SafetensorsFile implements SafetensorsSource {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  private readonly path: string;
  private readonly dataStart: number;
  private fd: number | undefined;

  constructor(path: string) {
    this.path = path;
    const fd = openForReading(path);
    try {
      const { size } = fstatSync(fd);
      if (size < 8) throw new FormatError(`${path}: expected at least 8 bytes, got ${size}`, { hint: "The file is empty or cut short." });
      const lengthField = new Uint8Array(8);
      readFully(fd, lengthField, 0, path);
      const claimed = new DataView(lengthField.buffer).getBigUint64(0, true);
      const limit = Math.min(size - 8, maxHeaderBytes);
      if (claimed < 2n || claimed > BigInt(limit)) {
        throw new FormatError(`${path}: expected a header of 2 to ${limit} bytes, got a claim of ${claimed}`, {
          hint: "The file is cut short or no safetensors file.",
        });
      }
      const headerBytes = new Uint8Array(Number(claimed));
      readFully(fd, headerBytes, 8, path);
      this.dataStart = 8 + headerBytes.length;
      ({ entries: this.entries, metadata: this.metadata } = parseHeader(headerBytes, size - this.dataStart, path));
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
    this.fd = fd;
  }

  readInto(name: string, buffer: TensorBuffer): void {
    const entry = this.entry(name);
    if (entry.shape.length !== buffer.shape.length || entry.shape.some((dimension, axis) => dimension !== buffer.shape[axis])) {
      throw new FormatError(
        `${this.path}: expected shape [${buffer.shape.join(", ")}] for tensor "${name}", got [${entry.shape.join(", ")}] in the file`,
        { hint: "The weights and the configuration do not belong together: check config.json." },
      );
    }
    this.readSliceInto(name, 0, buffer);
  }

  readSliceInto(name: string, start: number, buffer: TensorBuffer): void {
    const fd = this.open();
    const entry = this.entry(name);
    const stored = fromSafetensorsDType(entry.dtype);
    const readable = readableDType(entry.dtype);
    const convertible = readable === "f32" ? buffer.dtype === "f32" || buffer.dtype === "f64" : readable === buffer.dtype;
    if (stored !== buffer.dtype && !convertible) {
      throw new FormatError(`${this.path}: expected tensor "${name}" to be readable as ${buffer.dtype}, got ${entry.dtype} in the file`, {
        hint: readable === undefined ? "This element type is not supported; convert the checkpoint." : `Read it as ${readable}.`,
      });
    }
    const elements = sizeOf(entry.shape);
    const count = buffer.data.length;
    if (!Number.isSafeInteger(start) || start < 0 || start + count > elements) {
      throw new FormatError(`${this.path}: expected a part of the ${elements} elements of "${name}", got ${start} to ${start + count}`, {
        hint: "The weights and the configuration do not belong together: check config.json.",
      });
    }
    const position = this.dataStart + entry.begin + (start * bitsPerSafetensorsElement[entry.dtype]) / 8;
    if (stored === buffer.dtype) readFully(fd, bytesOf(buffer.data), position, this.path);
    else readElements(fd, entry.dtype, position, buffer.data, this.path);
  }

  readBytesInto(name: string, target: Uint8Array): void {
    const { begin, end } = this.entry(name);
    if (target.length !== end - begin) {
      throw new FormatError(`${this.path}: expected room for the ${end - begin} bytes of "${name}", got ${target.length}`);
    }
    readFully(this.open(), target, this.dataStart + begin, this.path);
  }

  read(name: string): TensorBuffer {
    const entry = this.entry(name);
    // Memory is bounded by the file: the header check tied every shape to bytes that are there.
    const buffer = allocate(readableDType(entry.dtype) ?? "u8", entry.shape);
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

  private entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) throw missingTensor(this.path, name, this.entries);
    return entry;
  }
}

/** `weight_map` names the shard of every tensor; tensors that it does not name are not listed. */
function openShards(indexPath: string): SafetensorsSource {
  const index = readJsonObject(indexPath, { maxBytes: maxHeaderBytes });
  const map = index.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new FormatError(`${indexPath}: expected an object "weight_map", got ${JSON.stringify(map)?.slice(0, 40) ?? "nothing"}`);
  }
  const shards = new Map<string, SafetensorsFile>();
  const shardOf = new Map<string, SafetensorsFile>();
  const entries = new Map<string, SafetensorsEntry>();
  const close = () => {
    for (const shard of shards.values()) shard.close();
  };
  try {
    for (const [name, file] of Object.entries(map)) {
      // A plain file name only: an index must not reach outside its own folder.
      if (typeof file !== "string" || !/^[^/\\\0]+\.safetensors$/.test(file)) {
        throw new FormatError(
          `${indexPath}: expected the name of a .safetensors file beside it for "${name}", got ${JSON.stringify(file)}`,
        );
      }
      let shard = shards.get(file);
      if (shard === undefined) {
        shard = new SafetensorsFile(existingShard(indexPath, file));
        shards.set(file, shard);
      }
      const entry = shard.entries.get(name);
      if (entry === undefined) throw missingTensor(join(dirname(indexPath), file), name, shard.entries);
      entries.set(name, entry);
      shardOf.set(name, shard);
    }
  } catch (cause) {
    close();
    throw cause;
  }
  const shard = (name: string): SafetensorsFile => {
    const found = shardOf.get(name);
    if (found === undefined) throw missingTensor(indexPath, name, entries);
    return found;
  };
  return {
    entries,
    metadata: [...shards.values()][0]?.metadata ?? new Map(),
    readInto: (name, buffer) => shard(name).readInto(name, buffer),
    readSliceInto: (name, start, buffer) => shard(name).readSliceInto(name, start, buffer),
    readBytesInto: (name, target) => shard(name).readBytesInto(name, target),
    read: (name) => shard(name).read(name),
    close,
    [Symbol.dispose]: close,
  };
}

function existingShard(indexPath: string, file: string): string {
  const path = join(dirname(indexPath), file);
  if (!existsSync(path)) {
    throw new FormatError(`${indexPath}: expected shard ${file} beside it, got no such file`, { hint: "Download all shards." });
  }
  return path;
}
