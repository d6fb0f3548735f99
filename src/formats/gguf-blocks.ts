// Quantised blocks of GGUF. Every type decodes to the same thing: a small whole level for each value, and a scale (for some types an
// offset too) for each run of values: w = scale * level + offset. Dequantisation rounds this once to float32; repacking keeps the levels.
// Layouts: ggml's block structures (ggml-org/ggml, ggml-common.h); K-quants after llama.cpp pull request 1684.
import { float16ToFloat32 } from "./half.ts";

export interface BlockFormat {
  /** Values of a block. */
  readonly values: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Values that share a scale. */
  readonly run: 16 | 32;
  /** Smallest and largest level. */
  readonly low: number;
  readonly high: number;
  readonly hasOffsets: boolean;
  /** Decodes the block at byte `at`. `scales` and `offsets` have one entry a run; types without offsets leave those alone. */
  decode(source: Uint8Array, at: number, levels: Int8Array, scales: Float64Array, offsets: Float64Array): void;
}

/** All 65536 float16 values: faster than converting one at a time. */
export const float16Values = halfTable();

function halfTable(): () => Float32Array {
  let table: Float32Array | undefined;
  return () => {
    if (table === undefined) {
      table = new Float32Array(65536);
      float16ToFloat32(
        Uint16Array.from({ length: 65536 }, (_, i) => i),
        table,
      );
    }
    return table;
  };
}

const f16At = (source: Uint8Array, at: number): number => float16Values()[source[at] | (source[at + 1] << 8)];

/** Sixteen bytes hold value i in the low and value i + 16 in the high nibble. */
function nibbles(source: Uint8Array, at: number, levels: Int8Array, start: number, shift: number): void {
  for (let i = 0; i < 16; i++) {
    const byte = source[at + i];
    levels[start + i] = (byte & 15) - shift;
    levels[start + i + 16] = (byte >> 4) - shift;
  }
}

/** Adds the fifth bits of 32 values. */
function fifthBits(source: Uint8Array, at: number, levels: Int8Array): void {
  for (let i = 0; i < 32; i++) levels[i] += ((source[at + (i >> 3)] >> (i & 7)) & 1) << 4;
}

const small = (bytes: number, low: number, high: number, hasOffsets: boolean, decode: BlockFormat["decode"]): BlockFormat => ({
  values: 32,
  bytes,
  run: 32,
  low,
  high,
  hasOffsets,
  decode,
});

const big = (bytes: number, run: 16 | 32, low: number, high: number, hasOffsets: boolean, decode: BlockFormat["decode"]): BlockFormat => ({
  values: 256,
  bytes,
  run,
  low,
  high,
  hasOffsets,
  decode,
});

const q4_0 = small(18, -8, 7, false, (source, at, levels, scales) => {
  scales[0] = f16At(source, at);
  nibbles(source, at + 2, levels, 0, 8);
});

const q4_1 = small(20, 0, 15, true, (source, at, levels, scales, offsets) => {
  scales[0] = f16At(source, at);
  offsets[0] = f16At(source, at + 2);
  nibbles(source, at + 4, levels, 0, 0);
});

const q5_0 = small(22, -16, 15, false, (source, at, levels, scales) => {
  scales[0] = f16At(source, at);
  nibbles(source, at + 6, levels, 0, 16);
  fifthBits(source, at + 2, levels);
});

const q5_1 = small(24, 0, 31, true, (source, at, levels, scales, offsets) => {
  scales[0] = f16At(source, at);
  offsets[0] = f16At(source, at + 2);
  nibbles(source, at + 8, levels, 0, 0);
  fifthBits(source, at + 4, levels);
});

function bytesAsLevels(source: Uint8Array, at: number, levels: Int8Array, count: number): void {
  for (let i = 0; i < count; i++) levels[i] = source[at + i];
}

const q8_0 = small(34, -128, 127, false, (source, at, levels, scales) => {
  scales[0] = f16At(source, at);
  bytesAsLevels(source, at + 2, levels, 32);
});

/** Made for activations: behind the scale stands the sum of the values, which is not needed. */
const q8_1 = small(36, -128, 127, false, (source, at, levels, scales) => {
  scales[0] = f16At(source, at);
  bytesAsLevels(source, at + 4, levels, 32);
});

/** The only one with a float32 scale; also made for activations. */
const q8_k = big(292, 32, -128, 127, false, (source, at, levels, scales) => {
  scales.fill(new DataView(source.buffer, source.byteOffset + at, 4).getFloat32(0, true), 0, 8);
  bytesAsLevels(source, at + 4, levels, 256);
});

/** Two bits of each value: 32 bytes serve 128 values, by 32 a pair of bits. */
function pairsOfBits(source: Uint8Array, at: number, levels: Int8Array, shift: number): void {
  for (let i = 0; i < 256; i++) levels[i] = ((source[at + ((i >> 7) << 5) + (i & 31)] >> (((i >> 5) & 3) << 1)) & 3) - shift;
}

const q2_k = big(84, 16, 0, 3, true, (source, at, levels, scales, offsets) => {
  const d = f16At(source, at + 80);
  const dmin = f16At(source, at + 82);
  for (let run = 0; run < 16; run++) {
    const byte = source[at + run];
    scales[run] = d * (byte & 15);
    offsets[run] = -(dmin * (byte >> 4));
  }
  pairsOfBits(source, at + 16, levels, 0);
});

const q3_k = big(110, 16, -4, 3, false, (source, at, levels, scales) => {
  const d = f16At(source, at + 108);
  for (let run = 0; run < 16; run++) {
    // Twelve bytes: low nibbles of 16 scales in 8, their upper pairs of bits in 4.
    const low = (source[at + 96 + (run & 7)] >> (run < 8 ? 0 : 4)) & 15;
    const high = (source[at + 104 + (run & 3)] >> ((run >> 2) << 1)) & 3;
    scales[run] = d * ((low | (high << 4)) - 32);
  }
  pairsOfBits(source, at + 32, levels, 4);
  // A set bit of the mask cancels the subtraction.
  for (let i = 0; i < 256; i++) levels[i] += ((source[at + (i & 31)] >> (i >> 5)) & 1) << 2;
});

/** Eight scales and eight minima of 6 bits each in twelve bytes. */
function scalesAndMinima(source: Uint8Array, at: number, d: number, dmin: number, scales: Float64Array, offsets: Float64Array): void {
  for (let run = 0; run < 4; run++) {
    const [first, second, third] = [source[at + run], source[at + 4 + run], source[at + 8 + run]];
    scales[run] = d * (first & 63);
    offsets[run] = -(dmin * (second & 63));
    scales[run + 4] = d * ((third & 15) | ((first >> 2) & 48));
    offsets[run + 4] = -(dmin * ((third >> 4) | ((second >> 2) & 48)));
  }
}

/** 32 bytes serve 64 values: low nibbles the first 32. */
function longNibbles(source: Uint8Array, at: number, levels: Int8Array): void {
  for (let i = 0; i < 256; i++) levels[i] = (source[at + ((i >> 6) << 5) + (i & 31)] >> (((i >> 5) & 1) << 2)) & 15;
}

const q4_k = big(144, 32, 0, 15, true, (source, at, levels, scales, offsets) => {
  scalesAndMinima(source, at + 4, f16At(source, at), f16At(source, at + 2), scales, offsets);
  longNibbles(source, at + 16, levels);
});

const q5_k = big(176, 32, 0, 31, true, (source, at, levels, scales, offsets) => {
  scalesAndMinima(source, at + 4, f16At(source, at), f16At(source, at + 2), scales, offsets);
  longNibbles(source, at + 48, levels);
  for (let i = 0; i < 256; i++) levels[i] += ((source[at + 16 + (i & 31)] >> (i >> 5)) & 1) << 4;
});

const q6_k = big(210, 16, -32, 31, false, (source, at, levels, scales) => {
  const d = f16At(source, at + 208);
  for (let run = 0; run < 16; run++) scales[run] = d * ((source[at + 192 + run] << 24) >> 24);
  for (let i = 0; i < 256; i++) {
    const half128 = i >> 7;
    const inside = i & 127;
    const low = (source[at + half128 * 64 + (inside & 63)] >> (inside < 64 ? 0 : 4)) & 15;
    const high = (source[at + 128 + half128 * 32 + (inside & 31)] >> ((inside >> 5) << 1)) & 3;
    levels[i] = (low | (high << 4)) - 32;
  }
});

/** The levels of IQ4: sixteen steps, finer around zero. */
const unevenLevels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const iq4_nl = small(18, -127, 113, false, (source, at, levels, scales) => {
  scales[0] = f16At(source, at);
  nibbles(source, at + 2, levels, 0, 0);
  for (let i = 0; i < 32; i++) levels[i] = unevenLevels[levels[i]];
});

const iq4_xs = big(136, 32, -127, 113, false, (source, at, levels, scales) => {
  const d = f16At(source, at);
  const highBits = source[at + 2] | (source[at + 3] << 8);
  for (let run = 0; run < 8; run++) {
    const low = (source[at + 4 + (run >> 1)] >> ((run & 1) << 2)) & 15;
    scales[run] = d * ((low | (((highBits >> (2 * run)) & 3) << 4)) - 32);
    nibbles(source, at + 8 + 16 * run, levels, 32 * run, 0);
  }
  for (let i = 0; i < 256; i++) levels[i] = unevenLevels[levels[i]];
});

const powersOf3 = [1, 3, 9, 27, 81];

/** Five ternary digits a byte, most significant first, as a fraction of 256: multiplied by 3^k the digit overflows into bit 8. */
const tq1_0 = big(54, 32, -1, 1, false, (source, at, levels, scales) => {
  scales.fill(f16At(source, at + 52), 0, 8);
  let i = 0;
  const digits = (first: number, count: number, places: number): void => {
    for (let place = 0; place < places; place++)
      for (let j = 0; j < count; j++) levels[i++] = ((((source[at + first + j] * powersOf3[place]) & 255) * 3) >> 8) - 1;
  };
  digits(0, 32, 5);
  digits(32, 16, 5);
  digits(48, 4, 4);
});

const tq2_0 = big(66, 32, -1, 2, false, (source, at, levels, scales) => {
  scales.fill(f16At(source, at + 64), 0, 8);
  pairsOfBits(source, at, levels, 1);
});

/** Doubled values of E2M1, the 4-bit float of the OCP microscaling formats 1.0. */
const e2m1Doubled = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** An exponent byte (2^(e − 127), halved for the doubled levels) and 32 values. */
const mxfp4 = small(17, -12, 12, false, (source, at, levels, scales) => {
  scales[0] = 2 ** (source[at] - 128);
  nibbles(source, at + 1, levels, 0, 0);
  for (let i = 0; i < 32; i++) levels[i] = e2m1Doubled[levels[i]];
});

/** Four unsigned E4M3 scales (halved for the doubled levels), then four runs of 16 values. */
const nvfp4: BlockFormat = {
  values: 64,
  bytes: 36,
  run: 16,
  low: -12,
  high: 12,
  hasOffsets: false,
  decode(source, at, levels, scales) {
    for (let run = 0; run < 4; run++) {
      const byte = source[at + run];
      const exponent = (byte >> 3) & 15;
      const mantissa = byte & 7;
      const value = exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7);
      scales[run] = byte === 0x7f ? 0 : value / 2;
      for (let i = 0; i < 8; i++) {
        const pair = source[at + 4 + 8 * run + i];
        levels[16 * run + i] = e2m1Doubled[pair & 15];
        levels[16 * run + i + 8] = e2m1Doubled[pair >> 4];
      }
    }
  },
};

/** Block types that can be decoded. The codebook types IQ1, IQ2 and IQ3 are not among them. */
export const blockFormats: Readonly<Record<string, BlockFormat>> = {
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  Q8_1: q8_1,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
  Q8_K: q8_k,
  IQ4_NL: iq4_nl,
  IQ4_XS: iq4_xs,
  TQ1_0: tq1_0,
  TQ2_0: tq2_0,
  MXFP4: mxfp4,
  NVFP4: nvfp4,
};

/** Decodes whole blocks into float32 (or float64) values. `target.length` is a multiple of the format's values. */
export function dequantiseBlocks(format: BlockFormat, source: Uint8Array, target: Float32Array | Float64Array): void {
  if (format === q8_0 && target instanceof Float32Array) {
    dequantiseQ8(source, target);
    return;
  }
  const { values, bytes, run, hasOffsets } = format;
  const levels = new Int8Array(values);
  const scales = new Float64Array(values / run);
  const offsets = new Float64Array(values / run);
  for (let block = 0, start = 0; start < target.length; block++, start += values) {
    format.decode(source, block * bytes, levels, scales, offsets);
    for (let part = 0, first = 0; first < values; part++, first += run) {
      const [scale, offset, end] = [scales[part], offsets[part], first + run];
      // Exact in float64, rounded when it is stored. Without an offset the sign of a zero stays.
      if (hasOffsets) for (let i = first; i < end; i++) target[start + i] = scale * levels[i] + offset;
      else for (let i = first; i < end; i++) target[start + i] = scale * levels[i];
    }
  }
}

/** The same for Q8_0, in which the largest tensors (embeddings) are stored: without a copy of the levels, several times as fast. */
function dequantiseQ8(source: Uint8Array, target: Float32Array): void {
  const levels = new Int8Array(source.buffer, source.byteOffset, source.byteLength);
  for (let at = 0, i = 0; i < target.length; at += q8_0.bytes) {
    const scale = f16At(source, at);
    const first = at + 2 - i;
    for (const end = i + q8_0.values; i < end; i++) target[i] = scale * levels[first + i];
  }
}
