// Attention in blocks of queries against attention in the large (softmax.ts with causalBias), values and first and second derivatives.
import { describe, expect, test } from "vitest";
import { bufferFrom } from "../../runtime/buffer.ts";
import { compile, spec } from "../../runtime/program.ts";
import { rotary } from "../../tensor/attention.ts";
import { constant, reshape, sum } from "../../tensor/core.ts";
import { add, cos, mul, sin } from "../../tensor/elementwise.ts";
import { gradients } from "../../tensor/gradient.ts";
import { Graph, type Tensor } from "../../tensor/graph.ts";
import { concat, split, transpose } from "../../tensor/shape.ts";
import { testBackend } from "../../tensor/testing/derivatives.ts";
import { rotaryTables } from "../rotary.ts";
import { causalAttention, causalSpans } from "./causal.ts";
import { causalBias } from "./mask.ts";
import { softmaxAttention } from "./softmax.ts";

interface Case {
  batch: number;
  time: number;
  heads: number;
  kvHeads: number;
  width: number;
  window?: number;
  rotates?: boolean;
  scale?: number;
}

function tables({ time, width }: Case, { graph, dtype }: Tensor): Tensor[] {
  const { cosines, sines } = rotaryTables(time, { base: 1e4, width }, dtype as "f32" | "f64");
  return [cosines, sines].map((data) => constant(graph, dtype, [time, width / 2], data));
}

function inBlocks(given: Case, qkv: Tensor): Tensor {
  const { time, window, rotates, ...options } = given;
  const rotation = rotates ? { tables: tables(given, qkv), apply: rotary } : undefined;
  return causalAttention(qkv, causalSpans(qkv.graph, time, qkv.dtype, window), { ...options, rotation });
}

function inTheLarge(given: Case, qkv: Tensor): Tensor {
  const { batch, time, heads, kvHeads, width, window, rotates, scale } = given;
  const heads_ABTD = transpose(reshape(qkv, [batch, time, heads + 2 * kvHeads, width]), [2, 0, 1, 3]);
  let [query, key, value] = split(heads_ABTD, [heads, kvHeads, kvHeads], 0);
  if (rotates) {
    const [cosines, sines] = tables(given, qkv);
    [query, key] = split(rotary(concat([query, key], 0), cosines, sines), [heads, kvHeads], 0);
  }
  const mixed = softmaxAttention(query, key, value, { scale, bias: causalBias(qkv.graph, time, qkv.dtype, window) });
  return reshape(transpose(mixed, [1, 2, 0, 3]), [batch, time, heads * width]);
}

function evaluate(fn: typeof inBlocks, given: Case, dtype: "f32" | "f64"): ArrayLike<number>[] {
  const { batch, time, heads, kvHeads, width } = given;
  const shape = [batch, time, (heads + 2 * kvHeads) * width];
  const program = compile(
    testBackend(),
    ({ qkv }) => {
      const value = fn(given, qkv);
      const first = gradients(sum(mul(value, sin(mul(value, 3)))), qkv);
      return { value, first, second: gradients(sum(mul(first, cos(mul(qkv, 2)))), qkv) };
    },
    { qkv: spec(dtype, shape) },
  );
  const data = Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => 2 * Math.sin(1.7 * i + (i % 13)));
  const { value, first, second } = program.run({ qkv: bufferFrom(dtype, shape, data) } as never);
  program.dispose();
  return [value, first, second].map((buffer) => buffer.data as ArrayLike<number>);
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, size] = [0, 1];
  for (let i = 0; i < b.length; i++) {
    error = Math.max(error, Math.abs(a[i] - b[i]));
    size = Math.max(size, Math.abs(b[i]));
  }
  return error / size;
}

const cases: Record<string, Case> = {
  "four blocks": { batch: 2, time: 256, heads: 2, kvHeads: 2, width: 4 },
  "blocks of two lengths": { batch: 1, time: 199, heads: 2, kvHeads: 2, width: 4 },
  "one block": { batch: 2, time: 9, heads: 3, kvHeads: 3, width: 4, scale: 0.3 },
  "grouped heads": { batch: 2, time: 130, heads: 4, kvHeads: 2, width: 4 },
  "rotation, one group": { batch: 2, time: 256, heads: 2, kvHeads: 1, width: 8, rotates: true },
  "a window within a block": { batch: 1, time: 256, heads: 1, kvHeads: 1, width: 4, window: 20 },
  "a window over two blocks": { batch: 1, time: 256, heads: 2, kvHeads: 1, width: 4, window: 100, rotates: true },
};

describe.each(Object.entries(cases))("%s", (_, given) => {
  test("float64", () => {
    const [blocks, large] = [inBlocks, inTheLarge].map((fn) => evaluate(fn, given, "f64"));
    for (const [i, values] of blocks.entries()) expect(distance(values, large[i])).toBeLessThan(1e-12);
  });
  test("float32", () => {
    const [blocks, large] = [evaluate(inBlocks, given, "f32"), evaluate(inTheLarge, given, "f64")];
    for (const [i, values] of blocks.entries()) expect(distance(values, large[i])).toBeLessThan(i === 2 ? 1e-4 : 1e-5);
  });
});

test("many sequences, one after another", () => {
  const given: Case = { batch: 8, time: 128, heads: 4, kvHeads: 2, width: 8, rotates: true };
  const [blocks, large] = [evaluate(inBlocks, given, "f32"), evaluate(inTheLarge, given, "f64")];
  for (const [i, values] of blocks.entries()) expect(distance(values, large[i])).toBeLessThan(i === 2 ? 1e-4 : 1e-5);
});

test("keys that no query of a block sees are left out", () => {
  const spansOf = (length: number, window?: number) => causalSpans(new Graph(), length, "f32", window).spans;
  expect(spansOf(256).map(({ first, end }) => [first, end])).toEqual([
    [0, 64],
    [0, 128],
    [0, 192],
    [0, 256],
  ]);
  expect(spansOf(256, 64).map(({ first, end }) => [first, end])).toEqual([
    [0, 64],
    [0, 128],
    [64, 192],
    [128, 256],
  ]);
  expect(spansOf(100)).toHaveLength(1);
});

test("rows and heads must agree", () => {
  const graph = new Graph();
  const spans = causalSpans(graph, 8, "f32");
  expect(() => causalAttention(graph.input("x", "f32", [1, 8, 10]), spans, { heads: 3, kvHeads: 2 })).toThrow("with G dividing H");
  expect(() => causalAttention(add(graph.input("y", "f32", [1, 9, 12]), 1), spans, { heads: 1, kvHeads: 1 })).toThrow("spans of 8");
});
