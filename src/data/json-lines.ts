// JSON Lines: one JSON value a line. Blank lines are skipped; everything else that is not JSON is an error that names the line.
import { DataError } from "../base/errors.ts";
import { maxDocumentCharacters } from "./split-text.ts";
import { readText, type TextReadOptions } from "./utf8-reader.ts";

export interface JsonLine {
  readonly value: unknown;
  /** Counted from 1. */
  readonly line: number;
}

/** The values of a JSONL file in order, one line in memory at a time. @throws DataError naming file and line; AbortedError. */
export async function* readJsonLines(path: string, options: TextReadOptions = {}): AsyncGenerator<JsonLine, void, undefined> {
  let pending = "";
  let line = 0;
  for await (const piece of readText(path, options)) {
    // Lines are searched in the new part only: a long line is not scanned again with every part.
    let start = 0;
    for (let end = piece.indexOf("\n"); end >= 0; end = piece.indexOf("\n", start)) {
      const text = pending + piece.slice(start, end);
      pending = "";
      start = end + 1;
      line++;
      if (text.trim() !== "") yield { value: parse(text, path, line), line };
    }
    pending += piece.slice(start);
    if (pending.length > maxDocumentCharacters) {
      throw new DataError(`${path}:${line + 1}: expected lines of at most ${maxDocumentCharacters} characters, got a longer one`, {
        hint: "Write one JSON object a line; a JSON array over many lines is not JSONL.",
      });
    }
  }
  if (pending.trim() !== "") yield { value: parse(pending, path, line + 1), line: line + 1 };
}

/** The string at `field` of every object. @throws DataError naming the line and the fields that are there. */
export async function* readTextField(path: string, field: string, options: TextReadOptions = {}): AsyncGenerator<string, void, undefined> {
  for await (const { value, line } of readJsonLines(path, options)) {
    const record = typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
    const text = record !== undefined && Object.hasOwn(record, field) ? record[field] : undefined;
    if (typeof text !== "string") {
      const fields = record === undefined ? "no object" : `fields ${Object.keys(record).slice(0, 10).join(", ") || "none"}`;
      throw new DataError(`${path}:${line}: expected a text in field "${field}", got ${text === undefined ? fields : typeof text}`, {
        hint: "Name the field that holds the text.",
      });
    }
    if (text.trim() !== "") yield text;
  }
}

function parse(text: string, path: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new DataError(`${path}:${line}: expected one JSON value on the line, got ${JSON.stringify(text.slice(0, 40))}`, {
      cause,
      hint: "Write one JSON object a line, in UTF-8.",
    });
  }
}
