// Cosine and sine tables of rotary position embeddings (Su et al. 2021, "RoFormer"), for the GPT-NeoX order of pairs (i, i + D/2).
import type { DType } from "../tensor/dtype.ts";

export interface RotaryOptions {
  /** Base of the wavelengths, θ. */
  base: number;
  /** Rotated features of a head; even, at most the head width. */
  width: number;
}

/** Inverse frequencies base^(−2i/width), i = 0 … width/2 − 1. */
export function inverseFrequencies({ base, width }: RotaryOptions): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
}

export interface RotaryTables {
  /** [positions, width/2] */
  readonly cosines: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
  readonly sines: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

/** Tables for positions 0 … `positions` − 1. Angles are computed in float64. */
export function rotaryTables(positions: number, options: RotaryOptions, dtype: Extract<DType, "f32" | "f64"> = "f32"): RotaryTables {
  const frequencies = inverseFrequencies(options);
  const half = frequencies.length;
  const make = () => (dtype === "f32" ? new Float32Array(positions * half) : new Float64Array(positions * half));
  const [cosines, sines] = [make(), make()];
  for (let t = 0; t < positions; t++) {
    for (let i = 0; i < half; i++) {
      const angle = t * frequencies[i];
      cosines[t * half + i] = Math.cos(angle);
      sines[t * half + i] = Math.sin(angle);
    }
  }
  return { cosines, sines };
}
