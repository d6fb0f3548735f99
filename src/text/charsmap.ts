// SentencePiece's precompiled normaliser: a double array (Darts) of UTF-8 prefixes to replacements. Read and applied as Hugging Face's
// tokenizers does, which looks at whole graphemes of less than 6 bytes first and takes the shortest prefix that has a replacement.
import { FormatError } from "../base/errors.ts";
import { type AlignedText, Rewrite } from "./aligned-text.ts";

const encoder = new TextEncoder();
/** Bytes of a grapheme that is looked up as a whole: fewer than this. */
const maxGraphemeBytes = 6;

export class CharsMap {
  private readonly array: Uint32Array;
  private readonly replacements: Uint8Array;
  private readonly known = new Map<string, string | null>();
  private readonly segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });

  /** @param bytes u32 length of the double array in bytes, the array, then replacements that end in 0. @throws FormatError. */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (length < 4 || length % 4 !== 0 || length + 4 > bytes.length) {
      throw new FormatError(`precompiled_charsmap: expected an array of 4 to ${bytes.length - 4} bytes, got ${length}`, {
        hint: "The tokenizer's file is damaged or cut short.",
      });
    }
    this.array = Uint32Array.from({ length: length / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.replacements = bytes.subarray(4 + length);
  }

  /** @throws FormatError. */
  static fromBase64(text: string): CharsMap {
    return new CharsMap(Uint8Array.from(Buffer.from(text, "base64")));
  }

  normalize(source: AlignedText): AlignedText {
    const { text } = source;
    const rewrite = new Rewrite(source);
    // A character that is dropped is counted by the one before it; one at the beginning is not, as in the library.
    let pending: { character: string; change: number } | undefined;
    const push = (character: string, change: number): void => {
      if (pending) rewrite.push(pending.character, pending.change);
      pending = { character, change };
    };
    const replace = (part: string, by: string): void => {
      const [before, after] = [[...part], [...by]];
      for (let i = 0; i < after.length; i++) push(after[i], i < before.length ? 0 : 1);
      if (after.length < before.length && pending) pending.change += after.length - before.length;
    };
    const apply = (grapheme: string): void => {
      const whole = Buffer.byteLength(grapheme) < maxGraphemeBytes ? this.lookUp(grapheme) : null;
      if (whole !== null) {
        replace(grapheme, whole);
        return;
      }
      for (const character of grapheme) {
        const by = this.lookUp(character);
        if (by !== null) replace(character, by);
        else push(character, 0);
      }
    };
    for (let at = 0; at < text.length; ) {
      const end = simpleEnd(text, at);
      if (end > at) apply(text.slice(at, end));
      else {
        const stop = complexEnd(text, at);
        for (const { segment } of this.segmenter.segment(text.slice(at, stop))) apply(segment);
        at = stop;
        continue;
      }
      at = end;
    }
    if (pending) rewrite.push(pending.character, pending.change);
    return rewrite.finish();
  }

  private lookUp(part: string): string | null {
    let by = this.known.get(part);
    if (by === undefined) {
      by = this.find(part);
      if (this.known.size >= 1 << 15) this.known.clear();
      this.known.set(part, by);
    }
    return by;
  }

  /** The replacement of the shortest prefix that has one. */
  private find(part: string): string | null {
    const { array, replacements } = this;
    const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);
    let node = offsetOf(array[0]);
    for (const byte of encoder.encode(part)) {
      if (byte === 0) return null;
      node ^= byte;
      const unit = array[node];
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return null;
      node ^= offsetOf(unit);
      if ((unit >>> 8) & 1) {
        const start = (array[node] ?? 0) & 0x7fffffff;
        const end = replacements.indexOf(0, start);
        return Buffer.from(replacements.subarray(start, end < 0 ? replacements.length : end)).toString("utf8");
      }
    }
    return null;
  }
}

const isAscii = (text: string, at: number): boolean => text.charCodeAt(at) < 0x80;

/** The end of a grapheme of ASCII that nothing else can be part of, or `at`. */
function simpleEnd(text: string, at: number): number {
  if (!isAscii(text, at)) return at;
  const isBreak = text[at] === "\r" && text[at + 1] === "\n";
  const end = at + (isBreak ? 2 : 1);
  return end >= text.length || isAscii(text, end) ? end : at;
}

/** The end of a stretch that is not ASCII alone: two ASCII characters in a row are a boundary between them. */
function complexEnd(text: string, at: number): number {
  let end = at + 1;
  while (end < text.length && !(isAscii(text, end) && isAscii(text, end - 1) && !(text[end - 1] === "\r" && text[end] === "\n"))) end++;
  return end;
}
