// Specifications of parameters: shape, initialisation, whether weight decay applies, and how a fused matrix is made of named parts.
// A model is a tree of these; src/runtime/flat.ts turns the tree into one buffer.
import { invariant } from "../base/errors.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { streamId } from "../runtime/rng.ts";
import { fillNormal, fillTruncatedNormal, fillUniform } from "../runtime/rng-fill.ts";
import { flatten, type Tree } from "../tensor/tree.ts";
import { fillOrthogonal } from "./orthogonal.ts";

export type Initializer =
  | { readonly kind: "zeros" }
  | { readonly kind: "ones" }
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly std: number }
  /** Normal, redrawn beyond `bound` standard deviations (default 3). */
  | { readonly kind: "truncatedNormal"; readonly std: number; readonly bound?: number }
  /** Uniform in ±limit. */
  | { readonly kind: "uniform"; readonly limit: number }
  /** `gain` times orthonormal rows or columns, whichever are fewer. */
  | { readonly kind: "orthogonal"; readonly gain: number };

/** Rows of a fused matrix that belong to one named matrix, such as `query` of `qkv`. */
export interface ParameterPart {
  readonly name: string;
  readonly rows: number;
  /** Default: that of the whole. */
  readonly initializer?: Initializer;
}

export interface ParameterSpec {
  readonly dtype: "f32" | "f64";
  readonly shape: readonly number[];
  readonly initializer: Initializer;
  /** Weight decay applies: matrices yes, biases, norms and embeddings of positions no (Loshchilov & Hutter practice). */
  readonly decay: boolean;
  /** Named row blocks, in order; checkpoints know the parts, programs the whole. */
  readonly parts?: readonly ParameterPart[];
}

export type ParameterTree = Tree<ParameterSpec>;

export function parameter(
  shape: readonly number[],
  initializer: Initializer,
  options: { decay?: boolean; parts?: readonly ParameterPart[]; dtype?: "f32" | "f64" } = {},
): ParameterSpec {
  const { decay = shape.length >= 2, parts, dtype = "f32" } = options;
  if (parts) invariant(parts.reduce((rows, part) => rows + part.rows, 0) === shape[0], `parts do not add up to ${shape[0]} rows`);
  return { dtype, shape, initializer, decay, ...(parts ? { parts } : {}) };
}

/** Group of a parameter in its flat buffer: "decay" or "plain". */
export const decayGroup = (_: string, leaf: unknown): string => ((leaf as ParameterSpec).decay ? "decay" : "plain");

/** Elements of all parameters of a tree of specifications. */
export const countParameters = <T>(specs: T): number =>
  flatten<ParameterSpec>(specs as ParameterTree).reduce((sum, [, { shape }]) => sum + shape.reduce((product, dim) => product * dim, 1), 0);

/**
 * Fills the leaves of `flat` as their specifications say. Each parameter has its own stream of random numbers, keyed by its path:
 * a leaf gets the same values whatever else the model holds.
 */
export function initializeParameters<T>(specs: T, flat: FlatBuffer<T>, seed: number): void {
  for (const [path, spec] of flatten<ParameterSpec>(specs as ParameterTree)) {
    const leaf = flat.leaves.get(path);
    invariant(leaf !== undefined, `no memory for parameter "${path}"`);
    const rowLength = spec.shape.slice(1).reduce((product, dim) => product * dim, 1);
    let row = 0;
    for (const part of spec.parts ?? [{ name: "", rows: spec.shape[0] ?? 1 }]) {
      const target = (leaf.data as Float32Array | Float64Array).subarray(row * rowLength, (row + part.rows) * rowLength);
      const key = { seed, stream: streamId(part.name ? `${path}.${part.name}` : path) };
      fill(target, part.rows, part.initializer ?? spec.initializer, key);
      row += part.rows;
    }
  }
}

function fill(target: Float32Array | Float64Array, rows: number, initializer: Initializer, key: { seed: number; stream: number }): void {
  switch (initializer.kind) {
    case "zeros":
      target.fill(0);
      break;
    case "ones":
      target.fill(1);
      break;
    case "constant":
      target.fill(initializer.value);
      break;
    case "normal":
      fillNormal(target, 0, initializer.std, key);
      break;
    case "truncatedNormal": {
      const bound = initializer.bound ?? 3;
      fillTruncatedNormal(target, 0, initializer.std, key, { low: -bound, high: bound });
      break;
    }
    case "uniform":
      fillUniform(target, -initializer.limit, initializer.limit, key);
      break;
    case "orthogonal":
      fillOrthogonal(target, rows, initializer.gain, key);
      break;
  }
}
