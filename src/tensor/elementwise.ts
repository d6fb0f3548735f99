// Elementwise operators with NumPy broadcasting: arithmetic, functions of one variable, comparisons, where, cast.
// A number may stand for a tensor of the other operand's dtype.
import { ShapeError } from "../base/errors.ts";
import { constantValue, full, scalar, unbroadcast, zerosLike } from "./core.ts";
import { type DType, isFloat, onnxType } from "./dtype.ts";
import { apply1, broadcastShapes, type Operator, required, sameDType, sameShape, Tensor } from "./graph.ts";
import type { Emitter } from "./onnx.ts";

export type Operand = Tensor | number;

function operands(name: string, a: Operand, b: Operand): [Tensor, Tensor] {
  if (a instanceof Tensor && b instanceof Tensor) {
    // One of two repeated operands must stay as it is: it carries the shape of the result.
    const first = unexpanded(name, a, b);
    return [first, unexpanded(name, b, first)];
  }
  if (a instanceof Tensor) return [a, scalar(a.graph, a.dtype, b as number)];
  if (b instanceof Tensor) return [scalar(b.graph, b.dtype, a), b];
  throw new ShapeError(`${name}: expected at least one tensor, got ${a} and ${b}`);
}

/** What `x` was before it was repeated, where the operator repeats it by itself: an explicit broadcast costs a pass over memory. */
function unexpanded(name: string, x: Tensor, other: Tensor): Tensor {
  const source = x.node?.operator.name === "broadcastTo" ? x.node.inputs[0] : undefined;
  if (!source || source.graph !== other.graph) return x;
  return sameShape(x.shape, other.shape) && sameShape(broadcastShapes(name, source.shape, other.shape), other.shape) ? source : x;
}

// ---- arithmetic

function binary(name: string, onnx: string, vjp?: Operator["vjp"]): Operator {
  return {
    name,
    infer: (inputs) => [{ dtype: sameDType(name, inputs), shape: broadcastShapes(name, inputs[0].shape, inputs[1].shape) }],
    vjp,
    emit: (emitter, node) => emitter.node(onnx, emitter.names(node.inputs), [emitter.output(node)]),
  };
}

const addOperator = binary("add", "Add", ({ inputs: [a, b], cotangents: [g], needs }) => [
  needs[0] ? unbroadcast(required(g), a) : undefined,
  needs[1] ? unbroadcast(required(g), b) : undefined,
]);
const subOperator = binary("sub", "Sub", ({ inputs: [a, b], cotangents: [g], needs }) => [
  needs[0] ? unbroadcast(required(g), a) : undefined,
  needs[1] ? neg(unbroadcast(required(g), b)) : undefined,
]);
const mulOperator = binary("mul", "Mul", ({ inputs: [a, b], cotangents: [g], needs }) => [
  needs[0] ? unbroadcast(mul(required(g), b), a) : undefined,
  needs[1] ? unbroadcast(mul(required(g), a), b) : undefined,
]);
const divOperator = binary("div", "Div", ({ inputs: [a, b], outputs: [y], cotangents: [g], needs }) => {
  const scaled = div(required(g), b);
  return [needs[0] ? unbroadcast(scaled, a) : undefined, needs[1] ? unbroadcast(neg(mul(scaled, y)), b) : undefined];
});
const powOperator = binary("pow", "Pow", ({ inputs: [a, b], outputs: [y], cotangents: [g], needs }) => [
  needs[0] ? unbroadcast(mul(required(g), mul(b, pow(a, sub(b, 1)))), a) : undefined,
  // log is asked of a positive base only; 0 ** b has derivative 0 with respect to b > 0.
  needs[1] ? unbroadcast(mul(required(g), mul(y, log(where(greater(a, 0), a, 1)))), b) : undefined,
]);
// A tie gives the whole cotangent to the first operand (torch splits it; any convex combination is a subgradient).
const maximumOperator = binary("maximum", "Max", ({ inputs: [a, b], cotangents: [g], needs }) => {
  const first = greaterEqual(a, b);
  return [
    needs[0] ? unbroadcast(where(first, required(g), 0), a) : undefined,
    needs[1] ? unbroadcast(where(first, 0, required(g)), b) : undefined,
  ];
});
const minimumOperator = binary("minimum", "Min", ({ inputs: [a, b], cotangents: [g], needs }) => {
  const first = lessEqual(a, b);
  return [
    needs[0] ? unbroadcast(where(first, required(g), 0), a) : undefined,
    needs[1] ? unbroadcast(where(first, 0, required(g)), b) : undefined,
  ];
});

export function add(a: Operand, b: Operand): Tensor {
  const [x, y] = operands("add", a, b);
  if (constantValue(y) === 0 && sameShape(broadcastShapes("add", x.shape, y.shape), x.shape)) return x;
  if (constantValue(x) === 0 && sameShape(broadcastShapes("add", x.shape, y.shape), y.shape)) return y;
  return apply1(addOperator, [x, y], {});
}

export function sub(a: Operand, b: Operand): Tensor {
  const [x, y] = operands("sub", a, b);
  if (constantValue(y) === 0 && sameShape(broadcastShapes("sub", x.shape, y.shape), x.shape)) return x;
  return apply1(subOperator, [x, y], {});
}

export function mul(a: Operand, b: Operand): Tensor {
  const [x, y] = operands("mul", a, b);
  const [p, q] = [constantValue(x), constantValue(y)];
  const shape = broadcastShapes("mul", x.shape, y.shape);
  if (p !== undefined && q !== undefined && shape.every((dim) => typeof dim === "number")) return full(x.graph, x.dtype, shape, p * q);
  if (q === 1 && sameShape(shape, x.shape)) return x;
  if (p === 1 && sameShape(shape, y.shape)) return y;
  return apply1(mulOperator, [x, y], {});
}

export function div(a: Operand, b: Operand): Tensor {
  const [x, y] = operands("div", a, b);
  if (constantValue(y) === 1 && sameShape(broadcastShapes("div", x.shape, y.shape), x.shape)) return x;
  return apply1(divOperator, [x, y], {});
}

/** a ** b. The derivative with respect to b is right for a ≥ 0 only. */
export function pow(a: Operand, b: Operand): Tensor {
  const [x, y] = operands("pow", a, b);
  const exponent = constantValue(y);
  const shape = broadcastShapes("pow", x.shape, y.shape);
  if (exponent === 0 && shape.every((dim) => typeof dim === "number")) return full(x.graph, x.dtype, shape, 1);
  if (exponent === 1 && sameShape(shape, x.shape)) return x;
  if (exponent === 2 && sameShape(shape, x.shape)) return square(x);
  return apply1(powOperator, [x, y], {});
}

export const maximum = (a: Operand, b: Operand): Tensor => apply1(maximumOperator, operands("maximum", a, b), {});
export const minimum = (a: Operand, b: Operand): Tensor => apply1(minimumOperator, operands("minimum", a, b), {});
/** x limited to [low, high]; the derivative is 1 inside and on the borders, 0 outside. */
export const clamp = (x: Tensor, low: number, high: number): Tensor => minimum(maximum(x, low), high);

// ---- functions of one variable

/** `derivative(x, y)` is dy/dx as a tensor, built from differentiable operators. */
function unary(name: string, onnx: string, derivative?: (x: Tensor, y: Tensor) => Tensor): Operator {
  return {
    name,
    infer([x]) {
      if (!isFloat(x.dtype) && name !== "neg" && name !== "abs" && name !== "sign")
        throw new ShapeError(`${name}: expected a floating-point tensor, got ${x}`);
      return [{ dtype: x.dtype, shape: x.shape }];
    },
    vjp: derivative && (({ inputs: [x], outputs: [y], cotangents: [g] }) => [mul(required(g), derivative(x, y))]),
    emit: (emitter, node) => emitter.node(onnx, [emitter.name(node.inputs[0])], [emitter.output(node)]),
  };
}

const negOperator: Operator = { ...unary("neg", "Neg"), vjp: ({ cotangents: [g] }) => [neg(required(g))] };
const absOperator = unary("abs", "Abs", (x) => sign(x));
// The derivative is 0 almost everywhere; it is stated, so that abs can be differentiated twice.
const signOperator = unary("sign", "Sign", (x) => zerosLike(x));
const expOperator = unary("exp", "Exp", (_, y) => y);
const logOperator: Operator = { ...unary("log", "Log"), vjp: ({ inputs: [x], cotangents: [g] }) => [div(required(g), x)] };
const sqrtOperator: Operator = { ...unary("sqrt", "Sqrt"), vjp: ({ outputs: [y], cotangents: [g] }) => [div(mul(required(g), 0.5), y)] };
const reciprocalOperator = unary("reciprocal", "Reciprocal", (_, y) => neg(square(y)));
const sinOperator = unary("sin", "Sin", (x) => cos(x));
const cosOperator = unary("cos", "Cos", (x) => neg(sin(x)));
const tanhOperator = unary("tanh", "Tanh", (_, y) => sub(1, square(y)));
const sigmoidOperator: Operator = {
  ...unary("sigmoid", "Sigmoid", (_, y) => mul(y, sub(1, y))),
  emit(emitter, node) {
    const [x] = node.inputs;
    if (x.dtype === "f64") emitter.alias(node.outputs[0], emitSigmoid64(emitter, emitter.name(x)));
    else emitter.node("Sigmoid", [emitter.name(x)], [emitter.output(node)]);
  },
};
/** ONNX Runtime turns x · Sigmoid(x) of any dtype into a fused node, for which it has no float64 kernel. */
export function emitSigmoid64(emitter: Emitter, x: string): string {
  const one = emitter.scalar("f64", 1);
  return emitter.value("Reciprocal", [emitter.value("Add", [one, emitter.value("Exp", [emitter.value("Neg", [x])])])]);
}
const floorOperator = unary("floor", "Floor", (x) => zerosLike(x));
const ceilOperator = unary("ceil", "Ceil", (x) => zerosLike(x));
const roundOperator = unary("round", "Round", (x) => zerosLike(x));
const squareOperator: Operator = {
  ...unary("square", "Mul", (x) => mul(x, 2)),
  emit(emitter, node) {
    const x = emitter.name(node.inputs[0]);
    emitter.node("Mul", [x, x], [emitter.output(node)]);
  },
};

export function neg(x: Tensor): Tensor {
  const value = constantValue(x);
  if (value !== undefined && x.rank === 0) return scalar(x.graph, x.dtype, -value);
  if (x.node?.operator === negOperator) return x.node.inputs[0];
  return apply1(negOperator, [x], {});
}
export const abs = (x: Tensor): Tensor => apply1(absOperator, [x], {});
export const sign = (x: Tensor): Tensor => apply1(signOperator, [x], {});
export const exp = (x: Tensor): Tensor => apply1(expOperator, [x], {});
export const log = (x: Tensor): Tensor => apply1(logOperator, [x], {});
export const sqrt = (x: Tensor): Tensor => apply1(sqrtOperator, [x], {});
export const reciprocal = (x: Tensor): Tensor => apply1(reciprocalOperator, [x], {});
export const rsqrt = (x: Tensor): Tensor => reciprocal(sqrt(x));
export const square = (x: Tensor): Tensor => apply1(squareOperator, [x], {});
export const sin = (x: Tensor): Tensor => apply1(sinOperator, [x], {});
export const cos = (x: Tensor): Tensor => apply1(cosOperator, [x], {});
export const tanh = (x: Tensor): Tensor => apply1(tanhOperator, [x], {});
export const sigmoid = (x: Tensor): Tensor => apply1(sigmoidOperator, [x], {});
export const floor = (x: Tensor): Tensor => apply1(floorOperator, [x], {});
export const ceil = (x: Tensor): Tensor => apply1(ceilOperator, [x], {});
/** To the nearest integer, halves to even. */
export const round = (x: Tensor): Tensor => apply1(roundOperator, [x], {});

const erfOperator: Operator = {
  ...unary("erf", "Erf", (x) => mul(exp(neg(square(x))), 2 / Math.sqrt(Math.PI))),
  emit(emitter, node) {
    const x = emitter.name(node.inputs[0]);
    if (node.outputs[0].dtype !== "f64") return emitter.node("Erf", [x], [emitter.output(node)]);
    emitter.alias(node.outputs[0], emitErf64(emitter, x));
  },
};
/** The error function. */
export const erf = (x: Tensor): Tensor => apply1(erfOperator, [x], {});

/**
 * ONNX Runtime has no float64 kernel for Erf. Near 0 the Maclaurin series, further out the continued fraction of erfc
 * (Abramowitz & Stegun 7.1.5 and 7.1.14); absolute error below 1e-14.
 */
export function emitErf64(emitter: Emitter, x: string): string {
  const number = (value: number): string => emitter.scalar("f64", value);
  const op = (type: string, ...inputs: string[]): string => emitter.value(type, inputs);
  const magnitude = op("Abs", x);
  const near = op("Min", magnitude, number(2.5));
  const near2 = op("Mul", near, near);
  // erf(a) = 2/sqrt(pi) exp(-a^2) sum_n 2^n a^(2n+1) / (2n+1)!!: all terms positive, no cancellation. Horner from the last term.
  let series = number(1);
  for (let n = 60; n >= 1; n--) series = op("Add", number(1), op("Mul", op("Mul", near2, number(2 / (2 * n + 1))), series));
  const small = op("Mul", op("Mul", op("Mul", number(2 / Math.sqrt(Math.PI)), op("Exp", op("Neg", near2))), near), series);
  const far = op("Max", magnitude, number(2.5));
  let fraction = far;
  for (let n = 60; n >= 1; n--) fraction = op("Add", far, op("Div", number(n / 2), fraction));
  const large = op("Sub", number(1), op("Div", op("Exp", op("Neg", op("Mul", far, far))), op("Mul", number(Math.sqrt(Math.PI)), fraction)));
  const positive = op("Where", op("Less", magnitude, number(2.5)), small, large);
  return op("Mul", op("Sign", x), positive);
}

// ---- comparisons, logic, selection

function comparison(name: string, onnx: string, output: DType = "bool"): Operator {
  return {
    name,
    infer: (inputs) => {
      sameDType(name, inputs);
      return [{ dtype: output, shape: broadcastShapes(name, inputs[0].shape, inputs[1].shape) }];
    },
    emit: (emitter, node) => emitter.node(onnx, emitter.names(node.inputs), [emitter.output(node)]),
  };
}

const equalOperator = comparison("equal", "Equal");
const lessOperator = comparison("less", "Less");
const lessEqualOperator = comparison("lessEqual", "LessOrEqual");
const greaterOperator = comparison("greater", "Greater");
const greaterEqualOperator = comparison("greaterEqual", "GreaterOrEqual");
const andOperator = comparison("logicalAnd", "And");
const orOperator = comparison("logicalOr", "Or");
const notOperator: Operator = {
  name: "logicalNot",
  infer: ([x]) => [{ dtype: "bool", shape: x.shape }],
  emit: (emitter, node) => emitter.node("Not", [emitter.name(node.inputs[0])], [emitter.output(node)]),
};
const isNanOperator: Operator = {
  ...notOperator,
  name: "isNan",
  emit: (emitter, node) => emitter.node("IsNaN", [emitter.name(node.inputs[0])], [emitter.output(node)]),
};

export const equal = (a: Operand, b: Operand): Tensor => apply1(equalOperator, operands("equal", a, b), {});
export const notEqual = (a: Operand, b: Operand): Tensor => logicalNot(equal(a, b));
export const less = (a: Operand, b: Operand): Tensor => apply1(lessOperator, operands("less", a, b), {});
export const lessEqual = (a: Operand, b: Operand): Tensor => apply1(lessEqualOperator, operands("lessEqual", a, b), {});
export const greater = (a: Operand, b: Operand): Tensor => apply1(greaterOperator, operands("greater", a, b), {});
export const greaterEqual = (a: Operand, b: Operand): Tensor => apply1(greaterEqualOperator, operands("greaterEqual", a, b), {});
export const logicalAnd = (a: Tensor, b: Tensor): Tensor => apply1(andOperator, [a, b], {});
export const logicalOr = (a: Tensor, b: Tensor): Tensor => apply1(orOperator, [a, b], {});
export const logicalNot = (x: Tensor): Tensor => apply1(notOperator, [x], {});
export const isNan = (x: Tensor): Tensor => apply1(isNanOperator, [x], {});
/** True where x is neither infinite nor NaN. */
export const finite = (x: Tensor): Tensor => less(abs(sub(x, x)), 1);

const whereOperator: Operator = {
  name: "where",
  infer([condition, a, b]) {
    if (condition.dtype !== "bool") throw new ShapeError(`where: expected a bool condition, got ${condition}`);
    return [
      { dtype: sameDType("where", [a, b]), shape: broadcastShapes("where", condition.shape, broadcastShapes("where", a.shape, b.shape)) },
    ];
  },
  vjp: ({ inputs: [condition, a, b], cotangents: [g], needs }) => [
    undefined,
    needs[1] ? unbroadcast(where(condition, required(g), 0), a) : undefined,
    needs[2] ? unbroadcast(where(condition, 0, required(g)), b) : undefined,
  ],
  emit: (emitter, node) => emitter.node("Where", emitter.names(node.inputs), [emitter.output(node)]),
};

/** `a` where the condition holds, else `b`. */
export const where = (condition: Tensor, a: Operand, b: Operand): Tensor =>
  apply1(whereOperator, [condition, ...operands("where", a, b)], {});

const castOperator: Operator<{ dtype: DType }> = {
  name: "cast",
  infer: ([x], { dtype }) => [{ dtype, shape: x.shape }],
  vjp: ({ inputs: [x], cotangents: [g] }) => [isFloat(x.dtype) ? cast(required(g), x.dtype) : undefined],
  emit: (emitter, node) =>
    emitter.node("Cast", [emitter.name(node.inputs[0])], [emitter.output(node)], { to: onnxType[node.attributes.dtype] }),
};
/** The same values in another dtype (float to integer truncates). */
export const cast = (x: Tensor, dtype: DType): Tensor => (x.dtype === dtype ? x : apply1(castOperator, [x], { dtype }));
