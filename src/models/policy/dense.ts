// A dense layer for small networks on one thread. The same function as `linear`, emitted otherwise: the bias goes into the product, and
// its derivative is a product with ones, both faster at these sizes than passes of their own.
import { ShapeError } from "../../base/errors.ts";
import { full, reshape } from "../../tensor/core.ts";
import { apply1, type Operator, required, sameDType, type Tensor } from "../../tensor/graph.ts";
import { matmul } from "../../tensor/matmul.ts";

const denseOperator: Operator = {
  name: "dense",
  infer([x, weight, bias]) {
    if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1] || bias.shape[0] !== weight.shape[0])
      throw new ShapeError(`dense: expected [rows, in], [out, in] and [out], got ${x}, ${weight} and ${bias}`);
    return [{ dtype: sameDType("dense", [x, weight, bias]), shape: [x.shape[0], weight.shape[0]] }];
  },
  vjp({ inputs: [x, weight, bias], cotangents: [cotangent], needs }) {
    const g = required(cotangent);
    const ones = full(g.graph, g.dtype, [1, g.shape[0]], 1);
    return [
      needs[0] ? matmul(g, weight) : undefined,
      needs[1] ? matmul(g, x, { transposeA: true }) : undefined,
      needs[2] ? reshape(matmul(ones, g), bias.shape) : undefined,
    ];
  },
  emit: (emitter, node) => emitter.node("Gemm", emitter.names(node.inputs), [emitter.output(node)], { transB: 1 }),
};

/** x Wᵀ + b: [rows, in], [out, in], [out] → [rows, out]. */
export const dense = (x: Tensor, weight: Tensor, bias: Tensor): Tensor => apply1(denseOperator, [x, weight, bias], {});
