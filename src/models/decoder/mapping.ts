// One tensor of a file and the parameter, or the part of one, that it is: reads it into the parameter's memory, and gives it as stored.
import { FormatError, invariant } from "../../base/errors.ts";
import type { TensorSource } from "../../formats/tensor-source.ts";
import type { ParameterSpec } from "../../nn/parameter.ts";
import { allocate, sizeOf, type TensorBuffer, viewOf } from "../../runtime/buffer.ts";
import type { KeyMapping } from "./families/family.ts";

/** Memory for tensors on their way, grown to the largest. */
export class Scratch {
  #buffer: TensorBuffer<"f32"> = allocate("f32", [0]);

  of(shape: readonly number[]): TensorBuffer<"f32"> {
    const size = sizeOf(shape);
    if (this.#buffer.data.length < size) this.#buffer = allocate("f32", [size]);
    return viewOf(this.#buffer, [...shape]);
  }
}

/** The memory that a mapping is about: of a whole parameter, one of its parts or one matrix of a stack. */
function regionOf(leaf: TensorBuffer, spec: ParameterSpec, { path, part, index }: KeyMapping): TensorBuffer {
  const rowLength = sizeOf(leaf.shape.slice(1));
  if (index !== undefined) return viewOf(leaf, leaf.shape.slice(1), index * rowLength);
  if (part === undefined) return leaf;
  let row = 0;
  for (const { name, rows } of spec.parts ?? []) {
    if (name === part) return viewOf(leaf, [rows, ...leaf.shape.slice(1)], row * rowLength);
    row += rows;
  }
  throw new FormatError(`no part "${part}" of parameter "${path}"`);
}

/** Row of the region for each stored row; undefined where they are the same. */
function rowsOf({ alternate, pairs }: KeyMapping, stored: number): ((row: number) => number) | undefined {
  if (alternate !== undefined) return (row) => 2 * row + alternate;
  if (!pairs) return undefined;
  const { block, rotary } = pairs;
  invariant(stored % block === 0, `${stored} rows in blocks of ${block}`);
  return (row) => {
    const inside = (row % block) - (block - rotary);
    if (inside < 0) return row;
    // Pair ⌊inside / 2⌋; its second feature lies half of them further on.
    return row - inside + (inside >> 1) + (inside & 1 ? rotary / 2 : 0);
  };
}

/** Shape of the tensor in the file. */
function storedShape(region: TensorBuffer, { transposed, alternate }: KeyMapping): number[] {
  const [rows, ...rest] = region.shape;
  if (transposed) return [...region.shape].reverse();
  return alternate === undefined ? [rows, ...rest] : [rows / 2, ...rest];
}

/** Reads tensor `name` of a file into where its mapping says. @throws FormatError as the source does. */
export function readMapped(
  source: TensorSource,
  name: string,
  mapping: KeyMapping,
  leaf: TensorBuffer,
  spec: ParameterSpec,
  scratch: Scratch,
): void {
  const region = regionOf(leaf, spec, mapping);
  const shape = storedShape(region, mapping);
  const target = region.data as Float32Array;
  const toRow = rowsOf(mapping, shape[0]);
  if (!mapping.transposed && !toRow) source.readInto(name, region);
  else {
    const stored = scratch.of(shape);
    source.readInto(name, stored);
    if (mapping.transposed) transpose(stored.data, target, shape);
    else if (toRow) {
      const length = sizeOf(shape.slice(1));
      for (let row = 0; row < shape[0]; row++) target.set(stored.data.subarray(row * length, (row + 1) * length), toRow(row) * length);
    }
  }
  if (mapping.offset) for (let i = 0; i < target.length; i++) target[i] += mapping.offset;
}

/** Shape of the tensor that a mapping stores, and its values: a view of the parameter where it is stored as it is, else `scratch`. */
export function storedTensor(
  mapping: KeyMapping,
  leaf: TensorBuffer,
  spec: ParameterSpec,
): { shape: number[]; data: (scratch: Scratch) => Float32Array } {
  const region = regionOf(leaf, spec, mapping);
  const shape = storedShape(region, mapping);
  const values = region.data as Float32Array;
  const data = (scratch: Scratch): Float32Array => {
    const toRow = rowsOf(mapping, shape[0]);
    if (!mapping.transposed && !toRow && !mapping.offset) return values;
    const stored = scratch.of(shape).data;
    if (mapping.transposed) transpose(values, stored, region.shape);
    else {
      const length = sizeOf(shape.slice(1));
      for (let row = 0; row < shape[0]; row++) {
        const from = (toRow ? toRow(row) : row) * length;
        stored.set(values.subarray(from, from + length), row * length);
      }
    }
    if (mapping.offset) for (let i = 0; i < stored.length; i++) stored[i] -= mapping.offset;
    return stored;
  };
  return { shape, data };
}

/** `to` [n, m] = `from` [m, n] transposed, in squares that stay in the cache. */
function transpose(from: ArrayLike<number>, to: Float32Array, [rows, columns]: readonly number[]): void {
  const side = 32;
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      for (let i = top; i < Math.min(top + side, rows); i++)
        for (let j = left; j < Math.min(left + side, columns); j++) to[j * rows + i] = from[i * columns + j];
    }
  }
}
