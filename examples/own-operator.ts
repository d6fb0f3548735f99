// An operator of your own: softsign, x / (1 + |x|). ONNX Runtime has a kernel for it, longwave has not. An operator is a name with a shape
// rule, a derivative made of other operators, and an emission into ONNX nodes; docs/engine.md says more.
import { pathToFileURL } from "node:url";
import { bufferFrom, compile, openBackend, spec } from "longwave/runtime";
import { abs, apply1, gradients, mul, type Operator, required, square, sub, sum, type Tensor } from "longwave/tensor";

const softsignOperator: Operator = {
  name: "softsign",
  // Types of the outputs. Mistakes throw a ShapeError; the place in the model is added to its message.
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  // From the cotangent of the output to that of the input: g / (1 + |x|)², and 1 / (1 + |x|) is 1 − |y|. Written with differentiable
  // operators, so that the second derivative needs no rule.
  vjp: ({ outputs: [y], cotangents: [g] }) => [mul(required(g), square(sub(1, abs(y))))],
  // The kernel knows float32 only; float64, which tests of derivatives want, is composed.
  emit(emitter, node) {
    const [x] = emitter.names(node.inputs);
    if (node.inputs[0].dtype === "f32") return emitter.node("Softsign", [x], [emitter.output(node)]);
    const denominator = emitter.value("Add", [emitter.value("Abs", [x]), emitter.scalar("f64", 1)]);
    emitter.node("Div", [x, denominator], [emitter.output(node)]);
  },
};

/** x / (1 + |x|): like tanh, with heavier tails (Glorot & Bengio 2010). */
export const softsign = (x: Tensor): Tensor => apply1(softsignOperator, [x], {});

export function main({ print = console.log } = {}) {
  using backend = openBackend({ threads: 1 }).backend;
  const points = [-3, -1, -0.1, 0.2, 1, 4];
  const evaluate = (dtype: "f32" | "f64", at: readonly number[]) => {
    using program = compile(
      backend,
      (x: Tensor) => {
        const y = softsign(x);
        const slope = gradients(sum(y), x);
        return { y, slope, curvature: gradients(sum(slope), x) };
      },
      spec(dtype, [at.length]),
    );
    const { y, slope, curvature } = program.run(bufferFrom(dtype, [at.length], at));
    return { y: Array.from(y.data, Number), slope: Array.from(slope.data, Number), curvature: Array.from(curvature.data, Number) };
  };

  // Every derivative is worth a comparison with central differences in float64.
  const step = 1e-5;
  const exact = evaluate("f64", points);
  const [above, below] = [step, -step].map((delta) =>
    evaluate(
      "f64",
      points.map((x) => x + delta),
    ),
  );
  let largestError = 0;
  for (const [i, x] of points.entries()) {
    const slope = (above.y[i] - below.y[i]) / (2 * step);
    const curvature = (above.slope[i] - below.slope[i]) / (2 * step);
    largestError = Math.max(largestError, Math.abs(slope - exact.slope[i]), Math.abs(curvature - exact.curvature[i]));
    print(`softsign(${x}) = ${exact.y[i].toFixed(4)}, slope ${exact.slope[i].toFixed(4)}, curvature ${exact.curvature[i].toFixed(4)}`);
  }
  const single = evaluate("f32", points);
  const singleError = Math.max(...points.map((_, i) => Math.abs(single.y[i] - exact.y[i])));
  print(
    `largest difference from central differences ${largestError.toExponential(1)}; of float32 from float64 ${singleError.toExponential(1)}`,
  );
  return { points, y: exact.y, largestError, singleError };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) main();
