// Quantised rows of a GGUF tensor to the blocks of ONNX Runtime's MatMulNBits, without rounding a single level: levels that fit into
// 4 bits stay 4 bits, others take 8. Types with a minimum (Q4_1, Q4_K …) keep it as an offset of each block; levels are centred, so the
// offset is minimum + centre * scale, rounded once to float32. Everything else is exact.
import { FormatError, invariant } from "../../base/errors.ts";
import type { GgufSource } from "../../formats/gguf.ts";
import { type BlockFormat, blockFormats } from "../../formats/gguf-blocks.ts";
import type { QuantisedWeight } from "../../nn/linear.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";
import { type RepackTarget, wordRepacker } from "./gguf-repack-words.ts";

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

/** Rows that are decoded at a time. */
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
  for (const { name, firstRow, rows, rowOf = (row: number) => row } of sources) {
    const entry = file.entries.get(name);
    const format = entry && blockFormats[entry.dtype];
    if (entry === undefined || format === undefined) throw new FormatError(`${file.path}: expected a quantised tensor "${name}", got none`);
    invariant(inner % format.values === 0 && format.run % blockSize === 0, `rows of ${inner} of ${entry.dtype} in blocks of ${blockSize}`);
    const rowBytes = (inner / format.values) * format.bytes;
    const stored = new Uint8Array(Math.min(rowsAtOnce, rows) * rowBytes);
    const words = new Int32Array(stored.buffer, 0, stored.length >> 2);
    const repackWords = wordRepacker(entry.dtype, bits, blockSize, blocks);
    const unpackRow = rowRepacker(format, inner, bits, blockSize);
    const all: RepackTarget = {
      words: new Int32Array(packed.data.buffer, packed.data.byteOffset, packed.data.length >> 2),
      scales: scales.data as Float32Array,
      offsets: offsets?.data as Float32Array | undefined,
    };
    for (let row = 0; row < rows; row += rowsAtOnce) {
      const count = Math.min(rowsAtOnce, rows - row);
      file.readBytesInto(name, stored.subarray(0, count * rowBytes), (firstRow + row) * rowBytes);
      for (let i = 0; i < count; i++) {
        const target = firstTarget + rowOf(row + i);
        if (repackWords) {
          repackWords(words, (i * rowBytes) >> 2, blocks, all, target * blocks);
          continue;
        }
        unpackRow(
          stored.subarray(i * rowBytes, (i + 1) * rowBytes),
          packed.data.subarray(target * blocks * bytes, (target + 1) * blocks * bytes),
          scales.data.subarray(target * blocks, (target + 1) * blocks),
          offsets?.data.subarray(target * blocks, (target + 1) * blocks),
        );
      }
    }
    firstTarget += rows;
  }
  return { packed, scales, ...(offsets ? { offsets } : {}) };
}

type RowRepacker = (stored: Uint8Array, packed: Uint8Array, scales: Float32Array, offsets: Float32Array | undefined) => void;

function rowRepacker(format: BlockFormat, inner: number, bits: 4 | 8, blockSize: number): RowRepacker {
  const levels = new Int8Array(format.values);
  const runScales = new Float64Array(format.values / format.run);
  const runOffsets = new Float64Array(format.values / format.run);
  const centre = format.hasOffsets ? (format.low + format.high + 1) >> 1 : 0;
  const shift = 2 ** (bits - 1) - centre;
  return (stored, packed, scales, offsets) => {
    let at = 0;
    for (let start = 0, from = 0; start < inner; start += format.values, from += format.bytes) {
      format.decode(stored, from, levels, runScales, runOffsets);
      for (let i = 0; i < format.values; i += blockSize) {
        const run = Math.floor(i / format.run);
        const block = (start + i) / blockSize;
        scales[block] = runScales[run];
        if (offsets) offsets[block] = format.hasOffsets ? runOffsets[run] + centre * runScales[run] : 0;
      }
      if (bits === 8) for (let i = 0; i < format.values; i++) packed[at++] = levels[i] + shift;
      else for (let i = 0; i < format.values; i += 2) packed[at++] = (levels[i] + shift) | ((levels[i + 1] + shift) << 4);
    }
  };
}
