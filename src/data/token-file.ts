// The tokenised form of a corpus on disk: a folder with `tokens.bin` (u16, or u32 for vocabularies above 65,536, little-endian),
// `documents.bin` (f64 start of every document and of the end, then u32 content hash of every document) and `cache.json`.
// Only the documents' index is held in memory (12 bytes each); ids are read by position.
import { closeSync, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { BackendError, DataError, FormatError, invariant } from "../base/errors.ts";
import { bytesOf, openForReading, readFully, writeFully } from "../base/file-io.ts";
import type { TokenSource } from "./token-source.ts";

const version = 1;
/** Ids widened or gathered at a time. */
const chunkTokens = 1 << 16;

const manifestSchema = z.strictObject({
  version: z.literal(version),
  key: z.string(),
  width: z.union([z.literal(2), z.literal(4)]),
  vocabularySize: z.int().positive(),
  numDocuments: z.int().nonnegative(),
  numTokens: z.int().nonnegative(),
});

export type TokenFileManifest = z.infer<typeof manifestSchema>;

export const manifestName = "cache.json";
const tokensName = "tokens.bin";
const documentsName = "documents.bin";

/** Writes documents one after another into a folder that exists. */
export class TokenFileWriter {
  numTokens = 0;
  numDocuments = 0;
  private readonly folder: string;
  private readonly vocabularySize: number;
  private readonly pending: Uint16Array | Uint32Array;
  private filled = 0;
  private bytesWritten = 0;
  private starts = new Float64Array(1024);
  private hashes = new Uint32Array(1024);
  private fd: number | undefined;

  constructor(folder: string, vocabularySize: number) {
    this.folder = folder;
    this.vocabularySize = vocabularySize;
    this.pending = vocabularySize <= 65536 ? new Uint16Array(chunkTokens) : new Uint32Array(chunkTokens);
    this.fd = openSync(join(folder, tokensName), "wx");
  }

  /** @throws DataError for an id outside the vocabulary; `label` names the document. */
  add(ids: ArrayLike<number>, contentHash: number, label: string): void {
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i];
      if (!(id >= 0 && id < this.vocabularySize && Number.isInteger(id))) {
        throw new DataError(`${label}: expected token ids below ${this.vocabularySize}, got ${id}`, {
          hint: "The tokenizer and its vocabulary size do not belong together.",
        });
      }
      this.pending[this.filled++] = id;
      if (this.filled === chunkTokens) this.flush();
    }
    if (this.numDocuments + 2 > this.starts.length) {
      this.starts = grown(this.starts, new Float64Array(this.starts.length * 2));
      this.hashes = grown(this.hashes, new Uint32Array(this.hashes.length * 2));
    }
    this.hashes[this.numDocuments++] = contentHash;
    this.numTokens += ids.length;
    this.starts[this.numDocuments] = this.numTokens;
  }

  /** Writes what is pending and the index; returns the manifest for the caller to write last. */
  finish(key: string): TokenFileManifest {
    this.flush();
    this.close();
    const { numDocuments, numTokens, vocabularySize } = this;
    const fd = openSync(join(this.folder, documentsName), "wx");
    try {
      const starts = bytesOf(this.starts.subarray(0, numDocuments + 1));
      writeFully(fd, starts, 0);
      writeFully(fd, bytesOf(this.hashes.subarray(0, numDocuments)), starts.length);
    } finally {
      closeSync(fd);
    }
    return { version, key, width: this.pending.BYTES_PER_ELEMENT === 2 ? 2 : 4, vocabularySize, numDocuments, numTokens };
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  private flush(): void {
    invariant(this.fd !== undefined, "a token file is written after it was closed");
    const bytes = bytesOf(this.pending.subarray(0, this.filled));
    writeFully(this.fd, bytes, this.bytesWritten);
    this.bytesWritten += bytes.length;
    this.filled = 0;
  }
}

/** Ids of a corpus on disk. Every id is checked against the vocabulary as it is read. */
export class TokenFile implements TokenSource {
  readonly numDocuments: number;
  readonly numTokens: number;
  readonly vocabularySize: number;
  private readonly path: string;
  private readonly width: 2 | 4;
  private readonly starts: Float64Array;
  private readonly hashes: Uint32Array;
  private readonly narrow = new Uint16Array(chunkTokens);
  private fd: number | undefined;

  /**
   * @param manifest the parsed `cache.json`.
   * @throws FormatError when the folder's files do not fit together.
   */
  constructor(folder: string, manifest: unknown) {
    const parsed = manifestSchema.safeParse(manifest);
    if (!parsed.success) throw damaged(folder, `a manifest of version ${version}`, parsed.error.issues[0].message);
    const { numDocuments, numTokens, vocabularySize, width } = parsed.data;
    this.numDocuments = numDocuments;
    this.numTokens = numTokens;
    this.vocabularySize = vocabularySize;
    this.width = width;
    this.path = join(folder, tokensName);
    ({ starts: this.starts, hashes: this.hashes } = readIndex(folder, numDocuments, numTokens));
    const fd = openForReading(this.path);
    const { size } = fstatSync(fd);
    if (size !== numTokens * width) {
      closeSync(fd);
      throw damaged(folder, `${numTokens * width} bytes of tokens`, `${size}`);
    }
    this.fd = fd;
  }

  documentStart(document: number): number {
    return this.starts[document];
  }

  documentHash(document: number): number {
    return this.hashes[document];
  }

  read(start: number, target: Int32Array, offset: number, count: number): void {
    if (this.fd === undefined) throw new BackendError(`${this.path}: expected an open token cache, got one that was closed`);
    invariant(start >= 0 && start + count <= this.numTokens, `tokens ${start} to ${start + count} of ${this.numTokens} are read`);
    if (this.width === 4) {
      readFully(this.fd, bytesOf(target.subarray(offset, offset + count)), start * 4, this.path);
    } else {
      for (let done = 0; done < count; done += chunkTokens) {
        const part = Math.min(chunkTokens, count - done);
        const ids = part === chunkTokens ? this.narrow : this.narrow.subarray(0, part);
        readFully(this.fd, bytesOf(ids), (start + done) * 2, this.path);
        target.set(ids, offset + done);
      }
    }
    for (let i = offset; i < offset + count; i++) {
      if (target[i] < 0 || target[i] >= this.vocabularySize) {
        throw damaged(this.path, `token ids below ${this.vocabularySize}`, `${target[i]} at position ${start + i - offset}`);
      }
    }
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function readIndex(folder: string, numDocuments: number, numTokens: number): { starts: Float64Array; hashes: Uint32Array } {
  const path = join(folder, documentsName);
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    const expected = (numDocuments + 1) * 8 + numDocuments * 4;
    if (size !== expected) throw damaged(folder, `${expected} bytes of index`, `${size}`);
    const starts = new Float64Array(numDocuments + 1);
    const hashes = new Uint32Array(numDocuments);
    readFully(fd, bytesOf(starts), 0, path);
    readFully(fd, bytesOf(hashes), starts.byteLength, path);
    let before = 0;
    for (const start of starts) {
      if (!(start >= before && Number.isSafeInteger(start))) throw damaged(folder, "document starts that do not decrease", String(start));
      before = start;
    }
    if (starts[0] !== 0 || before !== numTokens) throw damaged(folder, `documents from 0 to ${numTokens}`, `${starts[0]} to ${before}`);
    return { starts, hashes };
  } finally {
    closeSync(fd);
  }
}

function grown<A extends Float64Array | Uint32Array>(from: A, to: A): A {
  to.set(from);
  return to;
}

const damaged = (path: string, expected: string, got: string): FormatError =>
  new FormatError(`token cache ${path}: expected ${expected}, got ${got}`, { hint: "Delete the cache folder; it is built again." });
