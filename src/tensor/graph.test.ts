import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { sum } from "./core.ts";
import { add, exp, mul } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import { broadcastShapes, Graph, normalizeAxis, scope, staticShape, type Tensor } from "./graph.ts";
import { matmul } from "./matmul.ts";
import { liveNodes, toOnnx } from "./onnx.ts";
import { mean } from "./reduce.ts";
import { evaluate } from "./testing/derivatives.ts";

describe("shape rules", () => {
  test("broadcasting with names", () => {
    expect(broadcastShapes("add", ["B", 1, 3], ["T", 1])).toEqual(["B", "T", 3]);
    expect(broadcastShapes("add", ["B", "T"], ["B", "T"])).toEqual(["B", "T"]);
    expect(broadcastShapes("add", [0], [1])).toEqual([0]);
    expect(() => broadcastShapes("add", ["B"], ["T"])).toThrow("add: expected shapes that broadcast, got [B] and [T]");
    expect(() => broadcastShapes("add", ["B"], [3])).toThrow("add: expected shapes that broadcast, got [B] and [3]");
    expect(() => broadcastShapes("add", [0], [2])).toThrow("add: expected shapes that broadcast, got [0] and [2]");
  });
  test("axes", () => {
    expect([0, 2, -1, -3].map((axis) => normalizeAxis("sum", axis, 3))).toEqual([0, 2, 2, 0]);
    for (const axis of [3, -4, 0.5, Number.NaN])
      expect(() => normalizeAxis("sum", axis, 3)).toThrow(`sum: expected an axis in [-3, 3), got ${axis}`);
  });
  test("fixed sizes", () => {
    expect(staticShape("gather", [2, 0])).toEqual([2, 0]);
    expect(() => staticShape("gather", [2, "T"])).toThrow('gather: expected fixed dimensions, got the symbolic "T" in [2, T]');
  });
  test("an input's dimensions", () => {
    const graph = new Graph();
    for (const shape of [[-1], [1.5], ["2B"], ["a b"], [Number.NaN]]) {
      expect(() => graph.input("x", "f32", shape)).toThrow("input: expected non-negative integers or names as dimensions");
    }
    expect(String(graph.input("x", "f32", ["B", 3]))).toBe("f32[B, 3]");
  });
});

describe("errors name the place in the model", () => {
  const x = bufferFrom("f32", [2, 3], new Float32Array(6));
  const inside = (fn: (x: Tensor) => unknown) => () =>
    evaluate((a) => scope(a, "layers", () => scope(a, "3", () => scope(a, "attention", () => fn(a) as Tensor))), [x]);
  const place = "in layers.3.attention";
  test("from the rule of an operator, the checks before it, and plain code, once", () => {
    for (const [fn, message] of [
      [(a) => matmul(a, a), "matmul: expected equal inner dimensions, got f32[2, 3] × f32[2, 3]"],
      [(a) => mean(a, { axes: 2 }), "mean: expected an axis in [-2, 2), got 2"],
      [(a) => add(a, sum(a, { axes: 1 })), "add: expected shapes that broadcast, got [2, 3] and [2]"],
      [(a) => gradients(a, [a]), "gradients: expected a scalar loss, got f32[2, 3]"],
      [(a) => staticShape("model", ["T", ...a.shape]), 'model: expected fixed dimensions, got the symbolic "T" in [T, 2, 3]'],
    ] as [(a: Tensor) => unknown, string][]) {
      let caught = "";
      try {
        inside(fn)();
      } catch (error) {
        caught = (error as Error).message;
      }
      expect(caught).toBe(`${message} ${place}`);
    }
  });
  test("the scope ends with the body, also after an error", () => {
    const graph = new Graph();
    const anchor = graph.input("x", "f32", [2]);
    expect(() =>
      scope(anchor, "a", () => {
        throw new RangeError("own");
      }),
    ).toThrow(/^own$/);
    expect(graph.scope).toBe("");
    expect(scope(anchor, "b", () => exp(anchor)).node?.scope).toBe("b");
  });
  test("foreign values and tensors of another program are refused", () => {
    const [one, two] = [new Graph(), new Graph()].map((graph) => graph.input("x", "f32", [2]));
    expect(() => add(one, two)).toThrow("add: expected tensors of one program, got tensors of two");
    expect(() => exp(new Float32Array(2) as never)).toThrow("exp: expected a tensor of the program being traced, got Float32Array");
    expect(() => matmul(one, [1, 2] as never)).toThrow(/expected/);
  });
});

describe("only what the outputs need is written", () => {
  test("dead nodes and inputs are left out", () => {
    const graph = new Graph();
    const [x, y] = ["x", "y"].map((name) => graph.input(name, "f32", [2]));
    const used = mul(x, 2);
    exp(y);
    expect(liveNodes([used]).map(({ operator }) => operator.name)).toEqual(["constant", "mul"]);
    const model = toOnnx(graph, [used]);
    expect(model.inputs.map(({ tensor }) => tensor)).toEqual([x]);
    expect(model.nodeCount).toBe(1);
  });
});
