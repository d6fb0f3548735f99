// Describes a model file from its headers: architecture, parameters by group, element types, shapes.
import { existsSync, statSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { FormatError, LongwaveError } from "../base/errors.ts";
import { openGguf } from "../formats/gguf.ts";
import { type GgufTypeName, ggufTensorBytes } from "../formats/gguf-types.ts";
import { type HfConfig, readHfConfig } from "../formats/hf-config.ts";
import { llama2cToHfConfig, openLlama2c } from "../formats/llama2c.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { bitsPerSafetensorsElement, isSafetensorsDType } from "../formats/safetensors-dtype.ts";
import type { TensorEntry, TensorSource } from "../formats/tensor-source.ts";
import { compareNames, familyOf } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { decoderFacts } from "../models/decoder/facts.ts";
import { ggufCheckpoint } from "../models/decoder/gguf.ts";
import { ggufHfConfig } from "../models/decoder/gguf-config.ts";

export interface TensorDescription {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly numParameters: number;
  readonly bytes: number;
}

export interface Architecture {
  readonly name: string;
  readonly numLayers?: number;
  readonly width?: number;
  readonly numHeads?: number;
  readonly numKeyValueHeads?: number;
  readonly vocabularySize?: number;
  readonly maxPositions?: number;
  readonly tiedEmbeddings?: boolean;
}

/** What longwave makes of a configuration. */
export interface FamilyDescription {
  /** Undefined when the family or one of its settings is not supported. */
  readonly facts?: readonly (readonly [name: string, value: string])[];
  /** Why it is not supported. */
  readonly refused?: string;
  /** Tensors that the configuration needs and the file lacks. */
  readonly missing: readonly string[];
  /** Tensors of the file that have no place in the model. */
  readonly unexpected: readonly string[];
}

export interface ModelDescription {
  readonly path: string;
  readonly format: "safetensors" | "llama2.c" | "GGUF";
  /** Undefined when there is no config.json beside the weights. */
  readonly architecture: Architecture | undefined;
  readonly family?: FamilyDescription;
  readonly numParameters: number;
  /** Of the tensors as stored. */
  readonly bytes: number;
  readonly groups: readonly { name: string; numParameters: number; bytes: number }[];
  readonly dtypes: readonly { dtype: string; numTensors: number; bytes: number }[];
  /** In the order of the file. */
  readonly tensors: readonly TensorDescription[];
}

/** First match wins. The patterns cover the names of GPT-2, Llama and their relatives. */
const groupPatterns: readonly (readonly [group: string, pattern: RegExp])[] = [
  ["norm", /(^|[._])(ln(_?\w+)?|\w*norm\w*)(\.|$)/i],
  ["attention", /(^|\.)(\w*attn|\w*attention)\w*\./i],
  ["mlp", /(^|\.)(mlp|feed_forward|ffn|experts)(\b|_)/i],
  ["embedding", /(^|\.)(\w*embd?(ed)?\w*|wte|wpe)(\.|$)/i],
  ["head", /(^|\.)(\w*head\w*|output)(\.|$)/i],
];

/** Part of a decoder that a parameter belongs to, by its name. */
export const groupOf = (name: string): string => groupPatterns.find(([, pattern]) => pattern.test(name))?.[0] ?? "other";

/**
 * @param path checkpoint folder, `.safetensors`, `model.safetensors.index.json`, `.gguf` or llama2.c `.bin`
 * @throws FormatError when it is none of these or damaged
 */
export function describeModel(path: string): ModelDescription {
  if (!existsSync(path)) throw new FormatError(`${path}: expected a model file or folder, got none`);
  const isFolder = statSync(path).isDirectory();
  if (!isFolder && extname(path) === ".bin") {
    using source = openLlama2c(path);
    return describe(path, "llama2.c", source, llama2cToHfConfig(source.config));
  }
  if (!isFolder && extname(path).toLowerCase() === ".gguf") {
    using file = openGguf(path);
    const config = ggufHfConfig(file);
    const bytesOf = ({ dtype, shape }: TensorEntry): number => ggufTensorBytes(dtype as GgufTypeName, shape);
    // Names of the file for the list, names of the configuration for what is missing.
    return { ...describe(path, "GGUF", file, config, bytesOf), family: familyDescription(ggufCheckpoint(file, config), config) };
  }
  if (!isFolder && ![".safetensors", ".json"].includes(extname(path))) {
    throw new FormatError(
      `${path}: expected a folder, .safetensors, .index.json, .gguf or llama2.c .bin, got ${extname(path) || "no extension"}`,
      {
        hint: "Other formats are to be converted to safetensors first.",
      },
    );
  }
  using source = openSafetensors(path);
  const folder = isFolder ? path : dirname(path);
  const config = existsSync(join(folder, "config.json")) ? readHfConfig(folder) : undefined;
  return describe(path, "safetensors", source, config);
}

function describe(
  path: string,
  format: ModelDescription["format"],
  source: TensorSource,
  config: HfConfig | undefined,
  bytesOf = storedBytes,
): ModelDescription {
  const tensors = [...source.entries.values()].map((entry) => {
    const { name, dtype, shape } = entry;
    return { name, dtype, shape, numParameters: shape.reduce((product, dimension) => product * dimension, 1), bytes: bytesOf(entry) };
  });
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const groups = [...groupBy(tensors, ({ name }) => groupOf(name))].map(([name, members]) => ({
    name,
    numParameters: sum(members.map((tensor) => tensor.numParameters)),
    bytes: sum(members.map(({ bytes }) => bytes)),
  }));
  const dtypes = [...groupBy(tensors, ({ dtype }) => dtype)].map(([dtype, members]) => ({
    dtype,
    numTensors: members.length,
    bytes: sum(members.map(({ bytes }) => bytes)),
  }));
  return {
    path,
    format,
    architecture: config && architectureOf(config),
    ...(config ? { family: familyDescription(source, config) } : {}),
    numParameters: sum(tensors.map((tensor) => tensor.numParameters)),
    bytes: sum(tensors.map(({ bytes }) => bytes)),
    groups: groups.sort((a, b) => b.numParameters - a.numParameters),
    dtypes,
    tensors,
  };
}

/** Of safetensors types; llama2.c stores float32. */
function storedBytes({ dtype, shape }: TensorEntry): number {
  const bits = isSafetensorsDType(dtype) ? bitsPerSafetensorsElement[dtype] : 32;
  return Math.ceil((shape.reduce((product, dimension) => product * dimension, 1) * bits) / 8);
}

function familyDescription(source: TensorSource, config: HfConfig): FamilyDescription {
  try {
    const decoder = decoderConfig(familyOf(config).read(config));
    return { facts: decoderFacts(decoder), ...compareNames(source, config, decoder) };
  } catch (error) {
    if (!(error instanceof LongwaveError)) throw error;
    return { refused: [error.message, error.hint].filter(Boolean).join(" "), missing: [], unexpected: [] };
  }
}

/** Map.groupBy came with Node 21. */
function groupBy<T>(values: readonly T[], keyOf: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const key = keyOf(value);
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  return groups;
}

/** GPT-2's configuration has its own words for the same sizes. */
function architectureOf(config: HfConfig): Architecture {
  const number = (...keys: string[]): number | undefined =>
    keys.map((key) => config[key]).find((value): value is number => typeof value === "number");
  return {
    name: config.architectures?.[0] ?? config.model_type ?? "unknown",
    numLayers: number("num_hidden_layers", "n_layer"),
    width: number("hidden_size", "n_embd"),
    numHeads: number("num_attention_heads", "n_head"),
    numKeyValueHeads: number("num_key_value_heads"),
    vocabularySize: number("vocab_size"),
    maxPositions: number("max_position_embeddings", "n_positions"),
    tiedEmbeddings: config.tie_word_embeddings ?? undefined,
  };
}
