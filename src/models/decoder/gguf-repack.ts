// Quantised rows of a GGUF tensor to the blocks of ONNX Runtime's MatMulNBits, without rounding a single level: levels that fit into
// 4 bits stay 4 bits, others take 8. Types with a minimum (Q4_1, Q4_K …) keep it as an offset of each block; levels are centred, so the
// offset is minimum + centre * scale, rounded once to float32. Everything else is exact.
import { FormatError, invariant } from "../../base/errors.ts";
import type { GgufSource } from "../../formats/gguf.ts";
import { type BlockFormat, blockFormats } from "../../formats/gguf-blocks.ts";
import { inputBytes, kernels, repackedTypes } from "../../formats/kernels/kernels.ts";
import type { QuantisedWeight } from "../../nn/linear.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";

/** How a type's blocks are laid out when they are repacked. */
export interface RepackedFormat {
  readonly bits: 4 | 8;
  readonly blockSize: 16 | 32;
  readonly hasOffsets: boolean;
}

/** Rows of one tensor, placed in a matrix that may be made of several. */
export interface RowSource {
  /** Name in the GGUF file. */
  readonly name: string;
  /** First row there (of a stack of matrices, counted through). */
  readonly firstRow: number;
  readonly rows: number;
  /** The row of the target, counted from the start of this source's rows, that a stored row becomes. Default: the same. */
  readonly rowOf?: (row: number) => number;
}

/** Rows that are decoded at a time, level by level. */
const rowsAtOnce = 64;

/** The tightest common layout of tensors of these types, or undefined when one of them is not quantised or not readable. */
export function repackedFormat(types: readonly string[]): RepackedFormat | undefined {
  const formats = types.map((type) => blockFormats[type]);
  if (formats.length === 0 || formats.some((format) => format === undefined)) return undefined;
  const fits4 = ({ low, high, hasOffsets }: BlockFormat): boolean => (hasOffsets ? high - low <= 15 : low >= -8 && high <= 7);
  return {
    bits: formats.every(fits4) ? 4 : 8,
    blockSize: formats.some(({ run }) => run === 16) ? 16 : 32,
    hasOffsets: formats.some(({ hasOffsets }) => hasOffsets),
  };
}

/**
 * One matrix [out, in] of the given rows, one source below the other.
 * @throws FormatError when the file is cut short.
 */
export function repackRows(
  file: GgufSource,
  sources: readonly RowSource[],
  inner: number,
  { bits, blockSize, hasOffsets }: RepackedFormat,
): QuantisedWeight<TensorBuffer> {
  const out = sources.reduce((sum, { rows }) => sum + rows, 0);
  const blocks = inner / blockSize;
  const bytes = (blockSize * bits) / 8;
  const packed = allocate("u8", [out, blocks, bytes]);
  const scales = allocate("f32", [out, blocks]);
  const offsets = hasOffsets ? allocate("f32", [out, blocks]) : undefined;
  let firstTarget = 0;
  for (const { name, firstRow, rows, rowOf } of sources) {
    const entry = file.entries.get(name);
    const format = entry && blockFormats[entry.dtype];
    if (entry === undefined || format === undefined) throw new FormatError(`${file.path}: expected a quantised tensor "${name}", got none`);
    invariant(inner % format.values === 0 && format.run % blockSize === 0, `rows of ${inner} of ${entry.dtype} in blocks of ${blockSize}`);
    const rowBytes = (inner / format.values) * format.bytes;
    const chunk =
      fastChunk(entry.dtype, bits, blockSize, rowBytes) ?? chunkByLevels(format, inner, bits, blockSize, Math.min(rowsAtOnce, rows));
    for (let row = 0; row < rows; row += chunk.rows) {
      const count = Math.min(chunk.rows, rows - row);
      file.readBytesInto(name, chunk.stored.subarray(0, count * rowBytes), (firstRow + row) * rowBytes);
      chunk.repack(count * blocks);
      const copy = (from: number, to: number, rows: number): void => {
        packed.data.set(chunk.packed.subarray(from * blocks * bytes, (from + rows) * blocks * bytes), to * blocks * bytes);
        scales.data.set(chunk.scales.subarray(from * blocks, (from + rows) * blocks), to * blocks);
        // Types without offsets beside some that have them: theirs stay 0.
        if (chunk.offsets) offsets?.data.set(chunk.offsets.subarray(from * blocks, (from + rows) * blocks), to * blocks);
      };
      if (rowOf === undefined) copy(0, firstTarget + row, count);
      else for (let i = 0; i < count; i++) copy(i, firstTarget + rowOf(row + i), 1);
    }
    firstTarget += rows;
  }
  return { packed, scales, ...(offsets ? { offsets } : {}) };
}

/** A few rows on their way: filled as they are stored, repacked block by block, copied to where they belong. */
interface Chunk {
  readonly rows: number;
  readonly stored: Uint8Array;
  readonly packed: Uint8Array;
  readonly scales: Float32Array;
  readonly offsets: Float32Array | undefined;
  repack(numBlocks: number): void;
}

/** For the most frequent types, whose levels are stored as they are wanted but for signs and the order of nibbles. */
function fastChunk(type: string, bits: 4 | 8, blockSize: number, rowBytes: number): Chunk | undefined {
  const known = repackedTypes.find((name) => name === type);
  if (known === undefined || blockSize !== 32 || bits !== (known === "Q8_0" ? 8 : 4) || rowBytes > inputBytes) return undefined;
  const fast = kernels();
  if (fast === undefined) return undefined;
  return {
    rows: Math.floor(inputBytes / rowBytes),
    stored: fast.input,
    packed: fast.packed,
    scales: fast.scales,
    offsets: known === "Q4_1" ? fast.offsets : undefined,
    repack: (numBlocks) => fast.repack(known, numBlocks),
  };
}

function chunkByLevels(format: BlockFormat, inner: number, bits: 4 | 8, blockSize: number, rows: number): Chunk {
  const { values, run, bytes, low, high, hasOffsets } = format;
  const levels = new Int8Array(values);
  const runScales = new Float64Array(values / run);
  const runOffsets = new Float64Array(values / run);
  const centre = hasOffsets ? (low + high + 1) >> 1 : 0;
  const middle = 2 ** (bits - 1);
  // Levels that leave the byte half empty are multiplied by a power of two, exact in levels and scales: kernels that round products of 8 bits
  // to a fixed step would else lose more than the few levels say.
  let times = 1;
  while (bits === 8 && 2 * times * (low - centre) >= -middle && 2 * times * (high - centre) < middle) times *= 2;
  const numBlocks = (rows * inner) / blockSize;
  const stored = new Uint8Array(((rows * inner) / values) * bytes);
  const packed = new Uint8Array((rows * inner * bits) / 8);
  const scales = new Float32Array(numBlocks);
  const offsets = hasOffsets ? new Float32Array(numBlocks) : undefined;
  const repack = (count: number): void => {
    for (let start = 0, from = 0, at = 0; start < count * blockSize; start += values, from += bytes) {
      format.decode(stored, from, levels, runScales, runOffsets);
      for (let i = 0; i < values; i += blockSize) {
        const part = Math.floor(i / run);
        const block = (start + i) / blockSize;
        scales[block] = runScales[part] / times;
        if (offsets) offsets[block] = runOffsets[part] + centre * runScales[part];
      }
      const shift = middle - centre;
      if (bits === 8) for (let i = 0; i < values; i++) packed[at++] = (levels[i] - centre) * times + middle;
      else for (let i = 0; i < values; i += 2) packed[at++] = (levels[i] + shift) | ((levels[i + 1] + shift) << 4);
    }
  };
  return { rows, stored, packed, scales, offsets, repack };
}
