// Softmax and the normalisations. The fused ONNX kernels hand over their row statistics, which the derivatives use instead of recomputing them.
import { ShapeError } from "../base/errors.ts";
import { broadcastTo, sum, unbroadcast } from "./core.ts";
import { add, exp, mul, neg, pow, sub } from "./elementwise.ts";
import { apply, apply1, type Body, type Node, normalizeAxis, type Operator, required, sameDType, type Tensor } from "./graph.ts";
import { type Emitter, float } from "./onnx.ts";
import { mean } from "./reduce.ts";
import { inRowBlocks } from "./row-blocks.ts";

const softmaxOperator: Operator<{ axis: number }> = {
  name: "softmax",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  vjp({ outputs: [y], attributes: { axis }, cotangents: [g] }) {
    const gy = mul(required(g), y);
    return [sub(gy, mul(y, sum(gy, { axes: axis, keepDims: true })))];
  },
  emit: (emitter, node) => emitter.node("Softmax", [emitter.name(node.inputs[0])], [emitter.output(node)], { axis: node.attributes.axis }),
};

const logSoftmaxOperator: Operator<{ axis: number }> = {
  name: "logSoftmax",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  vjp: ({ outputs: [y], attributes: { axis }, cotangents: [g] }) => [
    sub(required(g), mul(exp(y), sum(required(g), { axes: axis, keepDims: true }))),
  ],
  emit: (emitter, node) =>
    emitter.node("LogSoftmax", [emitter.name(node.inputs[0])], [emitter.output(node)], { axis: node.attributes.axis }),
};

/** exp(x) / Σ exp(x) along `axis` (default the last), without overflow. */
export const softmax = (x: Tensor, axis = -1): Tensor => apply1(softmaxOperator, [x], { axis: normalizeAxis("softmax", axis, x.rank) });
/** log softmax along `axis` (default the last), without overflow. */
export const logSoftmax = (x: Tensor, axis = -1): Tensor =>
  apply1(logSoftmaxOperator, [x], { axis: normalizeAxis("logSoftmax", axis, x.rank) });

function checkScale(operator: string, x: Tensor, parameters: readonly Tensor[]): void {
  sameDType(operator, [x, ...parameters]);
  for (const parameter of parameters) {
    if (x.rank < 1 || parameter.rank !== 1 || parameter.shape[0] !== x.shape.at(-1)) {
      throw new ShapeError(
        `${operator}: expected scale and bias of the size of the last axis of ${x}, got ${parameters.map(String).join(" and ")}`,
      );
    }
  }
}

/** Derivative of a row's 1/√(statistic + ε) with cotangent g: −r³/n · g · deviation. */
const throughScale = (rstd: Tensor, g: Tensor, deviation: Tensor): Tensor =>
  mul(mul(mul(pow(rstd, 3), g), -1 / (deviation.shape.at(-1) as number)), deviation);

// Outputs: normalised and scaled rows, row mean [..., 1], row 1/√(variance + ε) [..., 1].
const layerNormOperator: Operator<{ epsilon: number }> = {
  name: "layerNorm",
  infer([x, scale, ...bias]) {
    checkScale("layerNorm", x, [scale, ...bias]);
    const row = { dtype: x.dtype, shape: [...x.shape.slice(0, -1), 1] };
    return [{ dtype: x.dtype, shape: x.shape }, row, row];
  },
  vjp({ inputs: [x, scale, bias], outputs: [, rowMean, rstd], cotangents: [g, gMean, gRstd], needs }) {
    const [through, dScale] = g
      ? overRows([x, rowMean, rstd, g], scale, (x, rowMean, rstd, g, scale) => {
          const normalised = mul(sub(x, rowMean), rstd);
          const gw = mul(g, scale);
          const centred = sub(gw, mean(gw, { axes: -1, keepDims: true }));
          const dx = mul(sub(centred, mul(normalised, mean(mul(gw, normalised), { axes: -1, keepDims: true }))), rstd);
          return needs[1] ? [dx, mul(g, normalised)] : [dx];
        })
      : [];
    // The statistics have cotangents only when a derivative is differentiated again.
    let dx = through;
    if (gMean) dx = sumOf(dx, broadcastTo(mul(gMean, 1 / (x.shape.at(-1) as number)), x.shape));
    if (gRstd) dx = sumOf(dx, throughScale(rstd, gRstd, sub(x, rowMean)));
    return [dx, dScale && unbroadcast(dScale, scale), bias && g && needs[2] ? unbroadcast(g, bias) : undefined];
  },
  emit(emitter, node) {
    const [x, scale, bias] = node.inputs;
    if (x.dtype === "f64") return composeNorm(emitter, node, node.attributes.epsilon, { x, scale, bias, centre: true });
    const outputs = node.outputs.map((_, i) => emitter.output(node, i));
    emitter.node("LayerNormalization", emitter.names(node.inputs), outputs, { axis: -1, epsilon: float(node.attributes.epsilon) });
  },
};

/** Both norms in plain operators: the kernels' row statistics are float32 whatever the input. */
function composeNorm(
  emitter: Emitter,
  node: Pick<Node, "outputs">,
  epsilon: number,
  { x, scale, bias, centre }: { x: Tensor; scale: Tensor; bias?: Tensor; centre: boolean },
): void {
  const axes = emitter.ints([-1]);
  const rowMean = (value: string): string => emitter.value("ReduceMean", [value, axes], { keepdims: 1 });
  const centreOf = rowMean(emitter.name(x));
  const deviation = centre ? emitter.value("Sub", [emitter.name(x), centreOf]) : emitter.name(x);
  const spread = emitter.value("Add", [rowMean(emitter.value("Mul", [deviation, deviation])), emitter.scalar(x.dtype, epsilon)]);
  const rstd = emitter.value("Reciprocal", [emitter.value("Sqrt", [spread])]);
  const scaled = emitter.value("Mul", [emitter.value("Mul", [deviation, rstd]), emitter.name(scale)]);
  const values = [bias ? emitter.value("Add", [scaled, emitter.name(bias)]) : scaled, ...(centre ? [centreOf] : []), rstd];
  for (const [i, value] of values.entries()) emitter.alias(node.outputs[i], value);
}

/** The passes of a derivative, over blocks of rows where there are rows. */
const overRows = (rows: readonly Tensor[], scale: Tensor, passes: Body): Tensor[] =>
  rows[0].rank < 2 ? passes(...rows, scale) : inRowBlocks(rows, [scale], passes);

const sumOf = (a: Tensor | undefined, b: Tensor): Tensor => (a ? add(a, b) : b);

/** (x − mean) / √(variance + ε) · scale + bias over the last axis (Ba et al. 2016). `epsilon` defaults to 1e-5. */
export function layerNorm(x: Tensor, scale: Tensor, bias?: Tensor, { epsilon = 1e-5 }: { epsilon?: number } = {}): Tensor {
  return apply(layerNormOperator, bias ? [x, scale, bias] : [x, scale], { epsilon })[0];
}

// Outputs: scaled rows, row 1/√(mean square + ε) [..., 1].
const rmsNormOperator: Operator<{ epsilon: number }> = {
  name: "rmsNorm",
  infer([x, scale]) {
    checkScale("rmsNorm", x, [scale]);
    return [
      { dtype: x.dtype, shape: x.shape },
      { dtype: x.dtype, shape: [...x.shape.slice(0, -1), 1] },
    ];
  },
  vjp({ inputs: [x, scale], outputs: [, rstd], cotangents: [g, gRstd], needs }) {
    const [through, dScale] = g
      ? overRows([x, rstd, g], scale, (x, rstd, g, scale) => {
          const normalised = mul(x, rstd);
          const gw = mul(g, scale);
          const dx = mul(sub(gw, mul(normalised, mean(mul(gw, normalised), { axes: -1, keepDims: true }))), rstd);
          return needs[1] ? [dx, mul(g, normalised)] : [dx];
        })
      : [];
    return [gRstd ? sumOf(through, throughScale(rstd, gRstd, x)) : through, dScale && unbroadcast(dScale, scale)];
  },
  emit(emitter, node) {
    const [x, scale] = node.inputs;
    if (x.dtype === "f64") return composeNorm(emitter, node, node.attributes.epsilon, { x, scale, centre: false });
    const outputs = node.outputs.map((_, i) => emitter.output(node, i));
    emitter.node("SimplifiedLayerNormalization", emitter.names(node.inputs), outputs, {
      axis: -1,
      epsilon: float(node.attributes.epsilon),
    });
  },
};

/** x / √(mean(x²) + ε) · scale over the last axis (Zhang & Sennrich 2019). `epsilon` defaults to 1e-6. */
export function rmsNorm(x: Tensor, scale: Tensor, { epsilon = 1e-6 }: { epsilon?: number } = {}): Tensor {
  return apply(rmsNormOperator, [x, scale], { epsilon })[0];
}

/** x / √(Σ x² + ε) over `axis`: rows of unit length. */
export function l2Normalize(x: Tensor, { axis = -1, epsilon = 1e-6 }: { axis?: number; epsilon?: number } = {}): Tensor {
  return mul(x, pow(add(sum(mul(x, x), { axes: axis, keepDims: true }), epsilon), -0.5));
}

/** −Σ p log p of softmax(logits) along the last axis, in nats. */
export function entropyFromLogits(logits: Tensor): Tensor {
  const logProbs = logSoftmax(logits);
  return neg(sum(mul(exp(logProbs), logProbs), { axes: -1 }));
}
