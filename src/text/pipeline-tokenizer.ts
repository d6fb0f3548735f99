// The tokenizer of a tokenizer.json: find added tokens, normalise, find added tokens again, split and encode, put the frame around.
// The pipeline and the decoders are longwave's own; see section-encoder.ts for what happens between added tokens.
import { AddedTokenFinder } from "./added-tokens.ts";
import { bytesOfToken } from "./byte-alphabet.ts";
import { IdBuffer } from "./id-buffer.ts";
import { makeSectionEncoder, type SectionEncoder } from "./section-encoder.ts";
import { type Frame, findFrame, findSpecialIds } from "./special-tokens.ts";
import { ByteStreamDecoder, type StreamDecoder, WindowStreamDecoder } from "./stream-decoder.ts";
import { type DecodeStep, makeDecodeStep } from "./token-decoder.ts";
import { type DecodeOptions, type EncodeOptions, hashVocabulary, type SpecialIds, type Tokenizer } from "./tokenizer.ts";
import { type AddedToken, isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

const utf8Encoder = new TextEncoder();
const noBytes = new Uint8Array(0);

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
  private readonly frame: Frame;
  private readonly sections: SectionEncoder;
  private readonly rawTokens: AddedTokenFinder;
  private readonly normalizedTokens: AddedTokenFinder;
  /** Undefined for byte-level decoding. */
  private readonly decodeStep: DecodeStep | undefined;
  private readonly bytesById: (Uint8Array | undefined)[] = [];
  private lazyHash: string | undefined;

  /** @param config tokenizer_config.json, when there is one. @throws FormatError for kinds that are not supported. */
  constructor(file: TokenizerFile, config?: JsonObject) {
    this.vocab = file.vocab;
    this.vocabSize = file.vocabSize;
    this.tokens = new Array<string | undefined>(file.vocabSize).fill(undefined);
    for (const [token, id] of file.vocab) this.tokens[id] = token;
    this.specialIds = findSpecialIds(file, config);
    this.special = new Set(this.specialIds.all);
    this.marked = new Set(file.addedTokens.filter((token) => token.special).map((token) => token.id));
    this.added = new Set(file.addedTokens.map((token) => token.id));
    this.frame = findFrame(file, config, this.specialIds);
    this.sections = makeSectionEncoder(file);
    const { normalize } = this.sections;
    this.rawTokens = new AddedTokenFinder(file.addedTokens.filter((token) => !token.normalized));
    this.normalizedTokens = new AddedTokenFinder(
      file.addedTokens.filter((token) => token.normalized),
      (token) => normalize(token.content),
    );
    const { decoder } = file.json;
    if (!isObject(decoder) || decoder.type !== "ByteLevel") {
      this.decodeStep = makeDecodeStep(decoder) ?? ((tokens) => [this.sections.decodeTokens([...tokens])]);
    }
  }

  get hash(): string {
    this.lazyHash ??= hashVocabulary(this.tokens, this.marked);
    return this.lazyHash;
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array<ArrayBuffer> {
    const { addSpecialTokens = true, parseSpecialTokens = true } = options;
    const { sections, normalizedTokens } = this;
    const keepAsText = parseSpecialTokens ? undefined : (token: AddedToken) => token.special;
    const out = new IdBuffer();
    if (addSpecialTokens) out.pushAll(this.frame.before);
    this.rawTokens.split(
      text,
      {
        onToken: (token) => out.push(token.id),
        onText: (start, end) => {
          const normalized = sections.normalize(start === 0 && end === text.length ? text : text.slice(start, end));
          const visitor = {
            onToken: (token: AddedToken) => out.push(token.id),
            onText: (from: number, to: number) => sections.encode(normalized, from, to, start === 0 && from === 0, out),
          };
          normalizedTokens.split(normalized, visitor, keepAsText);
        },
      },
      keepAsText,
    );
    if (addSpecialTokens) out.pushAll(this.frame.after);
    return out.toArray();
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
