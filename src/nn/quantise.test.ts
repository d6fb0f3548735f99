import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NotFiniteError, ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { compile, spec } from "../runtime/program.ts";
import { blockFormat, linearLayer, type QuantisedWeight } from "./linear.ts";
import { packQ4, packQ8, unpack } from "./quantise.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const matrixOf = (rows: number, inner: number, seed: number): TensorBuffer<"f32"> =>
  bufferFrom(
    "f32",
    [rows, inner],
    Float32Array.from({ length: rows * inner }, (_, i) => Math.sin(i * 12.9898 + seed) * Math.exp(Math.sin(i * 0.7))),
  );

describe("layout", () => {
  test("4 bits: low nibble first, the value of largest magnitude at level 0", () => {
    const row = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? -4 : i === 1 ? 3.5 : i === 2 ? 0.5 : 0));
    const { packed, scales, zeroPoints } = packQ4(bufferFrom("f32", [1, 32], row));
    expect(packed.shape).toEqual([1, 1, 16]);
    expect(Array.from(scales.data as Float32Array)).toEqual([0.5]);
    expect(zeroPoints).toBeUndefined();
    expect(Array.from(packed.data as Uint8Array).slice(0, 3)).toEqual([0 | (15 << 4), 9 | (8 << 4), 0x88]);
  });

  test("8 bits: levels around 128", () => {
    const row = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? -127 : i === 1 ? 127 : i));
    const { packed, scales } = packQ8(bufferFrom("f32", [1, 32], row));
    expect(scales.data[0]).toBe(1);
    expect(Array.from(packed.data as Uint8Array).slice(0, 4)).toEqual([1, 255, 130, 131]);
  });

  test("zero points of 4 bits lie two to a byte, a row at a time", () => {
    const rows = [
      ...Array.from({ length: 16 }, (_, i) => i),
      ...Array.from({ length: 16 }, (_, i) => -i),
      ...new Array<number>(16).fill(0),
    ];
    const { zeroPoints } = packQ4(bufferFrom("f32", [2, 48], [...rows, ...rows]), { blockSize: 16, symmetric: false });
    expect(zeroPoints?.shape).toEqual([2, 2]);
    expect(Array.from(zeroPoints?.data as Uint8Array)).toEqual([0 | (15 << 4), 0, 0 | (15 << 4), 0]);
  });

  test("bits and block size follow from the shapes", () => {
    expect(blockFormat(64, [5, 2, 16])).toEqual({ bits: 4, blockSize: 32 });
    expect(blockFormat(64, [5, 2, 32])).toEqual({ bits: 8, blockSize: 32 });
    expect(blockFormat(576, [5, 5, 128])).toEqual({ bits: 8, blockSize: 128 });
    expect(blockFormat(20, [5, 1, 16])).toEqual({ bits: 4, blockSize: 32 });
    expect(() => blockFormat(64, [5, 3, 32])).toThrow(ShapeError);
  });
});

test("what cannot be packed is refused", () => {
  const matrix = matrixOf(2, 64, 0);
  expect(() => packQ4(matrix, { blockSize: 24 })).toThrow(UsageError);
  expect(() => packQ4(matrix, { blockSize: 8 })).toThrow(UsageError);
  // 16 values in one block of 32 at 4 bits look like one block of 16 at 8 bits.
  expect(() => packQ4(matrixOf(2, 16, 0))).toThrow(ShapeError);
  expect(() => packQ8(bufferFrom("f32", [4], [1, 2, 3, 4]))).toThrow(ShapeError);
});

test("the error of a weight is at most half a step, or one at the clipped end of symmetric 4-bit blocks", () => {
  const values = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 }), { minLength: 33, maxLength: 100 });
  fc.assert(
    fc.property(values, fc.constantFrom(packQ4, packQ8), fc.boolean(), fc.constantFrom(16, 32, 64), (row, pack, symmetric, blockSize) => {
      const matrix = bufferFrom("f32", [1, row.length], row);
      const weight = pack(matrix, { symmetric, blockSize });
      const back = unpack(weight, row.length).data;
      const steps = pack === packQ4 && symmetric ? 1 : 0.5;
      for (const [i, value] of back.entries()) {
        const scale = Math.abs((weight.scales.data as Float32Array)[Math.floor(i / blockSize)]);
        // A scale below the normal range of float32 is itself rounded coarsely.
        if (scale > 1e-30 || scale === 0) expect(Math.abs(value - Math.fround(row[i]))).toBeLessThanOrEqual(steps * scale * 1.001 + 1e-30);
      }
    }),
    { numRuns: 200 },
  );
});

describe.each([
  [4, 32, 64, true],
  [4, 16, 100, true],
  [4, 64, 200, false],
  [4, 32, 96, false],
  [8, 32, 64, true],
  [8, 32, 100, true],
  [8, 128, 256, true],
  [8, 32, 96, false],
] as const)("%i bits, blocks of %i, rows of %i, symmetric %s", (bits, blockSize, inner, symmetric) => {
  test("the product is that of the unpacked weights, up to the rounding of activations to 8 bits", () => {
    const out = 24;
    const weight = (bits === 4 ? packQ4 : packQ8)(matrixOf(out, inner, 3), { blockSize, symmetric });
    const unpacked = unpack(weight, inner).data;
    const bias = matrixOf(1, out, 5).data;
    for (const rows of [1, 5]) {
      const x = matrixOf(rows, inner, 7);
      const shared = new Map(Object.entries(weight).map(([key, buffer]) => [`weight.${key}`, buffer as TensorBuffer]));
      const specs = Object.fromEntries(Object.entries(weight).map(([key, { dtype, shape }]) => [key, spec(dtype, shape)]));
      using program = compile(
        backend,
        ({ x, weight, bias }) => ({ y: linearLayer(x, { weight: weight as unknown as QuantisedWeight<typeof x>, bias }) }),
        { x: spec("f32", [rows, inner]), weight: specs, bias: spec("f32", [out]) },
        { weights: shared },
      );
      const y = program.run({ x, bias: bufferFrom("f32", [out], bias), weight } as never).y.data as Float32Array;
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < out; column++) {
          let [sum, bound] = [bias[column], 1e-4];
          for (let start = 0; start < inner; start += blockSize) {
            const end = Math.min(start + blockSize, inner);
            let [largest, weights] = [0, 0];
            for (let i = start; i < end; i++) {
              const [a, w] = [x.data[row * inner + i], unpacked[column * inner + i]];
              sum += a * w;
              largest = Math.max(largest, Math.abs(a));
              weights += Math.abs(w);
            }
            bound += (largest / 127 / 2) * weights;
          }
          expect(Math.abs(y[row * out + column] - sum)).toBeLessThanOrEqual(bound * 1.02);
        }
      }
    }
  });
});

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("%d among the weights is refused with its place", (value) => {
  const matrix = matrixOf(3, 40, 1);
  matrix.data[40 + 35] = value;
  for (const pack of [packQ4, packQ8]) {
    for (const symmetric of [true, false]) {
      expect(() => pack(matrix, { name: "layers.0.mlp.up.weight", symmetric })).toThrow(NotFiniteError);
      expect(() => pack(matrix, { name: "layers.0.mlp.up.weight", symmetric })).toThrow(/layers.0.mlp.up.weight, got a value in row 1/);
    }
  }
});
