// One check for every differentiable operator, in float64: its value against plain TypeScript, its derivative and the derivative of a
// random projection of that derivative against central differences, forward against reverse mode; and float32 against float64.
import { expect, test } from "vitest";
import type { Backend } from "../../runtime/backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec, type TensorSpec } from "../../runtime/program.ts";
import { sum } from "../core.ts";
import type { DType } from "../dtype.ts";
import { add, mul } from "../elementwise.ts";
import { gradients, jvp, vjp } from "../gradient.ts";
import { Graph, type Tensor } from "../graph.ts";
import { type Dense, randomDense } from "./reference.ts";

let opened: Backend | undefined;
/** One backend for the test file (each file has its own process). */
export const testBackend = (): Backend => (opened ??= openBackend({ threads: 1 }).backend);

export type Traced = (...inputs: Tensor[]) => Tensor | readonly Tensor[];

export interface CheckOptions {
  /** The outputs in plain TypeScript, given the floating-point inputs and then the others. */
  reference?: (...inputs: Dense[]) => Dense | readonly Dense[];
  /** Inputs without derivative (indices, conditions), passed after the others. */
  others?: readonly TensorBuffer[];
  /** Values of the inputs. Default: uniform in `range`. */
  values?: readonly ArrayLike<number>[];
  /** Default [−2, 2). */
  range?: readonly [number, number];
  seed?: number;
  /** Largest error of a derivative, relative to the largest element of its tensor (or 1). Default 1e-7. */
  tolerance?: number;
  /** The same for float32 against float64; false leaves float32 out. Default 1e-5. */
  float32?: number | false;
  /** Step of the central differences. Default 1e-5. */
  step?: number;
}

/** Registers a test of `fn` at inputs of the given shapes, see {@link verifyDerivatives}. */
export function checkDerivatives(name: string, fn: Traced, shapes: readonly (readonly number[])[], options: CheckOptions = {}): void {
  test(name, () => verifyDerivatives(fn, shapes, options));
}

/**
 * With random u (one for each output) and v (one for each input), φ(x) = ⟨u, f(x)⟩ and ψ(x) = ⟨v, ∇φ(x)⟩, checks f, ∇φ, ∇ψ, the
 * directional derivative J v, ⟨u, J v⟩ = ⟨∇φ, v⟩, and ∇ψ = ∇²φ v by forward mode over reverse mode.
 */
export function verifyDerivatives(fn: Traced, shapes: readonly (readonly number[])[], options: CheckOptions = {}): void {
  const { seed = 1, range = [-2, 2], others = [], tolerance = 1e-7, float32 = 1e-5, step = 1e-5 } = options;
  const x = shapes.map((shape, i) =>
    options.values ? { shape, data: Float64Array.from(options.values[i]) } : randomDense(seed + i, shape, range[0], range[1]),
  );
  const run = derivativeProgram(fn, x, others, "f64", seed);
  const { y, gradient, directional, second, secondForward, u, v } = run(x);
  // Without a derivative ONNX Runtime fuses more.
  const forward = (dtype: "f32" | "f64"): Evaluated[] => evaluate(fn, [...x.map((leaf) => bufferOf(dtype, leaf)), ...others]);
  for (const [i, { data }] of forward("f64").entries()) close(`value ${i} without derivative`, data, y[i].data, 1e-12);
  if (options.reference) {
    const expected = [options.reference(...x, ...others.map(toDense))].flat() as Dense[];
    expect(y.map(({ shape }) => shape)).toEqual(expected.map(({ shape }) => [...shape]));
    for (const [i, { data }] of expected.entries()) close(`value ${i}`, y[i].data, data, 1e-12);
  }
  for (const [i, leaf] of x.entries()) {
    const [first, next] = [new Float64Array(leaf.data.length), new Float64Array(leaf.data.length)];
    for (let k = 0; k < leaf.data.length; k++) {
      const [above, below] = [step, -step].map((delta) => run(moved(x, i, (j) => (j === k ? delta : 0))));
      first[k] = (dot(u, above.y) - dot(u, below.y)) / (2 * step);
      next[k] = (dot(v, above.gradient) - dot(v, below.gradient)) / (2 * step);
    }
    close(`derivative with respect to input ${i}`, gradient[i].data, first, tolerance);
    close(`second derivative with respect to input ${i}`, second[i].data, next, tolerance);
    close(`second derivative by forward mode, input ${i}`, secondForward[i].data, second[i].data, 1e-10);
  }
  const along = (sign: number): Dense[] => x.reduce((inputs, _, i) => moved(inputs, i, (j) => sign * step * v[i].data[j]), x);
  const [above, below] = [run(along(1)).y, run(along(-1)).y];
  for (const [i, { data }] of directional.entries()) {
    const difference = Float64Array.from(data, (_, j) => (above[i].data[j] - below[i].data[j]) / (2 * step));
    close(`directional derivative of output ${i}`, data, difference, tolerance);
  }
  close("⟨u, J v⟩ and ⟨∇φ, v⟩", [dot(u, directional)], [dot(gradient, v)], 1e-10);
  if (float32 === false) return;
  const single = derivativeProgram(fn, x, others, "f32", seed)(x);
  for (const [i, { data }] of y.entries()) close(`float32 value ${i}`, single.y[i].data, data, float32);
  for (const [i, { data }] of forward("f32").entries()) close(`float32 value ${i} without derivative`, data, y[i].data, float32);
  for (const [i, { data }] of gradient.entries()) close(`float32 derivative ${i}`, single.gradient[i].data, data, float32);
  for (const [i, { data }] of second.entries()) close(`float32 second derivative ${i}`, single.second[i].data, data, 10 * float32);
}

interface Derivatives {
  y: Dense[];
  gradient: Dense[];
  directional: Dense[];
  second: Dense[];
  secondForward: Dense[];
  u: Dense[];
  v: Dense[];
}

function derivativeProgram(
  fn: Traced,
  x: readonly Dense[],
  others: readonly TensorBuffer[],
  dtype: "f32" | "f64",
  seed: number,
): (x: readonly Dense[]) => Derivatives {
  const call = (inputs: readonly Tensor[]): Tensor[] => [fn(...inputs)].flat() as Tensor[];
  const leaves = x.map(({ shape }) => spec(dtype, shape));
  const rest = others.map((buffer) => spec(buffer.dtype, buffer.shape));
  // Traced once for the shapes of the outputs, which u needs.
  const graph = new Graph();
  const inputs = [...leaves, ...rest].map((leaf, i) => graph.input(`x${i}`, leaf.dtype, leaf.shape));
  const shapes = call(inputs).map(({ shape }) => shape as number[]);
  const program = compile(
    testBackend(),
    ({ x, n, u, v }: Record<"x" | "n" | "u" | "v", Tensor[]>) => {
      const y = call([...x, ...n]);
      const gradient = vjp(y, u, x);
      const projection = gradient.map((g, i) => sum(mul(g, v[i]))).reduce((a, b) => add(a, b));
      return {
        y,
        gradient,
        directional: jvp(y, x, v),
        second: gradients(projection, x),
        secondForward: jvp(gradient, x, v),
      };
    },
    { x: leaves, n: rest, u: shapes.map((shape) => spec(dtype, shape)), v: leaves } as never,
    { threads: 1 },
  );
  const fill = (shapes: readonly (readonly number[])[], offset: number): Dense[] =>
    shapes.map((shape, i) => randomDense(seed + offset + i, shape, -1, 1));
  const u = fill(shapes, 100);
  const v = fill(
    x.map(({ shape }) => shape),
    200,
  );
  const toBuffer = ({ shape, data }: Dense): TensorBuffer => bufferFrom(dtype, shape, data);
  const memory = x.map(({ shape }) => allocate(dtype, shape));
  const bound = program.bind({ x: memory, n: others, u: u.map(toBuffer), v: v.map(toBuffer) } as never);
  const outputs = bound.outputs as unknown as Record<"y" | "gradient" | "directional" | "second" | "secondForward", TensorBuffer[]>;
  return (at) => {
    for (const [i, { data }] of memory.entries()) (data as Float64Array).set(at[i].data);
    bound.run();
    const copies = Object.fromEntries(Object.entries(outputs).map(([key, buffers]) => [key, buffers.map(toDense)]));
    return { ...copies, u, v } as unknown as Derivatives;
  };
}

/** A copy of the inputs with `delta(j)` added to the elements of input `i`. */
function moved(x: readonly Dense[], i: number, delta: (j: number) => number): Dense[] {
  return x.map((input, k) =>
    k === i ? { shape: input.shape, data: Float64Array.from(input.data, (value, j) => value + delta(j)) } : input,
  );
}

const dot = (a: readonly Dense[], b: readonly Dense[]): number =>
  a.reduce((all, { data }, i) => all + Array.from(data).reduce((part, value, j) => part + value * b[i].data[j], 0), 0);

export const toDense = ({ shape, data }: TensorBuffer): Dense => ({ shape, data: Float64Array.from(data as Float64Array, Number) });

/** Fails unless every element differs by at most `tolerance` times the largest expected magnitude (or 1). NaN equals NaN. */
export function close(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length, `${what}: number of elements`).toBe(expected.length);
  const magnitudes = Array.from(expected, Math.abs).filter(Number.isFinite);
  const limit = tolerance * Math.max(1, ...magnitudes);
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(actual[i], expected[i]) || actual[i] === expected[i] || Math.abs(actual[i] - expected[i]) <= limit) continue;
    expect.fail(`${what}, element ${i}: expected ${expected[i]} ± ${limit}, got ${actual[i]}`);
  }
}

export interface Evaluated extends Dense {
  readonly dtype: DType;
  readonly data: number[];
}

/** The outputs of `fn` at the given buffers; −0 counts as 0. */
export function evaluate(fn: Traced, inputs: readonly TensorBuffer[]): Evaluated[] {
  const specs: TensorSpec[] = inputs.map(({ dtype, shape }) => spec(dtype, shape));
  const program = compile(testBackend(), (x: Tensor[]) => [fn(...x)].flat() as Tensor[], specs as never, { threads: 1 });
  const outputs = program.run(inputs as never) as unknown as TensorBuffer[];
  program.dispose();
  return outputs.map(({ dtype, shape, data }) => ({ dtype, shape, data: Array.from(data as Float64Array, (value) => Number(value) + 0) }));
}

/** A buffer of `dtype` with the elements of a plain array. */
export const bufferOf = (dtype: DType, { shape, data }: Dense): TensorBuffer => bufferFrom(dtype, shape, data);
