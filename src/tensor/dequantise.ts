// Blocks of 8 bits as a float32 matrix, computed when the program runs: a product of many rows with it is faster than MatMulNBits where the
// processor has no instruction for products of 8 bits. ONNX Runtime's kernel is quick for a scale a row, slow for a scale a block (0.5 against
// 2 ns a value), so that blocks are made rows. Inference only.
import { ShapeError } from "../base/errors.ts";
import { apply1, type Operator, sameShape, type Tensor } from "./graph.ts";
import { slice } from "./shape.ts";

/** Without a zero point levels are centred here. */
const middle = 128;

const dequantiseOperator: Operator<{ readonly hasZeros: boolean; readonly hasOffsets: boolean }> = {
  name: "dequantise",
  infer([packed]) {
    const [out, blocks, blockSize] = packed.shape as number[];
    return [{ dtype: "f32", shape: [out, blocks * blockSize] }];
  },
  emit(emitter, node) {
    const { hasZeros, hasOffsets } = node.attributes;
    const [out, blocks, blockSize] = node.inputs[0].shape as number[];
    const names = emitter.names(node.inputs);
    const column = (name: string): string => emitter.value("Reshape", [name, emitter.ints([out * blocks])]);
    const rows = emitter.value("Reshape", [names[0], emitter.ints([out * blocks, blockSize])]);
    const zeros = hasZeros
      ? column(names[2])
      : emitter.value("Expand", [emitter.constant("u8", [1], Uint8Array.of(middle)), emitter.ints([out * blocks])]);
    let values = emitter.value("DequantizeLinear", [rows, column(names[1]), zeros], { axis: 0 });
    if (hasOffsets)
      values = emitter.value("Add", [values, emitter.value("Reshape", [names.at(-1) as string, emitter.ints([out * blocks, 1])])]);
    // One Reshape: two would be fused into a new node, and ONNX Runtime computes the inputs of a node in the order in which they were made,
    // the latest first: all matrices would be ready, and in memory, before the first product.
    emitter.node("Reshape", [values, emitter.ints([out, blocks * blockSize])], [emitter.output(node)]);
  },
};

/**
 * The float32 matrix [out, inner] of 8-bit blocks: scale · (level − zero) + offset. Its memory lives as long as what reads it. No derivative.
 * - `packed` [out, blocks, blockSize] (u8), blocks = ⌈inner / blockSize⌉; what is behind `inner` is padding.
 * - `scales` [out, blocks] (f32), `zeroPoints` [out, blocks] (u8, default 128), `offsets` [out, blocks] (f32, default 0).
 *
 * The blocks must be inputs of the program, not shared weights, which ONNX Runtime would expand when the session is made. Called before what
 * it is multiplied with is made, the matrix is computed just before the product; called behind, possibly much earlier.
 * @throws ShapeError
 */
export function dequantise(
  { packed, scales, zeroPoints, offsets }: { packed: Tensor; scales: Tensor; zeroPoints?: Tensor; offsets?: Tensor },
  inner: number,
): Tensor {
  const [out, blocks, blockSize] = packed.shape as number[];
  if (packed.rank !== 3 || packed.dtype !== "u8" || Math.ceil(inner / blockSize) !== blocks)
    throw new ShapeError(`dequantise: expected blocks [out, blocks, values] (u8) for rows of ${inner}, got ${packed}`);
  for (const [name, tensor] of Object.entries({ scales, zeroPoints, offsets })) {
    if (tensor && !sameShape(tensor.shape, [out, blocks]))
      throw new ShapeError(`dequantise: expected ${name} [${out}, ${blocks}], got ${tensor}`);
  }
  const inputs = [packed, scales, zeroPoints, offsets].filter((tensor) => tensor !== undefined);
  const matrix = apply1(dequantiseOperator, inputs, { hasZeros: zeroPoints !== undefined, hasOffsets: offsets !== undefined });
  return blocks * blockSize === inner ? matrix : slice(matrix, 1, 0, inner);
}
