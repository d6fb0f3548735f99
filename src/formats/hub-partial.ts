// The partial file of a download. Processes may fetch the same file at once: each writes a partial file of its own, `NAME.incomplete-ID`, and
// the first that is whole takes the name; nothing waits, and nothing is locked. A try that ends early leaves `NAME.incomplete` for the next
// one, which takes it over by renaming it: that succeeds for one of several. What a killed process left is taken over in the same way.
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { threadId } from "node:worker_threads";
import { hostTag, isAlive } from "../base/atomic.ts";
import { RemoteError } from "../base/errors.ts";

/** A file that nobody wrote to for so long is abandoned, whatever its process does: another machine's, or a process id that came again. */
const abandonedMs = 3600 * 1000;

/** Partial files that calls of this thread write at present. */
const mine = new Set<string>();

export class PartialFile {
  /** Where to write. The file may not be there yet. */
  readonly path: string;
  readonly #target: string;

  /** Claims what earlier tries left of `target`, the longest of them; the others are removed. */
  constructor(target: string) {
    this.#target = target;
    this.path = `${target}.incomplete-${process.pid}-${threadId}-${hostTag()}${randomBytes(4).toString("hex")}`;
    mine.add(this.path);
    for (const { path, bytes } of leftovers(target).sort((a, b) => b.bytes - a.bytes)) {
      if (this.bytes >= bytes) rmSync(path, { force: true });
      else this.#claim(path);
    }
  }

  /** Bytes that are there already. */
  get bytes(): number {
    return statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }

  /** It is whole: it takes the name, unless another one did. @throws RemoteError when it is gone. */
  finish(): void {
    mine.delete(this.path);
    try {
      if (!existsSync(this.#target)) renameSync(this.path, this.#target);
    } catch (cause) {
      if (!existsSync(this.#target))
        throw new RemoteError(`${this.path}: expected the file that was downloaded, got nothing there`, {
          cause,
          hint: "Something else writes to the cache: run the command again.",
        });
    }
    this.remove();
  }

  /** Leaves it for the next try. Does nothing after `finish`. */
  keep(): void {
    mine.delete(this.path);
    const left = `${this.#target}.incomplete`;
    if (!existsSync(this.path)) return;
    const other = statSync(left, { throwIfNoEntry: false })?.size ?? -1;
    if (existsSync(this.#target) || other >= this.bytes) this.remove();
    else renameSync(this.path, left);
  }

  #claim(path: string): void {
    try {
      // Its age tells others whether it is in use: new before it has the name of one that is.
      const now = new Date();
      utimesSync(path, now, now);
      renameSync(path, this.path);
    } catch {
      // Somebody else was faster.
    }
  }
}

/** Partial files that nobody writes to. */
function leftovers(target: string): { path: string; bytes: number }[] {
  const prefix = `${basename(target)}.incomplete`;
  return readdirSync(dirname(target)).flatMap((name) => {
    if (!name.startsWith(prefix)) return [];
    const path = join(dirname(target), name);
    const status = statSync(path, { throwIfNoEntry: false });
    if (!status?.isFile()) return [];
    return name === prefix || isAbandoned(path, name.slice(prefix.length), status.mtimeMs) ? [{ path, bytes: status.size }] : [];
  });
}

function isAbandoned(path: string, suffix: string, writtenAt: number): boolean {
  const match = /^-(\d{1,10})-(\d{1,10})-([0-9a-f]{4})[0-9a-f]{8}$/.exec(suffix);
  if (match === null || mine.has(path)) return false;
  const [, pid, thread, host] = match;
  if (Date.now() - writtenAt > abandonedMs) return true;
  if (host !== hostTag()) return false;
  // A container's processes may have the same id each time.
  return Number(pid) === process.pid ? Number(thread) === threadId : !isAlive(Number(pid));
}
