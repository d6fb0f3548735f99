// Encoding of text between added tokens. Byte-level BPE with a known splitting pattern runs on longwave's own scanner and merges;
// everything else (other patterns, SentencePiece-like BPE, Unigram, WordPiece) on the parts of @huggingface/tokenizers.
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { FormatError } from "../base/errors.ts";
import { byteCharacters } from "./byte-alphabet.ts";
import { ByteLevelBpe } from "./byte-level-bpe.ts";
import type { IdBuffer } from "./id-buffer.ts";
import { gpt2Pattern, llama3Pattern, type PreTokenizerKind, qwen2Pattern, wordEndOf } from "./pre-tokenizer.ts";
import { isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

export interface SectionEncoder {
  /** The normaliser of the tokenizer. */
  normalize(text: string): string;
  /** Appends the ids of normalised text[start … end). `isFirst`: the section begins the whole text. */
  encode(text: string, start: number, end: number, isFirst: boolean, out: IdBuffer): void;
  /** The library's decoder, for decoders that are not written here. */
  decodeTokens(tokens: string[]): string;
}

/** @throws FormatError when the file asks for something that neither implementation has. */
export function makeSectionEncoder(file: TokenizerFile): SectionEncoder {
  return makeByteLevelEncoder(file) ?? makeLibraryEncoder(file);
}

function makeByteLevelEncoder(file: TokenizerFile): SectionEncoder | undefined {
  const { json, model, modelType, vocab } = file;
  const kind = preTokenizerKind(json.pre_tokenizer);
  const normalize = simpleNormalizer(json.normalizer);
  const decodesBytes = isObject(json.decoder) && json.decoder.type === "ByteLevel";
  const isPlain = !model.dropout && !model.continuing_subword_prefix && !model.end_of_word_suffix;
  if (modelType !== "BPE" || kind === undefined || normalize === undefined || !decodesBytes || !isPlain) return undefined;
  // A byte without a token is dropped or unknown, which the library knows how to do.
  if (!byteCharacters.every((character) => vocab.has(character))) return undefined;
  const bpe = new ByteLevelBpe({ vocab, merges: file.merges, wordEnd: wordEndOf(kind), ignoreMerges: model.ignore_merges === true });
  return {
    normalize,
    encode: (text, start, end, _isFirst, out) => bpe.encode(text, start, end, out),
    decodeTokens: (tokens) => tokens.join(""),
  };
}

/** The scanner that a pre_tokenizer asks for, or undefined. */
export function preTokenizerKind(config: unknown): PreTokenizerKind | undefined {
  if (!isObject(config)) return undefined;
  if (isByteLevel(config, true)) return "gpt2";
  const parts: unknown = config.pretokenizers;
  if (config.type !== "Sequence" || !Array.isArray(parts) || parts.length !== 2) return undefined;
  const [first, second]: unknown[] = parts;
  if (!isObject(first)) return undefined;
  if (first.type === "Digits" && first.individual_digits === true && isByteLevel(second, true)) return "smollm";
  if (first.type !== "Split" || first.behavior !== "Isolated" || first.invert === true || !isByteLevel(second, false)) return undefined;
  const pattern = isObject(first.pattern) ? first.pattern.Regex : undefined;
  return pattern === gpt2Pattern ? "gpt2" : pattern === llama3Pattern ? "llama3" : pattern === qwen2Pattern ? "qwen2" : undefined;
}

const isByteLevel = (config: unknown, useRegex: boolean): boolean =>
  isObject(config) && config.type === "ByteLevel" && config.add_prefix_space !== true && (config.use_regex ?? true) === useRegex;

function simpleNormalizer(config: unknown): ((text: string) => string) | undefined {
  if (config === null || config === undefined) return (text) => text;
  if (!isObject(config)) return undefined;
  if (config.type === "NFC") return (text) => text.normalize("NFC");
  if (config.type !== "Sequence" || !Array.isArray(config.normalizers)) return undefined;
  const parts = config.normalizers.map(simpleNormalizer);
  if (!parts.every((part) => part !== undefined)) return undefined;
  return (text) => parts.reduce((result, part) => part(result), text);
}

const loneSurrogates = /\p{Surrogate}/gu;

/** The fields of the library's model that are used here. */
interface LibraryModel {
  tokens_to_ids: Map<string, number>;
  unk_token_id?: number;
  encode(tokens: string[]): string[];
  _call(tokens: string[]): string[];
}

function makeLibraryEncoder(file: TokenizerFile): SectionEncoder {
  let library: LibraryTokenizer;
  try {
    library = new LibraryTokenizer(forLibrary(file.json), {});
  } catch (cause) {
    throw new FormatError(`tokenizer.json: expected parts that @huggingface/tokenizers knows, got "${(cause as Error).message}"`, {
      cause,
      hint: "This kind of tokenizer is not supported yet.",
    });
  }
  const { normalizer, pre_tokenizer: preTokenizer, decoder } = library;
  const model = library.model as unknown as LibraryModel;
  const ids = model.tokens_to_ids;
  const unknown = model.unk_token_id;
  const isUnigram = file.modelType === "Unigram";
  const fallsBack = isUnigram && file.model.byte_fallback === true;

  const pushUnigram = (pieces: string[], out: IdBuffer): void => {
    let afterUnknown = false;
    for (const piece of pieces) {
      const id = ids.get(piece);
      const bytes = id === undefined && fallsBack ? byteTokenIds(piece, ids) : undefined;
      if (bytes !== undefined) out.pushAll(bytes);
      else if (id !== undefined) out.push(id);
      // Neighbouring unknown pieces are one unknown token.
      else if (unknown !== undefined && !afterUnknown) out.push(unknown);
      afterUnknown = id === undefined && bytes === undefined;
    }
  };
  return {
    normalize: (text) => (normalizer === null ? text : normalizer._call(text)),
    encode(text, start, end, isFirst, out) {
      const section = text.slice(start, end).replace(loneSurrogates, "\ufffd");
      const words = preTokenizer === null ? [section] : preTokenizer._call(section, { section_index: isFirst ? 0 : 1 });
      if (isUnigram) {
        for (const word of words) pushUnigram(model.encode([word]), out);
        return;
      }
      for (const token of model._call(words)) {
        const id = ids.get(token) ?? unknown;
        if (id !== undefined) out.push(id);
      }
    },
    decodeTokens: (tokens) => (decoder === null ? tokens.join(" ") : decoder._call(tokens)),
  };
}

/** The library insists on keys that may be left out. Added tokens and the frame are ours. */
const forLibrary = (json: JsonObject): JsonObject => ({
  ...json,
  normalizer: json.normalizer ?? null,
  pre_tokenizer: json.pre_tokenizer ?? null,
  post_processor: null,
  decoder: json.decoder ?? null,
  added_tokens: [],
});

function byteTokenIds(piece: string, ids: ReadonlyMap<string, number>): number[] | undefined {
  const found: number[] = [];
  for (const byte of new TextEncoder().encode(piece)) {
    const id = ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    if (id === undefined) return undefined;
    found.push(id);
  }
  return found;
}
