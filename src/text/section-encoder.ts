// Encoding of text between added tokens. Byte-level BPE has an encoder of its own, with a hand-written scanner for the splitting patterns
// that most models use; everything else is normalised, cut into pieces and given to a model piece by piece.
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { type AlignedText, alignedText } from "./aligned-text.ts";
import { byteCharacters } from "./byte-alphabet.ts";
import { ByteLevelBpe } from "./byte-level-bpe.ts";
import { CharacterBpe } from "./character-bpe.ts";
import { IdBuffer } from "./id-buffer.ts";
import { makeNormalizer, type Normalizer } from "./normalizers.ts";
import type { PieceEncoder, TokenSink } from "./piece-encoder.ts";
import { gpt2Pattern, llama3Pattern, type PreTokenizerKind, qwen2Pattern, wordEndOf } from "./pre-tokenizer.ts";
import { endsInByteLevel, makeSplitStep, type SplitStep } from "./split-steps.ts";
import { isObject, type TokenizerFile } from "./tokenizer-file.ts";
import { Unigram } from "./unigram.ts";
import { WordLevel, WordPiece } from "./word-models.ts";

export interface SectionEncoder {
  readonly normalize: Normalizer;
  /** Appends the ids of normalised text[start … end). `isFirst`: the section begins the whole text. */
  encode(text: string, start: number, end: number, isFirst: boolean, out: IdBuffer): void;
  /** The same with ranges in the original text; `section` knows its places. */
  encodeSpans(section: AlignedText, out: TokenSink): void;
}

/** @throws FormatError when the file asks for something that is not known. */
export function makeSectionEncoder(file: TokenizerFile): SectionEncoder {
  const normalize = makeNormalizer(file.json.normalizer);
  return isByteLevelBpe(file)
    ? byteLevelEncoder(file, normalize)
    : pieceEncoder(modelOf(file), makeSplitStep(file.json.pre_tokenizer), normalize);
}

function isByteLevelBpe({ json, model, modelType, vocab }: TokenizerFile): boolean {
  const isPlain = !model.continuing_subword_prefix && !model.end_of_word_suffix;
  // A byte without a token is dropped or unknown, which the encoder of characters knows how to do.
  return modelType === "BPE" && isPlain && endsInByteLevel(json.pre_tokenizer) && byteCharacters.every((character) => vocab.has(character));
}

function byteLevelEncoder(file: TokenizerFile, normalize: Normalizer): SectionEncoder {
  const { json, model, vocab, merges } = file;
  const kind = preTokenizerKind(json.pre_tokenizer);
  const bpe = new ByteLevelBpe({ vocab, merges, ignoreMerges: model.ignore_merges === true, ...(kind && { wordEnd: wordEndOf(kind) }) });
  const split = kind ? undefined : makeSplitStep(json.pre_tokenizer, "text");
  const byteLengths = new Int32Array(file.vocabSize);
  for (const [token, id] of vocab) byteLengths[id] = token.length;
  const ids = new IdBuffer();
  const encodeWord = (word: AlignedText, from: number, to: number, out: TokenSink): void => {
    ids.length = 0;
    bpe.encodeWord(word.text, from, to, ids);
    pushByteSpans(word, from, to, ids, byteLengths, out);
  };
  return {
    normalize,
    encode(text, start, end, isFirst, out) {
      if (!split) {
        bpe.encode(text, start, end, out);
        return;
      }
      const section = start === 0 && end === text.length ? text : text.slice(start, end);
      for (const piece of split({ text: section, isFirst })) bpe.encodeWord(piece.text, 0, piece.text.length, out);
    },
    encodeSpans(section, out) {
      for (const piece of split ? split(section) : [section]) {
        for (let at = 0; at < piece.text.length; ) {
          const end = bpe.wordEnd(piece.text, at, piece.text.length);
          encodeWord(piece, at, end, out);
          at = end;
        }
      }
    },
  };
}

/** Tokens that are bytes of text[from … to), with the range of the characters that their bytes are part of. */
function pushByteSpans(
  { text, starts, ends }: AlignedText,
  from: number,
  to: number,
  ids: IdBuffer,
  byteLengths: Int32Array,
  out: TokenSink,
): void {
  /** By byte: the code unit at which its character starts. */
  const units: number[] = [];
  for (let at = from; at < to; ) {
    const code = text.codePointAt(at) as number;
    const numBytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (let i = 0; i < numBytes; i++) units.push(at);
    at += code > 0xffff ? 2 : 1;
  }
  let byte = 0;
  for (let i = 0; i < ids.length; i++) {
    const id = ids.data[i];
    const end = byte + byteLengths[id];
    out.ids.push(id);
    out.starts.push(starts?.[units[byte]] ?? 0);
    out.ends.push(ends?.[units[end - 1]] ?? 0);
    byte = end;
  }
}

/** An encoder from its three parts. */
export function pieceEncoder(model: PieceEncoder, split: SplitStep, normalize: Normalizer): SectionEncoder {
  const sink: TokenSink = { ids: new IdBuffer(), starts: new IdBuffer(), ends: new IdBuffer() };
  const encodePiece = (piece: string): TokenSink => {
    sink.ids.length = sink.starts.length = sink.ends.length = 0;
    model.encode(piece, sink);
    return sink;
  };
  return {
    normalize,
    encode(text, start, end, isFirst, out) {
      const section = { ...alignedText(text, start, end, false), isFirst };
      for (const piece of split(section)) {
        const { ids } = encodePiece(piece.text);
        out.pushAll(ids.data, 0, ids.length);
      }
    },
    encodeSpans(section, out) {
      for (const { text, starts, ends } of split(section)) {
        const tokens = encodePiece(text);
        for (let i = 0; i < tokens.ids.length; i++) {
          out.ids.push(tokens.ids.data[i]);
          out.starts.push(starts?.[tokens.starts.data[i]] ?? 0);
          out.ends.push(ends?.[tokens.ends.data[i] - 1] ?? 0);
        }
      }
    },
  };
}

function modelOf({ model, modelType, vocab, merges }: TokenizerFile): PieceEncoder {
  const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
  switch (modelType) {
    case "Unigram": {
      const scores = model.vocab as [string, number][];
      const unknownId = typeof model.unk_id === "number" ? model.unk_id : undefined;
      if (unknownId !== undefined && !(Number.isInteger(unknownId) && unknownId >= 0 && unknownId < scores.length))
        throw new FormatError(`tokenizer.json: model.unk_id: expected an id below ${scores.length}, got ${show(unknownId)}`);
      return new Unigram({ vocab: scores, byteFallback: model.byte_fallback === true, ...(unknownId !== undefined && { unknownId }) });
    }
    case "WordPiece": {
      const maxCharacters = typeof model.max_input_chars_per_word === "number" ? model.max_input_chars_per_word : 100;
      const continuation = text(model.continuing_subword_prefix) ?? "##";
      return new WordPiece({ vocab, unknownToken: text(model.unk_token) ?? "[UNK]", continuation, maxCharacters });
    }
    case "WordLevel":
      return new WordLevel(vocab, text(model.unk_token) ?? "<unk>");
    default: {
      const unknownId = vocab.get(text(model.unk_token) ?? "");
      return new CharacterBpe({
        vocab,
        merges,
        fuseUnknown: model.fuse_unk === true,
        byteFallback: model.byte_fallback === true,
        ignoreMerges: model.ignore_merges === true,
        continuation: text(model.continuing_subword_prefix) ?? "",
        wordEnd: text(model.end_of_word_suffix) ?? "",
        ...(unknownId !== undefined && { unknownId }),
      });
    }
  }
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
