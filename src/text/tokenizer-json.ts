// Writes a trained vocabulary as Hugging Face's tokenizer.json and tokenizer_config.json, which `tokenizers`, transformers and
// @huggingface/tokenizers load as they are.
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic.ts";
import { UsageError } from "../base/errors.ts";
import { makeDirectories } from "../base/make-directories.ts";
import type { TrainedBpe } from "./bpe-trainer.ts";
import { tokenizerFromJson } from "./load-tokenizer.ts";
import { llama3Pattern, type PreTokenizerKind, qwen2Pattern } from "./pre-tokenizer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { JsonObject } from "./tokenizer-file.ts";

/** Roles of special tokens. Each must be one of the trained `specialTokens`. */
export interface TokenizerRoles {
  bosToken?: string;
  eosToken?: string;
  padToken?: string;
  unkToken?: string;
  /** Begin every encoded text with `bosToken`. Default false. */
  addBos?: boolean;
  /** Longest input of the model, in tokens (`model_max_length`). */
  maxLength?: number;
  /** Jinja template of conversations. */
  chatTemplate?: string;
}

const byteLevel = (useRegex: boolean): JsonObject => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

const splitBy = (pattern: string): JsonObject => ({
  type: "Sequence",
  pretokenizers: [{ type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }, byteLevel(false)],
});

const preTokenizers: Record<PreTokenizerKind, JsonObject> = {
  gpt2: byteLevel(true),
  llama3: splitBy(llama3Pattern),
  qwen2: splitBy(qwen2Pattern),
  smollm: { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel(true)] },
};

/** The content of tokenizer.json (version 1.0). @throws UsageError when a role names a token that is not special. */
export function tokenizerJson(trained: TrainedBpe, roles: TokenizerRoles = {}): JsonObject {
  checkRoles(trained, roles);
  const { tokens, specialTokens, merges } = trained;
  const offsets = { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: preTokenizers[trained.preTokenizer],
    post_processor: roles.addBos ? { type: "Sequence", processors: [offsets, beginTemplate(trained, roles)] } : offsets,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map(([left, right]) => [tokens[left], tokens[right]]),
    },
  };
}

/** The content of tokenizer_config.json. @throws UsageError as {@link tokenizerJson}. */
export function tokenizerConfigJson(trained: TrainedBpe, roles: TokenizerRoles = {}): JsonObject {
  checkRoles(trained, roles);
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    add_bos_token: roles.addBos ?? false,
    clean_up_tokenization_spaces: false,
    ...(roles.bosToken === undefined ? {} : { bos_token: roles.bosToken }),
    ...(roles.eosToken === undefined ? {} : { eos_token: roles.eosToken }),
    ...(roles.padToken === undefined ? {} : { pad_token: roles.padToken }),
    ...(roles.unkToken === undefined ? {} : { unk_token: roles.unkToken }),
    ...(roles.maxLength === undefined ? {} : { model_max_length: roles.maxLength }),
    ...(roles.chatTemplate === undefined ? {} : { chat_template: roles.chatTemplate }),
  };
}

/** Writes both files into a folder, each of them whole or not at all. @throws UsageError, CheckpointError. */
export function saveTokenizer(directory: string, trained: TrainedBpe, roles: TokenizerRoles = {}): void {
  const files = { "tokenizer.json": tokenizerJson(trained, roles), "tokenizer_config.json": tokenizerConfigJson(trained, roles) };
  makeDirectories(directory);
  for (const [name, content] of Object.entries(files)) writeFileAtomic(join(directory, name), `${JSON.stringify(content, null, 2)}\n`);
}

/** A tokenizer straight from training, without a file. @throws UsageError. */
export function tokenizerFromTrained(trained: TrainedBpe, roles: TokenizerRoles = {}): Tokenizer {
  return tokenizerFromJson(tokenizerJson(trained, roles), tokenizerConfigJson(trained, roles));
}

function beginTemplate(trained: TrainedBpe, { bosToken = "" }: TokenizerRoles): JsonObject {
  const begin = (typeId: number) => ({ SpecialToken: { id: bosToken, type_id: typeId } });
  const sequence = (id: string, typeId: number) => ({ Sequence: { id, type_id: typeId } });
  return {
    type: "TemplateProcessing",
    single: [begin(0), sequence("A", 0)],
    pair: [begin(0), sequence("A", 0), begin(1), sequence("B", 1)],
    special_tokens: { [bosToken]: { id: bosToken, ids: [trained.specialTokens.indexOf(bosToken)], tokens: [bosToken] } },
  };
}

function checkRoles(trained: TrainedBpe, roles: TokenizerRoles): void {
  for (const role of ["bosToken", "eosToken", "padToken", "unkToken"] as const) {
    const token = roles[role];
    if (token !== undefined && !trained.specialTokens.includes(token)) {
      throw new UsageError(`${role}: expected one of the special tokens (${trained.specialTokens.join(", ")}), got ${token}`, {
        hint: "Train with this token in specialTokens.",
      });
    }
  }
  if (roles.addBos && roles.bosToken === undefined) throw new UsageError("addBos: expected a bosToken, got none");
}
