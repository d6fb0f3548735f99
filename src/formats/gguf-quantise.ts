// Float32 values to the simple block types of GGUF, byte for byte as ggml's reference quantisers do it (quantize_row_*_ref in
// ggml-quants.c): every step is rounded to float32, the scale is stored as float16 after the levels were chosen.
import { float32ToFloat16 } from "./half.ts";

/** Writes the block of 32 `values` at byte `at` of `target`. */
type Quantiser = (values: Float32Array, target: Uint8Array, at: number) => void;

export type QuantisedGgufType = "Q4_0" | "Q4_1" | "Q5_0" | "Q5_1" | "Q8_0";

const { fround } = Math;
const one = new Float32Array(1);
const oneHalf = new Uint16Array(1);

function writeHalf(value: number, target: Uint8Array, at: number): void {
  one[0] = value;
  float32ToFloat16(one, oneHalf);
  target[at] = oneHalf[0] & 255;
  target[at + 1] = oneHalf[0] >> 8;
}

const inverseOf = (scale: number): number => (scale === 0 ? 0 : fround(1 / scale));

/** The value of largest magnitude, with its sign; the first of equal ones. */
function extremeOf(values: Float32Array): number {
  let extreme = 0;
  for (let i = 0; i < 32; i++) if (Math.abs(values[i]) > Math.abs(extreme)) extreme = values[i];
  return extreme;
}

/** Levels of `bits` around 2^(bits − 1), then written as nibbles (and fifth bits). */
const symmetric =
  (bits: 4 | 5): Quantiser =>
  (values, target, at) => {
    const middle = 2 ** (bits - 1);
    const scale = fround(extremeOf(values) / -middle);
    const inverse = inverseOf(scale);
    writeHalf(scale, target, at);
    writeLevels(
      values,
      (value) => Math.trunc(fround(fround(value * inverse) + middle + 0.5)),
      2 * middle - 1,
      target,
      bits === 5 ? at + 2 : -1,
      bits === 5 ? at + 6 : at + 2,
    );
  };

const fromMinimum =
  (bits: 4 | 5): Quantiser =>
  (values, target, at) => {
    let [low, high] = [values[0], values[0]];
    for (let i = 1; i < 32; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    const top = 2 ** bits - 1;
    const scale = fround(fround(high - low) / top);
    const inverse = inverseOf(scale);
    writeHalf(scale, target, at);
    writeHalf(low, target, at + 2);
    writeLevels(
      values,
      (value) => Math.trunc(fround(fround(fround(value - low) * inverse) + 0.5)),
      top,
      target,
      bits === 5 ? at + 4 : -1,
      bits === 5 ? at + 8 : at + 4,
    );
  };

const levels = new Uint8Array(32);

function writeLevels(
  values: Float32Array,
  levelOf: (value: number) => number,
  top: number,
  target: Uint8Array,
  fifthBitsAt: number,
  nibblesAt: number,
): void {
  for (let i = 0; i < 32; i++) levels[i] = Math.max(0, Math.min(top, levelOf(values[i])));
  for (let i = 0; i < 16; i++) target[nibblesAt + i] = (levels[i] & 15) | ((levels[i + 16] & 15) << 4);
  if (fifthBitsAt < 0) return;
  target.fill(0, fifthBitsAt, fifthBitsAt + 4);
  for (let i = 0; i < 32; i++) target[fifthBitsAt + (i >> 3)] |= (levels[i] >> 4) << (i & 7);
}

const q8_0: Quantiser = (values, target, at) => {
  const scale = fround(Math.abs(extremeOf(values)) / 127);
  const inverse = inverseOf(scale);
  writeHalf(scale, target, at);
  for (let i = 0; i < 32; i++) {
    const level = fround(values[i] * inverse);
    // roundf: halves away from zero.
    target[at + 2 + i] = Math.sign(level) * Math.floor(Math.abs(level) + 0.5);
  }
};

/** Block quantisers by type; all blocks hold 32 values. */
export const quantisers: Readonly<Record<QuantisedGgufType, Quantiser>> = {
  Q4_0: symmetric(4),
  Q4_1: fromMinimum(4),
  Q5_0: symmetric(5),
  Q5_1: fromMinimum(5),
  Q8_0: q8_0,
};

export const isQuantisable = (type: string): type is QuantisedGgufType => Object.hasOwn(quantisers, type);
