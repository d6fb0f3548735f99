// Files and directories that appear whole or not at all: written aside in the same folder, synced, renamed, folder synced.
// A directory that replaces another is moved in two renames; a crash between them is completed by `recoverDirectory`, because the
// new directory (`name.tmp-ID`) is already whole when the old one is moved aside (`name.old-ID`).
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError, LongwaveError } from "./errors.ts";
import { makeDirectories } from "./make-directories.ts";

/** What another machine (or a reused process id) left behind is removed after a day. */
const abandonedMs = 24 * 3600 * 1000;

export interface Staged {
  /** Where to write: a path beside the final one. */
  readonly path: string;
  /** Syncs what was written and moves it to its final place. @throws CheckpointError; what was there before is then still there. */
  commit(): void;
  /** Removes what was written. Does nothing after `commit`. */
  discard(): void;
}

/**
 * Starts a file that takes the place of `path` at `commit`. Missing parent folders are made.
 * @throws CheckpointError when the folder cannot be written.
 */
export function stageFile(path: string): Staged {
  return stage(path, (temporary) => closeSync(openSync(temporary, "wx")), syncPath, "file");
}

/**
 * Starts a directory that takes the place of `path` at `commit`; every file in it is synced first. Directories that dead processes
 * left beside `path` are removed.
 * @throws CheckpointError when the folder cannot be written.
 */
export function stageDirectory(path: string): Staged {
  return stage(path, (temporary) => mkdirSync(temporary), syncTree, "directory");
}

/** Writes a file atomically: a reader sees the old content or the new one. @throws CheckpointError. */
export function writeFileAtomic(path: string, content: string | Uint8Array): void {
  const staged = stageFile(path);
  try {
    writeFileSync(staged.path, content);
    staged.commit();
  } catch (cause) {
    staged.discard();
    throw storageError(cause, path);
  }
}

/** Fills a directory aside with `fill(temporaryPath)` and puts it in the place of `path` whole. @throws CheckpointError. */
export function writeDirectoryAtomic<T>(path: string, fill: (temporary: string) => T): T {
  const staged = stageDirectory(path);
  try {
    const result = fill(staged.path);
    staged.commit();
    return result;
  } catch (cause) {
    staged.discard();
    throw storageError(cause, path);
  }
}

/**
 * Completes a replacement of `path` that was cut between its two renames, and removes what dead processes left beside it.
 * Call before reading a directory written by this module; cheap when there is nothing to do.
 * @returns true when a directory was put back in place.
 */
export function recoverDirectory(path: string): boolean {
  const target = resolve(path);
  const parent = dirname(target);
  if (!existsSync(parent)) return false;
  let recovered = false;
  if (!existsSync(target)) {
    for (const left of leftovers(target)) {
      if (left.kind !== "old" || !left.dead) continue;
      const newer = `${target}.tmp-${left.id}`;
      renameSync(existsSync(newer) ? newer : left.path, target);
      syncDirectory(parent);
      recovered = true;
      break;
    }
  }
  for (const left of leftovers(target)) if (left.dead) removeQuietly(left.path);
  return recovered;
}

/**
 * Translates a failed system call while saving to `path` into a CheckpointError that says what to do.
 * Errors that longwave threw itself, and anything that is not a system error, come back unchanged.
 */
export function storageError(cause: unknown, path: string): unknown {
  if (cause instanceof LongwaveError || !(cause instanceof Error) || !("code" in cause) || !("syscall" in cause)) return cause;
  const code = String(cause.code);
  const [expected, hint] = remedies[code] ?? unknownFault;
  return new CheckpointError(`save ${path}: expected ${expected}, got ${code} from ${String(cause.syscall)}`, {
    cause,
    hint: `${hint} What was saved before is intact.`,
  });
}

/** What to do about a refusal of the operating system that has to do with files; undefined for anything else. */
export const storageRemedy = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause ? remedies[String(cause.code)]?.[1] : undefined;

const unknownFault: [string, string] = ["a working disk", "Check the disk, or save to another folder."];
const fullDisk: [string, string] = ["enough free space", "Free some space or save to another disk, then resume."];
const noPermission: [string, string] = ["permission to write there", "Choose a folder that you may write, or change its permissions."];
const noFolder: [string, string] = ["a folder as parent", "A part of the path is a file or a broken link: choose another path."];
const remedies: Record<string, [string, string]> = {
  ENOSPC: fullDisk,
  EDQUOT: fullDisk,
  EFBIG: ["a file size within the system's limit", "Raise the limit (ulimit -f) or save to another file system."],
  EROFS: ["a disk that can be written", "The file system is mounted read-only: save to another folder."],
  EACCES: noPermission,
  EPERM: noPermission,
  ENOTDIR: noFolder,
  // What mkdir says of the same.
  EEXIST: noFolder,
  ENOENT: ["its folder to be there", "The folder was removed, or a part of the path is a broken link: make it, or choose another path."],
  ELOOP: ["a path without links in a circle", "Choose another path, or mend the links."],
  ENOTEMPTY: ["a folder that nobody else writes to", "Give each run a folder of its own."],
  EISDIR: ["a file name", "The path is a folder: choose another path."],
  ENAMETOOLONG: ["a shorter name", "Shorten the path."],
  EMFILE: ["a free file handle", "Raise the limit of open files (ulimit -n)."],
  EIO: ["a disk without faults", "Check the disk's health and save to another one."],
};

function stage(path: string, create: (temporary: string) => void, sync: (temporary: string) => void, kind: "file" | "directory"): Staged {
  try {
    makeDirectories(dirname(resolve(path)));
    // A link such as `latest` keeps pointing where it pointed: its target is replaced.
    const target = existsSync(path) ? realpathSync(path) : resolve(path);
    if (existsSync(target) && statSync(target).isDirectory() !== (kind === "directory")) {
      throw new CheckpointError(`save ${path}: expected a ${kind} or nothing there, got a ${kind === "file" ? "directory" : "file"}`, {
        hint: "Choose another path, or remove what is there.",
      });
    }
    recoverDirectory(target);
    const id = `${process.pid}-${hostTag()}${randomBytes(4).toString("hex")}`;
    const temporary = `${target}.tmp-${id}`;
    create(temporary);
    let open = true;
    return {
      path: temporary,
      commit() {
        try {
          sync(temporary);
          if (kind === "directory" && existsSync(target)) swapDirectories(temporary, target, id);
          else renameSync(temporary, target);
          open = false;
          syncDirectory(dirname(target));
        } catch (cause) {
          throw storageError(cause, path);
        }
      },
      discard() {
        if (open) removeQuietly(temporary);
        open = false;
      },
    };
  } catch (cause) {
    throw storageError(cause, path);
  }
}

function swapDirectories(temporary: string, target: string, id: string): void {
  const old = `${target}.old-${id}`;
  renameSync(target, old);
  try {
    renameSync(temporary, target);
  } catch (cause) {
    renameSync(old, target);
    throw cause;
  }
  syncDirectory(dirname(target));
  removeQuietly(old);
}

interface Leftover {
  path: string;
  kind: "tmp" | "old";
  id: string;
  /** Its writer is gone. */
  dead: boolean;
}

function leftovers(target: string): Leftover[] {
  const parent = dirname(target);
  const prefix = `${basename(target)}.`;
  const found: Leftover[] = [];
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue;
    const match = /^(tmp|old)-(\d{1,10})-([0-9a-f]{4})[0-9a-f]{8}$/.exec(name.slice(prefix.length));
    if (!match) continue;
    const path = join(parent, name);
    const dead = (match[3] === hostTag() && !isAlive(Number(match[2]))) || ageMs(path) > abandonedMs;
    found.push({ path, kind: match[1] as "tmp" | "old", id: name.slice(prefix.length + 4), dead });
  }
  return found;
}

/** Process ids mean something on their own machine only; a shared file system holds those of others. */
export const hostTag = (): string => createHash("sha256").update(hostname()).digest("hex").slice(0, 4);

/** Whether a process of this machine runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function ageMs(path: string): number {
  // Another process may have removed it since it was listed.
  const status = lstatSync(path, { throwIfNoEntry: false });
  return status === undefined ? 0 : Date.now() - status.mtimeMs;
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // Left for the next clean-up: failing to remove a leftover must not fail (or hide the reason of) a save.
  }
}

function syncTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) syncTree(child);
    else if (entry.isFile()) syncPath(child);
  }
  syncDirectory(path);
}

function syncPath(path: string): void {
  // Windows flushes through writable handles only; elsewhere a read-only file must be syncable too.
  const fd = openSync(path, process.platform === "win32" ? "r+" : "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function syncDirectory(path: string): void {
  // Windows cannot open a directory for syncing, and commits renames with its journal.
  if (process.platform !== "win32") syncPath(path);
}
