// metrics.jsonl: one event a line, exactly as it was emitted, so that the file can be read back into typed events.
// JSON has no NaN and no infinities; they are written as the strings "NaN", "Infinity" and "-Infinity".
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { basename } from "node:path";
import type { RunEvent } from "../events.ts";
import type { Sink } from "./sink.ts";

/** A longer line is taken for damage: no event comes near it. */
const maxLineBytes = 64 * 1024 * 1024;

/**
 * Appends to `path`. At `run-start` the file is cut back to what happened up to the step that the run starts from, so that a resumed
 * run leaves one history: later lines of an abandoned continuation and a half-written last line go. A new run starts an empty file.
 * What this sink wrote ahead of `run-start` (stages, warnings and artifacts of the preparation) stays.
 */
export function createJsonlSink(path: string): Sink {
  let file: number | undefined;
  let ownStart = 0;
  return {
    name: basename(path),
    write(event) {
      if (file === undefined) {
        file = openSync(path, "a+");
        ownStart = fstatSync(file).size;
      }
      if (event.kind === "run-start") {
        const own = readFrom(file, ownStart);
        ftruncateSync(file, event.resumedFrom === undefined ? 0 : lengthUpTo(file, event.step, ownStart));
        writeAll(file, own);
        ownStart = Number.POSITIVE_INFINITY;
      }
      writeAll(file, encodeEvent(event));
    },
    close() {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

const encodeEvent = (event: RunEvent): Buffer => Buffer.from(`${JSON.stringify(event, replaceNonFinite)}\n`);

/** For `JSON.stringify`: numbers that JSON lacks become strings. */
export const replaceNonFinite = (_key: string, value: unknown): unknown =>
  typeof value === "number" && !Number.isFinite(value) ? String(value) : value;

/** For `JSON.parse` of metrics: undoes {@link replaceNonFinite}. */
export const reviveNonFinite = (_key: string, value: unknown): unknown =>
  value === "NaN" || value === "Infinity" || value === "-Infinity" ? Number(value) : value;

function writeAll(file: number, bytes: Buffer): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
}

/** What comes after byte `start`: a few lines of one preparation. */
function readFrom(file: number, start: number): Buffer {
  const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - start));
  let length = 0;
  for (let count = -1; count !== 0 && length < bytes.length; length += count)
    count = readSync(file, bytes, length, bytes.length - length, start + length);
  return bytes.subarray(0, length);
}

/** The events of a metrics file, line by line; ends quietly at a line that is not one (a crash may leave half a line at the end). */
export function* readMetrics(path: string): Generator<RunEvent> {
  const file = openSync(path, "r");
  try {
    for (const { event } of linesOf(file)) yield event;
  } finally {
    closeSync(file);
  }
}

/** Bytes, at most `limit`, up to the first line that is damaged or later than `step`; all that follows goes too. */
function lengthUpTo(file: number, step: number, limit: number): number {
  let length = 0;
  for (const { event, end } of linesOf(file)) {
    if (event.step > step || end > limit) break;
    length = end;
  }
  return length;
}

function* linesOf(file: number): Generator<{ event: RunEvent; end: number }> {
  const chunk = Buffer.alloc(1 << 16);
  let rest = Buffer.alloc(0);
  let restStart = 0;
  for (let position = 0; rest.length <= maxLineBytes; ) {
    const count = readSync(file, chunk, 0, chunk.length, position);
    if (count === 0) return;
    position += count;
    rest = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let newline = rest.indexOf(10); newline >= 0; newline = rest.indexOf(10, start)) {
      const event = parseEvent(rest.toString("utf8", start, newline));
      if (!event) return;
      start = newline + 1;
      yield { event, end: restStart + start };
    }
    rest = rest.subarray(start);
    restStart += start;
  }
}

function parseEvent(line: string): RunEvent | undefined {
  try {
    const event = JSON.parse(line, reviveNonFinite) as RunEvent | null;
    return typeof event === "object" && typeof event?.kind === "string" && typeof event.step === "number" ? event : undefined;
  } catch {
    return undefined;
  }
}
