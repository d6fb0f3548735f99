import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InvariantError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate, bufferFrom } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { add, mul, sub } from "../tensor/elementwise.ts";
import { ChunkedProgram, chunkLength, type ElementwiseBody } from "./chunks.ts";

let backend: Backend;
beforeAll(() => {
  ({ backend } = openBackend({ threads: 1 }));
});
afterAll(() => backend.dispose());

const range = (length: number) => ({
  buffers: { a: allocate("f32", [length]), b: allocate("f32", [length]) },
  scalars: { s: bufferFrom("f32", [], [2]) },
});

describe("ChunkedProgram", () => {
  test("covers whole chunks, remainders and empty ranges, each once", () => {
    const chunk = chunkLength(backend);
    const ranges = [range(2 * chunk), range(chunk + 1), range(0), range(16)];
    for (const { buffers } of ranges) {
      buffers.b.data.forEach((_, i) => {
        (buffers.b.data as Float32Array)[i] = i % 100;
      });
    }
    const program = new ChunkedProgram(backend, "test", ({ a, b }, { s }) => ({ a: add(a, mul(b, s)) }), ranges);
    expect(program.nodeCount).toBe(2);
    program.run();
    program.run();
    for (const { buffers } of ranges) expect((buffers.a.data as Float32Array).every((x, i) => x === 4 * (i % 100))).toBe(true);
    program.dispose();
    expect(new ChunkedProgram(backend, "test", ({ a }) => ({ a: add(a, 1) }), []).nodeCount).toBe(0);
  });

  test("reads its scalars anew at every run", () => {
    const one = range(8);
    const program = new ChunkedProgram(backend, "test", ({ a }, { s }) => ({ a: add(a, s) }), [one]);
    program.run();
    (one.scalars.s.data as Float32Array)[0] = 5;
    program.run();
    expect((one.buffers.a.data as Float32Array)[3]).toBe(7);
    program.dispose();
  });

  test("refuses a formula that may read a value after it was overwritten", () => {
    const make = (body: ElementwiseBody) => () => new ChunkedProgram(backend, "test", body, [range(8)]);
    // The new b needs the old a, on which the new a does not wait.
    expect(make(({ a, b }) => ({ a: mul(a, 2), b: sub(b, a) }))).toThrow(InvariantError);
    expect(make(({ a, b }) => ({ a: mul(a, 2), b: sub(b, mul(a, 2)) }))).toThrow(/a may be overwritten before/);
    const next = ({ a, b }: Parameters<ElementwiseBody>[0]) => {
      const changed = mul(a, 2);
      return { a: changed, b: sub(b, changed) };
    };
    expect(make(next)).not.toThrow();
  });
});
