// longwave.MatMulBlocks against sums in float64, wherever the processor can run it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BackendError } from "../../base/errors.ts";
import { packQ8, unpack } from "../../nn/quantise.ts";
import { quantisedLinear } from "../../tensor/attention.ts";
import type { Tensor } from "../../tensor/graph.ts";
import type { Backend } from "../backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import { compile, spec, type TensorSpec } from "../program.ts";
import { Random } from "../rng.ts";
import { kernelForms as forms, roundedSum } from "../testing/kernel-forms.ts";
import { onnxModel } from "../testing/onnx.ts";
import { openNativeBackend } from "./backend.ts";

const random = new Random(7);
const below = (count: number): number => random.integer(count);

interface Case {
  rows: number;
  inner: number;
  columns: number;
  bits: 4 | 8;
  blockSize: number;
  zeros: boolean;
  /** Only for whole blocks. */
  offsets?: boolean;
  /** Levels that are all the lowest or all the highest, and values of x of one size: sums are as large as their type must hold. */
  extreme?: "lowest" | "highest";
}

/** Operands whose rounding is known (every 32 values have one of 127 steps), and the product, exact or with `roundedSum`. */
function operands({ rows, inner, columns, bits, blockSize, zeros, offsets, extreme }: Case, isRounded = false) {
  const blocks = Math.ceil(inner / blockSize);
  const levels = Uint8Array.from({ length: columns * blocks * blockSize }, () =>
    extreme === "lowest" ? 0 : extreme === "highest" ? 2 ** bits - 1 : below(2 ** bits),
  );
  const zero = Uint8Array.from({ length: columns * blocks }, () => (zeros ? below(2 ** bits) : 2 ** (bits - 1)));
  const scales = bufferFrom(
    "f32",
    [columns, blocks],
    Float32Array.from({ length: columns * blocks }, () => random.uniform() - 0.5),
  );
  const offset = Float32Array.from({ length: columns * blocks }, () => (offsets ? 8 * random.uniform() - 4 : 0));
  const packRow = (values: Uint8Array, length: number): Uint8Array => {
    if (bits === 8) return values;
    const bytes = Math.ceil(length / 2);
    const packed = new Uint8Array((values.length / length) * bytes);
    for (let i = 0; i < values.length; i++)
      packed[Math.floor(i / length) * bytes + ((i % length) >> 1)] |= values[i] << (4 * ((i % length) & 1));
    return packed;
  };
  const x = allocate("f32", [rows, inner]);
  const rounded = new Int8Array(rows * inner);
  const y = new Float64Array(rows * columns);
  const bound = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const sign = below(2) * 2 - 1;
    for (let i = 0; i < inner; i++) {
      const step = 2 ** (below(9) - 4);
      const start = i - (i % 32);
      const first = i === start ? undefined : Math.abs(x.data[row * inner + start]) / 127;
      const level = extreme ? 127 * sign : i === start ? 127 : below(255) - 127;
      x.data[row * inner + i] = (first ?? step) * level;
      rounded[row * inner + i] = level;
    }
    for (let column = 0; column < columns; column++) {
      for (let i = 0; i < inner; i++) {
        const block = column * blocks + Math.floor(i / blockSize);
        const value = x.data[row * inner + i];
        const product = value * scales.data[block] * (levels[block * blockSize + (i % blockSize)] - zero[block]);
        y[row * columns + column] += product + value * offset[block];
        bound[row * columns + column] += Math.abs(product) + Math.abs(value * offset[block]);
      }
      for (let start = 0; isRounded && bits === 8 && start < inner; start += 32) {
        const block = column * blocks + Math.floor(start / blockSize);
        const w = (i: number): number => levels[block * blockSize + ((start + i) % blockSize)] - 128;
        const level = (i: number): number => (start + i < inner ? rounded[row * inner + start + i] : 0);
        let exact = 0;
        for (let i = 0; i < 32; i++) exact += w(i) * level(i);
        const step = x.data[row * inner + start] / rounded[row * inner + start];
        y[row * columns + column] += step * scales.data[block] * (roundedSum(w, level) - exact);
      }
    }
  }
  const weight = {
    packed: bufferFrom("u8", [columns, blocks, (blockSize * bits) / 8], packRow(levels, blockSize)),
    scales,
    ...(zeros ? { zeroPoints: bufferFrom("u8", [columns, Math.ceil((blocks * bits) / 8)], packRow(zero, blocks)) } : {}),
    ...(offsets ? { offsets: bufferFrom("f32", [columns, blocks], offset) } : {}),
  };
  return { x, weight, y, bound };
}

function multiply(
  backend: Backend,
  x: TensorBuffer,
  weight: Record<string, TensorBuffer>,
  { bits, blockSize }: Case,
  prepack = true,
): Float32Array {
  const specs: Record<string, TensorSpec> = { x: spec("f32", [...x.shape.slice(0, -1).map((_, i) => `d${i}`), x.shape.at(-1) as number]) };
  for (const [name, { dtype, shape }] of Object.entries(weight)) specs[name] = spec(dtype, shape);
  const product = ({ x, ...blocks }: Record<string, Tensor>) => quantisedLinear(x, blocks as never, bits, blockSize);
  using program = compile(backend, product, specs, { weights: new Map(Object.entries(weight)), prepack });
  const y = allocate("f32", [...x.shape.slice(0, -1), weight.packed.shape[0]]);
  using bound = program.bind({ x } as never, y as never);
  bound.run();
  const first = y.data.slice();
  // Strips are put in order to be kept from the second to the ninth call.
  for (let call = 0; call < 9; call++) {
    y.data.fill(0);
    bound.run();
    expect(y.data).toEqual(first);
  }
  return first;
}

test.skipIf(forms.length === 0)("one form in a process at a time", () => {
  using first = openNativeBackend({ threads: 1, ownKernels: forms[0] });
  expect(first.operators.has("MatMulBlocks")).toBe(true);
  using same = openNativeBackend({ threads: 1, ownKernels: forms[0] });
  expect(same.operators.has("MatMulBlocks")).toBe(true);
  if (forms.length < 2) return;
  using other = openNativeBackend({ threads: 1, ownKernels: forms[1] });
  expect([other.operators.size, other.operatorsFailure]).toEqual([0, expect.stringMatching(/one kind of kernels at a time/)]);
});

describe.each(forms)("MatMulBlocks, %s", (form) => {
  let one: Backend;
  let two: Backend;
  beforeAll(() => {
    one = openNativeBackend({ threads: 1, ownKernels: form });
    two = openNativeBackend({ threads: 2, ownKernels: form });
    expect([one.operatorsFailure, one.operators.has("MatMulBlocks")]).toEqual([undefined, true]);
  });
  afterAll(() => {
    one.dispose();
    two.dispose();
  });

  const cases: Case[] = [];
  for (const bits of [4, 8] as const) {
    for (const zeros of [false, true]) {
      for (const inner of [1, 31, 32, 33, 64, 96, 130, 288]) {
        for (const columns of [1, 7, 8, 9, 40]) {
          cases.push({ rows: 1 + below(20), inner, columns, bits, blockSize: [32, 32, 64, 256][below(4)], zeros });
        }
      }
      for (const rows of [1, 2, 3, 4, 5, 6, 7, 8, 13, 33]) cases.push({ rows, inner: 160, columns: 24, bits, blockSize: 32, zeros });
      for (const [inner, blockSize] of [
        [32, 32],
        [96, 32],
        [320, 32],
        [128, 64],
        [512, 256],
      ])
        for (const rows of [1, 5, 8]) cases.push({ rows, inner, columns: 19, bits, blockSize, zeros, offsets: true });
      for (const extreme of ["lowest", "highest"] as const)
        for (const rows of [1, 8, 9]) cases.push({ rows, inner: 96, columns: 8, bits, blockSize: 32, zeros, extreme });
    }
  }

  test.each(cases)(
    "$rows rows of $inner by $columns, $bits bits in blocks of $blockSize, zero points: $zeros, offsets: $offsets, extreme: $extreme",
    (made) => {
      const { x, weight, y, bound } = operands(made, form === "avx2");
      const product = multiply(one, x, weight, made);
      for (let i = 0; i < y.length; i++) expect(Math.abs(product[i] - y[i])).toBeLessThanOrEqual(3e-6 * bound[i] + 1e-12);
      // The same bytes on two threads, and row by row.
      expect(multiply(two, x, weight, made)).toEqual(product);
      const row = below(made.rows);
      const alone = bufferFrom("f32", [1, 1, made.inner], x.data.slice(row * made.inner, (row + 1) * made.inner));
      for (const prepack of [true, false])
        expect(multiply(one, alone, weight, made, prepack)).toEqual(product.slice(row * made.columns, (row + 1) * made.columns));
    },
  );

  test("with 8 bits products lose next to nothing beside what rounding x loses", () => {
    const [rows, inner, columns] = [16, 576, 64];
    const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
    const x = bufferFrom("f32", [rows, inner], Float32Array.from({ length: rows * inner }, normal));
    const w = bufferFrom("f32", [columns, inner], Float32Array.from({ length: columns * inner }, normal));
    const weight = packQ8(w);
    const exact = unpack(weight, inner);
    const got = multiply(one, x, weight as never, { rows, inner, columns, bits: 8, blockSize: 32, zeros: false });
    let [ofRounding, ofBoth] = [0, 0];
    for (let row = 0; row < rows; row++) {
      const values = x.data.subarray(row * inner, (row + 1) * inner);
      const roundedValues = Float64Array.from(values, (value, i) => {
        const start = i - (i % 32);
        const step = values.subarray(start, start + 32).reduce((most, v) => Math.max(most, Math.abs(v)), 0) / 127;
        return Math.round(value / step) * step;
      });
      for (let column = 0; column < columns; column++) {
        let [sum, rounded] = [0, 0];
        for (let i = 0; i < inner; i++) {
          sum += values[i] * exact.data[column * inner + i];
          rounded += roundedValues[i] * exact.data[column * inner + i];
        }
        ofRounding += (rounded - sum) ** 2;
        ofBoth += (got[row * columns + column] - sum) ** 2;
      }
    }
    expect(Math.sqrt(ofBoth / ofRounding)).toBeGreaterThan(0.98);
    expect(Math.sqrt(ofBoth / ofRounding)).toBeLessThan(1.02);
  });

  test("rows of zeros give zeros; a value that is not finite makes its row NaN and no other", () => {
    for (const bits of [4, 8] as const) {
      for (const rows of [2, 9]) {
        const made: Case = { rows, inner: 70, columns: 9, bits, blockSize: 32, zeros: false };
        const { x, weight } = operands(made);
        x.data.fill(0, 0, 70);
        const clean = multiply(one, x, weight, made);
        expect(clean.slice(0, 9)).toEqual(new Float32Array(9));
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          x.data[69] = bad;
          const spoilt = multiply(one, x, weight, made);
          expect([...spoilt.slice(0, 9)]).toEqual(Array(9).fill(Number.NaN));
          expect(spoilt.slice(9)).toEqual(clean.slice(9));
        }
      }
    }
  });

  test("no rows, and values too small for a scale", () => {
    const made: Case = { rows: 1, inner: 64, columns: 3, bits: 8, blockSize: 32, zeros: false };
    const { weight } = operands(made);
    expect(multiply(one, allocate("f32", [0, 64]), weight, made)).toEqual(new Float32Array(0));
    const tiny = bufferFrom("f32", [1, 64], new Float32Array(64).fill(1e-40));
    for (const value of multiply(one, tiny, weight, made)) expect(Math.abs(value)).toBeLessThan(1e-30);
  });

  test.each([1, 64])("runs of one program at the same time do not disturb each other, %d rows", async (rows) => {
    const made: Case = { rows, inner: 256, columns: 256, bits: 8, blockSize: 32, zeros: false };
    const { x, weight } = operands(made);
    const expected = multiply(two, x, weight, made);
    const specs = { x: spec("f32", ["R", 256]), packed: spec("u8", weight.packed.shape), scales: spec("f32", weight.scales.shape) };
    using program = compile(two, ({ x, ...blocks }: Record<string, Tensor>) => quantisedLinear(x, blocks as never, 8, 32), specs, {
      weights: new Map(Object.entries(weight)),
    });
    const outputs = Array.from({ length: 4 }, () => allocate("f32", [rows, 256]));
    const bounds = outputs.map((y) => program.bind({ x } as never, y as never));
    for (let round = 0; round < 6; round++) {
      for (const y of outputs) y.data.fill(0);
      await Promise.all(bounds.map((bound) => bound.runAsync()));
      for (const y of outputs) expect(y.data).toEqual(expected);
    }
  });

  test("from the ninth call on strips are kept: the weights are not read any more", () => {
    for (const bits of [4, 8] as const) {
      const made: Case = { rows: 2, inner: 96, columns: 160, bits, blockSize: 32, zeros: false };
      const { x, weight } = operands(made);
      const specs = { x: spec("f32", ["R", 96]), packed: spec("u8", weight.packed.shape), scales: spec("f32", weight.scales.shape) };
      using program = compile(one, ({ x, ...blocks }: Record<string, Tensor>) => quantisedLinear(x, blocks as never, bits, 32), specs, {
        weights: new Map(Object.entries(weight)),
      });
      const y = allocate("f32", [2, 160]);
      using bound = program.bind({ x } as never, y as never);
      bound.run();
      const expected = y.data.slice();
      for (let call = 2; call <= 9; call++) bound.run();
      weight.packed.data.fill(0);
      bound.run();
      expect(y.data).toEqual(expected);
    }
  });

  test("attributes that do not fit are refused", () => {
    const model = (attributes: Record<string, number>, packedBytes = 2 * 32): Uint8Array =>
      onnxModel({
        inputs: { x: { shape: [1, 32] }, w: { dtype: "u8", shape: [packedBytes] }, s: { shape: [2] } },
        outputs: { y: { shape: [1, 2] } },
        nodes: [{ op: "MatMulBlocks", domain: "longwave", inputs: ["x", "w", "s"], outputs: ["y"], attributes }],
      });
    const right = { bits: 8, K: 32, N: 2, block_size: 32, tasks: 1, keeps: 0 };
    for (const wrong of [{ bits: 5 }, { block_size: 16 }, { block_size: 48 }, { K: 0 }, { N: -1 }, { tasks: 0 }])
      expect(() => one.createSession(model({ ...right, ...wrong }), { ownOperators: true })).toThrow(BackendError);
    const { tasks: _, ...without } = right;
    expect(() => one.createSession(model(without), { ownOperators: true })).toThrow(/tasks/);
    using session = one.createSession(model(right, 63), { ownOperators: true });
    const inputs = new Map<string, TensorBuffer>([
      ["x", allocate("f32", [1, 32])],
      ["w", allocate("u8", [63])],
      ["s", allocate("f32", [2])],
    ]);
    using binding = session.bind(inputs, new Map([["y", allocate("f32", [1, 2])]]));
    expect(() => binding.run()).toThrow(/another size/);
  });
});
