// Cosine and sine tables of rotary position embeddings (Su et al. 2021, "RoFormer"), for the GPT-NeoX order of pairs (i, i + D/2), and the
// ways in which published models stretch them beyond the length that they were trained on.
import type { DType } from "../tensor/dtype.ts";

/** How the frequencies are changed for longer sequences. Lengths are in tokens; w is a frequency, i its pair. */
export type RotaryScaling =
  /** w / factor (position interpolation: Chen et al. 2023). */
  | { readonly kind: "linear"; readonly factor: number }
  /** A larger base for sequences longer than `originalLength` ("NTK-aware", dynamic). */
  | { readonly kind: "dynamic"; readonly factor: number; readonly originalLength: number }
  /** Wavelengths longer than originalLength / lowFrequencyFactor are divided, shorter than / highFrequencyFactor are kept (Llama 3.1). */
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalLength: number;
    }
  /** Peng et al. 2023, Sections 3.2 to 3.4. The default of `attentionFactor` is 0.1 ln(factor) + 1 (Eq. 22). */
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalLength: number;
      readonly betaFast?: number;
      readonly betaSlow?: number;
      /** The two bounds are whole pairs. Default true. */
      readonly truncate?: boolean;
      readonly attentionFactor?: number;
    }
  /** A divisor for each frequency, one list up to `originalLength` and one beyond it, for all positions (Ding et al. 2024). */
  | {
      readonly kind: "longrope";
      readonly shortFactors: readonly number[];
      readonly longFactors: readonly number[];
      readonly originalLength: number;
      readonly attentionFactor?: number;
    }
  /** A divisor for each frequency (`rope_freqs` of GGUF files). */
  | { readonly kind: "divisors"; readonly divisors: readonly number[] };

export interface RotaryOptions {
  /** Base of the wavelengths, θ. */
  base: number;
  /** Rotated features of a head; even, at most the head width. */
  width: number;
  /** Default: none. */
  scaling?: RotaryScaling;
}

/** Whether the tables of a sequence depend on how long it is, so that no fixed table serves all lengths. */
export const dependsOnLength = (scaling: RotaryScaling | undefined): boolean =>
  scaling !== undefined && (scaling.kind === "dynamic" || scaling.kind === "longrope");

/**
 * Inverse frequencies w of pairs 0 … width/2 − 1: base^(−2i/width), scaled.
 * @param length of the sequence, for the scalings that depend on it. Default 0: within the original length.
 */
export function inverseFrequencies({ base, width, scaling }: RotaryOptions, length = 0): Float64Array<ArrayBuffer> {
  const plain = (theta: number) => Float64Array.from({ length: width / 2 }, (_, i) => theta ** ((-2 * i) / width));
  const frequencies = plain(base);
  switch (scaling?.kind) {
    case undefined:
      return frequencies;
    case "linear":
      return frequencies.map((w) => w / scaling.factor);
    case "dynamic": {
      const { factor, originalLength } = scaling;
      if (length <= originalLength) return frequencies;
      return plain(base * ((factor * length) / originalLength - (factor - 1)) ** (width / (width - 2)));
    }
    case "llama3": {
      const { factor, lowFrequencyFactor, highFrequencyFactor, originalLength } = scaling;
      return frequencies.map((w) => {
        const turns = (originalLength * w) / (2 * Math.PI);
        const kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
        return mix(w / factor, w, Math.min(1, Math.max(0, kept)));
      });
    }
    case "yarn":
      return yarn(frequencies, base, width, scaling);
    case "longrope": {
      const factors = length > scaling.originalLength ? scaling.longFactors : scaling.shortFactors;
      return frequencies.map((w, i) => w / factors[i]);
    }
    case "divisors":
      return frequencies.map((w, i) => w / scaling.divisors[i]);
  }
}

const mix = (a: number, b: number, share: number): number => a * (1 - share) + b * share;

/** Pairs that turn more than betaFast times within the original length are kept, those below betaSlow turns are divided. */
function yarn(
  frequencies: Float64Array<ArrayBuffer>,
  base: number,
  width: number,
  { factor, originalLength, betaFast = 32, betaSlow = 1, truncate = true }: Extract<RotaryScaling, { kind: "yarn" }>,
): Float64Array<ArrayBuffer> {
  const pairOf = (turns: number): number => (width * Math.log(originalLength / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const bound = (turns: number, whole: (x: number) => number): number => (truncate ? whole(pairOf(turns)) : pairOf(turns));
  const low = Math.max(bound(betaFast, Math.floor), 0);
  const high = Math.min(bound(betaSlow, Math.ceil), width - 1);
  const range = high === low ? 0.001 : high - low;
  return frequencies.map((w, i) => mix(w, w / factor, Math.min(1, Math.max(0, (i - low) / range))));
}

/** Factor of cosines and sines, that is, the square root of what scores are multiplied with. */
export function attentionFactorOf(scaling: RotaryScaling | undefined): number {
  if (scaling?.kind === "yarn") return scaling.attentionFactor ?? (scaling.factor > 1 ? 0.1 * Math.log(scaling.factor) + 1 : 1);
  if (scaling?.kind === "longrope") return scaling.attentionFactor ?? 1;
  return 1;
}

export interface RotaryTables {
  /** [positions, width/2] */
  readonly cosines: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
  readonly sines: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
}

/**
 * Tables for positions 0 … `positions` − 1, times the scaling's attention factor. Angles are computed in float64.
 * @param length of the sequence, for scalings that depend on it. Default: `positions`.
 */
export function rotaryTables(
  positions: number,
  options: RotaryOptions,
  dtype: Extract<DType, "f32" | "f64"> = "f32",
  length = positions,
): RotaryTables {
  const half = options.width / 2;
  const make = () => (dtype === "f32" ? new Float32Array(positions * half) : new Float64Array(positions * half));
  const tables = { cosines: make(), sines: make() };
  fillRotary(
    tables,
    0,
    Array.from({ length: positions }, (_, t) => t),
    inverseFrequencies(options, length),
    attentionFactorOf(options.scaling),
  );
  return tables;
}

/** Writes the rows of some positions, from row `start` of the tables on. */
export function fillRotary(
  { cosines, sines }: RotaryTables,
  start: number,
  positions: ArrayLike<number>,
  frequencies: Float64Array,
  attentionFactor = 1,
): void {
  const half = frequencies.length;
  for (let row = 0; row < positions.length; row++) {
    for (let i = 0; i < half; i++) {
      const angle = positions[row] * frequencies[i];
      cosines[(start + row) * half + i] = attentionFactor * Math.cos(angle);
      sines[(start + row) * half + i] = attentionFactor * Math.sin(angle);
    }
  }
}
