// A folder with its missing parents. Node's own `mkdirSync(path, { recursive: true })` never returns where a file system answers ENOENT although
// the parent is there, as /proc does.
import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** Makes a folder and those above it that are missing; does nothing where it is there. @throws the system's error, EEXIST for a file. */
export function makeDirectories(path: string): void {
  const missing: string[] = [];
  let at = resolve(path);
  // The root of a drive that is not there is its own parent.
  for (; !existsSync(at) && dirname(at) !== at; at = dirname(at)) missing.push(at);
  if (missing.length === 0) makeDirectory(at);
  for (const folder of missing.reverse()) makeDirectory(folder);
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!existsSync(path) || !statSync(path).isDirectory()) throw error;
  }
}
