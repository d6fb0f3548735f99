// Rotary positions in a config.json: `rope_theta` and `rope_scaling` as transformers 4 writes them, `rope_parameters` as transformers 5
// does (for each kind of layer, where these differ). Scaling kinds and their defaults are those of transformers' modeling_rope_utils.
import { FormatError } from "../../../base/errors.ts";
import type { HfConfig } from "../../../formats/hf-config.ts";
import { attentionFactorOf, type RotaryScaling } from "../../../nn/rotary.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";
import { unsupported } from "./family.ts";

type Fields = Readonly<Record<string, unknown>>;

export interface Rope {
  base: number;
  scaling?: DecoderOptions["rotaryScaling"];
  /** Share of the features that is rotated. */
  fraction: number;
}

/** @param kind of layer whose positions are wanted, where the file tells them apart. */
export function readRope(json: HfConfig, kind: "full_attention" | "sliding_attention" = "full_attention", defaultBase = 10_000): Rope {
  const given = (json.rope_parameters ?? {}) as Fields;
  const parameters = (given[kind] ?? given) as Fields;
  const scaling = (json.rope_scaling ?? parameters) as Fields;
  const number = (name: string): number | undefined => numberOf(parameters, name);
  return {
    base: json.rope_theta ?? number("rope_theta") ?? defaultBase,
    scaling: readScaling(json, scaling),
    fraction: numberOf(json, "partial_rotary_factor") ?? number("partial_rotary_factor") ?? 1,
  };
}

function numberOf(fields: Fields, name: string): number | undefined {
  const value = fields[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number") throw new FormatError(`config.json: expected a number "${name}", got ${JSON.stringify(value)}`);
  return value;
}

function numbersOf(fields: Fields, name: string): number[] {
  const value = fields[name];
  if (Array.isArray(value) && value.every((item) => typeof item === "number")) return value as number[];
  throw new FormatError(`config.json: expected a list of numbers "${name}" in rope_scaling, got ${JSON.stringify(value)?.slice(0, 60)}`);
}

function readScaling(json: HfConfig, scaling: Fields): DecoderOptions["rotaryScaling"] {
  const kind = String(scaling.rope_type ?? scaling.type ?? "default");
  const required = (name: string): number => {
    const value = numberOf(scaling, name);
    if (value === undefined) throw new FormatError(`config.json: expected a number "${name}" in rope_scaling of kind ${kind}, got nothing`);
    return value;
  };
  const longest = json.max_position_embeddings ?? 0;
  const original = numberOf(scaling, "original_max_position_embeddings") ?? numberOf(json, "original_max_position_embeddings") ?? longest;
  const attentionFactor = numberOf(scaling, "attention_factor");
  const withFactor = (factor: number | undefined) => (factor === undefined ? {} : { attentionFactor: factor });
  switch (kind) {
    case "default":
      return undefined;
    case "linear":
      return { kind, factor: required("factor") };
    case "dynamic":
      return { kind, factor: required("factor"), originalLength: original };
    case "llama3":
      return {
        kind,
        factor: required("factor"),
        lowFrequencyFactor: required("low_freq_factor"),
        highFrequencyFactor: required("high_freq_factor"),
        originalLength: original,
      };
    case "yarn": {
      const factor = numberOf(scaling, "factor") ?? longest / original;
      const [own, all] = [numberOf(scaling, "mscale"), numberOf(scaling, "mscale_all_dim")];
      const ofScale = own && all ? yarnFactor(factor, own) / yarnFactor(factor, all) : undefined;
      const [betaFast, betaSlow] = [numberOf(scaling, "beta_fast"), numberOf(scaling, "beta_slow")];
      return {
        kind,
        factor,
        originalLength: original,
        ...(betaFast === undefined ? {} : { betaFast }),
        ...(betaSlow === undefined ? {} : { betaSlow }),
        ...(scaling.truncate === false ? { truncate: false } : {}),
        ...withFactor(attentionFactor ?? ofScale),
      };
    }
    // Phi-3's first uploads call it su.
    case "su":
    case "longrope": {
      const factor = numberOf(scaling, "factor") ?? longest / original;
      return {
        kind: "longrope",
        shortFactors: numbersOf(scaling, "short_factor"),
        longFactors: numbersOf(scaling, "long_factor"),
        originalLength: original,
        attentionFactor: attentionFactor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original))),
      };
    }
    // No published config.json has it: what GGUF files hold of scalings that they do not name.
    case "divisors":
      return { kind, divisors: numbersOf(scaling, "divisors") };
    default:
      return unsupported(String(json.model_type), "rope_scaling", scaling);
  }
}

/** Factor of attention for scores that are stretched by `factor` (Peng et al. 2023, Eq. 22), weighted by `scale` as DeepSeek does. */
export const yarnFactor = (factor: number, scale = 1): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);

/** The fields that transformers 4 writes. */
export function writeRope({ rotaryBase, rotaryScaling, rotaryFraction }: DecoderConfig): HfConfig {
  return {
    rope_theta: rotaryBase,
    rope_scaling: rotaryScaling ? writeScaling(rotaryScaling) : null,
    ...(rotaryFraction === 1 ? {} : { partial_rotary_factor: rotaryFraction }),
  };
}

function writeScaling(scaling: RotaryScaling): Record<string, unknown> | null {
  switch (scaling.kind) {
    case "linear":
      return { rope_type: "linear", factor: scaling.factor };
    case "dynamic":
      return { rope_type: "dynamic", factor: scaling.factor, original_max_position_embeddings: scaling.originalLength };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFrequencyFactor,
        high_freq_factor: scaling.highFrequencyFactor,
        original_max_position_embeddings: scaling.originalLength,
      };
    case "yarn":
      return {
        rope_type: "yarn",
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalLength,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        truncate: scaling.truncate,
        attention_factor: scaling.attentionFactor,
      };
    case "longrope":
      return {
        type: "longrope",
        short_factor: scaling.shortFactors,
        long_factor: scaling.longFactors,
        original_max_position_embeddings: scaling.originalLength,
        attention_factor: attentionFactorOf(scaling),
      };
    case "divisors":
      return null;
  }
}
