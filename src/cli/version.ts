// The version that this installation has.
import { readFileSync } from "node:fs";

/** longwave's version, from its package.json (two folders up, in src/ and in dist/ alike). */
export function packageVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
