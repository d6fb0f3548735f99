// Positional reads and writes that finish or throw: the operating system may move fewer bytes than asked for.
import { openSync, readSync, statSync, writeSync } from "node:fs";
import { FormatError } from "./errors.ts";

/** One system call moves at most this many bytes: small enough to stay responsive, large enough to cost nothing. */
export const ioChunkBytes = 8 << 20;

/** The bytes behind any typed array, without a copy. */
export const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Opens a regular file. @throws FormatError when it is missing, unreadable, or a folder or device (which could block for ever). */
export function openForReading(path: string): number {
  try {
    if (statSync(path).isFile()) return openSync(path, "r");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new FormatError(`${path}: expected a readable file, got ${code ?? String(cause)}`, {
      cause,
      hint: "Check the path and its permissions.",
    });
  }
  throw new FormatError(`${path}: expected a file, got a folder or a device`, { hint: "Check the path." });
}

/**
 * Fills `target` from byte `position` of an open file.
 * @param label names the file in the error.
 * @throws FormatError when the file ends before `target` is full.
 */
export function readFully(fd: number, target: Uint8Array, position: number, label: string): void {
  let done = 0;
  while (done < target.length) {
    const count = readSync(fd, target, done, Math.min(ioChunkBytes, target.length - done), position + done);
    if (count === 0) {
      throw new FormatError(`${label}: expected ${target.length} bytes at offset ${position}, got the end of the file after ${done}`, {
        hint: "The file is cut short or still being written; copy or download it again.",
      });
    }
    done += count;
  }
}

/** Writes all of `source` at byte `position`. System errors (no space …) pass through for the caller to translate. */
export function writeFully(fd: number, source: Uint8Array, position: number): void {
  let done = 0;
  while (done < source.length) {
    done += writeSync(fd, source, done, Math.min(ioChunkBytes, source.length - done), position + done);
  }
}
