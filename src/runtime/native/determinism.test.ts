// Same thread count, same bytes: every reduction that programs use, run again and again over the same memory.
// ScatterND(add) with repeated indices is a data race in ONNX Runtime and never used; it is not in this list.
import { afterAll, describe, expect, it } from "vitest";
import type { DType } from "../../tensor/dtype.ts";
import type { Backend } from "../backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import type { ModelSpec, NodeSpec } from "../testing/onnx.ts";
import { type Buffers, bindTo, sessionOf } from "../testing/programs.ts";
import { openNativeBackend } from "./backend.ts";

const runs = process.env.LONGWAVE_TEST_LONG === "1" ? 50 : 10;

/** Values of very different size: sums in another order are other bytes. */
function wild(shape: number[], seed = 1): TensorBuffer<"f32"> {
  const buffer = allocate("f32", shape);
  let state = seed;
  for (let i = 0; i < buffer.data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    buffer.data[i] = (state / 2 ** 32 - 0.5) * 10 ** (state % 5);
  }
  return buffer;
}

interface Case {
  node: Omit<NodeSpec, "inputs" | "outputs">;
  inputs: Buffers;
  shape: number[];
}

const [rows, columns] = [257, 513];
const x = wild([rows, columns]);
/** Many updates for few places. */
const crowded = (): TensorBuffer<"i64"> =>
  bufferFrom(
    "i64",
    [4096, 64],
    Array.from({ length: 4096 * 64 }, (_, i) => (i * 7919) % 37),
  );
const lastAxis = bufferFrom("i64", [1], [-1]);
const firstAxis = bufferFrom("i64", [1], [0]);

const cases: Record<string, Case> = {
  "ReduceSum, last axis": { node: { op: "ReduceSum" }, inputs: { x, axes: lastAxis }, shape: [rows, 1] },
  "ReduceSum, first axis": { node: { op: "ReduceSum" }, inputs: { x, axes: firstAxis }, shape: [1, columns] },
  "ReduceSum, all axes": { node: { op: "ReduceSum" }, inputs: { x }, shape: [1, 1] },
  ReduceMean: { node: { op: "ReduceMean" }, inputs: { x, axes: firstAxis }, shape: [1, columns] },
  ReduceSumSquare: { node: { op: "ReduceSumSquare" }, inputs: { x }, shape: [1, 1] },
  Softmax: { node: { op: "Softmax" }, inputs: { x }, shape: [rows, columns] },
  LayerNormalization: {
    node: { op: "LayerNormalization" },
    inputs: { x, scale: wild([columns], 2), bias: wild([columns], 3) },
    shape: [rows, columns],
  },
  MatMul: { node: { op: "MatMul" }, inputs: { x, y: wild([columns, 129], 4) }, shape: [rows, 129] },
  "MatMul, batched": { node: { op: "MatMul" }, inputs: { x: wild([4, 65, 129]), y: wild([4, 129, 33], 4) }, shape: [4, 65, 33] },
  "Gemm, both transposed": {
    node: { op: "Gemm", attributes: { transA: 1, transB: 1 } },
    inputs: { x, y: wild([129, rows], 5), c: wild([129], 6) },
    shape: [columns, 129],
  },
  FusedMatMul: {
    node: { op: "FusedMatMul", domain: "com.microsoft", attributes: { transA: 1, alpha: { float: 0.3 } } },
    inputs: { x: wild([4, 129, 65]), y: wild([4, 129, 33], 7) },
    shape: [4, 65, 33],
  },
  "ScatterElements(add), repeated indices": {
    node: { op: "ScatterElements", attributes: { axis: 0, reduction: "add" } },
    inputs: { table: wild([100, 64]), i: crowded(), updates: wild([4096, 64], 8) },
    shape: [100, 64],
  },
  CumSum: { node: { op: "CumSum" }, inputs: { x, axis: bufferFrom("i64", [], [1]) }, shape: [rows, columns] },
};

const hex = ({ data }: TensorBuffer) => Buffer.from(data.buffer).toString("hex");

function specOf({ node, inputs, shape }: Case): ModelSpec {
  const declare = ({ dtype, shape: of }: TensorBuffer): { dtype: DType; shape: readonly number[] } => ({ dtype, shape: of });
  return {
    inputs: Object.fromEntries(Object.entries(inputs).map(([name, buffer]) => [name, declare(buffer)])),
    outputs: { z: { shape } },
    nodes: [{ ...node, inputs: Object.keys(inputs), outputs: ["z"] }],
  };
}

describe.each([1, 2])("with %d threads", (threads) => {
  let backend: Backend | undefined;
  afterAll(() => backend?.dispose());

  it.each(Object.entries(cases))("%s gives the same bytes every time", (_, example) => {
    backend ??= openNativeBackend({ threads });
    const seen = new Set<string>();
    // Two sessions and fresh memory as well: nothing may depend on an address or on what an arena held before.
    for (let session = 0; session < 2; session++) {
      const program = sessionOf(backend, specOf(example));
      const z = allocate("f32", example.shape);
      const binding = bindTo(program, example.inputs, { z });
      for (let i = 0; i < runs / 2; i++) {
        z.data.fill(Number.NaN);
        binding.run();
        seen.add(hex(z));
      }
      program.dispose();
      expect(z.data.every(Number.isFinite)).toBe(true);
    }
    expect(seen.size).toBe(1);
  });
});
