// Rows of a table in blocks of 4 or 8 bits: the rows that are asked for are made float32, the table stays as it is. A tied output matrix in
// blocks is then in memory once, where the float32 table beside it would be four to eight times its size.
import { ShapeError } from "../base/errors.ts";
import { onnxType } from "./dtype.ts";
import { apply1, type Operator, sameShape, type Tensor } from "./graph.ts";
import { slice } from "./shape.ts";

const quantisedEmbeddingOperator: Operator<{ readonly bits: 4 | 8; readonly hasOffsets: boolean }> = {
  name: "quantisedEmbedding",
  infer([ids, packed], { bits }) {
    const [, blocks, bytes] = packed.shape as number[];
    return [{ dtype: "f32", shape: [...ids.shape, (blocks * bytes * 8) / bits] }];
  },
  emit(emitter, node) {
    const { bits, hasOffsets } = node.attributes;
    const [ids, packed] = node.inputs;
    const [, blocks, bytes] = packed.shape as number[];
    const [indices, ...table] = emitter.names(node.inputs);
    const gathered = table.map((name) => emitter.value("Gather", [name, indices], { axis: 0 }));
    // 0 keeps a dimension, which may be known only when the program runs.
    const asRows = (name: string, ...inner: number[]): string =>
      emitter.value("Reshape", [name, emitter.ints([...ids.shape.map(() => 0), ...inner])]);
    let levels = gathered[0];
    if (bits === 4) {
      const low = emitter.value("BitwiseAnd", [levels, emitter.constant("u8", [1], Uint8Array.of(0x0f))]);
      const high = emitter.value("BitShift", [levels, emitter.constant("u8", [1], Uint8Array.of(4))], { direction: "RIGHT" });
      const pairs = [low, high].map((name) => asRows(name, blocks, bytes, 1));
      levels = asRows(emitter.value("Concat", pairs, { axis: ids.rank + 2 }), blocks, bytes * 2);
    }
    const column = (name: string): string => asRows(name, blocks, 1);
    const middle = emitter.constant("f32", [1], Float32Array.of(2 ** (bits - 1)));
    const centred = emitter.value("Sub", [emitter.value("Cast", [levels], { to: onnxType.f32 }), middle]);
    let values = emitter.value("Mul", [centred, column(gathered[1])]);
    if (hasOffsets) values = emitter.value("Add", [values, column(gathered[2])]);
    emitter.node("Reshape", [values, emitter.ints([...ids.shape.map(() => 0), (blocks * bytes * 8) / bits])], [emitter.output(node)]);
  },
};

/**
 * Rows of a table for token ids [...] (i32 or i64): [..., inner], each value scale · (level − 2^(bits − 1)) + offset. No derivative.
 * - `packed` [V, blocks, bytes of a block] (u8), blocks = ⌈inner / blockSize⌉; two levels of 4 bits share a byte, the first in its low half.
 * - `scales` [V, blocks] (f32), `offsets` [V, blocks] (f32, default 0).
 * @throws ShapeError
 */
export function quantisedEmbedding(
  { packed, scales, offsets }: { packed: Tensor; scales: Tensor; offsets?: Tensor },
  ids: Tensor,
  { bits, inner }: { bits: 4 | 8; inner: number },
): Tensor {
  const [rows, blocks, bytes] = packed.shape as number[];
  const width = (blocks * bytes * 8) / bits;
  if (packed.rank !== 3 || packed.dtype !== "u8" || width < inner)
    throw new ShapeError(
      `quantisedEmbedding: expected blocks [rows, blocks, bytes] (u8) for rows of ${inner} at ${bits} bits, got ${packed}`,
    );
  for (const [name, tensor] of Object.entries({ scales, offsets })) {
    if (tensor && !sameShape(tensor.shape, [rows, blocks]))
      throw new ShapeError(`quantisedEmbedding: expected ${name} [${rows}, ${blocks}], got ${tensor}`);
  }
  const inputs = [ids, packed, scales, ...(offsets ? [offsets] : [])];
  const values = apply1(quantisedEmbeddingOperator, inputs, { bits, hasOffsets: offsets !== undefined });
  return width === inner ? values : slice(values, -1, 0, inner);
}
