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
}

export interface Family {
  readonly modelType: string;
  readonly architecture: string;
  /** @throws FormatError for settings that the decoder does not have. */
  read(json: HfConfig): DecoderOptions;
  /** The config.json of a configuration, or undefined when this family cannot express it. */
  write(config: DecoderConfig): HfConfig | undefined;
  keys(config: DecoderConfig): KeyMapping[];
  /** Keys that may stand in a file without a meaning here (causal-mask buffers). */
  readonly ignored?: RegExp;
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
