// What a family is: how a Hugging Face config.json and its key names map to the configurable decoder. Data and pure functions only.

import { FormatError } from "../../../base/errors.ts";
import type { HfConfig } from "../../../formats/hf-config.ts";
import type { DecoderConfig, DecoderOptions } from "../config.ts";

/** One stored tensor: a whole parameter, or one named part of it. */
export interface KeyMapping {
  /** Path in the parameter tree, `layers.0.attention.qkv.weight`. */
  readonly path: string;
  /** Name of the part, `query`; undefined: the whole. */
  readonly part?: string;
  /** Name in the file. */
  readonly key: string;
  /** Stored as [in, out] (GPT-2's Conv1D). */
  readonly transposed?: boolean;
  /** What the parameter is more than what is stored: 1 for norms that multiply with 1 + w (Gemma). */
  readonly offset?: number;
  /** Which matrix of a stack [E, out, in]. */
  readonly index?: number;
  /** The stored rows are every second one of the matrix, from this one on (gate and up of experts). */
  readonly alternate?: 0 | 1;
  /** Blocks of rows whose last `rotary` are rotated in adjacent pairs (DeepSeek): here pairs are half of them apart. */
  readonly pairs?: { readonly block: number; readonly rotary: number };
}

export interface Family {
  readonly modelType: string;
  readonly architecture: string;
  /** @throws FormatError for settings that the decoder does not have. */
  read(json: HfConfig): DecoderOptions;
  /**
   * A config.json that says as much of a configuration as this family can; undefined when it is sure to lack something.
   * Whether it says everything shows when it is read back.
   */
  write(config: DecoderConfig): HfConfig | undefined;
  keys(config: DecoderConfig): KeyMapping[];
  /** Keys that may stand in a file without a meaning here (causal-mask buffers). */
  readonly ignored?: RegExp;
  /** Further keys without a meaning for this configuration (modules for multi-token prediction). */
  ignores?(key: string, config: DecoderConfig): boolean;
  /** Prefix that some uploads put before every key. */
  readonly optionalPrefix?: string;
}

/** A required field of a config.json. @throws FormatError naming it. */
export function field<T>(json: HfConfig, name: string, type: "number" | "string" | "boolean", fallback?: T): T {
  const value = json[name];
  if (value === undefined || value === null) {
    if (fallback !== undefined) return fallback;
    throw new FormatError(`config.json: expected a ${type} "${name}", got nothing`, {
      hint: "The configuration does not describe this architecture fully.",
    });
  }
  if (typeof value !== type) throw new FormatError(`config.json: expected a ${type} "${name}", got ${JSON.stringify(value)}`);
  return value as T;
}

export function unsupported(modelType: string, setting: string, value: unknown): never {
  throw new FormatError(`config.json: ${modelType} with ${setting} = ${JSON.stringify(value)} is not supported`, {
    hint: "Use a checkpoint without this setting.",
  });
}
