// A text on its way through normalisation, with the place in the original text that each of its UTF-16 code units came from. The places
// follow the rules of Hugging Face's NormalizedString, so that offsets agree; without them (encoding to ids alone) only text is made.

export interface AlignedText {
  readonly text: string;
  /** The text begins at the beginning of the original text. */
  readonly isFirst: boolean;
  /** By code unit: the original range [start, end) of the character that it came from, in UTF-16 code units. Both or neither. */
  readonly starts?: Int32Array;
  readonly ends?: Int32Array;
}

/** original[start … end) as it is. @param tracked whether places are wanted. */
export function alignedText(original: string, start: number, end: number, tracked: boolean): AlignedText {
  const text = start === 0 && end === original.length ? original : original.slice(start, end);
  const isFirst = start === 0;
  if (!tracked) return { text, isFirst };
  const starts = new Int32Array(text.length);
  const ends = new Int32Array(text.length);
  for (let i = 0; i < text.length; ) {
    const width = widthAt(text, i);
    for (let unit = i; unit < i + width; unit++) {
      starts[unit] = start + i;
      ends[unit] = start + i + width;
    }
    i += width;
  }
  return { text, isFirst, starts, ends };
}

/** A part of a text. */
export function sliceAligned(source: AlignedText, start: number, end: number): AlignedText {
  if (start === 0 && end === source.text.length) return source;
  return {
    text: source.text.slice(start, end),
    isFirst: source.isFirst && start === 0,
    ...(source.starts && { starts: source.starts.subarray(start, end), ends: source.ends?.subarray(start, end) }),
  };
}

/** 2 for a pair of surrogates, else 1. */
export const widthAt = (text: string, at: number): number => ((text.codePointAt(at) as number) > 0xffff ? 2 : 1);

/**
 * Rewrites a text character by character. `change` tells what a character of the result stands for: 0, the next character of the source;
 * above 0, nothing (it was inserted, and shares the place of the character before it); below 0, the next character, while −`change` more
 * are dropped.
 */
export class Rewrite {
  private readonly source: AlignedText;
  private cursor: number;
  private text = "";
  private starts: number[] = [];
  private ends: number[] = [];

  /** @param skipped code units of the source that are dropped at the beginning. */
  constructor(source: AlignedText, skipped = 0) {
    this.source = source;
    this.cursor = skipped;
  }

  push(character: string, change: number): void {
    this.text += character;
    const { starts, ends, text } = this.source;
    if (!starts || !ends) return;
    const last = text.length - 1;
    const at = Math.min(change > 0 ? this.cursor - 1 : this.cursor, last);
    const start = at < 0 ? (starts[0] ?? 0) : starts[at];
    const end = at < 0 ? start : ends[at];
    for (let unit = 0; unit < character.length; unit++) {
      this.starts.push(start);
      this.ends.push(end);
    }
    if (change > 0) return;
    this.skip(1 - change);
  }

  /** Drops characters of the source. */
  skip(numCharacters: number): void {
    const { text } = this.source;
    for (let i = 0; i < numCharacters && this.cursor < text.length; i++) this.cursor += widthAt(text, this.cursor);
  }

  /** Takes characters over up to a code unit of the source. */
  copyTo(end: number): void {
    const { text, starts, ends } = this.source;
    const { cursor } = this;
    if (end <= cursor) return;
    this.text += text.slice(cursor, end);
    if (starts && ends) {
      for (let unit = cursor; unit < end; unit++) {
        this.starts.push(starts[unit]);
        this.ends.push(ends[unit]);
      }
    }
    this.cursor = end;
  }

  /** Replaces the source up to a code unit by a text, which gets the place of the last character replaced. */
  replaceTo(end: number, content: string): void {
    this.cursor = end;
    for (const character of content) this.push(character, 1);
  }

  finish(): AlignedText {
    const { isFirst, starts } = this.source;
    if (!starts) return { text: this.text, isFirst };
    return { text: this.text, isFirst, starts: Int32Array.from(this.starts), ends: Int32Array.from(this.ends) };
  }
}
