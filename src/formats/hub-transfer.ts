// One file from the hub to the disk: retries, resumes where a connection was cut, and compares size and hash before the file gets its name.
import { createHash, type Hash } from "node:crypto";
import { closeSync, createReadStream, existsSync, ftruncateSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { storageError } from "../base/atomic.ts";
import { AbortedError, RemoteError } from "../base/errors.ts";
import { writeFully } from "../base/file-io.ts";
import { PartialFile } from "./hub-partial.ts";

export interface TransferOptions {
  readonly fetch: typeof fetch;
  /** Sent to the hub only: a redirect to another host loses it. */
  readonly token: string | undefined;
  readonly signal: AbortSignal | undefined;
  /** Attempts at every request, and as often again whenever bytes arrived. */
  readonly attempts: number;
  /** Before the second attempt; doubled from one to the next. */
  readonly retryDelayMs: number;
}

export interface RemoteFile {
  readonly url: string;
  /** For messages. */
  readonly name: string;
  readonly size: number;
  /** SHA-256 of the content, or the hash that git gives it: SHA-1 of "blob SIZE\0" and the content. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly hex: string };
}

/**
 * Requests until an answer comes that is not the server's fault. @throws RemoteError after the last attempt, AbortedError.
 */
export async function fetchWithRetries(url: string | URL, init: RequestInit, options: TransferOptions): Promise<Response> {
  let failure: { message: string; cause?: unknown } = { message: "no attempt" };
  let attempts = 0;
  // A host that has no address has none a second later.
  while (attempts < options.attempts && failure.message !== "ENOTFOUND") {
    if (attempts > 0) await pause(options, attempts);
    attempts++;
    try {
      const response = await options.fetch(url, { ...init, ...(options.signal ? { signal: options.signal } : {}) });
      if (response.status < 500 && response.status !== 429) return response;
      failure = { message: `status ${response.status}` };
      await response.body?.cancel();
    } catch (cause) {
      stopIfAborted(options);
      failure = { message: reasonOf(cause), cause };
    }
  }
  throw new RemoteError(
    `${new URL(url).origin}: expected an answer within ${attempts === 1 ? "1 attempt" : `${attempts} attempts`}, got ${failure.message}`,
    {
      // Set in any case: it tells an answer that did not come from one that was no.
      cause: failure.cause ?? failure.message,
      hint: "Check the connection or try again later; a copy in the cache is used with offline mode (HF_HUB_OFFLINE=1).",
    },
  );
}

/**
 * Downloads to `target`; what an earlier try left is continued, and what this one got before it fails is left for the next. Several calls, and
 * processes, may download the same file at once.
 * @throws RemoteError for refusals, cut connections after the last attempt, and content of another size or hash; CheckpointError when the
 *   disk refuses; AbortedError; what `onBytes` throws, as it is.
 */
export async function transfer(
  file: RemoteFile,
  target: string,
  options: TransferOptions,
  onBytes: (loaded: number) => void,
): Promise<void> {
  const partial = new PartialFile(target);
  try {
    await fill(partial, file, target, options, onBytes);
    partial.finish();
  } finally {
    partial.keep();
  }
}

/** Until all bytes are there and are the right ones, or another download was faster. */
async function fill(
  partial: PartialFile,
  file: RemoteFile,
  target: string,
  options: TransferOptions,
  onBytes: (loaded: number) => void,
): Promise<void> {
  let failures = 0;
  while (!existsSync(target)) {
    const before = partial.bytes;
    if (before > file.size) {
      partial.remove();
      continue;
    }
    if (before < file.size || file.size === 0) {
      const outcome = await receive(file, partial, before, options, onBytes);
      if (outcome !== undefined) {
        // A connection that brings something each time may be cut as often as it likes.
        failures = outcome.progressed ? 1 : failures + 1;
        if (failures >= options.attempts) {
          throw new RemoteError(`${file.name}: expected ${file.size} bytes, got ${outcome.loaded} before ${outcome.reason}`, {
            cause: outcome.cause,
            hint: "Run the command again: it goes on where it stopped.",
          });
        }
        await pause(options, failures);
        continue;
      }
    }
    const hash = await hashOf(partial.path, file);
    if (hash !== file.hash.hex) {
      partial.remove();
      throw new RemoteError(`${file.name}: expected content with hash ${file.hash.hex}, got ${hash}`, {
        hint: "The file was changed on its way, or the server's list is wrong: run the command again.",
      });
    }
    return;
  }
}

/** What the caller's own function threw: no failure of the transfer. */
class ObserverFailure {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}

interface Cut {
  readonly loaded: number;
  readonly progressed: boolean;
  readonly reason: string;
  readonly cause?: unknown;
}

/** One request for the rest of a file. @returns how it was cut, or undefined when all bytes are there. */
async function receive(
  file: RemoteFile,
  partial: PartialFile,
  before: number,
  options: TransferOptions,
  onBytes: (loaded: number) => void,
): Promise<Cut | undefined> {
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  if (options.token !== undefined) headers.authorization = `Bearer ${options.token}`;
  if (before > 0) headers.range = `bytes=${before}-`;
  const response = await fetchWithRetries(file.url, { headers }, options);
  if (response.status !== 200 && response.status !== 206) {
    await response.body?.cancel();
    if (response.status === 416 && before > 0) partial.remove();
    if (response.status === 416 && before > 0) return { loaded: 0, progressed: false, reason: "status 416" };
    throw refusal(response.status, file.name);
  }
  // A server that does not know ranges starts again from the beginning.
  let loaded = response.status === 206 ? startOfRange(response, before) : 0;
  if (loaded > before) throw new RemoteError(`${file.name}: expected the bytes from ${before} on, got those from ${loaded} on`);
  const tell = (bytes: number): void => {
    try {
      onBytes(bytes);
    } catch (error) {
      throw new ObserverFailure(error);
    }
  };
  let fd: number | undefined;
  try {
    fd = openSync(partial.path, existsSync(partial.path) ? "r+" : "w");
    ftruncateSync(fd, loaded);
    if (loaded > 0) tell(loaded);
    for await (const chunk of response.body ?? []) {
      if (loaded + chunk.length > file.size) {
        partial.remove();
        throw new RemoteError(`${file.name}: expected ${file.size} bytes, got more`, {
          hint: "The server's list of files is wrong or out of date.",
        });
      }
      writeFully(fd, chunk, loaded);
      loaded += chunk.length;
      tell(loaded);
    }
  } catch (cause) {
    if (cause instanceof ObserverFailure) {
      // Where nothing was read of the answer yet, nobody else gives it up.
      if (response.body?.locked === false) await response.body.cancel();
      throw cause.error;
    }
    if (cause instanceof RemoteError) throw cause;
    stopIfAborted(options);
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== undefined && /^E(NOSPC|ACCES|DQUOT|FBIG|IO|PERM|ROFS)$/.test(code)) throw storageError(cause, partial.path);
    return { loaded, progressed: loaded > before, reason: reasonOf(cause), cause };
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  return loaded === file.size ? undefined : { loaded, progressed: loaded > before, reason: "the end of the answer" };
}

function startOfRange(response: Response, wanted: number): number {
  const match = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  return match ? Number(match[1]) : wanted;
}

/** What a status means to the user. */
export function refusal(status: number, name: string): RemoteError {
  const denied = status === 401 || status === 403;
  return new RemoteError(
    `${name}: expected it on the hub, got status ${status}${denied ? " (access denied)" : status === 404 ? " (not found)" : ""}`,
    {
      hint: denied
        ? "Set HF_TOKEN to a token that may read it, and accept the model's terms on its page."
        : status === 404
          ? "Check owner, name and revision; private models need HF_TOKEN."
          : "Try again later.",
    },
  );
}

async function hashOf(path: string, { hash, size }: RemoteFile): Promise<string> {
  const digest: Hash = hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) digest.update(chunk as Uint8Array);
  return digest.digest("hex");
}

const reasonOf = (cause: unknown): string => {
  const inner = (cause as { cause?: NodeJS.ErrnoException }).cause;
  return inner?.code ?? inner?.message ?? (cause as Error).message;
};

function stopIfAborted({ signal }: TransferOptions): void {
  if (signal?.aborted) throw new AbortedError("download: stopped", { hint: "Run the command again: it goes on where it stopped." });
}

async function pause(options: TransferOptions, failures: number): Promise<void> {
  const delay = Math.min(options.retryDelayMs * 2 ** (failures - 1), 30_000);
  await sleep(delay, undefined, options.signal ? { signal: options.signal } : {}).catch(() => {});
  stopIfAborted(options);
}
