// Activations. Fused kernels forward where ONNX Runtime has them (float32 only), hand-written derivatives, composed float64 emissions.
import { ShapeError } from "../base/errors.ts";
import { isFloat } from "./dtype.ts";
import {
  abs,
  add,
  div,
  emitErf64,
  emitSigmoid64,
  erf,
  exp,
  greater,
  log,
  minimum,
  mul,
  neg,
  sigmoid,
  square,
  sub,
  tanh,
  where,
} from "./elementwise.ts";
import { apply1, type Operator, required, type Tensor } from "./graph.ts";
import { contrib, type Emitter, float } from "./onnx.ts";
import { inRowBlocks } from "./row-blocks.ts";

/** A fused float32 kernel with a derivative, and the same function composed for every other dtype. */
function activation(
  name: string,
  kernel: { type: string; domain?: string; attributes?: Record<string, ReturnType<typeof float> | string> },
  compose: (emitter: Emitter, x: string) => string,
  derivative: (x: Tensor) => Tensor,
): Operator {
  return {
    name,
    infer([x]) {
      if (!isFloat(x.dtype)) throw new ShapeError(`${name}: expected a floating-point tensor, got ${x}`);
      return [{ dtype: x.dtype, shape: x.shape }];
    },
    vjp: ({ inputs: [x], cotangents: [g] }) => [overRows([required(g), x], (g, x) => mul(g, derivative(x)))],
    emit(emitter, node) {
      const [x] = node.inputs;
      if (x.dtype === "f64") emitter.alias(node.outputs[0], compose(emitter, emitter.name(x)));
      else if (x.rank > 0) emitter.node(kernel.type, [emitter.name(x)], [emitter.output(node)], kernel.attributes, kernel.domain);
      else {
        // Some of the kernels refuse a scalar.
        const row = emitter.value("Reshape", [emitter.name(x), emitter.ints([1])]);
        const result = emitter.value(kernel.type, [row], kernel.attributes, kernel.domain);
        emitter.node("Reshape", [result, emitter.ints([])], [emitter.output(node)]);
      }
    },
  };
}

/** A chain of elementwise passes over equally shaped tensors, in blocks that stay in the cache. */
function overRows(inputs: readonly Tensor[], chain: (...inputs: Tensor[]) => Tensor): Tensor {
  return inputs[0].rank < 2 ? chain(...inputs) : inRowBlocks(inputs, [], (...blocks) => [chain(...blocks)])[0];
}

const op = (emitter: Emitter, type: string, ...inputs: string[]): string => emitter.value(type, inputs);

const reluOperator: Operator = {
  name: "relu",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  vjp: ({ outputs: [y], cotangents: [g] }) => [where(greater(y, 0), required(g), 0)],
  emit: (emitter, node) => emitter.node("Relu", [emitter.name(node.inputs[0])], [emitter.output(node)]),
};
/** max(x, 0); the derivative at 0 is 0. */
export const relu = (x: Tensor): Tensor => apply1(reluOperator, [x], {});

// x σ(x). d/dx = σ(x) (1 + x (1 − σ(x))).
const siluOperator = activation(
  "silu",
  { type: "QuickGelu", domain: contrib, attributes: { alpha: float(1) } },
  (emitter, x) => op(emitter, "Mul", x, emitSigmoid64(emitter, x)),
  (x) => {
    const s = sigmoid(x);
    return mul(s, add(1, mul(x, sub(1, s))));
  },
);
/** x · σ(x), also called swish (Hendrycks & Gimpel 2016). */
export const silu = (x: Tensor): Tensor => apply1(siluOperator, [x], {});

/** x · σ(1.702 x), the sigmoid approximation of GELU. */
export const quickGelu = (x: Tensor): Tensor => mul(x, sigmoid(mul(x, 1.702)));

const tanhGeluScale = Math.sqrt(2 / Math.PI);
const tanhGeluCubic = 0.044715;
// ½ x (1 + tanh u) = x σ(2u) with u = √(2/π) (x + 0.044715 x³); d/dx = σ (1 + x (1 − σ) 2u'), fewer passes than the tanh form.
const geluTanhOperator = activation(
  "geluTanh",
  { type: "FastGelu", domain: contrib },
  (emitter, x) => {
    const number = (value: number): string => emitter.scalar("f64", value);
    const x2 = op(emitter, "Mul", x, x);
    const slope = op(emitter, "Add", op(emitter, "Mul", x2, number(2 * tanhGeluScale * tanhGeluCubic)), number(2 * tanhGeluScale));
    return op(emitter, "Mul", x, emitSigmoid64(emitter, op(emitter, "Mul", x, slope)));
  },
  (x) => {
    const x2 = square(x);
    const s = sigmoid(mul(x, add(mul(x2, 2 * tanhGeluScale * tanhGeluCubic), 2 * tanhGeluScale)));
    const twiceSlope = add(mul(x2, 6 * tanhGeluScale * tanhGeluCubic), 2 * tanhGeluScale);
    return mul(s, add(1, mul(mul(x, sub(1, s)), twiceSlope)));
  },
);

// x Φ(x); d/dx = Φ(x) + x φ(x).
const geluErfOperator = activation(
  "gelu",
  { type: "Gelu", attributes: { approximate: "none" } },
  (emitter, x) => {
    const number = (value: number): string => emitter.scalar("f64", value);
    const cumulative = op(emitter, "Add", number(1), emitErf64(emitter, op(emitter, "Mul", x, number(Math.SQRT1_2))));
    return op(emitter, "Mul", op(emitter, "Mul", x, number(0.5)), cumulative);
  },
  (x) => {
    const cumulative = mul(add(erf(mul(x, Math.SQRT1_2)), 1), 0.5);
    const density = mul(exp(mul(square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return add(cumulative, mul(x, density));
  },
);

/**
 * The Gaussian error linear unit (Hendrycks & Gimpel 2016): exact by default, `approximate: "tanh"` as in GPT-2 (whose derivative is
 * finite for |x| < 1e12 in float32).
 */
export function gelu(x: Tensor, { approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
  return apply1(approximate === "tanh" ? geluTanhOperator : geluErfOperator, [x], {});
}

// log(1 + e^x) = max(x, 0) + log(1 + e^−|x|).
const softplusOperator = activation(
  "softplus",
  { type: "Softplus" },
  (emitter, x) => {
    const number = (value: number): string => emitter.scalar("f64", value);
    const tail = op(emitter, "Log", op(emitter, "Add", number(1), op(emitter, "Exp", op(emitter, "Neg", op(emitter, "Abs", x)))));
    return op(emitter, "Add", op(emitter, "Max", x, number(0)), tail);
  },
  (x) => sigmoid(x),
);
/** log(1 + e^x), without overflow. */
export const softplus = (x: Tensor): Tensor => apply1(softplusOperator, [x], {});
/** log σ(x) = −log(1 + e^−x). */
export const logSigmoid = (x: Tensor): Tensor => neg(softplus(neg(x)));

/** x for x > 0, else α (e^x − 1). */
export function elu(x: Tensor, { alpha = 1 }: { alpha?: number } = {}): Tensor {
  return where(greater(x, 0), x, mul(sub(exp(minimum(x, 0)), 1), alpha));
}
/** elu(x) + 1, the positive feature map of linear attention (Katharopoulos et al. 2020, Eq. 7). */
export const eluPlusOne = (x: Tensor): Tensor => where(greater(x, 0), add(x, 1), exp(minimum(x, 0)));
/** x for x > 0, else slope · x. */
export const leakyRelu = (x: Tensor, { slope = 0.01 }: { slope?: number } = {}): Tensor => where(greater(x, 0), x, mul(x, slope));
/** max(x, 0)². */
export const squaredRelu = (x: Tensor): Tensor => square(relu(x));
/** cap · tanh(x / cap): logits kept within ±cap (Gemma 2). */
export const softCap = (x: Tensor, cap: number): Tensor => mul(tanh(mul(x, 1 / cap)), cap);
/** |x| < δ: x²/2, else δ (|x| − δ/2). */
export function huber(x: Tensor, { delta = 1 }: { delta?: number } = {}): Tensor {
  const small = minimum(abs(x), delta);
  return add(mul(square(small), 0.5), mul(sub(abs(x), small), delta));
}
/** log((1 + x) / (1 − x)) / 2 for |x| < 1. */
export const atanh = (x: Tensor): Tensor => mul(log(div(add(x, 1), sub(1, x))), 0.5);
