import { describe, expect, test } from "vitest";
import { ShapeError } from "../base/errors.ts";
import { bufferFrom } from "../runtime/buffer.ts";
import { quantisedEmbedding } from "./quantised-embedding.ts";
import { close, evaluate } from "./testing/derivatives.ts";

const rows = 7;
const ids = [
  [6, 0, 3],
  [3, 1, 6],
];

describe.each([
  { bits: 8, inner: 64, blockSize: 32, offsets: false },
  { bits: 8, inner: 70, blockSize: 32, offsets: true },
  { bits: 4, inner: 64, blockSize: 32, offsets: false },
  { bits: 4, inner: 40, blockSize: 16, offsets: true },
] as const)("$bits bits, rows of $inner in blocks of $blockSize, offsets $offsets", ({ bits, inner, blockSize, offsets }) => {
  const blocks = Math.ceil(inner / blockSize);
  const width = blocks * blockSize;
  const level = (row: number, i: number): number => (row * 41 + i * 29 + row * i * 7) % 2 ** bits;
  const scale = (at: number): number => Math.fround((at % 3 === 0 ? -1 : 1) / (9 + at));
  const offset = (at: number): number => (offsets ? Math.fround(Math.sin(at)) : 0);
  const perByte = 8 / bits;
  const packed = Uint8Array.from({ length: (rows * width) / perByte }, (_, at) => {
    let byte = 0;
    for (let k = 0; k < perByte; k++) {
      const index = at * perByte + k;
      byte |= level(Math.floor(index / width), index % width) << (k * bits);
    }
    return byte;
  });
  const perBlock = (f: (at: number) => number): number[] => Array.from({ length: rows * blocks }, (_, at) => f(at));
  const inputs = [
    bufferFrom("i32", [2, 3], ids.flat()),
    bufferFrom("u8", [rows, blocks, blockSize / perByte], packed),
    bufferFrom("f32", [rows, blocks], perBlock(scale)),
    bufferFrom("f32", [rows, blocks], perBlock(offset)),
  ];

  test("gathers the values of the blocks", () => {
    const [y] = evaluate(
      (ids, packed, scales, moved) => quantisedEmbedding({ packed, scales, ...(offsets ? { offsets: moved } : {}) }, ids, { bits, inner }),
      inputs,
    );
    expect(y.shape).toEqual([2, 3, inner]);
    const expected = ids.flat().flatMap((row) =>
      Array.from({ length: inner }, (_, i) => {
        const at = row * blocks + Math.floor(i / blockSize);
        return scale(at) * (level(row, i) - 2 ** (bits - 1)) + offset(at);
      }),
    );
    close("rows", y.data, Float64Array.from(expected), 1e-6);
  });
});

test("refuses blocks that are too few, and scales of another shape", () => {
  const inputs = [bufferFrom("i32", [1], [0]), bufferFrom("u8", [2, 1, 16], new Uint8Array(32)), bufferFrom("f32", [2, 2], [1, 1, 1, 1])];
  expect(() => evaluate((ids, packed, scales) => quantisedEmbedding({ packed, scales }, ids, { bits: 8, inner: 32 }), inputs)).toThrow(
    ShapeError,
  );
  expect(() => evaluate((ids, packed, scales) => quantisedEmbedding({ packed, scales }, ids, { bits: 8, inner: 16 }), inputs)).toThrow(
    /scales \[2, 1\]/,
  );
});
