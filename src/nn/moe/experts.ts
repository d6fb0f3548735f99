// A layer of gated experts: every token goes through those that its router chose. Three emissions of one function: `grouped` sorts tokens
// by expert and computes what is needed, with a derivative (training); `fused` is ONNX Runtime's MoE kernel, which reads the chosen
// experts' rows alone (inference); `dense` computes all experts for all tokens (whatever else).
// Letters: N tokens, E experts, K chosen ones, P = N · K, C width, M inner width of an expert.
import { ShapeError } from "../../base/errors.ts";
import { broadcastTo, reshape, sum, zerosLike } from "../../tensor/core.ts";
import { greater, log, mul, where } from "../../tensor/elementwise.ts";
import { scatterElementsAdd } from "../../tensor/gather.ts";
import { apply1, type Operator, type Tensor } from "../../tensor/graph.ts";
import { groupedLinear, permuteRows } from "../../tensor/grouped-linear.ts";
import { matmul } from "../../tensor/matmul.ts";
import { contrib, float } from "../../tensor/onnx.ts";
import { expandDims, split, transpose } from "../../tensor/shape.ts";
import { isQuantised, type LinearWeight, type QuantisedWeight } from "../linear.ts";
import { dispatch, type Routing } from "./router.ts";

export type ExpertsEmission = "grouped" | "fused" | "dense";

/**
 * Matrices of all experts in one: up [E, 2M, C], whose rows of gate and up alternate, gate first; down [E, C, M]. Quantised ones are
 * in blocks of 8 bits, packed [E, out, in] and scales [E, out, blocks], for the fused kernel alone.
 */
export interface ExpertWeights {
  up: LinearWeight<Tensor>;
  down: LinearWeight<Tensor>;
}

export interface ExpertsOptions {
  /** Of the gate. Default: SiLU, the only one that the fused kernel has. */
  activate: (x: Tensor) => Tensor;
  /** Default grouped, which needs a fixed number of tokens. */
  emission?: ExpertsEmission;
}

/** Σ over the chosen experts of weight · down(activate(gate x) · up x): x [N, C] → [N, C]. `fused` has no derivative. */
export function expertLayer(
  x_NC: Tensor,
  weights: ExpertWeights,
  routing: Routing,
  { activate, emission = "grouped" }: ExpertsOptions,
): Tensor {
  const { up, down } = weights;
  if (isQuantised(up) || isQuantised(down)) {
    if (!isQuantised(up) || !isQuantised(down) || emission !== "fused")
      throw new ShapeError("expertLayer: expected both matrices quantised, for the fused kernel, or neither");
    return fusedQuantised(x_NC, up, down, routing);
  }
  if (up.rank !== 3 || down.rank !== 3 || up.shape[1] !== 2 * (down.shape[2] as number) || up.shape[2] !== x_NC.shape[1])
    throw new ShapeError(`expertLayer: expected up [E, 2M, C] and down [E, C, M] for rows [N, C], got ${up}, ${down} and ${x_NC}`);
  if (emission === "fused") return fused(x_NC, up, down, routing);
  return (emission === "dense" ? dense : grouped)(x_NC, up, down, routing, activate);
}

/** activate(gate) · up of alternating features [..., 2M] → [..., M]. */
function gate(features: Tensor, activate: (x: Tensor) => Tensor): Tensor {
  const half = (features.shape.at(-1) as number) / 2;
  const leading = features.shape.slice(0, -1);
  const [gates, values] = split(reshape(features, [...leading, half, 2]), [1, 1]).map((part) => reshape(part, [...leading, half]));
  return mul(activate(gates), values);
}

function grouped(x_NC: Tensor, up: Tensor, down: Tensor, { chosen, weights }: Routing, activate: (x: Tensor) => Tensor): Tensor {
  const [tokens, count] = chosen.shape as number[];
  const width = x_NC.shape[1] as number;
  if (typeof tokens !== "number") throw new ShapeError(`expertLayer: expected a fixed number of tokens to be sorted, got ${x_NC}`);
  const { order, inverse, ends } = dispatch(chosen, up.shape[0] as number);
  const pairs = reshape(broadcastTo(expandDims(x_NC, 1), [tokens, count, width]), [tokens * count, width]);
  const inner = gate(groupedLinear(permuteRows(pairs, order, inverse), up, ends), activate);
  const rows = permuteRows(groupedLinear(inner, down, ends), inverse, order);
  return sum(mul(reshape(rows, [tokens, count, width]), expandDims(weights, 2)), { axes: 1 });
}

function dense(x_NC: Tensor, up: Tensor, down: Tensor, routing: Routing, activate: (x: Tensor) => Tensor): Tensor {
  const inner_ENM = gate(matmul(expandDims(x_NC, 0), up, { transposeB: true }), activate);
  const all_ENC = matmul(inner_ENM, down, { transposeB: true });
  return sum(mul(all_ENC, expandDims(transpose(spread(routing)), 2)), { axes: 0 });
}

/** Weights of all experts [N, E], 0 for those that were not chosen. */
const spread = ({ chosen, weights, scores }: Routing): Tensor => scatterElementsAdd(zerosLike(scores), chosen, weights);

const fusedOperator: Operator<{ k: number; blockSize: number }> = {
  name: "experts",
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  emit(emitter, node) {
    const { k, blockSize } = node.attributes;
    const [x, logits, ...weights] = emitter.names(node.inputs);
    const quantised = blockSize > 0;
    const attributes = {
      k,
      ...(quantised ? { expert_weight_bits: 8, block_size: blockSize } : {}),
      activation_type: "swiglu",
      swiglu_fusion: 1,
      activation_alpha: float(1),
      activation_beta: float(0),
      normalize_routing_weights: 1,
    };
    const inputs = quantised ? [...weights.slice(0, 2), "", ...weights.slice(2), ""] : [weights[0], "", weights[1], ""];
    emitter.node(quantised ? "QMoE" : "MoE", [x, logits, ...inputs], [emitter.output(node)], attributes, contrib);
  },
};

/** The kernel takes logits and weighs by a softmax over the largest: their logarithms give it any weights, up to their sum. */
function weighted(x_NC: Tensor, weights: readonly Tensor[], routing: Routing, blockSize: number): Tensor {
  const all = spread(routing);
  const logits = where(greater(all, 0), log(all), -1e30);
  const mixed = apply1(fusedOperator, [x_NC, logits, ...weights], { k: routing.chosen.shape[1] as number, blockSize });
  return mul(mixed, sum(routing.weights, { axes: -1, keepDims: true }));
}

const fused = (x_NC: Tensor, up: Tensor, down: Tensor, routing: Routing): Tensor => weighted(x_NC, [up, down], routing, 0);

function fusedQuantised(x_NC: Tensor, up: QuantisedWeight<Tensor>, down: QuantisedWeight<Tensor>, routing: Routing): Tensor {
  const [inner, blocks] = [up.packed, up.scales].map(({ shape }) => shape[2] as number);
  return weighted(x_NC, [up.packed, up.scales, down.packed, down.scales], routing, inner / blocks);
}
