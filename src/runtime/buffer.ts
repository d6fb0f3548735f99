// Memory that is ours: a dense row-major tensor over an ArrayBuffer, read and written in place by programs and by TypeScript.
// A buffer never moves and is never copied by a program; slices are views of the same bytes.
import { invariant, LongwaveError, ShapeError } from "../base/errors.ts";
import { type ArrayOf, arrayOver, bytesPerElement, type DType } from "../tensor/dtype.ts";

/** Leaves of a flat buffer start at multiples of this many bytes (one cache line, one AVX-512 register). */
export const alignmentBytes = 64;

export interface TensorBuffer<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** The elements, row-major. Always backed by an off-heap ArrayBuffer, so that its address is stable. */
  readonly data: ArrayOf[D];
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, dimension) => product * dimension, 1);

/** Zero-filled memory. @throws ShapeError for a negative or fractional dimension, LongwaveError when memory runs out. */
export function allocate<D extends DType>(dtype: D, shape: readonly number[]): TensorBuffer<D> {
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0)
      throw new ShapeError(`allocate: expected non-negative integer dimensions, got [${shape.join(", ")}]`);
  }
  const length = sizeOf(shape);
  const bytes = length * bytesPerElement[dtype];
  let memory: ArrayBuffer;
  try {
    // Through an ArrayBuffer: a small typed array made directly may live inside V8's moving heap.
    memory = new ArrayBuffer(Math.max(bytes, alignmentBytes));
  } catch (cause) {
    throw new LongwaveError(`allocate: expected ${bytes} bytes of free memory for ${dtype}[${shape.join(", ")}], got none`, {
      cause,
      hint: "Use a smaller model, batch, sequence or cache.",
    });
  }
  return { dtype, shape: [...shape], data: arrayOver(dtype, memory, 0, length) };
}

/** A buffer filled from numbers (or bigints for i64). */
export function bufferFrom<D extends DType>(dtype: D, shape: readonly number[], values: ArrayLike<number | bigint>): TensorBuffer<D> {
  const buffer = allocate(dtype, shape);
  const { data } = buffer;
  if (values.length !== data.length) {
    throw new ShapeError(`bufferFrom: expected ${data.length} values for shape [${shape.join(", ")}], got ${values.length}`);
  }
  if (data instanceof BigInt64Array) for (let i = 0; i < data.length; i++) data[i] = BigInt(values[i]);
  else for (let i = 0; i < data.length; i++) (data as Float64Array)[i] = Number(values[i]);
  return buffer;
}

/** The same memory from element `offset` on, seen with another shape. */
export function viewOf<D extends DType>(buffer: TensorBuffer<D>, shape: readonly number[], offset = 0): TensorBuffer<D> {
  const length = sizeOf(shape);
  invariant(
    offset >= 0 && offset + length <= buffer.data.length,
    `a view of ${length} elements at ${offset} leaves a buffer of ${buffer.data.length}`,
  );
  const { data, dtype } = buffer;
  return { dtype, shape: [...shape], data: arrayOver(dtype, data.buffer, data.byteOffset + offset * bytesPerElement[dtype], length) };
}
