// Tokenises a corpus once: the ids are kept on disk under a key of (corpus, tokenizer, settings) and found again by later runs.
// Memory stays bounded by one document and the index, whatever the size of the corpus. The folder appears whole or not at all.
import { createHash } from "node:crypto";
import { closeSync, existsSync, fstatSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { recoverDirectory, stageDirectory, storageError } from "../base/atomic.ts";
import { DataError, FormatError } from "../base/errors.ts";

import { openForReading, readFully } from "../base/file-io.ts";
import type { Corpus } from "./corpus.ts";
import { contentHash } from "./split.ts";
import { manifestName, TokenFile, TokenFileWriter } from "./token-file.ts";
import { throwIfAborted } from "./utf8-reader.ts";

export interface TokenEncoder {
  /** Ids of one document. */
  encode(text: string): ArrayLike<number> | Promise<ArrayLike<number>>;
  /** Equal hashes mean equal ids for every text. */
  readonly hash: string;
  /** All ids are below it. */
  readonly vocabularySize: number;
}

export type TokenCacheEvent =
  | {
      kind: "progress";
      documents: number;
      tokens: number /** Bytes of text encoded, of `totalBytes`. */;
      bytes: number;
      totalBytes: number;
    }
  | { kind: "reused"; documents: number; tokens: number }
  /** A cache that could not be used is built again. */
  | { kind: "rebuilding"; reason: string };

export interface TokenCacheOptions {
  /** Folder of all caches; made when missing. */
  directory: string;
  /** What else the ids depend on (an added prefix …). Default "". */
  settings?: string;
  onEvent?: (event: TokenCacheEvent) => void;
  signal?: AbortSignal;
}

/** Milliseconds between progress events, and the longest that the event loop waits between documents. */
const yieldMs = 50;
const manifestBytes = 1 << 16;

/**
 * Opens the cache of a tokenised corpus, building it first where it is missing, stale or damaged.
 * @throws DataError for unusable text or ids, CheckpointError when the disk refuses, AbortedError (nothing is left behind then).
 */
export async function openTokenCache(corpus: Corpus, encoder: TokenEncoder, options: TokenCacheOptions): Promise<TokenFile> {
  const { directory, settings = "", onEvent = () => undefined, signal } = options;
  const parts = [1, corpus.fingerprint, encoder.hash, encoder.vocabularySize, settings];
  const key = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
  const folder = join(directory, key);
  recoverDirectory(folder);
  if (existsSync(folder)) {
    try {
      const file = new TokenFile(folder, readManifest(folder, key));
      onEvent({ kind: "reused", documents: file.numDocuments, tokens: file.numTokens });
      return file;
    } catch (cause) {
      if (!(cause instanceof FormatError)) throw cause;
      onEvent({ kind: "rebuilding", reason: cause.message });
    }
  }
  await build(corpus, encoder, { folder, key, onEvent, signal });
  return new TokenFile(folder, readManifest(folder, key));
}

interface Build {
  folder: string;
  key: string;
  onEvent: (event: TokenCacheEvent) => void;
  signal: AbortSignal | undefined;
}

async function build(corpus: Corpus, encoder: TokenEncoder, { folder, key, onEvent, signal }: Build): Promise<void> {
  const staged = stageDirectory(folder);
  let writer: TokenFileWriter | undefined;
  try {
    writer = new TokenFileWriter(staged.path, encoder.vocabularySize);
    let bytes = 0;
    let last = performance.now();
    for await (const { text, source, index } of corpus.documents({ signal })) {
      const ids = encoder.encode(text);
      writer.add(ids instanceof Promise ? await ids : ids, contentHash(text), `${source} (document ${index})`);
      bytes += Buffer.byteLength(text);
      if (performance.now() - last < yieldMs) continue;
      onEvent({ kind: "progress", documents: writer.numDocuments, tokens: writer.numTokens, bytes, totalBytes: corpus.totalBytes });
      await new Promise((resume) => setImmediate(resume));
      throwIfAborted(signal, `tokenising ${corpus.name}`);
      last = performance.now();
    }
    throwIfAborted(signal, `tokenising ${corpus.name}`);
    if (writer.numTokens === 0) {
      throw new DataError(`${corpus.name}: expected text to tokenise, got ${writer.numDocuments} documents without tokens`);
    }
    const manifest = writer.finish(key);
    writeFileSync(join(staged.path, manifestName), `${JSON.stringify(manifest)}\n`);
    staged.commit();
    onEvent({ kind: "progress", documents: manifest.numDocuments, tokens: manifest.numTokens, bytes, totalBytes: corpus.totalBytes });
  } catch (cause) {
    throw storageError(cause, folder);
  } finally {
    writer?.close();
    staged.discard();
  }
}

function readManifest(folder: string, key: string): unknown {
  const path = join(folder, manifestName);
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    if (size > manifestBytes) throw new FormatError(`${path}: expected at most ${manifestBytes} bytes, got ${size}`);
    const bytes = new Uint8Array(size);
    readFully(fd, bytes, 0, path);
    const manifest: unknown = JSON.parse(Buffer.from(bytes).toString());
    const found = typeof manifest === "object" && manifest !== null && "key" in manifest ? manifest.key : undefined;
    if (found !== key) throw new FormatError(`${path}: expected key ${key}, got ${String(found)}`);
    return manifest;
  } catch (cause) {
    if (cause instanceof SyntaxError) throw new FormatError(`${path}: expected JSON, got ${cause.message}`, { cause });
    throw cause;
  } finally {
    closeSync(fd);
  }
}
