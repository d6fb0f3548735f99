// What a program declares about an input or output, and the check that a buffer fits it. ONNX Runtime finds most of these mistakes
// too, but only when it runs; here the error comes when the buffer is bound, and says what was expected.
import { BackendError, nearest } from "../base/errors.ts";
import { type DType, onnxType } from "../tensor/dtype.ts";
import { sizeOf, type TensorBuffer } from "./buffer.ts";

type Kind = "input" | "output" | "initializer";

export interface Declared {
  readonly name: string;
  /** ONNX element type. */
  readonly elementType: number;
  /** −1 for a symbolic dimension. Undefined when the rank is unknown. */
  readonly shape: readonly number[] | undefined;
}

const dtypeOf = new Map(Object.entries(onnxType).map(([dtype, code]) => [code, dtype as DType]));

/** @throws BackendError when dtype, rank or a fixed dimension differs. */
export function checkFits(kind: Kind, declared: Declared, buffer: TensorBuffer): void {
  const { elementType, shape } = declared;
  const dtypeFits = onnxType[buffer.dtype] === elementType;
  const shapeFits =
    shape === undefined ||
    (shape.length === buffer.shape.length && shape.every((dimension, axis) => dimension < 0 || dimension === buffer.shape[axis]));
  if (dtypeFits && shapeFits) return;
  const expected = `${dtypeOf.get(elementType) ?? `element type ${elementType}`}[${shape?.map((d) => (d < 0 ? "?" : d)).join(", ") ?? "…"}]`;
  throw new BackendError(`${kind} ${declared.name}: expected ${expected}, got ${buffer.dtype}[${buffer.shape.join(", ")}]`);
}

/** The entry called `name`. @throws BackendError that suggests the nearest one. */
export function lookUp<T>(kind: Kind, entries: ReadonlyMap<string, T>, name: string): T {
  const found = entries.get(name);
  if (found !== undefined) return found;
  const close = nearest(name, entries.keys());
  throw new BackendError(`${kind} ${name}: expected one of ${[...entries.keys()].slice(0, 20).join(", ") || "none"}, got an unknown name`, {
    hint: close === undefined ? undefined : `Did you mean ${close}?`,
  });
}

/** @throws BackendError unless `buffers` has every declared name. */
export function checkComplete(
  kind: "input" | "output",
  declared: ReadonlyMap<string, unknown>,
  buffers: ReadonlyMap<string, unknown>,
): void {
  const missing = [...declared.keys()].filter((name) => !buffers.has(name));
  if (missing.length > 0) {
    throw new BackendError(`bind: expected a buffer for each ${kind}, got none for ${missing.slice(0, 10).join(", ")}`);
  }
}

/** @throws BackendError unless the buffer's memory has the length of its shape and cannot move. */
export function checkMemory(name: string, { data, dtype, shape }: TensorBuffer): void {
  // Since Node 20; the ES2023 types do not know it.
  const { resizable } = data.buffer as { resizable?: boolean };
  if (data.length === sizeOf(shape) && !resizable) return;
  const got = `${data.length}${resizable ? " in a resizable ArrayBuffer" : ""}`;
  throw new BackendError(`${name}: expected ${sizeOf(shape)} elements for ${dtype}[${shape.join(", ")}], got ${got}`, {
    hint: "The memory of a bound buffer must stay where it is: detached and resizable ArrayBuffers cannot be bound.",
  });
}

/** @throws BackendError when an input is an output as it is: ONNX Runtime then runs nothing and leaves the output's buffer alone. */
export function checkNoPassThrough(inputs: ReadonlyMap<string, unknown>, outputs: ReadonlyMap<string, unknown>): void {
  const both = [...inputs.keys()].filter((name) => outputs.has(name));
  if (both.length > 0) {
    throw new BackendError(`createSession: expected outputs that a node computes, got the inputs ${both.join(", ")}`, {
      hint: "Put an Identity node between such an input and the output.",
    });
  }
}
