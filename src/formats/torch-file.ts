// Reader of what torch.save writes since PyTorch 1.6 (.pt, .pth, .bin): a ZIP archive with one pickle and one entry a storage. The pickle
// is read as data (see pickle.ts); tensors are views of storages with an offset and strides, read by position when they are asked for.
import { closeSync, fstatSync } from "node:fs";
import { BackendError, FormatError } from "../base/errors.ts";
import { openForReading, readFully } from "../base/file-io.ts";
import { allocate, sizeOf, type TensorBuffer } from "../runtime/buffer.ts";
import { arrayOver, type TypedArray } from "../tensor/dtype.ts";
import { type PickleGlobal, type PickleHandlers, type PickleObject, PickleTuple, type PickleValue, readPickle } from "./pickle.ts";
import { readElements } from "./read-elements.ts";
import { bitsPerSafetensorsElement, readableDType, type SafetensorsDType } from "./safetensors-dtype.ts";
import { missingTensor, type TensorEntry, type TensorSource } from "./tensor-source.ts";
import { readZipDirectory, type ZipEntry } from "./zip-archive.ts";

export interface TorchEntry extends TensorEntry {
  readonly dtype: SafetensorsDType;
  /** Elements from one index to the next along each axis. */
  readonly strides: readonly number[];
  /** Element of the storage that index 0 … 0 is. */
  readonly offset: number;
  /** Tensors with the same storage share memory. */
  readonly storage: string;
}

/** What was saved: tensors, plain values, lists, and dictionaries with text or number keys. */
export type TorchValue = TorchEntry | null | boolean | number | bigint | string | Uint8Array | TorchValue[] | { [key: string]: TorchValue };

export interface TorchSource extends TensorSource {
  /** By path: `model.layers.0.weight` for nested dictionaries, `1.weight` for lists; a bare tensor is "tensor". */
  readonly entries: ReadonlyMap<string, TorchEntry>;
  readonly value: TorchValue;
}

/**
 * Opens a PyTorch checkpoint. Nothing in it is executed.
 * @throws FormatError for other formats (older ones too), damage, and references to anything but tensors and plain containers, by name.
 */
export const openTorch = (path: string): TorchSource => new TorchFile(path);

const storageTypes: Readonly<Record<string, SafetensorsDType>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
  ComplexFloatStorage: "C64",
};

/** Of tensors whose storage is bytes. */
const dtypes: Readonly<Record<string, SafetensorsDType>> = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
  float8_e8m0fnu: "F8_E8M0",
  int64: "I64",
  uint64: "U64",
  int32: "I32",
  uint32: "U32",
  int16: "I16",
  uint16: "U16",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
  complex64: "C64",
};

const containers = new Set(["collections.OrderedDict", "torch.Size", "builtins.set", "builtins.dict", "builtins.list"]);
const rebuilders = new Set(["torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter"]);
const maxPickleBytes = 256 << 20;
const maxDepth = 64;
const maxRank = 64;
const maxPathLength = 4096;

interface Storage extends PickleObject {
  readonly kind: "storage";
  readonly key: string;
  /** Undefined: bytes. */
  readonly dtype: SafetensorsDType | undefined;
  readonly entry: ZipEntry;
}

interface TensorView extends PickleObject, Omit<TorchEntry, "name"> {
  readonly kind: "tensor";
}

const isStorage = (value: PickleValue): value is Storage => (value as PickleObject | null)?.kind === "storage";
const isTensor = (value: PickleValue): value is TensorView => (value as PickleObject | null)?.kind === "tensor";

class TorchFile implements TorchSource {
  readonly entries: ReadonlyMap<string, TorchEntry>;
  readonly value: TorchValue;
  private readonly path: string;
  private readonly archive: ReadonlyMap<string, ZipEntry>;
  private readonly root: string;
  private fd: number | undefined;

  constructor(path: string) {
    this.path = path;
    const fd = openForReading(path);
    try {
      const { size } = fstatSync(fd);
      refuseOlder(fd, size, path);
      this.archive = readZipDirectory(fd, size, path);
      const pickle = [...this.archive.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
      const entry = pickle === undefined ? undefined : this.archive.get(pickle);
      if (pickle === undefined || entry === undefined) {
        throw new FormatError(
          `${path}: expected data.pkl in the archive, got ${[...this.archive.keys()].slice(0, 4).join(", ") || "nothing"}`,
          {
            hint: "This is no file of torch.save.",
          },
        );
      }
      if (entry.bytes > maxPickleBytes)
        throw new FormatError(`${path}: expected at most ${maxPickleBytes} bytes of data.pkl, got ${entry.bytes}`);
      this.root = pickle.slice(0, -"data.pkl".length);
      this.checkByteOrder(fd);
      const bytes = new Uint8Array(entry.bytes);
      readFully(fd, bytes, entry.begin, path);
      const found = new Map<string, TorchEntry>();
      const saved = readPickle(bytes, this.handlers(entry.bytes), path);
      this.value = new Plain(found, path).of(saved, "", 0);
      this.entries = found;
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
    this.fd = fd;
  }

  readInto(name: string, buffer: TensorBuffer): void {
    const entry = this.entry(name);
    if (entry.shape.join() !== buffer.shape.join() || entry.shape.length !== buffer.shape.length) {
      throw new FormatError(
        `${this.path}: expected shape [${buffer.shape.join(", ")}] for tensor "${name}", got [${entry.shape.join(", ")}] in the file`,
        { hint: "The weights and the configuration do not belong together: check config.json." },
      );
    }
    const readable = readableDType(entry.dtype);
    if (readable !== buffer.dtype && !(readable === "f32" && buffer.dtype === "f64")) {
      throw new FormatError(`${this.path}: expected tensor "${name}" to be readable as ${buffer.dtype}, got ${entry.dtype} in the file`, {
        hint: readable === undefined ? "This element type is not supported; convert the checkpoint." : `Read it as ${readable}.`,
      });
    }
    if (this.fd === undefined) throw new BackendError(`${this.path}: expected an open file, got one that was closed`);
    const { dtype, shape, strides, offset, storage } = entry;
    const count = sizeOf(shape);
    if (count === 0) return;
    const begin = (this.archive.get(this.storageName(storage)) as ZipEntry).begin;
    const bytes = bitsPerSafetensorsElement[dtype] / 8;
    if (isContiguous(shape, strides)) {
      readElements(this.fd, dtype, begin + offset * bytes, buffer.data, this.path);
      return;
    }
    const span = spanOf(shape, strides);
    const all = arrayOver(buffer.dtype, new ArrayBuffer(span * buffer.data.BYTES_PER_ELEMENT), 0, span) as TypedArray;
    readElements(this.fd, dtype, begin + offset * bytes, all, this.path);
    gather(all, buffer.data, shape, strides);
  }

  read(name: string): TensorBuffer {
    const { dtype, shape } = this.entry(name);
    const buffer = allocate(readableDType(dtype) ?? "u8", shape);
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

  private entry(name: string): TorchEntry {
    const entry = this.entries.get(name);
    if (entry !== undefined) return entry;
    throw missingTensor(this.path, name, this.entries);
  }

  private storageName(key: string): string {
    return `${this.root}data/${key}`;
  }

  private checkByteOrder(fd: number): void {
    const entry = this.archive.get(`${this.root}byteorder`);
    if (entry === undefined) return;
    const bytes = new Uint8Array(Math.min(entry.bytes, 16));
    readFully(fd, bytes, entry.begin, this.path);
    const order = new TextDecoder().decode(bytes).trim();
    if (order !== "little") {
      throw new FormatError(`${this.path}: expected little-endian tensors, got ${JSON.stringify(order)}`, {
        hint: "Save them on another machine.",
      });
    }
  }

  /** @param items that containers may be made of altogether: a few bytes can name a long list again and again. */
  private handlers(items: number): PickleHandlers {
    let left = items;
    const wrong = (expected: string): FormatError =>
      new FormatError(`${this.path}: expected ${expected}, got something else`, {
        hint: "The file is damaged; copy or download it again.",
      });
    return {
      allows: ({ module, name }) => {
        const full = `${module}.${name}`;
        if (containers.has(full) || rebuilders.has(full) || full === "torch.storage.UntypedStorage") return true;
        return module === "torch" && (Object.hasOwn(storageTypes, name) || Object.hasOwn(dtypes, name));
      },
      reduce: ({ module, name }, args) => {
        const full = `${module}.${name}`;
        if (full === "torch._utils._rebuild_parameter" && args.length > 0 && isTensor(args[0])) return args[0];
        if (full === "torch._utils._rebuild_tensor_v2" || full === "torch._utils._rebuild_tensor_v3") return this.rebuild(args, wrong);
        if (containers.has(full)) {
          left -= lengthOf(args[0]);
          if (left < 0) throw wrong("containers no larger than the file");
          return containerOf(full, args, wrong);
        }
        throw wrong("a tensor or a container");
      },
      persistent: (id) => this.storageOf(id, wrong),
      build: (object) => {
        // Attributes of an OrderedDict (`_metadata` of a state_dict) say nothing about tensors.
        if (!(object instanceof Map)) throw wrong("attributes of a dictionary");
      },
    };
  }

  /** ("storage", type, key, device, elements). */
  private storageOf(id: PickleValue, wrong: (expected: string) => FormatError): Storage {
    const items = id instanceof PickleTuple ? id.items : [];
    const [tag, type, key, , count] = items;
    const names = type as PickleGlobal | undefined;
    if (tag !== "storage" || typeof names?.module !== "string" || typeof key !== "string" || typeof count !== "number")
      throw wrong("the id of a storage");
    const dtype = names.module === "torch" ? storageTypes[names.name] : undefined;
    if (dtype === undefined && names.name !== "UntypedStorage") throw wrong("a storage of a known type");
    const entry = this.archive.get(this.storageName(key));
    const bytes = dtype === undefined ? count : (count * bitsPerSafetensorsElement[dtype]) / 8;
    if (entry === undefined || !(bytes >= 0) || bytes > entry.bytes) {
      throw new FormatError(
        `${this.path}: expected ${bytes} bytes of storage ${JSON.stringify(key.slice(0, 40))}, got ${entry?.bytes ?? "none"}`,
        {
          hint: "The file is cut short; copy or download it again.",
        },
      );
    }
    return { kind: "storage", key, dtype, entry };
  }

  /** (storage, offset, size, stride, requires_grad, hooks[, dtype or metadata]). */
  private rebuild(args: readonly PickleValue[], wrong: (expected: string) => FormatError): TensorView {
    const [storage, offset, size, stride] = args;
    const numbers = (value: PickleValue): number[] => {
      const items = value instanceof PickleTuple ? value.items : [];
      if (
        !(value instanceof PickleTuple) ||
        items.length > maxRank ||
        !items.every((item) => Number.isSafeInteger(item) && (item as number) >= 0)
      )
        throw wrong("sizes of a tensor");
      return items as number[];
    };
    if (!isStorage(storage) || !Number.isSafeInteger(offset) || (offset as number) < 0) throw wrong("a storage and an offset");
    const [shape, strides] = [numbers(size), numbers(stride)];
    const last = args.at(-1) as PickleGlobal | undefined;
    const dtype = storage.dtype ?? (last?.module === "torch" ? dtypes[last.name] : undefined);
    if (dtype === undefined || shape.length !== strides.length) throw wrong("a tensor of a known element type");
    const available = Math.floor((storage.entry.bytes * 8) / bitsPerSafetensorsElement[dtype]);
    const count = shape.reduce((product, dimension) => product * dimension, 1);
    const reach = count === 0 ? 0 : (offset as number) + spanOf(shape, strides);
    // Repeated elements (stride 0) would let a small file ask for any amount of memory.
    // Written so that a count beyond all numbers, times zero, is refused as well.
    if (!(reach <= available && count <= available)) {
      throw new FormatError(
        `${this.path}: expected a tensor within the ${available} elements of its storage, got [${shape.join(", ")}] with strides [${strides.join(", ")}] at ${offset}`,
        { hint: "The file is damaged, or the tensor was expanded: save a contiguous copy." },
      );
    }
    return { kind: "tensor", dtype, shape, strides, offset: offset as number, storage: storage.key };
  }
}

const lengthOf = (value: PickleValue | undefined): number =>
  value instanceof PickleTuple ? value.items.length : Array.isArray(value) ? value.length : 0;

function containerOf(name: string, args: readonly PickleValue[], wrong: (expected: string) => FormatError): PickleValue {
  if (name === "torch.Size" && args.length === 1 && args[0] instanceof PickleTuple) return args[0];
  const [items] = args;
  const list = items instanceof PickleTuple ? items.items : Array.isArray(items) ? items : args.length === 0 ? [] : undefined;
  if (list === undefined) throw wrong("the items of a container");
  if (name === "builtins.list" || name === "builtins.set") return [...list];
  const pairs = list.map((pair): [PickleValue, PickleValue] => {
    const both = pair instanceof PickleTuple ? pair.items : Array.isArray(pair) ? pair : [];
    if (both.length !== 2) throw wrong("pairs of a dictionary");
    return [both[0], both[1]];
  });
  return new Map(pairs);
}

/** Python objects as plain values, collecting tensors by path. Objects that occur twice are converted once. */
class Plain {
  private readonly found: Map<string, TorchEntry>;
  private readonly path: string;
  private readonly known = new Map<object, TorchValue>();

  constructor(found: Map<string, TorchEntry>, path: string) {
    this.found = found;
    this.path = path;
  }

  of(value: PickleValue, at: string, depth: number): TorchValue {
    if (depth > maxDepth) throw new FormatError(`${this.path}: expected values nested at most ${maxDepth} deep, got deeper ones`);
    if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
    if (isTensor(value)) {
      const { kind: _, ...view } = value;
      const entry = { name: at || "tensor", ...view };
      this.found.set(entry.name, entry);
      return entry;
    }
    const before = this.known.get(value);
    if (before !== undefined) return before;
    const join = (key: string): string => {
      if (at.length + key.length > maxPathLength)
        throw new FormatError(`${this.path}: expected names of at most ${maxPathLength} characters, got longer ones`);
      return at ? `${at}.${key}` : key;
    };
    if (Array.isArray(value) || value instanceof PickleTuple) {
      const list: TorchValue[] = [];
      this.known.set(value, list);
      for (const [i, item] of (Array.isArray(value) ? value : value.items).entries()) list.push(this.of(item, join(String(i)), depth + 1));
      return list;
    }
    if (value instanceof Map) {
      const object: { [key: string]: TorchValue } = Object.create(null);
      this.known.set(value, object);
      for (const [key, item] of value) {
        if (typeof key !== "string" && typeof key !== "number")
          throw new FormatError(`${this.path}: expected text or numbers as keys, got others`);
        object[String(key)] = this.of(item, join(String(key)), depth + 1);
      }
      return object;
    }
    // A bare storage or name: a dtype, most likely.
    return "name" in value && typeof value.name === "string" ? value.name : null;
  }
}

const isContiguous = (shape: readonly number[], strides: readonly number[]): boolean => {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis];
  }
  return true;
};

/** Elements from the first to the last that a view touches. */
const spanOf = (shape: readonly number[], strides: readonly number[]): number =>
  shape.reduce((span, dimension, axis) => span + (dimension - 1) * strides[axis], 1);

function gather(source: TypedArray, target: TypedArray, shape: readonly number[], strides: readonly number[]): void {
  const index = new Array<number>(shape.length).fill(0);
  let from = 0;
  for (let i = 0; i < target.length; i++) {
    target[i] = source[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

/** @throws FormatError that says what the file is instead. */
function refuseOlder(fd: number, size: number, path: string): void {
  const head = new Uint8Array(Math.min(size, 512));
  readFully(fd, head, 0, path);
  const starts = (...bytes: number[]): boolean => bytes.every((byte, i) => head[i] === byte);
  const again = "Load it in PyTorch 1.6 or later and save it again.";
  const refuse = (got: string, hint: string): FormatError =>
    new FormatError(`${path}: expected a file of torch.save (a ZIP archive), got ${got}`, { hint });
  if (starts(0x50, 0x4b)) return;
  if (new TextDecoder().decode(head.subarray(257, 262)) === "ustar") throw refuse("the tar format of PyTorch before 0.1.10", again);
  // A pickled long of ten bytes: torch's magic number.
  if (starts(0x80, 0x02, 0x8a, 0x0a)) throw refuse("the format of PyTorch before 1.6", again);
  if (starts(0x80)) throw refuse("a bare pickle", "Save a state_dict with torch.save.");
  throw refuse(size === 0 ? "an empty file" : "another format", "Check the path.");
}
