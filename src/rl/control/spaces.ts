// Spaces with Gymnasium's meaning, as plain data, and how a value of each becomes a flat vector for a network.
import { invariant, UsageError } from "../../base/errors.ts";

/** One of `n` numbers from `start` on. A value is a number. */
export interface DiscreteSpace {
  readonly kind: "discrete";
  readonly n: number;
  readonly start: number;
}

/** Real vectors (row-major when `shape` has several dimensions) within bounds of the same length. A value is an array of numbers. */
export interface BoxSpace {
  readonly kind: "box";
  readonly shape: readonly number[];
  readonly low: Float64Array;
  readonly high: Float64Array;
}

/** One number of 0 … n−1 for each entry of `dims`. */
export interface MultiDiscreteSpace {
  readonly kind: "multi-discrete";
  readonly dims: readonly number[];
}

/** `n` bits. */
export interface MultiBinarySpace {
  readonly kind: "multi-binary";
  readonly n: number;
}

export type Space = DiscreteSpace | BoxSpace | MultiDiscreteSpace | MultiBinarySpace;

/** @throws UsageError unless `n` is a positive integer. */
export function Discrete(n: number, start = 0): DiscreteSpace {
  expectSize("Discrete", "n", n);
  if (!Number.isInteger(start)) throw new UsageError(`Discrete: expected an integer start, got ${start}`);
  return { kind: "discrete", n, start };
}

/**
 * @param low one bound for all entries, or one each; may be −Infinity.
 * @param shape default: [length of the bounds].
 * @throws UsageError for bounds that do not fit the shape or each other.
 */
export function Box(low: number | ArrayLike<number>, high: number | ArrayLike<number>, shape?: readonly number[]): BoxSpace {
  const lengthOf = (bound: number | ArrayLike<number>): number | undefined => (typeof bound === "number" ? undefined : bound.length);
  const resolved = shape ?? [lengthOf(low) ?? lengthOf(high) ?? 1];
  for (const size of resolved) expectSize("Box", "shape", size);
  const size = resolved.reduce((product, dim) => product * dim, 1);
  const fill = (name: string, bound: number | ArrayLike<number>): Float64Array => {
    if (typeof bound === "number") return new Float64Array(size).fill(bound);
    if (bound.length !== size)
      throw new UsageError(`Box: expected ${size} entries in ${name} for shape [${resolved}], got ${bound.length}`);
    return Float64Array.from(bound);
  };
  const space: BoxSpace = { kind: "box", shape: resolved, low: fill("low", low), high: fill("high", high) };
  for (let i = 0; i < size; i++)
    if (!(space.low[i] <= space.high[i]))
      throw new UsageError(`Box: expected low <= high, got ${space.low[i]} and ${space.high[i]} at entry ${i}`);
  return space;
}

/** @throws UsageError unless every entry is a positive integer. */
export function MultiDiscrete(dims: readonly number[]): MultiDiscreteSpace {
  if (dims.length === 0) throw new UsageError("MultiDiscrete: expected at least one entry, got none");
  for (const n of dims) expectSize("MultiDiscrete", "dims", n);
  return { kind: "multi-discrete", dims: [...dims] };
}

/** @throws UsageError unless `n` is a positive integer. */
export function MultiBinary(n: number): MultiBinarySpace {
  expectSize("MultiBinary", "n", n);
  return { kind: "multi-binary", n };
}

function expectSize(space: string, name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) throw new UsageError(`${space}: expected a positive integer for ${name}, got ${value}`);
}

/** Numbers in one value of the space as an action: 1 for a discrete one. */
export function valueSize(space: Space): number {
  switch (space.kind) {
    case "discrete":
      return 1;
    case "box":
      return space.low.length;
    case "multi-discrete":
      return space.dims.length;
    case "multi-binary":
      return space.n;
  }
}

/** Length of the vector that a network sees: discrete values are one-hot, the rest is flat. */
export function featureSize(space: Space): number {
  switch (space.kind) {
    case "discrete":
      return space.n;
    case "multi-discrete":
      return space.dims.reduce((sum, n) => sum + n, 0);
    default:
      return valueSize(space);
  }
}

/** Writes the features of `value` into `target` from `offset` on. */
export function writeFeatures(space: Space, value: number | ArrayLike<number>, target: Float32Array | Float64Array, offset: number): void {
  if (space.kind === "discrete") {
    target.fill(0, offset, offset + space.n);
    target[offset + (value as number) - space.start] = 1;
    return;
  }
  const values = value as ArrayLike<number>;
  if (space.kind === "multi-discrete") {
    let at = offset;
    for (let i = 0; i < space.dims.length; i++) {
      target.fill(0, at, at + space.dims[i]);
      target[at + values[i]] = 1;
      at += space.dims[i];
    }
    return;
  }
  const size = valueSize(space);
  invariant(values.length === size, `writeFeatures: a value of ${values.length} entries for a space of ${size}`);
  for (let i = 0; i < size; i++) target[offset + i] = values[i];
}

/** Whether a value lies in the space. */
export function contains(space: Space, value: unknown): boolean {
  if (space.kind === "discrete")
    return Number.isInteger(value) && (value as number) >= space.start && (value as number) < space.start + space.n;
  const values = value as ArrayLike<number>;
  if (typeof value !== "object" || value === null || values.length !== valueSize(space)) return false;
  for (let i = 0; i < values.length; i++) {
    const entry = values[i];
    if (space.kind === "box" ? !(entry >= space.low[i] && entry <= space.high[i]) : !Number.isInteger(entry)) return false;
    if (space.kind === "multi-discrete" && !(entry >= 0 && entry < space.dims[i])) return false;
    if (space.kind === "multi-binary" && entry !== 0 && entry !== 1) return false;
  }
  return true;
}

/** One line for messages: `Box(4)`, `Discrete(2)`. */
export function describeSpace(space: Space): string {
  switch (space.kind) {
    case "discrete":
      return `Discrete(${space.n}${space.start ? `, start ${space.start}` : ""})`;
    case "box":
      return `Box(${space.shape.join(" x ")})`;
    case "multi-discrete":
      return `MultiDiscrete(${space.dims.join(", ")})`;
    case "multi-binary":
      return `MultiBinary(${space.n})`;
  }
}
