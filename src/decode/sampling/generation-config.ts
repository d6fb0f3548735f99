// The sampling part of a Hugging Face generation_config.json, read with transformers' meaning of absent keys: greedy unless
// `do_sample` is true, and no truncation. (One difference: transformers samples with top_k 50 when the key is absent.)
import { parseOptions } from "../../base/schema.ts";
import { type SamplingOptions, samplingOptions } from "./options.ts";

/** GenerationConfig key -> option. Keys that are not listed say nothing about sampling and are skipped. */
const optionOfKey = {
  do_sample: "doSample",
  temperature: "temperature",
  top_h: "topH",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  typical_p: "typicalP",
  epsilon_cutoff: "epsilonCutoff",
  eta_cutoff: "etaCutoff",
  repetition_penalty: "repetitionPenalty",
  no_repeat_ngram_size: "noRepeatNgramSize",
  bad_words_ids: "badWordsIds",
  sequence_bias: "sequenceBias",
  suppress_tokens: "suppressTokens",
  begin_suppress_tokens: "beginSuppressTokens",
  min_length: "minLength",
  min_new_tokens: "minNewTokens",
  max_length: "maxLength",
  eos_token_id: "eosTokenId",
  forced_bos_token_id: "forcedBosTokenId",
  forced_eos_token_id: "forcedEosTokenId",
  exponential_decay_length_penalty: "exponentialDecayLengthPenalty",
} as const satisfies Record<string, keyof SamplingOptions>;

/** @throws UsageError for a value that its option does not allow. */
export function samplingOptionsFromGenerationConfig(config: Readonly<Record<string, unknown>>): SamplingOptions {
  const values: Record<string, unknown> = { doSample: false };
  for (const [key, option] of Object.entries(optionOfKey)) {
    // null is how the file says "not set".
    if (config[key] !== undefined && config[key] !== null) values[option] = config[key];
  }
  return parseOptions(samplingOptions, values);
}
