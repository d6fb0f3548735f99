import { describe, expect, test } from "vitest";
import { allocate, bufferFrom } from "../runtime/buffer.ts";
import { compile, spec } from "../runtime/program.ts";
import { constant, full, reshape, scalar, stopGradient, sum } from "./core.ts";
import { add, exp, mul } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import { scope, type Tensor } from "./graph.ts";
import { layerNorm } from "./norm.ts";
import { evaluate, testBackend } from "./testing/derivatives.ts";

const x = bufferFrom("f32", [2], [1, 2]);

describe("outputs", () => {
  test("may be an input, a constant, an alias, empty, or the same tensor twice", () => {
    const outputs = evaluate(
      (a) => {
        const y = exp(a);
        return [
          a,
          a,
          y,
          y,
          stopGradient(y),
          stopGradient(a),
          scalar(a.graph, "f32", 3),
          full(a.graph, "f32", [2], 4),
          constant(a.graph, "f32", [2], Float32Array.of(5, 6)),
          full(a.graph, "f32", [0, 2], 1),
          reshape(a, [2]),
        ];
      },
      [x],
    );
    const e = [Math.fround(Math.E), Math.fround(Math.exp(2))];
    for (const i of [0, 1, 5, 10]) expect(outputs[i].data).toEqual([1, 2]);
    for (const i of [2, 3, 4]) for (const k of [0, 1]) expect(outputs[i].data[k]).toBeCloseTo(e[k], 5);
    expect(outputs.slice(6, 10).map(({ data }) => data)).toEqual([[3], [4, 4], [5, 6], []]);
  });
  test("an alias of a composed value", () => {
    const [y, again, g] = evaluate(
      (a, s) => {
        const normed = layerNorm(a, s);
        return [normed, stopGradient(normed), gradients(sum(mul(normed, normed)), [a])[0]];
      },
      [bufferFrom("f64", [1, 2], [1, 2]), bufferFrom("f64", [2], [1, 1])],
    );
    expect(again.data).toEqual(y.data);
    expect(g.data.every((value) => Math.abs(value) < 1e-3)).toBe(true);
  });
  test("come back in the tree of the traced function", () => {
    const program = compile(
      testBackend(),
      ({ a }) => ({ list: [a, { twice: mul(a, 2) }], one: add(a, 1) }),
      { a: spec("f32", [2]) },
      { threads: 1 },
    );
    const outputs = program.run({ a: x });
    expect(Array.from((outputs.list[1] as unknown as { twice: typeof x }).twice.data)).toEqual([2, 4]);
    expect(Array.from(outputs.one.data as Float32Array)).toEqual([2, 3]);
    program.dispose();
  });
  test("may lie in the memory of an input, elementwise", () => {
    const memory = bufferFrom("f32", [2], [1, 2]);
    const program = compile(testBackend(), ({ a }) => ({ y: mul(add(a, 1), a) }), { a: spec("f32", [2]) }, { threads: 1 });
    const bound = program.bind({ a: memory }, { y: memory });
    bound.run();
    bound.run();
    expect(Array.from(memory.data)).toEqual([6, 42]);
    program.dispose();
  });
  test("that are no tensors are refused", () => {
    expect(() => compile(testBackend(), () => ({ y: { dtype: "f32", shape: [] } }), { a: spec("f32", [1]) })).toThrow(
      'program: expected the traced function to return tensors, got something else at "y"',
    );
    expect(() => compile(testBackend(), () => [3] as never, { a: spec("f32", [1]) })).toThrow('got 3 at "0"');
  });
});

describe("shared weights", () => {
  const parameters = { w: spec("f32", [2]), x: spec("f32", [2]) };
  test("are read in place", () => {
    const w = bufferFrom("f32", [2], [10, 20]);
    const program = compile(testBackend(), ({ w, x }) => add(w, x), parameters, {
      weights: new Map([["w", w]]),
      prepack: false,
      threads: 1,
    });
    expect(Array.from(program.run({ x } as never).data as Float32Array)).toEqual([11, 22]);
    program.dispose();
  });
  test("must not feed a node alone", () => {
    const weights = new Map([["w", allocate("f32", [2])]]);
    expect(() => compile(testBackend(), ({ w, x }) => scope(x, "head", () => add(exp(w), x)), parameters, { weights })).toThrow(
      "exp depends on shared weights alone in head",
    );
    expect(() => compile(testBackend(), ({ w, x }) => add(mul(w, 2), x), parameters, { weights })).toThrow(
      "mul depends on shared weights alone",
    );
  });
});

test("an unused input has no memory, and needs none", () => {
  const program = compile(
    testBackend(),
    ({ a }: Record<"a" | "b", Tensor>) => exp(a),
    { a: spec("f32", [2]), b: spec("f32", ["N"]) },
    { threads: 1 },
  );
  const bound = program.bind({ a: x });
  bound.run();
  expect(bound.outputs.data[0]).toBeCloseTo(Math.E, 5);
  expect(() => bound.setInput("b", allocate("f32", [1]))).toThrow('program: no input "b" that the program uses');
  expect(() => program.bind({ c: x } as never)).toThrow('program: no input "c" to bind');
  program.dispose();
  expect(() => program.bind({ a: x })).toThrow("program: this program was disposed");
});
