import { afterAll, describe, expect, test } from "vitest";
import { bufferFrom, type TensorBuffer } from "../runtime/buffer.ts";
import { compile, spec } from "../runtime/program.ts";
import { broadcastTo, constant, full, reshape, sum } from "./core.ts";
import { add, exp, greaterEqual, mul, neg, where } from "./elementwise.ts";
import { embedding, gatherElements } from "./gather.ts";
import type { Tensor } from "./graph.ts";
import { crossEntropy } from "./loss.ts";
import { einsum, linear, matmul } from "./matmul.ts";
import { layerNorm, logSoftmax, rmsNorm, softmax } from "./norm.ts";
import { argmax, cumsum, max, mean, topK } from "./reduce.ts";
import { concat, expandDims, slice, split, stack, transpose } from "./shape.ts";
import { bufferOf, close, evaluate, testBackend } from "./testing/derivatives.ts";
import { randomDense } from "./testing/reference.ts";

const sizes = [
  { B: 1, T: 1 },
  { B: 2, T: 3 },
  { B: 3, T: 1 },
  { B: 1, T: 5 },
];

/** Operators of x [B, T, 4] and ids [B, T] that models use with sizes that are known at run time only. */
const functions: [name: string, fn: (x: Tensor, ids: Tensor) => Tensor][] = [
  ["elementwise", (x) => add(mul(x, x), neg(exp(x)))],
  ["broadcast of an own dimension", (x) => broadcastTo(slice(x, 2, 0, 1), x.shape)],
  [
    "linear",
    (x) =>
      linear(
        x,
        constant(
          x.graph,
          "f32",
          [3, 4],
          Float32Array.from({ length: 12 }, (_, i) => i / 7),
        ),
      ),
  ],
  [
    "linear of merged rows",
    (x) =>
      linear(
        reshape(x, [-1, 4]),
        constant(
          x.graph,
          "f32",
          [3, 4],
          Float32Array.from({ length: 12 }, (_, i) => i / 7),
        ),
      ),
  ],
  ["matmul", (x) => matmul(x, x, { transposeB: true, alpha: 0.5 })],
  ["matmul by a matrix", (x) => matmul(x, constant(x.graph, "f32", [4, 1], Float32Array.of(1, 2, 3, 4)))],
  ["einsum", (x) => einsum("btc,bsc->bts", x, x)],
  ["softmax", (x) => softmax(matmul(x, x, { transposeB: true }))],
  ["softmax along a symbolic axis", (x) => softmax(x, 1)],
  ["logSoftmax", (x) => logSoftmax(x)],
  ["norms", (x) => rmsNorm(layerNorm(x, one(x)), one(x))],
  ["reductions", (x) => add(mean(x, { axes: 1, keepDims: true }), max(x, { axes: [0, 1], keepDims: true }))],
  ["sum of all", (x) => sum(x)],
  ["cumsum", (x) => cumsum(x, { axis: 1 })],
  ["heads", (x) => transpose(reshape(x, [x.shape[0], x.shape[1], 2, 2]), [0, 2, 1, 3])],
  ["heads joined again", (x) => reshape(transpose(reshape(x, [...x.shape.slice(0, 2), 2, 2]), [0, 1, 3, 2]), [...x.shape.slice(0, 2), -1])],
  ["merged and taken apart", (x) => mul(reshape(exp(reshape(x, [-1, 2])), x.shape), x)],
  ["merged with a factor", (x) => reshape(exp(reshape(x, [x.shape[0], -1])), [x.shape[0], -1, 4])],
  ["names at other places", (x) => reshape(exp(x), [4, ...x.shape.slice(0, 2)])],
  ["filled with a number", (x) => add(full(x.graph, "f32", [x.shape[1], x.shape[0], 1, 4], 2), x)],
  ["split and concat", (x) => concat(split(x, [1, 3]).reverse(), -1)],
  ["stack and expandDims", (x) => add(stack([x, x], 1), expandDims(x, 1))],
  [
    "embedding",
    (x, ids) =>
      add(
        embedding(
          constant(
            x.graph,
            "f32",
            [5, 4],
            Float32Array.from({ length: 20 }, (_, i) => i),
          ),
          ids,
        ),
        x,
      ),
  ],
  ["gatherElements", (x, ids) => gatherElements(x, expandDims(where(greaterEqual(ids, 4), 0, ids), 2))],
  ["crossEntropy", (x, ids) => crossEntropy(x, where(greaterEqual(ids, 4), 0, ids))],
  ["argmax", (x) => argmax(x)],
  ["topK", (x) => topK(x, 2).values],
];
const one = (x: Tensor): Tensor => constant(x.graph, "f32", [4], Float32Array.of(1, 1, 0.5, 2));

const inputs = (B: number, T: number): { x: TensorBuffer; ids: TensorBuffer } => ({
  x: bufferOf("f32", randomDense(3, [B, T, 4])),
  ids: bufferFrom(
    "i64",
    [B, T],
    Array.from({ length: B * T }, (_, i) => (3 * i) % 5),
  ),
});

describe("one program for all sizes gives what a program of each size gives", () => {
  const program = compile(
    testBackend(),
    // An output whose dimensions are names of the inputs needs no buffer; the others are summed away or bound.
    ({ x, ids }) => functions.map(([, fn]) => reshape(fn(x, ids), [-1])),
    { x: spec("f32", ["B", "T", 4]), ids: spec("i64", ["B", "T"]) },
    { threads: 1 },
  );
  afterAll(() => program.dispose());
  test.each(sizes)("B = $B, T = $T", ({ B, T }) => {
    const { x, ids } = inputs(B, T);
    const expected = evaluate((a, n) => functions.map(([, fn]) => reshape(fn(a, n), [-1])), [x, ids]);
    const bound = program.bind(
      { x, ids },
      expected.map(({ dtype, shape, data }) => bufferFrom(dtype, shape, new Float64Array(data.length))),
    );
    bound.run();
    for (const [i, [name]] of functions.entries()) {
      close(name, Array.from(bound.outputs[i].data as Float32Array, Number), expected[i].data, 1e-6);
    }
    bound.dispose();
  });
});

describe.each<[string, (string | number)[], number[], number]>([
  ["rows", ["B", 3], [0, 3], 1],
  ["either side of the axis", ["B", 3, "T"], [2, 3, 0], 1],
  ["two of them", ["B", "T", 3], [0, 0, 3], 2],
])("topK of nothing: %s", (_, named, shape, axis) => {
  test("is nothing, and the program goes on to work", () => {
    const program = compile(testBackend(), ({ x }) => topK(x, 2, { axis }), { x: spec("f32", named) }, { threads: 1 });
    const empty = program.bind({ x: bufferFrom("f32", shape, new Float32Array(0)) });
    empty.run();
    expect(empty.outputs.values.shape).toEqual(shape.map((size, i) => (i === axis ? 2 : size)));
    const x = bufferOf(
      "f32",
      randomDense(
        5,
        named.map((dim) => (typeof dim === "string" ? 2 : dim)),
      ),
    );
    const full = program.bind({ x });
    full.run();
    const [values, indices] = evaluate((a) => Object.values(topK(a, 2, { axis })), [x]);
    expect(Array.from(full.outputs.values.data as Float32Array)).toEqual(values.data);
    expect(Array.from(full.outputs.indices.data as BigInt64Array, Number)).toEqual(indices.data);
    program.dispose();
  });
});

test("outputs of known names are allocated, others must be bound", () => {
  const program = compile(
    testBackend(),
    ({ x }) => ({ y: exp(x), merged: reshape(x, [-1, 2]) }),
    { x: spec("f32", ["B", 3, 2]) },
    { threads: 1 },
  );
  const x = bufferFrom("f32", [2, 3, 2], new Float32Array(12));
  expect(() => program.bind({ x })).toThrow(
    'program: output "merged": expected a buffer, because its dimension "B_3" in f32[B_3, 2] is not known',
  );
  const bound = program.bind({ x }, { merged: bufferFrom("f32", [6, 2], new Float32Array(12)) });
  bound.run();
  expect(bound.outputs.y.shape).toEqual([2, 3, 2]);
  program.dispose();
});

test("a name has one size in a binding", () => {
  const program = compile(testBackend(), ({ x, y }) => add(x, y), { x: spec("f32", ["B"]), y: spec("f32", ["B"]) }, { threads: 1 });
  expect(() => program.bind({ x: bufferFrom("f32", [2], [1, 2]), y: bufferFrom("f32", [3], [1, 2, 3]) })).toThrow(
    'program: input "y": expected f32[B], got f32[3]',
  );
  program.dispose();
});

describe("what cannot be known is refused", () => {
  const trace =
    (fn: (x: Tensor) => Tensor, shape: (number | string)[] = ["B", "T", 4]) =>
    () =>
      compile(testBackend(), ({ x }) => fn(x), { x: spec("f32", shape) }, { threads: 1 }).dispose();
  test("reshape to other names or other numbers", () => {
    expect(trace((x) => reshape(x, ["B", "S", 4]))).toThrow(
      "reshape: expected a shape with as many elements as f32[B, T, 4], got [B, S, 4]",
    );
    expect(trace((x) => reshape(x, ["B", "T", 5]))).toThrow("got [B, T, 5]");
    expect(trace((x) => reshape(x, ["B", 4]))).toThrow("got [B, 4]");
    expect(trace((x) => reshape(x, ["B", "B", -1]))).toThrow("got [B, B, -1]");
  });
  test("slice, split and mean's derivative along a name", () => {
    expect(trace((x) => slice(x, 1, 1))).toThrow("slice: expected a fixed size along axis 1, got f32[B, T, 4]");
    expect(trace((x) => split(x, [1, 1], 1)[0])).toThrow("split: expected sizes that add up to axis 1 of f32[B, T, 4], got [1, 1]");
    expect(trace((x) => broadcastTo(x, ["A", "B", "T", 4]))).toThrow(
      'broadcastTo: expected "A" to be a dimension of another tensor of the program, got a new name',
    );
  });
  test("names that differ", () => {
    expect(trace((x) => add(x, transpose(x, [1, 0, 2])))).toThrow("add: expected shapes that broadcast, got [B, T, 4] and [T, B, 4]");
    expect(trace((x) => matmul(x, x))).toThrow("matmul: expected equal inner dimensions, got f32[B, T, 4] × f32[B, T, 4]");
  });
});
