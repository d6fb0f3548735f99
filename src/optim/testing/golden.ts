// Golden cases of the reference optimisers, and flat buffers from their nested arrays.
import { readFileSync } from "node:fs";
import { type TensorBuffer, viewOf } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, layoutOf } from "../../runtime/flat.ts";
import { spec } from "../../runtime/program.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { OptimizerOptions } from "../optimizer-options.ts";

export type Nested = number | Nested[];
export type Arrays = Record<string, Nested>;

export interface GoldenCase {
  optimiser: string;
  options: Record<string, unknown>;
  learningRates?: number[];
  parameters: Arrays;
  gradients: Arrays[];
  parametersAfter: Arrays[];
  finalState: Record<string, Record<string, Nested>>;
  float64?: { parametersAfter: Nested[]; orthogonalised: Nested[] };
}

export interface Golden {
  cases: GoldenCase[];
  gradientClipping: {
    gradients: Arrays;
    maxNorm: number;
    normType: number | "Infinity";
    totalNorm: number;
    clipped: Arrays;
    clippedByValue: Arrays;
  }[];
  movingAverages: { decay: number; parameters: Arrays[]; ema: Arrays[]; mean: Arrays[] }[];
}

export const golden = JSON.parse(readFileSync(new URL("../../../test/golden/rl/optimisers.json", import.meta.url), "utf8")) as Golden;

const shapeOf = (value: Nested): number[] => (Array.isArray(value) ? [value.length, ...shapeOf(value[0] ?? 0)] : []);
const flat = (value: Nested): number[] => (Array.isArray(value) ? value.flatMap(flat) : [value]);

/** A flat buffer that holds `arrays`, one leaf for each. */
export function flatFrom(arrays: Arrays, dtype: DType = "f64", groupOf?: (path: string) => string): FlatBuffer<unknown> {
  const tree = Object.fromEntries(Object.entries(arrays).map(([name, value]) => [name, spec(dtype, shapeOf(value))]));
  const buffer = allocateFlat(tree, layoutOf(tree, groupOf));
  fill(buffer, arrays);
  return buffer as FlatBuffer<unknown>;
}

const dataOf = (buffer: FlatBuffer<unknown>, path: string): Float64Array =>
  (buffer.leaves.get(path) as TensorBuffer).data as unknown as Float64Array;

/** Whether two arrays hold the same bits: quick for long ones, and it tells 0 from -0. */
export function sameBytes(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const bytes = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => Buffer.from(buffer, byteOffset, byteLength);
  return bytes(a).equals(bytes(b));
}

export function fill(buffer: FlatBuffer<unknown>, arrays: Arrays): void {
  for (const [name, value] of Object.entries(arrays)) dataOf(buffer, name).set(flat(value));
}

/** Largest |a − b| / max(1, |b|) over all leaves. */
export function difference(buffer: FlatBuffer<unknown>, arrays: Arrays): number {
  return Math.max(...Object.entries(arrays).map(([name, value]) => arrayDifference(dataOf(buffer, name), value)));
}

export function arrayDifference(values: ArrayLike<number>, expected: Nested): number {
  const numbers = flat(expected);
  if (values.length !== numbers.length) return Number.NaN;
  return Math.max(...numbers.map((x, i) => Math.abs(values[i] - x) / Math.max(1, Math.abs(x))));
}

/** A leaf of a buffer that lies as the parameters do. */
export function leafOf(buffer: TensorBuffer, { layout }: FlatBuffer<unknown>, path: string): Float64Array {
  const leaf = layout.leaves.find((candidate) => candidate.path === path);
  return viewOf(buffer, [leaf?.length ?? 0], leaf?.offset).data as Float64Array;
}

const names: Record<string, string> = {
  lr: "learningRate",
  eps: "epsilon",
  weight_decay: "weightDecay",
  lr_decay: "learningRateDecay",
  initial_accumulator_value: "initialAccumulatorValue",
  adjust_lr_fn: "adjustLearningRate",
};

/** The reference's options in longwave's names. */
export function translate({ optimiser, options }: Pick<GoldenCase, "optimiser" | "options">): OptimizerOptions {
  const result: Record<string, unknown> = { kind: optimiser === "rmspropTfLike" ? "rmsprop-tf-like" : optimiser };
  for (const [name, value] of Object.entries(options)) {
    if (name === "betas") [result.beta1, result.beta2] = value as [number, number];
    else result[names[name] ?? name] = typeof value === "string" ? value.replaceAll("_", "-") : value;
  }
  return result as unknown as OptimizerOptions;
}
