// JSON files of bounded size. Content is data: it is parsed, never executed, and every caller validates what it uses.
import { closeSync, fstatSync } from "node:fs";
import { FormatError } from "../base/errors.ts";
import { openForReading, readFully } from "../base/file-io.ts";

export interface JsonFileOptions {
  /** Larger files are refused before they are read. Default 16 MiB. */
  maxBytes?: number;
}

/** Parses a JSON file whose top level is an object. @throws FormatError when it is missing, too large or malformed. */
export function readJsonObject(path: string, options: JsonFileOptions = {}): Record<string, unknown> {
  const value = readJson(path, options);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(`${path}: expected a JSON object, got ${Array.isArray(value) ? "an array" : JSON.stringify(value).slice(0, 40)}`);
  }
  return value as Record<string, unknown>;
}

/** Parses a JSON file. @throws FormatError when it is missing, too large or malformed. */
export function readJson(path: string, { maxBytes = 16 << 20 }: JsonFileOptions = {}): unknown {
  const text = readTextFile(path, maxBytes);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`${path}: expected JSON, got a syntax error (${(cause as Error).message.slice(0, 200)})`, {
      cause,
      hint: "The file is damaged, or written with NaN or Infinity, which JSON does not have.",
    });
  }
}

/** A whole UTF-8 file of at most `maxBytes`. @throws FormatError. */
export function readTextFile(path: string, maxBytes: number): string {
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    if (size > maxBytes) throw new FormatError(`${path}: expected at most ${maxBytes} bytes, got ${size}`);
    const bytes = new Uint8Array(size);
    readFully(fd, bytes, 0, path);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(`${path}: expected UTF-8 text, got invalid bytes`, { cause, hint: "Save the file as UTF-8." });
  } finally {
    closeSync(fd);
  }
}
