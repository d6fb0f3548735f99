import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { dequantise } from "./dequantise.ts";
import { linear } from "./matmul.ts";
import { close, evaluate } from "./testing/derivatives.ts";

// Levels, scales and offsets by formula, and the matrix that they stand for in float64.
const cases = [
  { inner: 64, blockSize: 32, zeros: false, offsets: false },
  { inner: 64, blockSize: 32, zeros: true, offsets: false },
  { inner: 48, blockSize: 16, zeros: false, offsets: true },
  { inner: 70, blockSize: 32, zeros: true, offsets: true },
];
const out = 6;

describe.each(cases)(
  "$inner values in blocks of $blockSize, zero points $zeros, offsets $offsets",
  ({ inner, blockSize, zeros, offsets }) => {
    const blocks = Math.ceil(inner / blockSize);
    const level = (o: number, i: number): number => (o * 41 + i * 29 + o * i * 7) % 256;
    const scale = (at: number): number => Math.fround((at % 3 === 0 ? -1 : 1) / (9 + at));
    const zero = (at: number): number => (zeros ? (at * 53) % 256 : 128);
    const offset = (at: number): number => (offsets ? Math.fround(Math.sin(at)) : 0);
    const packed = Uint8Array.from({ length: out * blocks * blockSize }, (_, i) =>
      level(Math.floor(i / (blocks * blockSize)), i % (blocks * blockSize)),
    );
    const perBlock = (f: (at: number) => number): number[] => Array.from({ length: out * blocks }, (_, at) => f(at));
    const inputs = [
      bufferFrom("u8", [out, blocks, blockSize], packed),
      bufferFrom("f32", [out, blocks], perBlock(scale)),
      bufferFrom("u8", [out, blocks], perBlock(zero)),
      bufferFrom("f32", [out, blocks], perBlock(offset)),
    ];
    const weight = ([packed, scales, zeroPoints, moved]: Parameters<Parameters<typeof evaluate>[0]>) => ({
      packed,
      scales,
      ...(zeros ? { zeroPoints } : {}),
      ...(offsets ? { offsets: moved } : {}),
    });
    const matrix = Float64Array.from({ length: out * inner }, (_, index) => {
      const [o, i] = [Math.floor(index / inner), index % inner];
      const at = o * blocks + Math.floor(i / blockSize);
      return scale(at) * (level(o, i) - zero(at)) + offset(at);
    });

    test("gives the values of the blocks", () => {
      const [y] = evaluate((...tensors) => dequantise(weight(tensors), inner), inputs);
      expect(y.shape).toEqual([out, inner]);
      close("matrix", y.data, matrix, 1e-6);
    });

    test("its product is that of float64", () => {
      const rows = 33;
      const x = Float32Array.from({ length: rows * inner }, (_, i) => Math.cos(i * 0.7));
      const [y] = evaluate(
        (x, ...tensors) => linear(x, dequantise(weight(tensors), inner)),
        [bufferFrom("f32", [rows, inner], x), ...inputs],
      );
      const expected = Float64Array.from({ length: rows * out }, (_, index) => {
        let sum = 0;
        for (let i = 0; i < inner; i++) sum += x[Math.floor(index / out) * inner + i] * matrix[(index % out) * inner + i];
        return sum;
      });
      close("product", y.data, expected, 1e-5);
    });
  },
);

test("other shapes are refused", () => {
  const inputs = [bufferFrom("u8", [2, 1, 32], new Uint8Array(64)), bufferFrom("f32", [2, 1], [1, 1])];
  expect(() => evaluate((packed, scales) => dequantise({ packed, scales }, 64), inputs)).toThrow(
    "dequantise: expected blocks [out, blocks, values] (u8) for rows of 64, got u8[2, 1, 32]",
  );
  expect(() => evaluate((packed) => dequantise({ packed, scales: packed }, 32), inputs)).toThrow("dequantise: expected scales [2, 1]");
});
