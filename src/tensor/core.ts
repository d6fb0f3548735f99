// The linear operators that every derivative rule leans on, closed under differentiation among themselves:
// constants, reshape, broadcastTo and sum (each other's transposes), stopGradient.
import { ShapeError } from "../base/errors.ts";
import { arrayOver, type DType, isFloat, type TypedArray } from "./dtype.ts";
import {
  apply1,
  broadcastShapes,
  type Dim,
  type DimProduct,
  type Graph,
  normalizeAxis,
  type Operator,
  required,
  type Shape,
  sameShape,
  type Tensor,
  type TensorType,
} from "./graph.ts";
import type { Emitter } from "./onnx.ts";

// ---- constants

const constantOperator: Operator<{ dtype: DType; shape: readonly number[]; data: TypedArray }> = {
  name: "constant",
  infer: (_, { dtype, shape }) => [{ dtype: dtype as DType, shape }],
  emit: (emitter, node) =>
    emitter.alias(node.outputs[0], emitter.constant(node.attributes.dtype, node.attributes.shape, node.attributes.data)),
};

/** Data that is part of the program. It is stored with it: keep it small (masks, tables). */
export function constant(graph: Graph, dtype: DType, shape: readonly number[], data: TypedArray): Tensor {
  const length = shape.reduce((product, dim) => product * dim, 1);
  if (data.length !== length || data.constructor !== arrayOver(dtype, new ArrayBuffer(0), 0, 0).constructor) {
    throw new ShapeError(
      `constant: expected ${length} elements of ${dtype} for [${shape.join(", ")}], got ${data.length} of ${data.constructor.name}`,
    );
  }
  return apply1(constantOperator, [], { dtype, shape: [...shape], data }, graph);
}

/** A rank-0 constant, shared within its graph. */
export function scalar(graph: Graph, dtype: DType, value: number): Tensor {
  const key = `${dtype}:${Object.is(value, -0) ? "-0" : value}`;
  let tensor = graph.constants.get(key);
  if (!tensor) {
    tensor = constant(graph, dtype, [], scalarData(dtype, value));
    graph.constants.set(key, tensor);
  }
  return tensor;
}

/** A constant of the given shape filled with one value, made at run time from a scalar. */
export function full(graph: Graph, dtype: DType, shape: Shape, value: number): Tensor {
  return broadcastTo(scalar(graph, dtype, value), shape);
}

export const zerosLike = (tensor: Tensor): Tensor => full(tensor.graph, tensor.dtype, tensor.shape, 0);
export const onesLike = (tensor: Tensor): Tensor => full(tensor.graph, tensor.dtype, tensor.shape, 1);

/** The value when `tensor` is a rank-0 constant, or one broadcast to a shape. */
export function constantValue(tensor: Tensor): number | undefined {
  let node = tensor.node;
  while (node?.operator.name === "broadcastTo") node = node.inputs[0].node;
  if (node?.operator.name !== "constant") return undefined;
  const { data, shape } = node.attributes as { data: TypedArray; shape: readonly number[] };
  return shape.length === 0 ? Number(data[0]) : undefined;
}

function scalarData(dtype: DType, value: number): TypedArray {
  if (!isFloat(dtype) && !Number.isInteger(value)) {
    throw new ShapeError(`scalar: expected an integer for ${dtype}, got ${value}`, {
      hint: "Convert the tensor to f32 with cast() first.",
    });
  }
  switch (dtype) {
    case "f32":
      return Float32Array.of(value);
    case "f64":
      return Float64Array.of(value);
    case "i32":
      return Int32Array.of(value);
    case "i64":
      return BigInt64Array.of(BigInt(value));
    case "i8":
      return Int8Array.of(value);
    case "u8":
    case "bool":
      return Uint8Array.of(value);
    default:
      throw new ShapeError(`scalar: expected f32, f64 or an integer dtype, got ${dtype}`);
  }
}

// ---- stopGradient

const stopGradientOperator: Operator = {
  name: "stopGradient",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  emit: (emitter, node) => emitter.alias(node.outputs[0], emitter.name(node.inputs[0])),
};

/** The same value, through which no derivative flows. */
export const stopGradient = (x: Tensor): Tensor => apply1(stopGradientOperator, [x], {});

// ---- reshape

const reshapeOperator: Operator<{ shape: Shape }> = {
  name: "reshape",
  // reshape() has checked it; with a chain of reshapes this input is not the one that it was checked against.
  infer: ([x], { shape }) => [{ dtype: x.dtype, shape }],
  vjp: ({ inputs: [x], cotangents: [g] }) => [reshape(required(g), x.shape)],
  emit(emitter, node) {
    const [x] = node.inputs;
    const [y] = node.outputs;
    if (sameShape(x.shape, y.shape)) emitter.alias(y, emitter.name(x));
    else {
      // Without allowzero a 0 copies the input's dimension.
      const attributes = y.shape.includes(0) ? { allowzero: 1 } : {};
      emitter.node("Reshape", [emitter.name(x), reshapeTarget(emitter, x, y.shape)], [emitter.output(node)], attributes);
    }
  },
};

/**
 * The same elements in the same order with another shape; one dimension may be −1. Symbolic dimensions may be kept, merged, and taken
 * apart again; a merged one gets a name such as `B_T`.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const resolved = resolveReshape(x, shape);
  const from = x.node?.operator.name === "reshape" ? x.node.inputs[0] : x;
  if (sameShape(x.shape, resolved)) return x;
  return sameShape(from.shape, resolved) ? from : apply1(reshapeOperator, [from], { shape: resolved });
}

function resolveReshape(x: Tensor, shape: Shape): Dim[] {
  const fail = (): never => {
    throw new ShapeError(`reshape: expected a shape with as many elements as ${x}, got [${shape.join(", ")}]`);
  };
  const { graph } = x;
  const open = shape.indexOf(-1);
  const from = productOf(graph, x.shape);
  const to = productOf(
    graph,
    shape.filter((_, i) => i !== open),
  );
  // What `from` has beyond `to`: 1 without an open dimension, else the size of that one.
  const names = [...from.names];
  for (const name of to.names) {
    const index = names.indexOf(name);
    if (index < 0) fail();
    names.splice(index, 1);
  }
  if (open < 0) {
    if (names.length > 0 || from.count !== to.count) fail();
    return [...shape];
  }
  const ratio = from.count / to.count;
  if (to.count <= 0 || (names.length === 0 && !Number.isInteger(ratio))) fail();
  return shape.map((dim, i) => (i === open ? mergedDim(graph, { count: ratio, names }) : dim));
}

/** Numbers and names of `dims`, names of products taken apart. */
function productOf(graph: Graph, dims: Shape): DimProduct {
  let count = 1;
  const names: string[] = [];
  for (const dim of dims) {
    const product = typeof dim === "number" ? { count: dim, names: [] } : (graph.products.get(dim) ?? { count: 1, names: [dim] });
    count *= product.count;
    names.push(...product.names);
  }
  return { count, names };
}

/** One dimension for a product: a number, a name, or a new name for both. */
function mergedDim(graph: Graph, product: DimProduct): Dim {
  const { count, names } = product;
  if (names.length === 0 || count === 0) return count;
  if (names.length === 1 && count === 1) return names[0];
  const name = `${names.join("_")}${count === 1 ? "" : `_${String(count).replace(".", "p")}`}`;
  graph.products.set(name, product);
  return name;
}

/** ONNX Reshape: 0 copies the dimension at the same place, −1 is inferred (once); names beyond that are read where they are known. */
function reshapeTarget(emitter: Emitter, x: Tensor, shape: Shape): string {
  const moved = shape.filter((dim, axis) => typeof dim === "string" && x.shape[axis] !== dim);
  if (moved.length > 1 || shape.includes(0)) return emitter.sizes(shape);
  return emitter.ints(shape.map((dim, axis) => (typeof dim === "number" ? dim : x.shape[axis] === dim ? 0 : -1)));
}

// ---- broadcastTo and sum, each the other's transpose

const broadcastOperator: Operator<{ shape: Shape }> = {
  name: "broadcastTo",
  infer([x], { shape: target }) {
    if (!sameShape(broadcastShapes("broadcastTo", x.shape, target), target)) {
      throw new ShapeError(`broadcastTo: expected a shape that ${x} broadcasts to, got [${target.join(", ")}]`);
    }
    return [{ dtype: x.dtype, shape: target }];
  },
  vjp: ({ inputs: [x], cotangents: [g] }) => [unbroadcast(required(g), x)],
  emit(emitter, node) {
    const [x] = node.inputs;
    const { shape } = node.outputs[0];
    // Expand broadcasts both ways: 1 leaves a dimension that the input already has.
    const target = shape.map((dim, axis) => (typeof dim === "string" && x.shape[axis - shape.length + x.rank] === dim ? 1 : dim));
    emitter.node("Expand", [emitter.name(x), emitter.sizes(target)], [emitter.output(node)]);
  },
};

/** `x` repeated along broadcast dimensions. A symbolic one must be a dimension of some tensor of the program. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : apply1(broadcastOperator, [x], { shape });
}

export interface ReduceOptions {
  /** Axes to reduce; negative ones count from the end. Default: all. */
  axes?: number | readonly number[];
  /** Keep reduced axes as size 1. Default false. */
  keepDims?: boolean;
}

export interface ReduceAttributes {
  readonly axes: readonly number[];
  readonly keepDims: boolean;
  readonly [key: string]: boolean | readonly number[];
}

export function reduceAttributes(operator: string, x: Tensor, { axes, keepDims = false }: ReduceOptions): ReduceAttributes {
  const list = axes === undefined ? x.shape.map((_, axis) => axis) : typeof axes === "number" ? [axes] : axes;
  const sorted = [...new Set(list.map((axis) => normalizeAxis(operator, axis, x.rank)))].sort((a, b) => a - b);
  return { axes: sorted, keepDims };
}

export function reducedType(x: Tensor, { axes, keepDims }: ReduceAttributes): TensorType {
  const shape = keepDims ? x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)) : x.shape.filter((_, axis) => !axes.includes(axis));
  return { dtype: x.dtype, shape };
}

/** A reduced tensor seen with its reduced axes as size 1 again. */
export function keepReduced(reduced: Tensor, x: Tensor, { axes, keepDims }: ReduceAttributes): Tensor {
  return keepDims
    ? reduced
    : reshape(
        reduced,
        x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)),
      );
}

const sumOperator: Operator<ReduceAttributes> = {
  name: "sum",
  infer: ([x], attributes) => [reducedType(x, attributes)],
  vjp: ({ inputs: [x], attributes, cotangents: [g] }) => [broadcastTo(keepReduced(required(g), x, attributes), x.shape)],
  emit(emitter, node) {
    const { axes, keepDims } = node.attributes;
    emitter.node("ReduceSum", [emitter.name(node.inputs[0]), emitter.ints(axes)], [emitter.output(node)], { keepdims: keepDims ? 1 : 0 });
  },
};

/** Sum over `axes`. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  const attributes = reduceAttributes("sum", x, options);
  return attributes.axes.length === 0 ? x : apply1(sumOperator, [x], attributes);
}

/** `cotangent` summed over the axes along which `like` was broadcast to reach it. */
export function unbroadcast(cotangent: Tensor, like: Tensor): Tensor {
  if (sameShape(cotangent.shape, like.shape)) return cotangent;
  const offset = cotangent.rank - like.rank;
  const axes = cotangent.shape.flatMap((dim, axis) => (axis < offset || (like.shape[axis - offset] === 1 && dim !== 1) ? [axis] : []));
  return reshape(sum(cotangent, { axes, keepDims: true }), like.shape);
}
