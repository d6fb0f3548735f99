// Reading a file with and without the system's page cache. Dropping the pages of one file needs no privileges on Linux.
import { closeSync, fdatasyncSync, openSync, readSync } from "node:fs";
import koffi from "koffi";

const chunk = new Uint8Array(4 << 20);

/** Seconds that reading a file to its end takes. */
export function readSeconds(path: string): number {
  const start = performance.now();
  const file = openSync(path, "r");
  while (readSync(file, chunk, 0, chunk.length, null) > 0);
  closeSync(file);
  return (performance.now() - start) / 1000;
}

/** POSIX_FADV_DONTNEED of Linux. */
const dontNeed = 4;

/** A function that asks the system to forget the pages of a file; undefined where it cannot be asked. */
export function pageDropper(): ((path: string) => void) | undefined {
  if (process.platform !== "linux") return undefined;
  const advise = koffi.load("libc.so.6").func("int posix_fadvise(int, int64_t, int64_t, int)");
  return (path) => {
    const file = openSync(path, "r");
    // Pages that are not on the disk yet cannot be dropped.
    fdatasyncSync(file);
    const code = advise(file, 0, 0, dontNeed) as number;
    closeSync(file);
    if (code !== 0) throw new Error(`posix_fadvise of ${path}: error ${code}`);
  };
}
