// From tokens back to text. The decoders that language models use are written here, exactly as Hugging Face's library decodes
// (an invalid run of byte tokens becomes one U+FFFD a byte).
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { bytesOfToken } from "./byte-alphabet.ts";
import { patternOf } from "./normalizers.ts";
import { isObject, type JsonObject } from "./tokenizer-file.ts";

/** Turns the tokens of one sequence into pieces of text; their concatenation is the text. */
export type DecodeStep = (tokens: readonly string[]) => string[];

const maxNesting = 16;
const wrong = (expected: string, got: unknown): FormatError =>
  new FormatError(`tokenizer decoder: expected ${expected}, got ${show(got)}`, {
    hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
  });

/** The decoder of a tokenizer.json as one function. @throws FormatError for a decoder that is not known or lacks a field. */
export function makeDecodeStep(config: unknown, depth = 0): DecodeStep {
  if (config === null || config === undefined) return (tokens) => [tokens.join(" ")];
  if (!isObject(config) || depth > maxNesting) throw wrong("an object", config);
  switch (config.type) {
    case "Sequence":
      return makeSequence(config.decoders, depth);
    case "Replace":
      return makeReplace(config);
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Strip":
      return makeStrip(config);
    case "Metaspace":
      return makeMetaspace(config);
    case "ByteLevel":
      return byteLevel;
    case "WordPiece":
      return makeWordPiece(config);
    case "BPEDecoder":
      return makeWordEnd(typeof config.suffix === "string" ? config.suffix : "</w>");
    default:
      throw wrong("a known type", config.type);
  }
}

function makeSequence(decoders: unknown, depth: number): DecodeStep {
  if (!Array.isArray(decoders)) throw wrong("a list `decoders`", decoders);
  const steps = decoders.map((decoder) => makeDecodeStep(decoder, depth + 1));
  return (tokens) => steps.reduce((pieces, step) => step(pieces), [...tokens]);
}

function makeReplace(config: JsonObject): DecodeStep {
  const { content } = config;
  if (typeof content !== "string") throw wrong("a text `content`", content);
  const from = patternOf(config);
  return (tokens) => tokens.map((token) => token.replaceAll(from, () => content));
}

function makeStrip({ content, start, stop }: JsonObject): DecodeStep {
  if (typeof content !== "string" || typeof start !== "number" || typeof stop !== "number")
    throw wrong("content, start and stop of a Strip", { content, start, stop });
  return (tokens) =>
    tokens.map((token) => {
      let from = 0;
      let to = token.length;
      while (from < start && token.startsWith(content, from)) from += content.length;
      for (let cut = 0; cut < stop && to > from && token.endsWith(content) && token[to - 1] === content; cut++) to--;
      return token.slice(from, to);
    });
}

/** The marker of a space is dropped from the first token altogether. */
function makeMetaspace({ replacement, prepend_scheme }: JsonObject): DecodeStep {
  const marker = typeof replacement === "string" && replacement !== "" ? replacement : "▁";
  const dropsFirst = prepend_scheme !== "never";
  return (tokens) => tokens.map((token, index) => token.replaceAll(marker, index === 0 && dropsFirst ? "" : " "));
}

/** Tokens outside of the byte alphabet are their own text. */
function byteLevel(tokens: readonly string[]): string[] {
  return [Buffer.concat(tokens.map((token) => bytesOfToken(token) ?? Buffer.from(token, "utf8"))).toString("utf8")];
}

/** English clean-up of spaces before marks and contractions, in this order. */
const cleanUps = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" do not", " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
] as const;

function makeWordPiece({ prefix, cleanup }: JsonObject): DecodeStep {
  const continuation = typeof prefix === "string" ? prefix : "##";
  const clean = (text: string): string => cleanUps.reduce((result, [from, to]) => result.replaceAll(from, to), text);
  return (tokens) =>
    tokens.map((token, index) => {
      const isInside = token.startsWith(continuation);
      const text = index === 0 ? token : isInside ? token.slice(continuation.length) : ` ${token}`;
      return cleanup === false ? text : clean(text);
    });
}

/** The mark of a word's end is a space, but at the end of the text. */
function makeWordEnd(suffix: string): DecodeStep {
  return (tokens) => tokens.map((token, index) => token.replaceAll(suffix, index === tokens.length - 1 ? "" : " "));
}

/** The byte of a token `<0xNN>`, or −1. */
export function byteOfToken(token: string): number {
  return /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : -1;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function byteFallback(tokens: readonly string[]): string[] {
  const pieces: string[] = [];
  let run: number[] = [];
  const flush = (): void => {
    if (run.length === 0) return;
    try {
      pieces.push(strictUtf8.decode(Uint8Array.from(run)));
    } catch {
      pieces.push("\ufffd".repeat(run.length));
    }
    run = [];
  };
  for (const token of tokens) {
    const byte = byteOfToken(token);
    if (byte >= 0) run.push(byte);
    else {
      flush();
      pieces.push(token);
    }
  }
  flush();
  return pieces;
}
