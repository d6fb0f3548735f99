// The three most frequent block types to the blocks of MatMulNBits, four bytes at a time: the same result as level by level (gguf-repack.ts), at
// the speed of reading the file. Their levels are stored as they are wanted, but for the sign of Q8_0 and the order of nibbles: byte i of Q4_0
// and Q4_1 holds values i and i + 16, that of MatMulNBits values 2i and 2i + 1. Blocks of Q8_0 and Q4_0 are 34 and 18 bytes long, so that they
// go in pairs, the first of which lies across words.
import { float16Values } from "../../formats/gguf-blocks.ts";

/** Where rows of one length go; indices count elements. */
export interface RepackTarget {
  /** The packed bytes, four at a time. */
  readonly words: Int32Array;
  readonly scales: Float32Array;
  readonly offsets: Float32Array | undefined;
}

/** Repacks `numBlocks` blocks from word `from` on to the blocks from number `block` on. */
export type WordRepacker = (stored: Int32Array, from: number, numBlocks: number, target: RepackTarget, block: number) => void;

/** The sign bit of four bytes: −128 … 127 become 0 … 255. */
const signs = 0x80808080 | 0;

const q8_0: WordRepacker = (stored, from, numBlocks, { words, scales }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from, to = block * 8; i < block + numBlocks; i += 2, at += 17, to += 16) {
    let low = stored[at];
    scales[i] = float16[low & 0xffff];
    for (let k = 0; k < 8; k++) {
      const high = stored[at + k + 1];
      words[to + k] = ((low >>> 16) | (high << 16)) ^ signs;
      low = high;
    }
    scales[i + 1] = float16[low >>> 16];
    for (let k = 8; k < 16; k++) words[to + k] = stored[at + k + 1] ^ signs;
  }
};

/** The low nibbles of four bytes, side by side in 16 bits. */
function gatherNibbles(word: number): number {
  const low = word & 0x0f0f0f0f;
  const pairs = (low | (low >>> 4)) & 0x00ff00ff;
  return (pairs | (pairs >>> 8)) & 0xffff;
}

/** The 16 bytes of a block, as four words. */
function reorderNibbles(a: number, b: number, c: number, d: number, words: Int32Array, to: number): void {
  words[to] = gatherNibbles(a) | (gatherNibbles(b) << 16);
  words[to + 1] = gatherNibbles(c) | (gatherNibbles(d) << 16);
  words[to + 2] = gatherNibbles(a >>> 4) | (gatherNibbles(b >>> 4) << 16);
  words[to + 3] = gatherNibbles(c >>> 4) | (gatherNibbles(d >>> 4) << 16);
}

/** The word that begins in the upper half of one and ends in the lower half of the next. */
const across = (low: number, high: number): number => (low >>> 16) | (high << 16);

const q4_0: WordRepacker = (stored, from, numBlocks, { words, scales }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from; i < block + numBlocks; i += 2, at += 9) {
    const [s0, s1, s2, s3, s4] = [stored[at], stored[at + 1], stored[at + 2], stored[at + 3], stored[at + 4]];
    scales[i] = float16[s0 & 0xffff];
    reorderNibbles(across(s0, s1), across(s1, s2), across(s2, s3), across(s3, s4), words, i * 4);
    scales[i + 1] = float16[s4 >>> 16];
    reorderNibbles(stored[at + 5], stored[at + 6], stored[at + 7], stored[at + 8], words, i * 4 + 4);
  }
};

const q4_1: WordRepacker = (stored, from, numBlocks, { words, scales, offsets }, block) => {
  const float16 = float16Values();
  for (let i = block, at = from; i < block + numBlocks; i++, at += 5) {
    const scale = float16[stored[at] & 0xffff];
    scales[i] = scale;
    // Levels 0 to 15 are centred at 8; rounded once, when it is stored.
    (offsets as Float32Array)[i] = float16[stored[at] >>> 16] + 8 * scale;
    reorderNibbles(stored[at + 1], stored[at + 2], stored[at + 3], stored[at + 4], words, i * 4);
  }
};

/** The repacker of a type for rows of so many blocks of 32 values with so many bits, where there is one. */
export function wordRepacker(type: string, bits: 4 | 8, blockSize: number, blocks: number): WordRepacker | undefined {
  if (blockSize !== 32) return undefined;
  if (type === "Q4_1") return bits === 4 ? q4_1 : undefined;
  if (blocks % 2 !== 0) return undefined;
  return { Q8_0: bits === 8 ? q8_0 : undefined, Q4_0: bits === 4 ? q4_0 : undefined }[type];
}
