// Blocks of rows against the same function over all rows at once, at sizes where a Scan is written, with first and second derivatives.
import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { compile, spec } from "../runtime/program.ts";
import { gelu, silu } from "./activation.ts";
import { sum } from "./core.ts";
import { add, cos, exp, mul, sin, square, sub, tanh } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import { Graph, type Tensor } from "./graph.ts";
import { labelLogProbs } from "./loss.ts";
import { layerNorm, rmsNorm } from "./norm.ts";
import { toOnnx } from "./onnx.ts";
import { mean } from "./reduce.ts";
import { inRowBlocks } from "./row-blocks.ts";
import { testBackend } from "./testing/derivatives.ts";

const [rows, width] = [4096, 64];

function random(length: number, seed: number): number[] {
  let state = seed;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 4 - 2;
  });
}

function operatorsOf(fn: (...inputs: Tensor[]) => Tensor[], shapes: readonly (readonly number[])[], threads = 1): string[] {
  const graph = new Graph();
  const outputs = fn(...shapes.map((shape, i) => graph.input(`x${i}`, "f32", shape)));
  const model = fromBinary(ModelProtoSchema, toOnnx(graph, outputs, { threads }).bytes);
  return model.graph?.node.map(({ opType }) => opType) ?? [];
}

/** Largest difference of loss, gradient, and gradient of a projection of the gradient, relative to the largest element. */
function differences(a: (...x: Tensor[]) => Tensor, b: (...x: Tensor[]) => Tensor, shapes: readonly (readonly number[])[]): number[] {
  const given = shapes.map((shape, i) =>
    bufferFrom(
      "f64",
      [...shape],
      random(
        shape.reduce((x, y) => x * y, 1),
        i + 1,
      ),
    ),
  );
  const [x, y] = [a, b].map((fn) => {
    const program = compile(
      testBackend(),
      ({ x }: { x: Tensor[] }) => {
        const value = fn(...x);
        const first = gradients(sum(mul(value, sin(value))), x);
        const projection = first.map((g, i) => sum(mul(g, cos(x[i])))).reduce(add);
        return { value, first, second: gradients(projection, x) };
      },
      { x: shapes.map((shape) => spec("f64", [...shape])) },
    );
    const { value, first, second } = program.run({ x: given } as never);
    program.dispose();
    return [value, ...first, ...second].map(({ data }) => data as Float64Array);
  });
  return x.map((data, i) => distance(data, y[i]));
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, size] = [0, 1];
  for (let i = 0; i < b.length; i++) {
    error = Math.max(error, Math.abs(a[i] - b[i]));
    size = Math.max(size, Math.abs(b[i]));
  }
  return error / size;
}

const body = (x: Tensor, y: Tensor, scale: Tensor): Tensor =>
  mul(sub(mul(tanh(x), scale), mean(mul(x, y), { axes: -1, keepDims: true })), exp(mul(square(y), -0.5)));
const shapes = [[rows, width], [rows, 1], [width]];
const blocked = (x: Tensor, y: Tensor, scale: Tensor): Tensor =>
  inRowBlocks([x, y], [scale], (...all) => [body(...(all as [Tensor, Tensor, Tensor]))])[0];

describe("the same as over all rows", () => {
  test("value, derivative and second derivative", () => {
    expect(operatorsOf((x, y, scale) => [blocked(x, y, scale)], shapes)).toContain("Scan");
    for (const difference of differences(blocked, body, shapes)) expect(difference).toBeLessThan(1e-12);
  });

  test("a rule that uses the second output, and its derivative", () => {
    const squares = (x: Tensor): Tensor =>
      inRowBlocks(
        [x],
        [],
        (x) => [square(x), tanh(x)],
        ({ rows: [x] }, [, t], g) => inRowBlocks([x, t, g], [], (x, t, g) => [mul(g, mul(add(x, mul(t, 0)), 2))]),
      )[0];
    for (const difference of differences(squares, square, [[rows, width]])) expect(difference).toBeLessThan(1e-12);
  });

  test("blocks within blocks", () => {
    const nested = (x: Tensor): Tensor => inRowBlocks([x], [], (x) => [tanh(inRowBlocks([x], [], (x) => [mul(sin(x), x)])[0])])[0];
    for (const difference of differences(nested, (x) => tanh(mul(sin(x), x)), [[rows, width]])) expect(difference).toBeLessThan(1e-12);
  });
});

describe("emission", () => {
  const chain = (x: Tensor): Tensor[] => inRowBlocks([x], [], (x) => [mul(sin(x), x), exp(x)]);

  test("one block where there is little to do, rows do not divide, or every thread has its share", () => {
    expect(operatorsOf(chain, [[64, width]])).not.toContain("Scan");
    expect(operatorsOf(chain, [[4093, width]])).not.toContain("Scan");
    expect(operatorsOf(chain, [[rows, width]], 2)).toContain("Scan");
    expect(operatorsOf(chain, [[rows, width]], 16)).not.toContain("Scan");
  });

  test("outputs that nothing needs are not computed", () => {
    const graph = new Graph();
    const [first] = chain(graph.input("x", "f32", [rows, width]));
    const model = fromBinary(ModelProtoSchema, toOnnx(graph, [first]).bytes);
    const scan = model.graph?.node.find(({ opType }) => opType === "Scan");
    expect(scan?.output).toHaveLength(1);
    expect(scan?.attribute.find(({ name }) => name === "body")?.g?.node.map(({ opType }) => opType)).toEqual(["Sin", "Mul"]);
  });

  test("a body may give back its input, a shared tensor's rows, and one value twice", () => {
    const program = compile(
      testBackend(),
      ({ x, shift }) => {
        const [same, moved, again] = inRowBlocks([x], [shift], (x, shift) => {
          const moved = add(x, shift);
          return [x, moved, moved];
        });
        return { same, moved, again };
      },
      { x: spec("f32", [rows, width]), shift: spec("f32", [1, width]) },
    );
    const x = bufferFrom("f32", [rows, width], random(rows * width, 3));
    const shift = bufferFrom("f32", [1, width], random(width, 4));
    const { same, moved, again } = program.run({ x, shift } as never);
    expect(distance(same.data as Float32Array, x.data)).toBe(0);
    const expected = Float32Array.from(x.data as Float32Array, (value, i) => value + (shift.data[i % width] as number));
    for (const { data } of [moved, again]) expect(distance(data as Float32Array, expected)).toBe(0);
    program.dispose();
  });

  test("rows must agree", () => {
    const graph = new Graph();
    const [x, y] = [graph.input("x", "f32", [8, 2]), graph.input("y", "f32", [4, 2])];
    expect(() => inRowBlocks([x, y], [], (x) => [x])).toThrow("as many rows");
    expect(() => inRowBlocks([x], [], (x) => [sum(x, { axes: 0 })])).toThrow("8 rows in each of the outputs");
  });
});

// At sizes that are cut: float32 against float64, and float64 against a number of rows that has no divisor near the limit.
describe("derivatives that are cut", () => {
  const cases: Record<string, (x: Tensor, scale: Tensor) => Tensor> = {
    geluTanh: (x, scale) => mul(gelu(x, { approximate: "tanh" }), scale),
    gelu: (x, scale) => mul(gelu(x), scale),
    silu: (x, scale) => mul(silu(x), scale),
    layerNorm: (x, scale) => layerNorm(x, scale),
    rmsNorm: (x, scale) => rmsNorm(x, scale),
    labelLogProbs: (x, scale) => labelLogProbs(mul(x, scale), labels.get(x.graph) as Tensor),
  };
  const labels = new Map<Graph, Tensor>();

  for (const [name, fn] of Object.entries(cases)) {
    test(name, () => {
      const [x, scale] = [random(rows * width, 5), random(width, 6)];
      const ids = Int32Array.from({ length: rows }, (_, i) => (i * 31) % width);
      // With one more the rows are not cut.
      const run = (dtype: "f32" | "f64", count: number): Float64Array[] => {
        const extend = (values: number[]): number[] => [...values, ...values.slice(0, (count - rows) * width)];
        const program = compile(
          testBackend(),
          ({ x, scale, ids }) => {
            labels.set(x.graph, ids);
            const y = fn(x, scale);
            return gradients(sum(mul(sin(y), y)), { x, scale });
          },
          { x: spec(dtype, [count, width]), scale: spec(dtype, [width]), ids: spec("i32", [count]) },
        );
        const bound = program.bind({
          x: bufferFrom(dtype, [count, width], extend(x)),
          scale: bufferFrom(dtype, [width], scale),
          ...(name === "labelLogProbs" ? { ids: bufferFrom("i32", [count], [...ids, ...ids.slice(0, count - rows)]) } : {}),
        } as never);
        bound.run();
        const { x: dx, scale: dScale } = bound.outputs as unknown as Record<string, { data: ArrayLike<number> }>;
        const results = [Float64Array.from(dx.data).slice(0, rows * width), Float64Array.from(dScale.data)];
        program.dispose();
        return results;
      };
      const [single, double] = [run("f32", rows), run("f64", rows)];
      for (const [i, expected] of double.entries()) expect(distance(single[i], expected)).toBeLessThan(2e-5);
      expect(distance(double[0], run("f64", rows + 1)[0])).toBeLessThan(1e-12);
    });
  }
});
