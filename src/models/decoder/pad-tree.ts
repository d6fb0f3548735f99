// The bias of a tree of new tokens, which is known ahead for static trees, put behind a past whose length only the step knows: one
// operator whose widths are an input, so that a step writes one number instead of a row for each node.
import { ShapeError } from "../../base/errors.ts";
import { apply1, type Dim, type Operator, type Tensor } from "../../tensor/graph.ts";

const padTreeOperator: Operator<{ value: number; size: Dim }> = {
  name: "padTree",
  infer([x, widths], { size }) {
    if (x.rank === 0 || widths.dtype !== "i64" || widths.shape[0] !== 2)
      throw new ShapeError(`padTree: expected an array and its two widths [2] (i64), got ${x} and ${widths}`);
    return [{ dtype: x.dtype, shape: [...x.shape.slice(0, -1), size] }];
  },
  emit(emitter, node) {
    const [x, widths] = node.inputs;
    const inputs = [emitter.name(x), emitter.name(widths), emitter.scalar(x.dtype, node.attributes.value), emitter.ints([-1])];
    emitter.node("Pad", inputs, [emitter.output(node)]);
  },
};

/** The last axis of `x` with `widths[0]` times `value` before and `widths[1]` times after, `size` in all. No derivative. */
export const padTree = (x: Tensor, widths: Tensor, value: number, size: Dim): Tensor =>
  apply1(padTreeOperator, [x, widths], { value, size });
