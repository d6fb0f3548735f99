// Finds added tokens (special tokens, mostly) in a text before it is tokenised: leftmost, longest first, as Hugging Face does it,
// with its options to swallow white space on either side and to match whole words only.
import type { AddedToken } from "./tokenizer-file.ts";

/** What {@link AddedTokenFinder.split} reports, in text order. */
export interface SectionVisitor {
  /** Plain text[start … end), not empty. */
  onText(start: number, end: number): void;
  /** The token was found as text[start … end), white space that it swallows included. */
  onToken(token: AddedToken, start: number, end: number): void;
}

const wordBefore = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const wordAfter = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const isWhiteSpace = (character: string): boolean => /^\p{White_Space}$/u.test(character);

export class AddedTokenFinder {
  private readonly tokens: ReadonlyMap<string, AddedToken>;
  private readonly pattern: RegExp | undefined;

  /** @param spelling how a token is spelled in the texts to search (normalised texts differ). */
  constructor(tokens: readonly AddedToken[], spelling: (token: AddedToken) => string = (token) => token.content) {
    const entries = tokens.map((token) => [spelling(token), token] as const).filter(([text]) => text.length > 0);
    this.tokens = new Map(entries);
    // Alternatives are tried in order: the longest first gives the longest match.
    const texts = [...this.tokens.keys()].sort((a, b) => b.length - a.length);
    this.pattern = texts.length === 0 ? undefined : new RegExp(texts.map(escapeRegExp).join("|"), "g");
  }

  /** @param keepAsText tokens that are not to be found (special tokens in a text from outside, for instance). */
  split(text: string, visitor: SectionVisitor, keepAsText?: (token: AddedToken) => boolean): void {
    let done = 0;
    if (this.pattern !== undefined) {
      for (const match of text.matchAll(this.pattern)) {
        const token = this.tokens.get(match[0]);
        if (token === undefined || keepAsText?.(token)) continue;
        let start = match.index;
        let end = start + match[0].length;
        if (token.singleWord && (wordBefore.test(text.slice(Math.max(0, start - 2), start)) || wordAfter.test(text.slice(end, end + 2))))
          continue;
        if (token.lstrip) while (start > done && isWhiteSpace(text[start - 1])) start--;
        if (token.rstrip) while (end < text.length && isWhiteSpace(text[end])) end++;
        if (start > done) visitor.onText(done, start);
        visitor.onToken(token, start, end);
        done = end;
      }
    }
    if (done < text.length) visitor.onText(done, text.length);
  }
}

const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
