// The tokenizer inside a GGUF file, as the tokenizer.json and tokenizer_config.json that it was made from. Three kinds (`tokenizer.ggml.model`):
// "gpt2" is byte-level BPE, "llama" is SentencePiece BPE with scores and byte tokens, "t5" is a SentencePiece unigram model.
import { FormatError } from "../base/errors.ts";
import { type GgufSource, openGguf } from "../formats/gguf.ts";
import { PipelineTokenizer } from "./pipeline-tokenizer.ts";
import { llama3Pattern, qwen2Pattern } from "./pre-tokenizer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { checkTokenizerFile, type JsonObject, type Words } from "./tokenizer-file.ts";

export interface GgufTokenizerFiles {
  /** The content of tokenizer.json. */
  readonly tokenizer: JsonObject;
  /** The content of tokenizer_config.json: roles of tokens and the chat template, when there is one. */
  readonly config: JsonObject;
}

/** Token types of `tokenizer.ggml.token_type`. */
export const ggufTokenKinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const kinds = ggufTokenKinds;

const byteLevel = (useRegex: boolean): JsonObject => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});
const splits = (...patterns: string[]): JsonObject => ({
  type: "Sequence",
  pretokenizers: [
    ...patterns.map((pattern) => ({ type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false })),
    byteLevel(false),
  ],
});
const digitsThenGpt2: JsonObject = {
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel(true)],
};
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
const spaces = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const caseWords = (suffix: string, digits: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${suffix}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${suffix}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`;
const deepseekV3 = [
  "\\p{N}{1,3}",
  "[一-龥぀-ゟ゠-ヿ]+",
  `[!"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_\`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|${spaces}`,
];

/** A splitting rule under llama.cpp's names (`tokenizer.ggml.pre`). */
export interface GgufSplitting {
  readonly names: readonly string[];
  readonly preTokenizer: JsonObject;
  readonly normalizer?: JsonObject;
  /** Words that are tokens are not merged step by step. */
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

export const ggufSplittings: readonly GgufSplitting[] = [
  { names: ["gpt-2", "gpt2", "default", "olmo", "phi-2", "jais", "mpt", "roberta-bpe"], preTokenizer: byteLevel(true) },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
    preTokenizer: splits(llama3Pattern),
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["dbrx", "smaug-bpe"], preTokenizer: splits(llama3Pattern) },
  { names: ["qwen2", "deepseek-r1-qwen", "megrez"], preTokenizer: splits(qwen2Pattern), normalizer: { type: "NFC" } },
  { names: ["stablelm2"], preTokenizer: splits(qwen2Pattern) },
  { names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], preTokenizer: digitsThenGpt2 },
  { names: ["deepseek-v3", "hunyuan-dense"], preTokenizer: splits(...deepseekV3) },
  { names: ["tekken"], preTokenizer: splits(caseWords("", "\\p{N}")), ignoreMerges: true, addBos: true },
  { names: ["gpt-4o", "llama4", "kanana2"], preTokenizer: splits(caseWords(contraction, "\\p{N}{1,3}")) },
];

/** Loads the tokenizer of a GGUF file. @throws FormatError when it has none or one of an unknown kind. */
export function loadGgufTokenizer(path: string): Tokenizer {
  using file = openGguf(path);
  return openGgufTokenizer(file).tokenizer;
}

/** The tokenizer of an open file, and the settings that it was made with. @throws FormatError as {@link loadGgufTokenizer}. */
export function openGgufTokenizer(file: GgufSource): { tokenizer: Tokenizer; config: JsonObject } {
  const { json, words, config } = read(file);
  return { tokenizer: new PipelineTokenizer(checkTokenizerFile(json, file.path, words), config), config };
}

/** What Hugging Face's files would say. @throws FormatError as {@link loadGgufTokenizer}. */
export function ggufTokenizerFiles(file: GgufSource): GgufTokenizerFiles {
  const { json, words, config } = read(file);
  if (words === undefined) return { tokenizer: json, config };
  const { vocab, merges } = words;
  return { tokenizer: { ...json, model: { ...json.model, vocab: Object.fromEntries(vocab), merges } }, config };
}

/** A tokenizer.json whose model may have its words beside it, and a tokenizer_config.json. */
function read(file: GgufSource): { json: JsonObject & { model: JsonObject }; words: Words | undefined; config: JsonObject } {
  const vocabulary = readVocabulary(file);
  const model = file.value("tokenizer.ggml.model");
  const make = model === "gpt2" ? byteLevelJson : model === "llama" ? scoredJson : model === "t5" ? unigramJson : undefined;
  if (make === undefined) {
    throw new FormatError(`${file.path}: expected tokenizer.ggml.model gpt2, llama or t5, got ${JSON.stringify(model ?? null)}`, {
      hint: "Give the tokenizer of this model as tokenizer.json.",
    });
  }
  const { addBos, words, ...json } = make(file, vocabulary);
  const flag = (name: string, fallback: boolean): boolean => {
    const value = file.value(`tokenizer.ggml.${name}`);
    return typeof value === "boolean" ? value : fallback;
  };
  const role = (name: string): string | undefined => {
    const id = file.value(`tokenizer.ggml.${name}_token_id`);
    return typeof id === "number" ? vocabulary.tokens[id] : undefined;
  };
  const template = file.value("tokenizer.chat_template");
  const named = Object.entries({ bos: role("bos"), eos: role("eos"), pad: role("padding"), unk: role("unknown") });
  return {
    json: { version: "1.0", truncation: null, padding: null, post_processor: null, ...json },
    words,
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      add_bos_token: flag("add_bos_token", addBos),
      add_eos_token: flag("add_eos_token", false),
      ...Object.fromEntries(named.flatMap(([name, token]) => (token === undefined ? [] : [[`${name}_token`, token]]))),
      ...(typeof template === "string" ? { chat_template: template } : {}),
    },
  };
}

interface Vocabulary {
  readonly tokens: readonly string[];
  /** Token types by id; all normal when the file has none. */
  readonly kinds: ArrayLike<number>;
}

function readVocabulary(file: GgufSource): Vocabulary {
  const tokens = strings(file, "tokenizer.ggml.tokens");
  if (tokens === undefined || tokens.length === 0) {
    throw new FormatError(`${file.path}: expected tokens in tokenizer.ggml.tokens, got none`, {
      hint: "This file has no tokenizer: give the one of its model.",
    });
  }
  return { tokens, kinds: numbers(file, "tokenizer.ggml.token_type", tokens.length) ?? new Uint8Array(tokens.length).fill(kinds.normal) };
}

function strings(file: GgufSource, key: string): readonly string[] | undefined {
  const value = file.value(key);
  return typeof value === "object" && value.type === "string" ? (value.values as readonly string[]) : undefined;
}

function numbers(file: GgufSource, key: string, length: number): ArrayLike<number> | undefined {
  const value = file.value(key);
  if (value === undefined) return undefined;
  const values = typeof value === "object" && !["string", "array", "u64", "i64"].includes(value.type) ? value.values : undefined;
  if (values === undefined || values.length !== length) {
    throw new FormatError(`${file.path}: expected ${length} numbers in ${key}, got ${values?.length ?? "something else"}`, {
      hint: "The file is damaged.",
    });
  }
  return values as ArrayLike<number>;
}

/** Fields of a tokenizer.json, and whether texts begin with the begin token unless the file says otherwise. */
interface TokenizerParts {
  readonly addBos: boolean;
  /** Those of a BPE model. */
  readonly words?: Words;
  readonly model: JsonObject;
  readonly [field: string]: unknown;
}

/** Control tokens are special; user-defined ones are found in texts but belong to them. */
const addedTokens = ({ tokens, kinds: types }: Vocabulary): JsonObject[] =>
  tokens.flatMap((content, id) => {
    const special = types[id] === kinds.control || types[id] === kinds.unknown;
    if ((!special && types[id] !== kinds.userDefined) || content === "") return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });

/** Ids by token. Unused ids (the padding of a vocabulary) stay without a token; of equal tokens the first keeps the name. */
function vocabularyOf({ tokens, kinds: types }: Vocabulary): Map<string, number> {
  const vocab = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (types[id] !== kinds.unused && !vocab.has(token)) vocab.set(token, id);
  return vocab;
}

function byteLevelJson(file: GgufSource, vocabulary: Vocabulary): TokenizerParts {
  const pre = file.value("tokenizer.ggml.pre") ?? "default";
  const splitting = ggufSplittings.find(({ names }) => names.includes(String(pre)));
  if (splitting === undefined) {
    const known = ggufSplittings.flatMap(({ names }) => names).join(", ");
    throw new FormatError(`${file.path}: expected tokenizer.ggml.pre ${known}, got ${JSON.stringify(String(pre))}`, {
      hint: "Give the tokenizer of this model as tokenizer.json.",
    });
  }
  const vocab = vocabularyOf(vocabulary);
  // A merge is written as "a b"; tokens in byte-level spelling have no spaces.
  const merges = (strings(file, "tokenizer.ggml.merges") ?? []).map((merge) => {
    const at = merge.indexOf(" ", 1);
    return [merge.slice(0, at), merge.slice(at + 1)] as const;
  });
  return {
    addBos: splitting.addBos ?? false,
    words: { vocab, merges },
    added_tokens: addedTokens(vocabulary),
    normalizer: splitting.normalizer ?? null,
    pre_tokenizer: splitting.preTokenizer,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: splitting.ignoreMerges ?? false,
    },
  };
}

const scoresOf = (file: GgufSource, { tokens }: Vocabulary): ArrayLike<number> => {
  const scores = numbers(file, "tokenizer.ggml.scores", tokens.length);
  if (scores === undefined)
    throw new FormatError(`${file.path}: expected tokenizer.ggml.scores, got none`, { hint: "The file is damaged." });
  return scores;
};

const addsSpace = (file: GgufSource): boolean => file.value("tokenizer.ggml.add_space_prefix") !== false;

function scoredJson(file: GgufSource, vocabulary: Vocabulary): TokenizerParts {
  const prefix = addsSpace(file);
  const replace: JsonObject = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const unknown = vocabulary.tokens[Number(file.value("tokenizer.ggml.unknown_token_id") ?? -1)];
  return {
    addBos: true,
    words: { vocab: vocabularyOf(vocabulary), merges: mergesOfScores(vocabulary, scoresOf(file, vocabulary)) },
    added_tokens: addedTokens(vocabulary),
    normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, replace] } : replace,
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: vocabulary.tokens.some((_, id) => vocabulary.kinds[id] === kinds.byte),
      ignore_merges: false,
    },
  };
}

/**
 * The merges that joining the neighbours of highest score amounts to: every way to cut a token in two, the best token first.
 * SentencePiece looks only at the joined token's score, so equal scores alone leave a choice, which it makes by position.
 */
function mergesOfScores({ tokens, kinds: types }: Vocabulary, scores: ArrayLike<number>): [string, string][] {
  const joined = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (types[id] === kinds.normal) joined.set(token, id);
  const order = [...joined].sort(([, a], [, b]) => scores[b] - scores[a] || a - b);
  const merges: [string, string][] = [];
  for (const [token] of order) {
    for (let at = 1; at < token.length; at++) {
      const [left, right] = [token.slice(0, at), token.slice(at)];
      if (joined.has(left) && joined.has(right)) merges.push([left, right]);
    }
  }
  return merges;
}

function unigramJson(file: GgufSource, vocabulary: Vocabulary): TokenizerParts {
  const scores = scoresOf(file, vocabulary);
  const charsmap = file.value("tokenizer.ggml.precompiled_charsmap");
  const bytes = typeof charsmap === "object" && charsmap.values instanceof Uint8Array ? charsmap.values : undefined;
  const collapse = file.value("tokenizer.ggml.remove_extra_whitespaces") === true;
  const normalizers: JsonObject[] = [
    ...(bytes && bytes.length > 0 ? [{ type: "Precompiled", precompiled_charsmap: Buffer.from(bytes).toString("base64") }] : []),
    ...(collapse
      ? [
          { type: "Strip", strip_left: false, strip_right: true },
          { type: "Replace", pattern: { Regex: " {2,}" }, content: "▁" },
        ]
      : []),
  ];
  const scheme = addsSpace(file) ? "always" : "never";
  const metaspace: JsonObject = { type: "Metaspace", replacement: "▁", prepend_scheme: scheme, split: true };
  const fallsBack = vocabulary.tokens.some((_, id) => vocabulary.kinds[id] === kinds.byte);
  return {
    addBos: false,
    added_tokens: addedTokens(vocabulary),
    normalizer: normalizers.length > 0 ? { type: "Sequence", normalizers } : null,
    pre_tokenizer: metaspace,
    decoder: fallsBack ? { type: "Sequence", decoders: [{ type: "ByteFallback" }, metaspace] } : metaspace,
    model: {
      type: "Unigram",
      unk_id: Number(file.value("tokenizer.ggml.unknown_token_id") ?? 0),
      vocab: vocabulary.tokens.map((token, id) => [token, scores[id]]),
      byte_fallback: fallsBack,
    },
  };
}
