// The tokenizer of a tokenizer.json: find added tokens, normalise, find added tokens again, split and encode, put the frame around.
// See section-encoder.ts for what happens between added tokens.
import { AddedTokenFinder } from "./added-tokens.ts";
import { alignedText, sliceAligned, widthAt } from "./aligned-text.ts";
import { bytesOfToken } from "./byte-alphabet.ts";
import { IdBuffer } from "./id-buffer.ts";
import type { TokenSink } from "./piece-encoder.ts";
import { makePostProcessor, type PostProcessor, spacesAround, type TemplateItem } from "./post-processor.ts";
import { makeSectionEncoder, type SectionEncoder } from "./section-encoder.ts";
import { findSpecialIds } from "./special-tokens.ts";
import { ByteStreamDecoder, type StreamDecoder, WindowStreamDecoder } from "./stream-decoder.ts";
import { type DecodeStep, makeDecodeStep } from "./token-decoder.ts";
import {
  type DecodeOptions,
  type DetailedEncodeOptions,
  type EncodeOptions,
  type Encoding,
  hashVocabulary,
  type SpecialIds,
  type Tokenizer,
} from "./tokenizer.ts";
import { type AddedToken, isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

const utf8Encoder = new TextEncoder();
const noBytes = new Uint8Array(0);
const loneSurrogates = /\p{Surrogate}/gu;
/** In Node since version 20, in TypeScript's library since ES2024. */
const isWellFormed = (text: string): boolean => (text as unknown as { isWellFormed(): boolean }).isWellFormed();
const wellFormed = (text: string): string => (isWellFormed(text) ? text : text.replace(loneSurrogates, "\ufffd"));

export class PipelineTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly specialIds: SpecialIds;
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly tokens: (string | undefined)[];
  /** Skipped by decoding: special tokens and those that have a role. */
  private readonly special: ReadonlySet<number>;
  /** Marked as special in the file. */
  private readonly marked: ReadonlySet<number>;
  private readonly added: ReadonlySet<number>;
  private readonly frame: PostProcessor;
  private readonly sections: SectionEncoder;
  private readonly rawTokens: AddedTokenFinder;
  private readonly normalizedTokens: AddedTokenFinder;
  /** Undefined for byte-level decoding. */
  private readonly decodeStep: DecodeStep | undefined;
  private readonly bytesById: (Uint8Array | undefined)[] = [];
  private lazyHash: string | undefined;

  /**
   * @param config tokenizer_config.json, when there is one.
   * @param sections what encodes text between added tokens. Default: what the file asks for.
   * @throws FormatError for kinds that are not supported.
   */
  constructor(file: TokenizerFile, config?: JsonObject, sections: SectionEncoder = makeSectionEncoder(file)) {
    this.vocab = file.vocab;
    this.vocabSize = file.vocabSize;
    this.tokens = new Array<string | undefined>(file.vocabSize).fill(undefined);
    for (const [token, id] of file.vocab) this.tokens[id] = token;
    this.specialIds = findSpecialIds(file, config);
    this.special = new Set(this.specialIds.all);
    this.marked = new Set(file.addedTokens.filter((token) => token.special).map((token) => token.id));
    this.added = new Set(file.addedTokens.map((token) => token.id));
    this.frame = makePostProcessor(file, config, this.specialIds);
    this.sections = sections;
    const { normalize } = sections;
    this.rawTokens = new AddedTokenFinder(file.addedTokens.filter((token) => !token.normalized));
    this.normalizedTokens = new AddedTokenFinder(
      file.addedTokens.filter((token) => token.normalized),
      (token) => normalize({ text: token.content, isFirst: true }).text,
    );
    const { decoder } = file.json;
    if (!isObject(decoder) || decoder.type !== "ByteLevel") this.decodeStep = makeDecodeStep(decoder);
  }

  get hash(): string {
    this.lazyHash ??= hashVocabulary(this.tokens, this.marked);
    return this.lazyHash;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array<ArrayBuffer> {
    const out = new IdBuffer();
    if (options.addSpecialTokens === false) this.encodeText(wellFormed(text), options, out);
    else {
      for (const item of this.frame.single) {
        if ("id" in item) out.push(item.id);
        else this.encodeText(wellFormed(text), options, out);
      }
    }
    return out.toArray();
  }

  private encodeText(text: string, { parseSpecialTokens = true }: EncodeOptions, out: IdBuffer): void {
    const { sections, normalizedTokens } = this;
    const keepAsText = parseSpecialTokens ? undefined : (token: AddedToken) => token.special;
    this.rawTokens.split(
      text,
      {
        onToken: (token) => out.push(token.id),
        onText: (start, end) => {
          const normalized = sections.normalize(alignedText(text, start, end, false)).text;
          const visitor = {
            onToken: (token: AddedToken) => out.push(token.id),
            onText: (from: number, to: number) => sections.encode(normalized, from, to, start === 0 && from === 0, out),
          };
          normalizedTokens.split(normalized, visitor, keepAsText);
        },
      },
      keepAsText,
    );
  }

  encodeWithOffsets(text: string, options: DetailedEncodeOptions = {}): Encoding {
    const { pair, addSpecialTokens = true } = options;
    const texts = pair === undefined ? [text] : [text, pair];
    const encoded = texts.map((part) => this.encodeSpans(wellFormed(part), options));
    const items = (pair === undefined ? this.frame.single : this.frame.pair).filter((item) => addSpecialTokens || "text" in item);
    return assemble(items, encoded);
  }

  private encodeSpans(text: string, { parseSpecialTokens = true }: EncodeOptions): TokenSink {
    const { sections, normalizedTokens } = this;
    const keepAsText = parseSpecialTokens ? undefined : (token: AddedToken) => token.special;
    const out: TokenSink = { ids: new IdBuffer(), starts: new IdBuffer(), ends: new IdBuffer() };
    const pushToken = ({ id }: AddedToken, start: number, end: number): void => {
      out.ids.push(id);
      out.starts.push(start);
      out.ends.push(end);
    };
    this.rawTokens.split(
      text,
      {
        onToken: pushToken,
        onText: (start, end) => {
          const normalized = sections.normalize(alignedText(text, start, end, true));
          const { starts = [], ends = [] } = normalized;
          const visitor = {
            onToken: (token: AddedToken, from: number, to: number) => pushToken(token, starts[from], ends[to - 1]),
            onText: (from: number, to: number) => sections.encodeSpans(sliceAligned(normalized, from, to), out),
          };
          normalizedTokens.split(normalized.text, visitor, keepAsText);
        },
      },
      keepAsText,
    );
    this.trimSpans(text, out);
    return out;
  }

  /** Leaves white space at the ends of tokens out of their ranges, where the post-processor asks for it. */
  private trimSpans(text: string, { ids, starts, ends }: TokenSink): void {
    const { trim } = this.frame;
    if (!trim) return;
    for (let i = 0; i < ids.length; i++) {
      const isFirst = i === 0 || starts.data[i] === 0;
      let [leading, trailing] = spacesAround(this.tokens[ids.data[i]] ?? "", isFirst, trim.addPrefixSpace);
      while (leading-- > 0 && starts.data[i] < ends.data[i]) starts.data[i] += widthAt(text, starts.data[i]);
      while (trailing-- > 0 && ends.data[i] > starts.data[i]) ends.data[i]--;
    }
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const { skipSpecialTokens = true } = options;
    if (this.decodeStep !== undefined) return this.decodeTokens(ids, skipSpecialTokens, this.decodeStep);
    const parts: Uint8Array[] = [];
    let length = 0;
    for (let i = 0; i < ids.length; i++) {
      const bytes = skipSpecialTokens && this.special.has(ids[i]) ? noBytes : this.bytesOf(ids[i]);
      parts.push(bytes);
      length += bytes.length;
    }
    const all = new Uint8Array(length);
    let at = 0;
    for (const bytes of parts) {
      all.set(bytes, at);
      at += bytes.length;
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(all);
  }

  stream(options: DecodeOptions = {}): StreamDecoder {
    const { skipSpecialTokens = true } = options;
    const skips = (id: number): boolean => skipSpecialTokens && this.special.has(id);
    const { decodeStep } = this;
    if (decodeStep === undefined) return new ByteStreamDecoder((id) => (skips(id) ? undefined : this.bytesOf(id)));
    return new WindowStreamDecoder((ids) => this.decodeTokens(ids, skipSpecialTokens, decodeStep), skips);
  }

  tokenToId(token: string): number | undefined {
    return this.vocab.get(token);
  }

  idToToken(id: number): string | undefined {
    return this.tokens[id];
  }

  private decodeTokens(ids: ArrayLike<number>, skipSpecial: boolean, step: DecodeStep): string {
    const tokens: string[] = [];
    for (let i = 0; i < ids.length; i++) {
      const token = this.tokens[ids[i]];
      if (token !== undefined && !(skipSpecial && this.special.has(ids[i]))) tokens.push(token);
    }
    return tokens.length === 0 ? "" : step(tokens).join("");
  }

  /** The bytes of a byte-level token. Added tokens, and tokens outside the byte alphabet, are their own text. */
  private bytesOf(id: number): Uint8Array {
    const known = this.bytesById[id];
    if (known !== undefined) return known;
    const token = this.tokens[id];
    if (token === undefined) return noBytes;
    const bytes = (this.added.has(id) ? undefined : bytesOfToken(token)) ?? utf8Encoder.encode(token);
    this.bytesById[id] = bytes;
    return bytes;
  }
}

/** The texts' tokens in the template's order. */
function assemble(items: readonly TemplateItem[], texts: readonly TokenSink[]): Encoding {
  const sizeOf = (item: TemplateItem): number => ("id" in item ? 1 : texts[item.text].ids.length);
  const size = items.reduce((sum, item) => sum + sizeOf(item), 0);
  const ids = new Int32Array(size);
  const offsets = new Int32Array(2 * size);
  const typeIds = new Uint8Array(size);
  const specialMask = new Uint8Array(size);
  let at = 0;
  for (const item of items) {
    const end = at + sizeOf(item);
    typeIds.fill(item.typeId, at, end);
    if ("id" in item) {
      ids[at] = item.id;
      specialMask[at] = 1;
    } else {
      const tokens = texts[item.text];
      for (let i = 0; i < tokens.ids.length; i++) {
        ids[at + i] = tokens.ids.data[i];
        offsets[2 * (at + i)] = tokens.starts.data[i];
        offsets[2 * (at + i) + 1] = tokens.ends.data[i];
      }
    }
    at = end;
  }
  return { ids, offsets, typeIds, specialMask };
}
