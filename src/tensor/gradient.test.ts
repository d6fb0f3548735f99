import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { compile, spec } from "../runtime/program.ts";
import { reshape, stopGradient, sum, zerosLike } from "./core.ts";
import { add, cast, exp, mul, sin, square, sub, tanh } from "./elementwise.ts";
import { gradients, jvp, vjp } from "./gradient.ts";
import { apply1, type Operator, required, scope, type Tensor } from "./graph.ts";
import { argmax, mean } from "./reduce.ts";
import { split, transpose } from "./shape.ts";
import { close, evaluate, testBackend, verifyDerivatives } from "./testing/derivatives.ts";

describe("the check itself fails for", () => {
  const wrong = (vjp: Operator["vjp"]) => (x: Tensor) =>
    apply1(
      {
        name: "cube",
        infer: ([a]) => [a],
        vjp,
        emit: (emitter, node) => {
          const [name] = emitter.names(node.inputs);
          emitter.node("Mul", [name, emitter.value("Mul", [name, name])], [emitter.output(node)]);
        },
      },
      [x],
      {},
    );
  const right: Operator["vjp"] = ({ inputs: [x], cotangents: [g] }) => [mul(required(g), mul(square(x), 3))];
  test("nothing when all is right", () => {
    verifyDerivatives(wrong(right), [[3]], { reference: (x) => ({ shape: [3], data: Array.from(x.data, (a) => a ** 3) }) });
  });
  test("a wrong value", () => {
    expect(() => verifyDerivatives(wrong(right), [[3]], { reference: (x) => x })).toThrow("value 0");
  });
  test("a wrong shape", () => {
    expect(() =>
      verifyDerivatives(wrong(right), [[3]], { reference: (x) => ({ shape: [1, 3], data: Array.from(x.data, (a) => a ** 3) }) }),
    ).toThrow();
  });
  test("a wrong derivative", () => {
    const rule: Operator["vjp"] = ({ inputs: [x], cotangents: [g] }) => [mul(required(g), mul(square(x), 3.00001))];
    expect(() => verifyDerivatives(wrong(rule), [[3]])).toThrow("derivative with respect to input 0");
  });
  test("a derivative that hides a dependence", () => {
    const rule: Operator["vjp"] = ({ inputs: [x], cotangents: [g] }) => [mul(required(g), mul(square(stopGradient(x)), 3))];
    expect(() => verifyDerivatives(wrong(rule), [[3]])).toThrow("second derivative with respect to input 0");
  });
});

describe("forward mode", () => {
  const at = (fn: (x: Tensor) => Tensor[], x: number[], v: number[]): number[][] =>
    evaluate((a, b) => jvp(fn(a), [a], [b]), [bufferFrom("f64", [x.length], x), bufferFrom("f64", [x.length], v)]).map(({ data }) => data);

  test("follows every path: scaled, doubled, residual, the input itself, a constant", () => {
    const outputs = at((x) => [mul(x, 3), add(x, x), add(x, sin(x)), x, zerosLike(x), sub(0, x)], [0.3, 2], [1, 10]);
    close("3 x", outputs[0], [3, 30], 1e-15);
    close("x + x", outputs[1], [2, 20], 1e-15);
    close("x + sin x", outputs[2], [1 + Math.cos(0.3), 10 * (1 + Math.cos(2))], 1e-15);
    expect(outputs.slice(3)).toEqual([
      [1, 10],
      [0, 0],
      [-1, -10],
    ]);
  });
  test("keeps several scalar outputs apart", () => {
    expect(at((x) => [sum(x), sum(mul(x, 2)), mean(x)], [1, 2], [1, 3])).toEqual([[4], [8], [2]]);
  });
  test("takes trees, and leaves that are not used", () => {
    const [y] = evaluate(
      (w, b, c, dw, db) => jvp([mul(w, b)], { layer: { w, b }, extra: [c] }, { layer: { w: dw, b: db }, extra: [c] }),
      [3, 5, 7, 1, 2].map((v) => bufferFrom("f64", [1], [v])),
    );
    expect(y.data).toEqual([5 + 6]);
  });
  test("nests: the second directional derivative", () => {
    const [y] = evaluate(
      (x, v) => jvp(jvp([sum(mul(x, square(x)))], [x], [v]), [x], [v]),
      [bufferFrom("f64", [2], [2, -1]), bufferFrom("f64", [2], [1, 3])],
    );
    expect(y.data).toEqual([6 * 2 + 6 * -1 * 9]);
  });
  test("leaves no trace in the program beyond what the derivative needs", () => {
    const program = compile(
      testBackend(),
      ({ x, v }) => jvp([mul(x, 3)], [x], [v]),
      { x: spec("f64", [2]), v: spec("f64", [2]) },
      { threads: 1 },
    );
    expect(program.nodeCount).toBe(1);
    program.dispose();
  });
});

describe("gradients", () => {
  const one = bufferFrom("f64", [2], [1, 2]);
  test("come as a tree of the same shape, zeros where the loss does not reach", () => {
    const program = compile(
      testBackend(),
      ({ layers, unused }) => gradients(sum(mul(layers[0].w, exp(layers[1].w))), { layers, unused }),
      { layers: [{ w: spec("f64", [2]) }, { w: spec("f64", [2]) }], unused: spec("f32", [2, 1]) },
      { threads: 1 },
    );
    const bound = program.bind({ layers: [{ w: one }, { w: one }] });
    bound.run();
    expect(bound.outputs.unused.dtype).toBe("f32");
    expect(Array.from(bound.outputs.unused.data as Float32Array)).toEqual([0, 0]);
    close("w0", bound.outputs.layers[0].w.data as Float64Array, [Math.E, Math.E ** 2], 1e-15);
    close("w1", bound.outputs.layers[1].w.data as Float64Array, [Math.E, 2 * Math.E ** 2], 1e-15);
    program.dispose();
  });
  test("of an intermediate tensor, and of the loss itself", () => {
    const [h, own] = evaluate(
      (x) => {
        const hidden = mul(x, x);
        const loss = sum(mul(hidden, hidden));
        return gradients(loss, [hidden, loss]);
      },
      [one],
    );
    expect([h.data, own.data]).toEqual([[2, 8], [1]]);
  });
  test("add up over every use, and over leaves that are the same tensor", () => {
    const [a, b] = evaluate(
      (x) => {
        const { first, second } = gradients(sum(add(mul(x, 2), mul(x, x))), { first: x, second: x });
        return [first, second];
      },
      [one],
    );
    expect([a.data, b.data]).toEqual([
      [4, 6],
      [4, 6],
    ]);
  });
  test("stop where they are told to", () => {
    const [g] = evaluate((x) => gradients(sum(add(mul(stopGradient(tanh(x)), x), square(stopGradient(x)))), [x]), [one]);
    close("g", g.data, [Math.tanh(1), Math.tanh(2)], 1e-15);
  });
  test("pass over operators without derivative whose output does not matter", () => {
    const [g] = evaluate((x) => gradients(sum(mul(x, cast(argmax(x, { keepDims: true }), "f64"))), [x]), [one]);
    expect(g.data).toEqual([1, 1]);
  });
  test("third derivatives", () => {
    const [g] = evaluate(
      (x) => {
        let value = sum(mul(square(x), square(x)));
        for (let i = 0; i < 2; i++) value = sum(gradients(value, [x])[0]);
        return gradients(value, [x]);
      },
      [one],
    );
    expect(g.data).toEqual([24, 48]);
  });
  test("vjp with an undefined cotangent counts it as zero", () => {
    const [g] = evaluate(
      (x) => {
        const [low, high] = split(mul(x, 3), [1, 1]);
        return vjp([low, high], [undefined, high], [x]);
      },
      [one],
    );
    expect(g.data).toEqual([0, 18]);
  });
});

describe("mistakes", () => {
  const trace =
    (fn: (x: Tensor) => Tensor | Tensor[], shape: (number | string)[] = [2, 3], dtype: "f32" | "i64" = "f32") =>
    () =>
      compile(testBackend(), ({ x }) => fn(x), { x: spec(dtype, shape) }, { threads: 1 });
  test("a loss that is no scalar, or no number with a slope", () => {
    expect(trace((x) => gradients(x, [x]))).toThrow("gradients: expected a scalar loss, got f32[2, 3]");
    expect(trace((x) => gradients(sum(x), [x]), [2], "i64")).toThrow("gradients: expected a floating-point loss, got i64[]");
  });
  test("a cotangent or tangent of another shape", () => {
    expect(trace((x) => vjp([x], [sum(x)], [x]))).toThrow("vjp: expected a cotangent of shape [2, 3], got f32[]");
    expect(trace((x) => jvp([square(x)], [x], [transpose(x)]))).toThrow("vjp: expected a cotangent of shape [2, 3], got f32[3, 2]");
  });
  test("a symbolic dimension is named, with the place", () => {
    const place = 'got the symbolic "B" in [B, 3] in layers.0\'';
    expect(
      trace(
        (x) =>
          gradients(
            scope(x, "layers", () => scope(x, "0", () => sum(mul(x, x)))),
            [x],
          ),
        ["B", 3],
      ),
    ).toThrow(place);
    expect(trace((x) => gradients(sum(scope(x, "layers.0", () => mul(x, x))), [x]), ["B", 3])).toThrow(/symbolic "B"/);
  });
  test("outside of every scope the place is the backward pass", () => {
    expect(trace((x) => gradients(sum(mul(x, x)), [x]), ["B", 3])).toThrow(/\[B(, 3)?\] in the backward pass$/);
  });
  test("an operator without derivative is named, with the place", () => {
    const opaque = (x: Tensor): Tensor => apply1({ name: "opaque", infer: ([a]) => [a], emit: () => undefined }, [x], {});
    expect(trace((x) => gradients(sum(scope(x, "head", () => opaque(x))), [x]))).toThrow(
      "opaque has no derivative, but the loss depends on it in head",
    );
    expect(trace((x) => [reshape(stopGradient(x), [6]), ...gradients(sum(stopGradient(x)), [x])])).not.toThrow();
  });
});
