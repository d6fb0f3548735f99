// The normalisers of a tokenizer.json as functions, with the meaning that Hugging Face's tokenizers give them.
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { type AlignedText, Rewrite, sliceAligned, widthAt } from "./aligned-text.ts";
import { byteCharacters } from "./byte-alphabet.ts";
import { CharsMap } from "./charsmap.ts";
import { compileOniguruma } from "./oniguruma.ts";
import { isObject, type JsonObject } from "./tokenizer-file.ts";
import { normalizeForm, type UnicodeForm } from "./unicode-forms.ts";

export type Normalizer = (source: AlignedText) => AlignedText;

const maxNesting = 16;
const wrong = (expected: string, got: unknown): FormatError =>
  new FormatError(`tokenizer normalizer: expected ${expected}, got ${show(got)}`, {
    hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
  });

/** @throws FormatError for a normaliser that is not known or lacks a field. */
export function makeNormalizer(config: unknown, depth = 0): Normalizer {
  if (config === null || config === undefined) return (source) => source;
  if (!isObject(config) || depth > maxNesting) throw wrong("an object", config);
  switch (config.type) {
    case "Sequence": {
      if (!Array.isArray(config.normalizers)) throw wrong("a list `normalizers`", config.normalizers);
      const steps = config.normalizers.map((step) => makeNormalizer(step, depth + 1));
      return (source) => steps.reduce((text, step) => step(text), source);
    }
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form: UnicodeForm = config.type;
      return (source) => normalizeForm(source, form);
    }
    case "Lowercase":
      return lowercase;
    case "Strip":
      return strip(config.strip_left !== false, config.strip_right !== false);
    case "StripAccents":
      return (source) => filter(source, (character) => !/^\p{M}$/u.test(character));
    case "Replace":
      return replace(patternOf(config), config.content);
    case "Prepend":
      return prepend(config.prepend);
    case "Nmt":
      return nmt;
    case "Precompiled": {
      // Models whose SentencePiece normaliser is "identity" have none.
      if (config.precompiled_charsmap === null) return (source) => source;
      if (typeof config.precompiled_charsmap !== "string") throw wrong("a text `precompiled_charsmap`", config.precompiled_charsmap);
      const map = CharsMap.fromBase64(config.precompiled_charsmap);
      return (source) => map.normalize(source);
    }
    case "BertNormalizer":
      return bert(config);
    case "ByteLevel":
      return toByteCharacters;
    default:
      throw wrong("a known type", config.type);
  }
}

/** The pattern of a Replace or Split: a text, or a regular expression. @throws FormatError. */
export function patternOf({ pattern }: JsonObject): string | RegExp {
  if (isObject(pattern)) {
    if (typeof pattern.String === "string") return pattern.String;
    if (typeof pattern.Regex === "string") return compileOniguruma(pattern.Regex);
  }
  throw new FormatError(`tokenizer pattern: expected { String } or { Regex }, got ${show(pattern)}`);
}

/** Ranges of a text that match, in order; empty matches of a regular expression count. */
export function* matchesOf(text: string, pattern: string | RegExp): Generator<readonly [start: number, end: number]> {
  if (typeof pattern !== "string") {
    for (const match of text.matchAll(pattern)) yield [match.index, match.index + match[0].length];
    return;
  }
  if (pattern === "") return;
  for (let at = text.indexOf(pattern); at >= 0; at = text.indexOf(pattern, at + pattern.length)) yield [at, at + pattern.length];
}

function replace(pattern: string | RegExp, content: unknown): Normalizer {
  if (typeof content !== "string") throw wrong("a text `content`", content);
  return (source) => {
    if (!source.starts) {
      const text = pattern === "" ? source.text : source.text.replaceAll(pattern, () => content);
      return text === source.text ? source : { text, isFirst: source.isFirst };
    }
    const rewrite = new Rewrite(source);
    for (const [start, end] of matchesOf(source.text, pattern)) {
      rewrite.copyTo(start);
      rewrite.replaceTo(end, content);
    }
    rewrite.copyTo(source.text.length);
    return rewrite.finish();
  };
}

function prepend(prefix: unknown): Normalizer {
  if (typeof prefix !== "string") throw wrong("a text `prepend`", prefix);
  return (source) => prependText(source, prefix);
}

/** A text in front, which shares the place of the first character. An empty text stays empty. */
export function prependText(source: AlignedText, prefix: string): AlignedText {
  if (source.text === "" || prefix === "") return source;
  const { text, isFirst, starts, ends } = source;
  if (!starts || !ends) return { text: prefix + text, isFirst };
  const fill = (places: Int32Array): Int32Array => {
    const longer = new Int32Array(places.length + prefix.length).fill(places[0]);
    longer.set(places, prefix.length);
    return longer;
  };
  return { text: prefix + text, isFirst, starts: fill(starts), ends: fill(ends) };
}

function mapCharacters(source: AlignedText, map: (character: string) => string): AlignedText {
  const rewrite = new Rewrite(source);
  for (const character of source.text) {
    let change = 0;
    for (const part of map(character)) {
      rewrite.push(part, change);
      change = 1;
    }
  }
  return rewrite.finish();
}

function filter(source: AlignedText, keep: (character: string) => boolean): AlignedText {
  const rewrite = new Rewrite(source);
  let isSame = true;
  for (let at = 0; at < source.text.length; ) {
    const width = widthAt(source.text, at);
    if (!keep(source.text.slice(at, at + width))) {
      rewrite.copyTo(at);
      rewrite.skip(1);
      isSame = false;
    }
    at += width;
  }
  if (isSame) return source;
  rewrite.copyTo(source.text.length);
  return rewrite.finish();
}

// Not toLowerCase on the whole: JavaScript looks at what follows a capital sigma, the library does not.
const lowercase: Normalizer = (source) =>
  /[A-Z\u0080-\u{10ffff}]/u.test(source.text) ? mapCharacters(source, (c) => c.toLowerCase()) : source;

function strip(left: boolean, right: boolean): Normalizer {
  return (source) => {
    const { text } = source;
    const isSpace = (at: number): boolean => /^\p{White_Space}$/u.test(text[at]);
    let [start, end] = [0, text.length];
    if (left) while (start < end && isSpace(start)) start++;
    if (right) while (end > start && isSpace(end - 1)) end--;
    return sliceAligned(source, start, end);
  };
}

/** The clean-up of Google's NMT systems. */
const nmt: Normalizer = (source) => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it drops.
  const dropped = /^[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]$/;
  const spaces = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;
  const kept = filter(source, (character) => !dropped.test(character));
  // One code unit for one: the places stay.
  return { ...kept, text: kept.text.replace(spaces, " ") };
};

function bert(config: JsonObject): Normalizer {
  const lower = config.lowercase !== false;
  const accents = config.strip_accents ?? null;
  const steps: Normalizer[] = [];
  if (config.clean_text !== false) {
    steps.push((source) => {
      const isControl = (c: string): boolean => c !== "\t" && c !== "\n" && c !== "\r" && /^[\p{Cc}\p{Cf}\p{Cn}\p{Co}]$/u.test(c);
      const clean = filter(source, (c) => c !== "\0" && c !== "\ufffd" && !isControl(c));
      return { ...clean, text: clean.text.replace(/\p{White_Space}/gu, " ") };
    });
  }
  if (config.handle_chinese_chars !== false) steps.push(spaceIdeographs);
  if (accents === true || (accents === null && lower)) {
    steps.push((source) => filter(normalizeForm(source, "NFD"), (character) => !/^\p{Mn}$/u.test(character)));
  }
  if (lower) steps.push(lowercase);
  return (source) => steps.reduce((text, step) => step(text), source);
}

const ideographs =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/u;

const spaceIdeographs: Normalizer = (source) => {
  if (!ideographs.test(source.text)) return source;
  const rewrite = new Rewrite(source);
  for (const character of source.text) {
    if (!ideographs.test(character)) {
      rewrite.push(character, 0);
      continue;
    }
    rewrite.push(" ", 0);
    rewrite.push(character, 1);
    rewrite.push(" ", 1);
  }
  return rewrite.finish();
};

/** Every byte of the text as its printable character. */
export const toByteCharacters: Normalizer = (source) => mapCharacters(source, bytesOf);

const bytesOf = (character: string): string => {
  let text = "";
  for (const byte of Buffer.from(character, "utf8")) text += byteCharacters[byte];
  return text;
};
