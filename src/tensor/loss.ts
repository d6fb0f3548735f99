// Cross-entropy from logits. The forward pass keeps the log-probabilities of the labels only; the derivative is softmax − one-hot.
import { ShapeError } from "../base/errors.ts";
import { full, reshape, sum } from "./core.ts";
import { exp, mul, neg, sub } from "./elementwise.ts";
import { gatherElements, scatterElementsAdd } from "./gather.ts";
import { apply1, elementCount, type Operator, required, sameShape, type Tensor } from "./graph.ts";
import { logSoftmax } from "./norm.ts";
import { inRowBlocks } from "./row-blocks.ts";

/**
 * −log softmax(logits)[label] for each row, in nats. logits [..., V], labels [...] (i32 or i64): [...].
 * A label outside [0, V) is undefined behaviour of the kernel: mask positions with a weight of 0 and a label of 0.
 */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  return neg(labelLogProbs(logits, labels));
}

/** log softmax(logits)[label] for each row. Shapes as in {@link crossEntropy}. */
export function labelLogProbs(logits: Tensor, labels: Tensor): Tensor {
  if (logits.rank !== labels.rank + 1 || !sameShape(logits.shape.slice(0, -1), labels.shape)) {
    throw new ShapeError(`labelLogProbs: expected logits [..., vocabulary] and labels [...], got ${logits} and ${labels}`);
  }
  const vocabulary = logits.shape.at(-1) as number;
  const count = elementCount(labels.shape) ?? -1;
  const picked = apply1(pickOperator, [reshape(logits, [count, vocabulary]), reshape(labels, [count, 1])], {});
  return reshape(picked, labels.shape);
}

/** [N, V], [N, 1] → [N, 1]. One operator, so that its derivative can be written with one dense pass less than that of its parts. */
const pickOperator: Operator = {
  name: "labelLogProb",
  infer: ([logits, labels]) => [{ dtype: logits.dtype, shape: labels.shape }],
  vjp({ inputs: [logits, labels], cotangents: [cotangent] }) {
    const g = required(cotangent);
    // (one-hot − softmax) · g, with the softmax taken from the log-probabilities of the forward pass (one kernel after common subexpressions).
    const [dense] = inRowBlocks([logSoftmax(logits), neg(g)], [], (logProbs, g) => [mul(exp(logProbs), g)]);
    return [scatterElementsAdd(dense, labels, g, 1), undefined];
  },
  emit(emitter, node) {
    const [logits, labels] = emitter.names(node.inputs);
    const logProbs = emitter.value("LogSoftmax", [logits], { axis: 1 });
    emitter.node("GatherElements", [logProbs, labels], [emitter.output(node)], { axis: 1 });
  },
};

/**
 * Cross-entropy with label smoothing: the target is (1 − ε) one-hot + ε / V (Szegedy et al. 2016). Shapes as in {@link crossEntropy}.
 */
export function smoothedCrossEntropy(logits: Tensor, labels: Tensor, smoothing: number): Tensor {
  if (smoothing === 0) return crossEntropy(logits, labels);
  const logProbs = logSoftmax(logits);
  const vocabulary = logits.shape.at(-1) as number;
  const target = reshape(gatherElements(logProbs, reshape(labels, [...labels.shape, 1]), -1), labels.shape);
  const uniform = full(logits.graph, logits.dtype, [vocabulary], smoothing / vocabulary);
  const spread = mul(logProbs, uniform);
  return sub(mul(target, smoothing - 1), sum(spread, { axes: -1 }));
}
