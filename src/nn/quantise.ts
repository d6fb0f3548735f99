// Float32 rows to blocks of 4 or 8 bits with a scale each, in the layout of ONNX Runtime's MatMulNBits: w = scale · (q − zero), the
// first value of a byte in its low nibble. Symmetric 4-bit blocks map their value of largest magnitude to q = 0, so that all sixteen levels
// are used (as GGUF's Q4_0 does).
import { NotFiniteError, ShapeError, UsageError } from "../base/errors.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import { blockFormat, type QuantisedWeight } from "./linear.ts";

export interface PackOptions {
  /** Values that share a scale: a power of two, at least 16. Default 32. */
  blockSize?: number;
  /** Blocks without zero points, around 0. Default true. */
  symmetric?: boolean;
  /** Name of the matrix, for errors. Default "matrix". */
  name?: string;
}

/** A float32 stack [E, out, in] in symmetric 8-bit blocks: packed [E, out, in], scales [E, out, blocks]. @throws as {@link packQ8} */
export function packStackQ8(
  stack: TensorBuffer,
  { blockSize = 32, name }: Omit<PackOptions, "symmetric"> = {},
): QuantisedWeight<TensorBuffer> {
  const [count, out, inner] = stack.shape;
  if (stack.shape.length !== 3 || inner % blockSize !== 0)
    throw new ShapeError(
      `quantise: expected a stack [E, out, in] with rows of whole blocks of ${blockSize}, got [${stack.shape.join(", ")}]`,
    );
  const { packed, scales } = packQ8(viewOf(stack, [count * out, inner]), { blockSize, name });
  return { packed: viewOf(packed, [count, out, inner]), scales: viewOf(scales, [count, out, inner / blockSize]) };
}

/** A float32 matrix [out, in] in 4-bit blocks. @throws ShapeError, UsageError; NotFiniteError for a matrix with NaN or infinities */
export const packQ4 = (matrix: TensorBuffer, options: PackOptions = {}): QuantisedWeight<TensorBuffer> => pack(matrix, 4, options);

/** A float32 matrix [out, in] in 8-bit blocks. @throws ShapeError, UsageError; NotFiniteError for a matrix with NaN or infinities */
export const packQ8 = (matrix: TensorBuffer, options: PackOptions = {}): QuantisedWeight<TensorBuffer> => pack(matrix, 8, options);

function pack(
  matrix: TensorBuffer,
  bits: 4 | 8,
  { blockSize = 32, symmetric = true, name = "matrix" }: PackOptions,
): QuantisedWeight<TensorBuffer> {
  const { data, dtype, shape } = matrix;
  if (dtype !== "f32" || shape.length !== 2)
    throw new ShapeError(`quantise: expected a float32 matrix [out, in], got ${dtype}[${shape.join(", ")}]`);
  if (!(Number.isInteger(Math.log2(blockSize)) && blockSize >= 16))
    throw new UsageError(`blockSize: expected a power of two of at least 16, got ${blockSize}`, { hint: "32 is the usual size." });
  const [rows, inner] = shape;
  const blocks = Math.ceil(inner / blockSize);
  const bytes = (blockSize * bits) / 8;
  if (inner === 0 || blockFormat(inner, [rows, blocks, bytes]).bits !== bits) {
    throw new ShapeError(`quantise: expected rows longer than half a block of ${blockSize}, got [${shape.join(", ")}]`, {
      hint: "Use a smaller block size.",
    });
  }
  const packed = allocate("u8", [rows, blocks, bytes]);
  const scales = allocate("f32", [rows, blocks]);
  const zeroPoints = symmetric ? undefined : allocate("u8", [rows, Math.ceil((blocks * bits) / 8)]);
  const levels = new Uint8Array(blockSize);
  const source = data as Float32Array;
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const start = row * inner + block * blockSize;
      const values = source.subarray(start, Math.min(start + blockSize, (row + 1) * inner));
      const { scale, zero } = symmetric ? symmetricScale(values, bits) : asymmetricScale(values, bits);
      if (!allFinite(values)) {
        throw new NotFiniteError(`quantise: expected finite weights in ${name}, got a value in row ${row} that is not`, {
          hint: "The checkpoint is damaged, or training diverged: use an earlier one.",
        });
      }
      const at = row * blocks + block;
      scales.data[at] = scale;
      if (zeroPoints) write(zeroPoints.data, row * zeroPoints.shape[1], block, zero, bits);
      quantiseBlock(values, levels, scale, zero, 2 ** bits - 1);
      const target = at * bytes;
      if (bits === 8) packed.data.set(levels, target);
      else for (let i = 0; i < bytes; i++) packed.data[target + i] = levels[2 * i] | (levels[2 * i + 1] << 4);
    }
  }
  return { packed, scales, ...(zeroPoints ? { zeroPoints } : {}) };
}

/** A sum of products with 0 is NaN where one of them is. */
function allFinite(values: Float32Array): boolean {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] * 0;
  return total === 0;
}

interface Scale {
  /** As stored: rounded to float32. */
  scale: number;
  zero: number;
}

function symmetricScale(values: Float32Array, bits: 4 | 8): Scale {
  let extreme = 0;
  for (let i = 0; i < values.length; i++) if (Math.abs(values[i]) > Math.abs(extreme)) extreme = values[i];
  // 8 bits: 255 levels around 0 are enough, and the sign of the scale stays positive.
  return bits === 4 ? { scale: Math.fround(extreme / -8), zero: 8 } : { scale: Math.fround(Math.abs(extreme) / 127), zero: 128 };
}

function asymmetricScale(values: Float32Array, bits: 4 | 8): Scale {
  // 0 is representable: padding and pruned weights stay exact.
  let [low, high] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    else if (values[i] > high) high = values[i];
  }
  const scale = Math.fround((high - low) / (2 ** bits - 1));
  return { scale, zero: scale === 0 ? 0 : Math.round(-low / scale) };
}

/** Nearest levels; what lies beyond the values is padding, which stands for 0. */
function quantiseBlock(values: Float32Array, levels: Uint8Array, scale: number, zero: number, top: number): void {
  // The block of a subnormal scale is as good as zero.
  const inverse = scale === 0 ? 0 : 1 / scale;
  const factor = Number.isFinite(inverse) ? inverse : 0;
  levels.fill(zero);
  for (let i = 0; i < values.length; i++) {
    const level = Math.floor(values[i] * factor + zero + 0.5);
    levels[i] = level < 0 ? 0 : Math.min(level, top);
  }
}

/** Element `index` of a row of packed 4-bit or 8-bit values that starts at byte `start`. */
function write(target: Uint8Array, start: number, index: number, value: number, bits: 4 | 8): void {
  if (bits === 8) target[start + index] = value;
  else target[start + (index >> 1)] |= value << (4 * (index & 1));
}

const read = (source: Uint8Array, start: number, index: number, bits: 4 | 8): number =>
  bits === 8 ? source[start + index] : (source[start + (index >> 1)] >> (4 * (index & 1))) & 15;

/** The float32 matrix [out, inner] that quantised blocks stand for. */
export function unpack({ packed, scales, zeroPoints, offsets }: QuantisedWeight<TensorBuffer>, inner: number): TensorBuffer<"f32"> {
  const { bits, blockSize } = blockFormat(inner, packed.shape);
  const [rows, blocks, bytes] = packed.shape;
  const matrix = allocate("f32", [rows, inner]);
  const [levels, factors, zeros] = [packed.data as Uint8Array, scales.data as Float32Array, zeroPoints?.data as Uint8Array | undefined];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < inner; column++) {
      const block = Math.floor(column / blockSize);
      const at = row * blocks + block;
      const zero = zeros ? read(zeros, row * (zeroPoints as TensorBuffer).shape[1], block, bits) : 2 ** (bits - 1);
      const product = factors[at] * (read(levels, at * bytes, column % blockSize, bits) - zero);
      matrix.data[row * inner + column] = offsets ? product + (offsets.data as Float32Array)[at] : product;
    }
  }
  return matrix;
}
