// Cuts a stream of text into documents. Where the cuts fall depends on the text alone, not on how it was read.
import { DataError } from "../base/errors.ts";

/**
 * - `auto`: a file of up to 256 KiB is one document; a longer one is cut into pieces of about 32,000 characters at blank lines (else at
 *   line ends, else at spaces), which lose no character: one long book still has documents to split and shuffle.
 * - `file`: every file is one document. - `paragraph`: blank lines separate documents. - `line`: every line is one.
 * - `{ separator }`: a text such as "<|endoftext|>" separates them; line ends around it belong to neither side.
 */
export type SplitBy = "auto" | "file" | "paragraph" | "line" | { separator: string };

/** Files up to this size are whole documents under `auto`. */
export const wholeFileBytes = 256 << 10;
/** Characters of a piece under `auto`; at most twice as many when it has no blank line. */
export const pieceCharacters = 32_000;
/** One document is held in memory; text that never ends must not be. */
export const maxDocumentCharacters = 64 << 20;

export interface Splitter {
  /** Takes the next part of the text; returns the documents that are complete. */
  push(text: string): string[];
  /** Returns what is left. */
  end(): string[];
}

/** @param label names the file in errors. @throws DataError from `push` when a document grows beyond 64 Mi characters. */
export function createSplitter(splitBy: SplitBy, fileBytes: number, label: string): Splitter {
  const cut = cutter(splitBy, fileBytes);
  let pending = "";
  return {
    push(text) {
      pending += text;
      const { documents, rest } = cut(pending, false);
      pending = rest;
      if (pending.length > maxDocumentCharacters) {
        throw new DataError(`${label}: expected documents of at most ${maxDocumentCharacters} characters, got a longer one`, {
          hint: 'Set splitBy to "auto", "paragraph", "line" or the separator that the file uses.',
        });
      }
      return documents;
    },
    end() {
      const { documents, rest } = cut(pending, true);
      pending = "";
      if (rest.trim() !== "") documents.push(rest);
      return documents;
    },
  };
}

type Cut = (text: string, atEnd: boolean) => { documents: string[]; rest: string };

function cutter(splitBy: SplitBy, fileBytes: number): Cut {
  if (splitBy === "file" || (splitBy === "auto" && fileBytes <= wholeFileBytes)) return (text) => ({ documents: [], rest: text });
  if (splitBy === "auto") return cutPieces;
  if (splitBy === "line") return (text, atEnd) => cutAt(text, /\r?\n/g, atEnd);
  // A run of blank lines may go on in the next part: a match with nothing behind it waits.
  if (splitBy === "paragraph") return (text, atEnd) => cutAt(text, /\r?\n(?:[ \t]*\r?\n)+/g, atEnd, true);
  return (text, atEnd) => cutAtSeparator(text, splitBy.separator, atEnd);
}

function cutAt(text: string, boundary: RegExp, atEnd: boolean, waits = false): { documents: string[]; rest: string } {
  const documents: string[] = [];
  let start = 0;
  for (const match of text.matchAll(boundary)) {
    const next = match.index + match[0].length;
    if (waits && !atEnd && isBlankFrom(text, next)) break;
    if (match.index > start) keep(documents, text.slice(start, match.index));
    start = next;
  }
  return { documents, rest: text.slice(start) };
}

function isBlankFrom(text: string, start: number): boolean {
  let at = start;
  while (at < text.length && " \t\r\n".includes(text[at])) at++;
  return at === text.length;
}

function cutAtSeparator(text: string, separator: string, atEnd: boolean): { documents: string[]; rest: string } {
  const parts = text.split(separator);
  const rest = parts.pop() ?? "";
  const documents: string[] = [];
  for (const part of parts) keep(documents, withoutOuterLineEnds(part));
  return { documents, rest: atEnd ? withoutOuterLineEnds(rest) : rest };
}

function cutPieces(text: string): { documents: string[]; rest: string } {
  const documents: string[] = [];
  let start = 0;
  // Every decision looks at the same 2n characters, however the text arrived.
  while (text.length - start > 2 * pieceCharacters) {
    const window = text.slice(start, start + 2 * pieceCharacters);
    const length = pieceLength(window);
    keep(documents, window.slice(0, length));
    start += length;
  }
  return { documents, rest: text.slice(start) };
}

function pieceLength(window: string): number {
  const blank = /\r?\n(?:[ \t]*\r?\n)+/g;
  blank.lastIndex = pieceCharacters;
  const match = blank.exec(window);
  if (match) return match.index + match[0].length;
  const line = window.lastIndexOf("\n");
  if (line >= pieceCharacters) return line + 1;
  const space = window.lastIndexOf(" ");
  if (space >= pieceCharacters) return space + 1;
  const last = window.charCodeAt(window.length - 1);
  return last >= 0xd800 && last < 0xdc00 ? window.length - 1 : window.length; // never inside a surrogate pair
}

function keep(documents: string[], text: string): void {
  if (text.trim() !== "") documents.push(text);
}

function withoutOuterLineEnds(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && (text[start] === "\n" || text[start] === "\r")) start++;
  while (end > start && (text[end - 1] === "\n" || text[end - 1] === "\r")) end--;
  return text.slice(start, end);
}
