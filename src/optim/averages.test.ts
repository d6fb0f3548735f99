import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckpointError, LongwaveError, ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate } from "../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../runtime/flat.ts";
import { openBackend } from "../runtime/open.ts";
import { spec } from "../runtime/program.ts";
import { createAccumulator } from "./accumulate.ts";
import { chunkLength } from "./chunks.ts";
import { createEma } from "./ema.ts";
import { arrayDifference, fill, flatFrom, golden, leafOf, sameBytes } from "./testing/golden.ts";

let backend: Backend;
beforeAll(() => {
  ({ backend } = openBackend({ threads: 1 }));
});
afterAll(() => backend.dispose());

describe("weight averages", () => {
  test.each(golden.movingAverages)("golden, decay $decay", (one) => {
    const parameters = flatFrom(one.parameters[0]);
    using ema = createEma(backend, parameters, { decay: one.decay });
    using mean = createEma(backend, parameters, { decay: "mean" });
    for (const [i, given] of one.parameters.entries()) {
      fill(parameters, given);
      ema.update();
      mean.update();
      for (const [average, expected] of [
        [ema, one.ema[i]],
        [mean, one.mean[i]],
      ] as const) {
        for (const [path, values] of Object.entries(expected)) {
          expect(arrayDifference(leafOf(average.average, parameters, path), values)).toBeLessThan(i === 0 ? Number.MIN_VALUE : 1e-12);
        }
      }
    }
  });

  test("swaps bit for bit, over several chunks, and refuses to average the average", () => {
    const parameters = allocateFlat({ x: spec("f32", [2 * chunkLength(backend) + 3]) }) as FlatBuffer<unknown>;
    const data = parameters.buffer.data as Float32Array;
    using ema = createEma(backend, parameters, { decay: 0.5 });
    expect(() => ema.swap()).toThrow(LongwaveError);
    for (let i = 0; i < data.length; i++) data[i] = i % 1000;
    ema.update();
    for (let i = 0; i < data.length; i++) data[i] = Math.sin(i);
    ema.update();
    const before = { parameters: data.slice(), average: (ema.average.data as Float32Array).slice() };
    expect(before.average[data.length - 1]).toBeCloseTo(((data.length - 1) % 1000) / 2 + Math.sin(data.length - 1) / 2, 3);
    ema.swap();
    expect(sameBytes(data, before.average)).toBe(true);
    expect(ema.swapped).toBe(true);
    expect(() => ema.update()).toThrow(/swapped back before update/);
    expect(() => ema.state()).toThrow(LongwaveError);
    ema.swap();
    expect(sameBytes(data, before.parameters)).toBe(true);
    expect(sameBytes(ema.average.data, before.average)).toBe(true);
  });

  test("resumes", () => {
    const { parameters: steps } = golden.movingAverages[0];
    const parameters = flatFrom(steps[0]);
    using whole = createEma(backend, parameters, { decay: "mean" });
    using resumed = createEma(backend, parameters, { decay: "mean" });
    for (const [i, given] of steps.entries()) {
      fill(parameters, given);
      whole.update();
      if (i === 3) resumed.restore(whole.state());
      if (i > 3) resumed.update();
    }
    expect(resumed.average.data).toEqual(whole.average.data);
    expect(resumed.updateCount).toBe(6);
    expect(() => resumed.restore({ average: allocate("f64", [3]) })).toThrow(CheckpointError);
  });

  test("a decay must be below 1", () => {
    for (const decay of [1, -0.1, Number.NaN]) expect(() => createEma(backend, flatFrom({ x: [1] }), { decay })).toThrow(UsageError);
  });
});

describe("gradient accumulation", () => {
  test("adds with factors, over several chunks, and starts anew", () => {
    const tree = { x: spec("f32", [chunkLength(backend) + 5]), y: spec("f32", [3]) };
    const [from, into] = [allocateFlat(tree), allocateFlat(tree)] as FlatBuffer<unknown>[];
    const values = from.buffer.data as Float32Array;
    for (let i = 0; i < values.length; i++) values[i] = i % 8;
    const accumulator = createAccumulator(backend, from, into);
    accumulator.add();
    accumulator.add(0.25);
    expect(
      sameBytes(
        into.buffer.data,
        values.map((x) => x * 1.25),
      ),
    ).toBe(true);
    accumulator.zero();
    accumulator.add(-2);
    expect(
      sameBytes(
        into.buffer.data,
        values.map((x) => 0 + x * -2),
      ),
    ).toBe(true);
    accumulator.dispose();
  });

  test("wants one layout", () => {
    expect(() => createAccumulator(backend, flatFrom({ x: [1, 2] }), flatFrom({ x: [1, 2, 3] }))).toThrow(ShapeError);
    expect(() => createAccumulator(backend, flatFrom({ x: [1, 2] }), flatFrom({ y: [1, 2] }))).toThrow(/"x" against "y"/);
    expect(() => createAccumulator(backend, flatFrom({ x: [1] }), flatFrom({ x: [1] }, "f32"))).toThrow(ShapeError);
  });
});
