// Text files as a stream of decoded pieces, checked strictly: what is not UTF-8 text is an error that names the byte, because a
// replacement character in training data goes unnoticed for ever.
import { isUtf8 } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { AbortedError, DataError } from "../base/errors.ts";

export interface TextReadOptions {
  /** Bytes read at a time. Default 1 MiB. */
  chunkBytes?: number;
  signal?: AbortSignal;
}

/**
 * The file's text in pieces that never split a character; a byte order mark at its start is dropped.
 * @throws DataError for a file that is missing, binary (a NUL byte), or invalid UTF-8, naming the byte offset; AbortedError.
 */
export async function* readText(path: string, options: TextReadOptions = {}): AsyncGenerator<string, void, undefined> {
  const { chunkBytes = 1 << 20, signal } = options;
  const file = await openText(path);
  try {
    const buffer = Buffer.allocUnsafe(chunkBytes + 4);
    let position = 0;
    let carried = 0;
    for (;;) {
      throwIfAborted(signal, path);
      const bytesRead = await readSome(file, buffer, carried, chunkBytes, path);
      const filled = carried + bytesRead;
      const complete = bytesRead === 0 ? filled : filled - incompleteTail(buffer, filled);
      const piece = buffer.subarray(0, complete);
      checkText(piece, position, path);
      const start = position === 0 && piece[0] === 0xef && piece[1] === 0xbb && piece[2] === 0xbf ? 3 : 0;
      if (complete > start) yield piece.toString("utf8", start);
      if (bytesRead === 0) return;
      buffer.copy(buffer, 0, complete, filled);
      position += complete;
      carried = filled - complete;
    }
  } finally {
    await file.close();
  }
}

export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new AbortedError(`${what}: interrupted`, { cause: signal.reason });
}

async function openText(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new DataError(`${path}: expected a readable text file, got ${code ?? String(cause)}`, {
      cause,
      hint: "Check the path and its permissions.",
    });
  }
}

async function readSome(file: FileHandle, buffer: Buffer, offset: number, length: number, path: string): Promise<number> {
  try {
    return (await file.read(buffer, offset, length, null)).bytesRead;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new DataError(`${path}: expected readable text, got ${code ?? String(cause)}`, { cause, hint: "Check the path and the disk." });
  }
}

function checkText(bytes: Buffer, position: number, path: string): void {
  if (position === 0 && ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff))) {
    throw new DataError(`${path}: expected UTF-8 text, got UTF-16 at byte 0`, { hint: "Convert it: iconv -f UTF-16 -t UTF-8." });
  }
  const nul = bytes.indexOf(0);
  if (nul >= 0) {
    const packed = position === 0 && ((bytes[0] === 0x1f && bytes[1] === 0x8b) || (bytes[0] === 0x50 && bytes[1] === 0x4b));
    throw new DataError(`${path}: expected text, got binary data (a NUL byte at byte ${position + nul})`, {
      hint: packed ? "It looks compressed: unpack it first." : "Remove the file from the data, or name the text files by a pattern.",
    });
  }
  if (isUtf8(bytes)) return;
  throw new DataError(`${path}: expected UTF-8 text, got an invalid byte sequence at byte ${position + firstInvalid(bytes)}`, {
    hint: "Convert it to UTF-8 (iconv -f LATIN1 -t UTF-8), or remove the file from the data.",
  });
}

/** Bytes at the end that begin a character without finishing it. */
function incompleteTail(bytes: Uint8Array, length: number): number {
  for (let back = 1; back <= Math.min(3, length); back++) {
    const byte = bytes[length - back];
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return sequenceLength(byte) > back ? back : 0;
  }
  return 0;
}

const sequenceLength = (lead: number): number => (lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1);

/** Offset of the first byte that begins no well-formed character (Unicode standard, table 3-7). Bytes are known to be invalid. */
function firstInvalid(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const length = sequenceLength(bytes[at]);
    if (!isUtf8(bytes.subarray(at, at + length)) || at + length > bytes.length) return at;
    at += length;
  }
  return at;
}
