// Hugging Face `config.json` and `generation_config.json`: the fields many architectures share are checked, all others are kept as
// they are. What a field means for an architecture is decided in models/.
import { join } from "node:path";
import * as z from "zod";
import { writeFileAtomic } from "../base/atomic.ts";
import { FormatError } from "../base/errors.ts";
import { readJsonObject } from "./json-file.ts";

const count = z.int().nonnegative();
const positive = z.int().positive();
const tokenIds = z.union([z.int(), z.array(z.int())]);

// Absent and null mean the same in these files, hence `nullish`.
const hfConfigSchema = z.looseObject({
  model_type: z.string().nullish(),
  architectures: z.array(z.string()).nullish(),
  vocab_size: positive.nullish(),
  hidden_size: positive.nullish(),
  intermediate_size: z.union([positive, z.array(positive)]).nullish(),
  num_hidden_layers: count.nullish(),
  num_attention_heads: positive.nullish(),
  num_key_value_heads: positive.nullish(),
  head_dim: positive.nullish(),
  max_position_embeddings: positive.nullish(),
  hidden_act: z.string().nullish(),
  rms_norm_eps: z.number().nonnegative().nullish(),
  layer_norm_eps: z.number().nonnegative().nullish(),
  initializer_range: z.number().nonnegative().nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  /** As transformers 5 writes it, in place of rope_theta and rope_scaling. */
  rope_parameters: z.record(z.string(), z.unknown()).nullish(),
  sliding_window: positive.nullish(),
  layer_types: z.array(z.string()).nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  /** transformers 5 calls it dtype. */
  torch_dtype: z.string().nullish(),
  dtype: z.string().nullish(),
  bos_token_id: tokenIds.nullish(),
  eos_token_id: tokenIds.nullish(),
  pad_token_id: z.int().nullish(),
  quantization_config: z.record(z.string(), z.unknown()).nullish(),
});

const hfGenerationConfigSchema = z.looseObject({
  bos_token_id: tokenIds.nullish(),
  eos_token_id: tokenIds.nullish(),
  pad_token_id: z.int().nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().nonnegative().nullish(),
  top_k: count.nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  typical_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  max_length: count.nullish(),
  max_new_tokens: count.nullish(),
});

/** A `config.json`; keys beyond the common ones have type unknown. */
export type HfConfig = z.infer<typeof hfConfigSchema>;
export type HfGenerationConfig = z.infer<typeof hfGenerationConfigSchema>;

/** Checks the common fields of a parsed configuration. @param label names its origin in errors. @throws FormatError. */
export const parseHfConfig = (value: unknown, label: string): HfConfig => check(hfConfigSchema, value, label);

/** @throws FormatError. */
export const parseHfGenerationConfig = (value: unknown, label: string): HfGenerationConfig => check(hfGenerationConfigSchema, value, label);

/** Reads `config.json` (at most 16 MiB) of a checkpoint folder, or the file itself. @throws FormatError. */
export function readHfConfig(path: string): HfConfig {
  const file = path.endsWith(".json") ? path : join(path, "config.json");
  return parseHfConfig(readJsonObject(file), file);
}

/** Reads `generation_config.json` of a checkpoint folder, or the file itself. @throws FormatError. */
export function readHfGenerationConfig(path: string): HfGenerationConfig {
  const file = path.endsWith(".json") ? path : join(path, "generation_config.json");
  return parseHfGenerationConfig(readJsonObject(file), file);
}

/** Writes JSON as Hugging Face does: two spaces, a final newline. Atomic. @throws CheckpointError. */
export function writeHfConfig(path: string, config: HfConfig | HfGenerationConfig): void {
  writeFileAtomic(path, `${JSON.stringify(config, null, 2)}\n`);
}

function check<T>(schema: z.ZodType<T>, value: unknown, label: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0];
  const field = path.length === 0 ? "the top level" : `field ${path.join(".")}`;
  const found = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value);
  const got = (JSON.stringify(found) ?? "nothing").slice(0, 60);
  throw new FormatError(`${label}: expected a valid value at ${field} (${message}), got ${got}`, {
    hint: "The file is damaged or not a Hugging Face configuration.",
  });
}
