// Residual sum and norm in one kernel (SkipLayerNormalization, SkipSimplifiedLayerNormalization), for inference: two passes over the
// rows and one launch less a sublayer. Where there is no such kernel (float64), the same two operators as in training.
import { ShapeError } from "../base/errors.ts";
import { add } from "../tensor/elementwise.ts";
import { apply, type Operator, sameDType, sameShape, type Tensor } from "../tensor/graph.ts";
import { layerNorm, rmsNorm } from "../tensor/norm.ts";
import { contrib, type Emitter, float } from "../tensor/onnx.ts";

interface ResidualNormAttributes {
  readonly kind: "layer" | "rms";
  readonly epsilon: number;
  readonly [key: string]: string | number;
}

const residualNormOperator: Operator<ResidualNormAttributes> = {
  name: "residualNorm",
  infer([x, delta, scale, ...bias]) {
    sameDType("residualNorm", [x, delta, scale, ...bias]);
    if (!sameShape(x.shape, delta.shape) || [scale, ...bias].some(({ rank, shape }) => rank !== 1 || shape[0] !== x.shape.at(-1))) {
      throw new ShapeError(
        `residualNorm: expected two tensors of one shape and parameters of its last axis, got ${[x, delta, scale, ...bias].map(String).join(", ")}`,
      );
    }
    return [x, x].map(({ dtype, shape }) => ({ dtype, shape }));
  },
  emit(emitter: Emitter, node) {
    const { kind, epsilon } = node.attributes;
    const [normed, total] = [emitter.output(node, 0), emitter.output(node, 1)];
    const type = kind === "layer" ? "SkipLayerNormalization" : "SkipSimplifiedLayerNormalization";
    emitter.node(type, emitter.names(node.inputs), [normed, "", "", total], { epsilon: float(epsilon) }, contrib);
  },
};

export interface ResidualNormOptions {
  kind: "layer" | "rms";
  epsilon: number;
  /** Default: fused for f32. */
  emission?: "fused" | "composed";
}

/**
 * The sum x + delta and its norm over the last axis, scaled (and shifted by `bias`, layer norm only). x and delta [..., C], scale and bias [C].
 * The fused form takes rank 2 or 3 and has no derivative.
 */
export function residualNorm(
  x: Tensor,
  delta: Tensor,
  { scale, bias }: { scale: Tensor; bias?: Tensor },
  { kind, epsilon, emission = x.dtype === "f32" && (x.rank === 2 || x.rank === 3) ? "fused" : "composed" }: ResidualNormOptions,
): { normed: Tensor; sum: Tensor } {
  if (emission === "composed") {
    const sum = add(x, delta);
    return { normed: kind === "layer" ? layerNorm(sum, scale, bias, { epsilon }) : rmsNorm(sum, scale, { epsilon }), sum };
  }
  const [normed, sum] = apply(residualNormOperator, bias ? [x, delta, scale, bias] : [x, delta, scale], { kind, epsilon });
  return { normed, sum };
}
