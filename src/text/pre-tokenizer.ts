// Splitting of text into words before byte-level BPE: the GPT-2 pattern (Radford et al. 2019) and the pattern of GPT-4 and Llama 3,
// as hand-written scanners over UTF-16 code units. They give the same splits as the regular expressions below, several times faster.
import { classify, classTable, letter, number, other, space } from "./char-classes.ts";

/** GPT-2's splitting pattern, in the notation of a Hugging Face `tokenizer.json`. */
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Llama 3's splitting pattern (groups of up to three digits). */
export const llama3Pattern =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Qwen 2's splitting pattern: Llama 3's with single digits. */
export const qwen2Pattern = llama3Pattern.replace("{1,3}", "");

/** `smollm` isolates every digit and then splits as GPT-2 does. */
export type PreTokenizerKind = "gpt2" | "llama3" | "qwen2" | "smollm";

/** Where the word that starts at `start` ends, in UTF-16 code units; `end` bounds the text that may be looked at. */
export type WordEnd = (text: string, start: number, end: number) => number;

/** The scanner of a splitting pattern. */
export function wordEndOf(kind: PreTokenizerKind): WordEnd {
  if (kind === "gpt2") return gpt2WordEnd;
  if (kind === "smollm") return smollmWordEnd;
  const maxDigits = kind === "llama3" ? 3 : 1;
  return (text, start, end) => llama3WordEnd(text, start, end, maxDigits);
}

/** The words of `text` as strings; for inspection and tests (encoding and training never make these strings). */
export function splitWords(text: string, kind: PreTokenizerKind): string[] {
  const wordEnd = wordEndOf(kind);
  const words: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = wordEnd(text, start, text.length);
    words.push(text.slice(start, end));
    start = end;
  }
  return words;
}

const apostrophe = 0x27;
const blank = 0x20;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const longS = 0x17f;

function gpt2WordEnd(text: string, start: number, end: number): number {
  const first = text.charCodeAt(start);
  if (first === apostrophe) {
    const contraction = contractionEnd(text, start, end, false);
    if (contraction > 0) return contraction;
  }
  let at = start;
  let kind = classAt(text, start, end);
  if (first === blank && start + 1 < end) {
    const following = classAt(text, start + 1, end);
    if (following !== space) {
      at = start + 1;
      kind = following;
    }
  }
  const runEnd = runOf(kind, text, at, end);
  return kind === space ? whiteSpaceEnd(start, runEnd, end) : runEnd;
}

function smollmWordEnd(text: string, start: number, end: number): number {
  const kind = classAt(text, start, end);
  if (kind === number) return start + widthAt(text, start, end);
  if (kind !== space) return gpt2WordEnd(text, start, end);
  // A number ends the piece that GPT-2's pattern sees, so white space before it is white space at the end of a text.
  const runEnd = runOf(space, text, start, end);
  return runEnd < end && classAt(text, runEnd, end) === number ? runEnd : gpt2WordEnd(text, start, end);
}

function llama3WordEnd(text: string, start: number, end: number, maxDigits: number): number {
  const first = text.charCodeAt(start);
  if (first === apostrophe) {
    const contraction = contractionEnd(text, start, end, true);
    if (contraction > 0) return contraction;
  }
  const codePoint = codePointAt(text, start, end);
  const next = start + (codePoint > 0xffff ? 2 : 1);
  const kind = classTable()[codePoint] || classify(codePoint);
  if (kind === letter) return runOf(letter, text, next, end);
  if (kind === number) {
    let at = next;
    for (let count = 1; count < maxDigits && at < end && classAt(text, at, end) === number; count++) at += widthAt(text, at, end);
    return at;
  }
  const following = next < end ? classAt(text, next, end) : 0;
  if (following === letter && first !== lineFeed && first !== carriageReturn) return runOf(letter, text, next, end);
  if (kind === other || (first === blank && following === other)) {
    let at = runOf(other, text, next, end);
    while (at < end && isLineBreak(text.charCodeAt(at))) at++;
    return at;
  }
  const runEnd = runOf(space, text, next, end);
  for (let at = runEnd - 1; at >= start; at--) if (isLineBreak(text.charCodeAt(at))) return at + 1;
  return whiteSpaceEnd(start, runEnd, end);
}

/** `\s+(?!\S)|\s+`: a run before a visible character leaves its last character to the next word. All white space is one unit wide. */
function whiteSpaceEnd(start: number, runEnd: number, end: number): number {
  return runEnd === end || runEnd - start === 1 ? runEnd : runEnd - 1;
}

const isLineBreak = (unit: number): boolean => unit === lineFeed || unit === carriageReturn;

/** The end of `'s 't 're 've 'm 'll 'd` at an apostrophe, or 0. Case is folded as Unicode does it: U+017F counts as s. */
function contractionEnd(text: string, start: number, end: number, ignoreCase: boolean): number {
  if (start + 1 >= end) return 0;
  const fold = (unit: number): number => (ignoreCase ? (unit >= 0x41 && unit <= 0x5a ? unit + 32 : unit === longS ? 0x73 : unit) : unit);
  const one = fold(text.charCodeAt(start + 1));
  if (one === 0x73 || one === 0x74 || one === 0x6d || one === 0x64) return start + 2;
  if (start + 2 >= end) return 0;
  const two = fold(text.charCodeAt(start + 2));
  const isPair = (two === 0x65 && (one === 0x72 || one === 0x76)) || (two === 0x6c && one === 0x6c);
  return isPair ? start + 3 : 0;
}

/** The end of the run of characters of one class that starts at or after `at`. */
function runOf(kind: number, text: string, at: number, end: number): number {
  const table = classTable();
  while (at < end) {
    const unit = text.charCodeAt(at);
    if ((unit & 0xf800) === 0xd800) {
      const codePoint = codePointAt(text, at, end);
      if ((table[codePoint] || classify(codePoint)) !== kind) break;
      at += codePoint > 0xffff ? 2 : 1;
    } else {
      if ((table[unit] || classify(unit)) !== kind) break;
      at++;
    }
  }
  return at;
}

function classAt(text: string, at: number, end: number): number {
  const codePoint = codePointAt(text, at, end);
  return classTable()[codePoint] || classify(codePoint);
}

const widthAt = (text: string, at: number, end: number): number => (codePointAt(text, at, end) > 0xffff ? 2 : 1);

/** Like `String.prototype.codePointAt`, but it does not look past `end`; a lone surrogate is itself. */
function codePointAt(text: string, at: number, end: number): number {
  const high = text.charCodeAt(at);
  if ((high & 0xfc00) !== 0xd800 || at + 1 >= end) return high;
  const low = text.charCodeAt(at + 1);
  return (low & 0xfc00) === 0xdc00 ? ((high - 0xd800) << 10) + (low - 0xdc00) + 0x10000 : high;
}
