// Stop strings in a stream of text pieces: generation ends where the first of them is complete, wherever pieces begin and end.
// Text that may yet turn out to be the beginning of a stop string is held back, so that no part of one is ever emitted.
// Of two stop strings that are complete at the same character, the longer one counts.
import { UsageError } from "../base/errors.ts";

export interface StopStringOptions {
  /** Emit the stop string as well; then nothing needs to be held back. Default false. */
  includeStopString?: boolean;
}

/** Where generation stopped, in UTF-16 units of the whole text. */
export interface StopMatch {
  stopString: string;
  /** First unit of the stop string. */
  start: number;
  /** One past its last unit; whatever was generated after it is dropped. */
  end: number;
}

export interface StopStringMatcher {
  /** Takes the next piece and returns the text that can be emitted now. After a match: nothing any more. */
  push(piece: string): string;
  /** Generation ended otherwise: returns the text that was held back. */
  finish(): string;
  /** Set once a stop string is complete. */
  readonly match: StopMatch | null;
}

/**
 * A matcher for one stream; without stop strings it passes everything through.
 * @throws UsageError for an empty stop string.
 */
export function createStopStringMatcher(stopStrings: readonly string[], options: StopStringOptions = {}): StopStringMatcher {
  const { includeStopString = false } = options;
  if (stopStrings.includes("")) {
    throw new UsageError('stop strings: expected non-empty strings, got ""', { hint: "Leave the list empty for no stop strings." });
  }
  // Longest first, so that of several complete ones the longest is found.
  const strings = [...new Set(stopStrings)].sort((a, b) => b.length - a.length);
  // The end of the text so far that is the beginning of a stop string, and where in the whole text it starts.
  let pending = "";
  let pendingStart = 0;
  let match: StopMatch | null = null;

  return {
    get match() {
      return match;
    },
    push(piece) {
      if (match !== null) return "";
      const text = pending + piece;
      const found = firstComplete(text, strings);
      if (found !== null) {
        match = { stopString: found.stopString, start: pendingStart + found.start, end: pendingStart + found.end };
        const emitted = includeStopString ? text.slice(pending.length, found.end) : text.slice(0, found.start);
        pending = "";
        return emitted;
      }
      const emittedBefore = includeStopString ? pending.length : 0;
      const start = pendingFrom(text, strings);
      pending = text.slice(start);
      pendingStart += start;
      return includeStopString ? text.slice(emittedBefore) : text.slice(0, start);
    },
    finish() {
      const rest = includeStopString ? "" : pending;
      pending = "";
      return rest;
    },
  };
}

/** The stop string that is complete first, that is the one with the smallest end. */
function firstComplete(text: string, strings: readonly string[]): StopMatch | null {
  let best: StopMatch | null = null;
  for (const stopString of strings) {
    const start = text.indexOf(stopString);
    if (start < 0) continue;
    const end = start + stopString.length;
    if (best === null || end < best.end) best = { stopString, start, end };
  }
  return best;
}

/** Where the longest end of `text` begins that is the beginning of a stop string; its length when there is none. */
function pendingFrom(text: string, strings: readonly string[]): number {
  if (strings.length === 0) return text.length;
  for (let start = Math.max(0, text.length - strings[0].length + 1); start < text.length; start++) {
    const end = text.slice(start);
    if (strings.some((stopString) => stopString.startsWith(end))) return start;
  }
  return text.length;
}
