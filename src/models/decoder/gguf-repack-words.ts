// The three most frequent block types to the blocks of MatMulNBits, two bytes at a time: the same result as level by level (gguf-repack.ts), at
// the speed of reading the file. Their levels are stored as they are wanted, but for the sign of Q8_0 and the order of nibbles: byte i of Q4_0
// and Q4_1 holds values i and i + 16, that of MatMulNBits values 2i and 2i + 1.
import { float16Values } from "../../formats/gguf-blocks.ts";

/** Where rows of one length go; indices count elements. */
export interface RepackTarget {
  readonly packed: Uint8Array;
  /** The same memory, two bytes at a time. */
  readonly packedPairs: Uint16Array;
  readonly scales: Float32Array;
  readonly offsets: Float32Array | undefined;
}

/** Repacks `numBlocks` blocks from word `from` on to the blocks from number `block` on. */
export type WordRepacker = (stored: Uint16Array, from: number, numBlocks: number, target: RepackTarget, block: number) => void;

const q8_0: WordRepacker = (stored, from, numBlocks, { packedPairs, scales }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from, to = block * 16; i < block + numBlocks; i++) {
    scales[i] = float16[stored[at++]];
    for (const end = to + 16; to < end; to++) packedPairs[to] = stored[at++] ^ 0x8080;
  }
};

/** Sixteen bytes from word `at` on. */
function reorderNibbles(stored: Uint16Array, at: number, packed: Uint8Array, to: number): void {
  for (let i = 0; i < 8; i++) {
    const pair = stored[at + i];
    packed[to + i] = (pair & 0x0f) | ((pair >> 4) & 0xf0);
    packed[to + i + 8] = ((pair >> 4) & 0x0f) | ((pair >> 8) & 0xf0);
  }
}

const q4_0: WordRepacker = (stored, from, numBlocks, { packed, scales }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from; i < block + numBlocks; i++, at += 9) {
    scales[i] = float16[stored[at]];
    reorderNibbles(stored, at + 1, packed, i * 16);
  }
};

const q4_1: WordRepacker = (stored, from, numBlocks, { packed, scales, offsets }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from; i < block + numBlocks; i++, at += 10) {
    const scale = float16[stored[at]];
    scales[i] = scale;
    // Levels 0 to 15 are centred at 8; rounded once, when it is stored.
    (offsets as Float32Array)[i] = float16[stored[at + 1]] + 8 * scale;
    reorderNibbles(stored, at + 2, packed, i * 16);
  }
};

/** The repacker of a type for blocks of 32 values with so many bits, where there is one. */
export function wordRepacker(type: string, bits: 4 | 8, blockSize: number): WordRepacker | undefined {
  if (blockSize !== 32) return undefined;
  if (bits === 8) return type === "Q8_0" ? q8_0 : undefined;
  return { Q4_0: q4_0, Q4_1: q4_1 }[type];
}
