// OrtValues over memory that is ours. A value only refers to its array, so every value keeps its array alive;
// each input or output remembers its last few values, so that alternating between buffers or shapes makes none anew.
import { bytesPerElement, onnxType } from "../../tensor/dtype.ts";
import type { TensorBuffer } from "../buffer.ts";
import { checkMemory } from "../declared.ts";
import type { Environment } from "./environment.ts";

/** Values that one input or output remembers: two buffers that swap, times a few shapes. */
const remembered = 8;

export interface Value {
  readonly pointer: bigint;
  readonly buffer: TensorBuffer;
}

/** A new OrtValue over the buffer's memory. Release it before the array may be collected. */
export function createValue({ library, memoryInfo }: Environment, buffer: TensorBuffer, name: string): Value {
  const { data, dtype, shape } = buffer;
  checkMemory(name, buffer);
  const dimensions = BigInt64Array.from(shape.length === 0 ? [0n] : shape.map(BigInt));
  // Of the whole ArrayBuffer: an empty array has no address of its own.
  const address = library.addressOf(data.buffer) + BigInt(data.byteOffset);
  const bytes = data.length * bytesPerElement[dtype];
  const pointer = library.receive(`${name}: making a tensor of ${dtype}[${shape.join(", ")}]`, (out) =>
    library.functions.CreateTensorWithDataAsOrtValue(memoryInfo, address, bytes, dimensions, shape.length, onnxType[dtype], out),
  );
  return { pointer, buffer };
}

const sameMemory = (a: TensorBuffer, b: TensorBuffer): boolean =>
  a === b ||
  (a.data.buffer === b.data.buffer &&
    a.data.byteOffset === b.data.byteOffset &&
    a.dtype === b.dtype &&
    a.shape.length === b.shape.length &&
    a.shape.every((dimension, axis) => dimension === b.shape[axis]));

/** The values of one input or output, most recently used first. */
export class ValueCache {
  private values: Value[] = [];
  private readonly environment: Environment;
  private readonly name: string;

  constructor(environment: Environment, name: string) {
    this.environment = environment;
    this.name = name;
  }

  /** The buffer that was asked for last. */
  get current(): TensorBuffer | undefined {
    return this.values[0]?.buffer;
  }

  /** The value over this memory in this shape, made when it is not remembered. `keep` sees it before an old one is released. */
  use(buffer: TensorBuffer, keep: (pointer: bigint) => void): void {
    const { values } = this;
    const at = values.findIndex((value) => sameMemory(value.buffer, buffer));
    if (at === 0) return;
    const value = at > 0 ? values[at] : createValue(this.environment, buffer, this.name);
    try {
      keep(value.pointer);
    } catch (error) {
      if (at < 0) this.environment.library.functions.ReleaseValue(value.pointer);
      throw error;
    }
    if (at > 0) values.splice(at, 1);
    values.unshift(value);
    if (values.length > remembered) this.environment.library.functions.ReleaseValue(values.pop()!.pointer);
  }

  release(): void {
    for (const { pointer } of this.values) this.environment.library.functions.ReleaseValue(pointer);
    this.values = [];
  }
}
