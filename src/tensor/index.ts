// Symbolic tensors, operators and derivatives: what a model or a loss is written with; and what an operator of one's own needs
// (apply1, Operator, Emitter and the shape rules).
export {
  atanh,
  elu,
  eluPlusOne,
  gelu,
  huber,
  leakyRelu,
  logSigmoid,
  quickGelu,
  relu,
  silu,
  softCap,
  softplus,
  squaredRelu,
} from "./activation.ts";
export { groupQueryAttention, quantisedLinear, rotary, scaledDotProductAttention, writeRows } from "./attention.ts";
export { broadcastTo, constant, full, onesLike, reshape, scalar, stopGradient, sum, unbroadcast, zerosLike } from "./core.ts";
export type { DType, TypedArray } from "./dtype.ts";
export {
  abs,
  add,
  cast,
  ceil,
  clamp,
  cos,
  div,
  equal,
  erf,
  exp,
  finite,
  floor,
  greater,
  greaterEqual,
  isNan,
  less,
  lessEqual,
  log,
  logicalAnd,
  logicalNot,
  logicalOr,
  maximum,
  minimum,
  mul,
  neg,
  notEqual,
  type Operand,
  pow,
  reciprocal,
  round,
  rsqrt,
  sigmoid,
  sign,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  where,
} from "./elementwise.ts";
export { embedding, gather, gatherElements, iota, oneHot, scatterElementsAdd } from "./gather.ts";
export { gradients, jvp, vjp } from "./gradient.ts";
export {
  type Attributes,
  apply,
  apply1,
  broadcastShapes,
  type Dim,
  type Graph,
  type Node,
  normalizeAxis,
  type Operator,
  required,
  type Shape,
  sameDType,
  scope,
  staticShape,
  Tensor,
  type TensorType,
  type VjpContext,
} from "./graph.ts";
export { crossEntropy, labelLogProbs, smoothedCrossEntropy } from "./loss.ts";
export { einsum, linear, matmul } from "./matmul.ts";
export { entropyFromLogits, l2Normalize, layerNorm, logSoftmax, rmsNorm, softmax } from "./norm.ts";
export { contrib, type Emitter, float, type OnnxAttribute } from "./onnx.ts";
export { quantisedEmbedding } from "./quantised-embedding.ts";
export { argmax, cumsum, logSumExp, max, mean, min, topK, variance } from "./reduce.ts";
export { concat, expandDims, pad, slice, split, squeeze, stack, transpose } from "./shape.ts";
export { flatten, type MapTree, mapTree, type Tree, unflatten } from "./tree.ts";
