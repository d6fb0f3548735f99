// Text files, JSONL files, folders and patterns as one corpus. Order: the inputs as given, the files of each sorted by path.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, type Stats, statSync } from "node:fs";
import { extname, join, resolve } from "node:path";
import * as z from "zod";
import { DataError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import type { Corpus, ReadOptions, TextDocument } from "./corpus.ts";
import { byCodeUnit, findFiles, isGlob } from "./glob.ts";
import { readTextField } from "./json-lines.ts";
import { createSplitter, type SplitBy, wholeFileBytes } from "./split-text.ts";
import { readText } from "./utf8-reader.ts";

const jsonLinesExtensions = [".jsonl", ".ndjson"];

export const sourceSchema = z.object({
  field: z.string().min(1).default("text").describe("Field of JSONL records that holds the text."),
  splitBy: z
    .union([z.enum(["auto", "file", "paragraph", "line"]), z.strictObject({ separator: z.string().min(1) })])
    .default("auto")
    .describe("What one document of a text file is; auto keeps small files whole and cuts long ones at blank lines."),
  extensions: z
    .array(z.string().regex(/^\.\w+$/))
    .default([".txt", ".text", ".md", ...jsonLinesExtensions])
    .describe("Which files of a folder are read; files that are named or match a pattern are read whatever their extension."),
});

export type SourceOptions = z.input<typeof sourceSchema>;

interface SourceFile {
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

/**
 * Opens files, folders (recursively) and patterns (`data/**\/*.{txt,jsonl}`) as a corpus. Only names and sizes are read here.
 * @throws DataError when an input is missing, empty or has no matching files; UsageError for unknown options.
 */
export function openCorpus(inputs: string | readonly string[], options: SourceOptions = {}): Corpus {
  const { field, splitBy, extensions } = parseOptions(sourceSchema, options);
  const list = typeof inputs === "string" ? [inputs] : inputs;
  if (list.length === 0) throw new DataError("data: expected at least one file, folder or pattern, got none");
  const files = list.flatMap((input) => resolveInput(input, extensions));
  const name = list.length === 1 ? list[0] : `${list[0]} and ${list.length - 1} more`;
  const fingerprint = createHash("sha256").update(JSON.stringify({ field, splitBy }));
  for (const { path, bytes, modifiedMs } of files) fingerprint.update(JSON.stringify([resolve(path), bytes, modifiedMs]));
  return {
    name,
    totalBytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    fingerprint: fingerprint.digest("hex"),
    isCut: splitBy === "auto" && files.some(({ path, bytes }) => bytes > wholeFileBytes && !isJsonLines(path)),
    async *documents(read = {}) {
      let any = false;
      for (const file of files) {
        let index = 0;
        for await (const text of readFile(file, field, splitBy, read)) {
          any = true;
          yield { text, source: file.path, index: index++ } satisfies TextDocument;
        }
      }
      if (!any) throw new DataError(`${name}: expected text, got white space only`, { hint: "Name files that hold text." });
    },
  };
}

const isJsonLines = (path: string): boolean => jsonLinesExtensions.includes(extname(path).toLowerCase());

function readFile(file: SourceFile, field: string, splitBy: SplitBy, options: ReadOptions): AsyncIterable<string> {
  if (isJsonLines(file.path)) return readTextField(file.path, field, options);
  return readDocuments(file, splitBy, options);
}

async function* readDocuments(file: SourceFile, splitBy: SplitBy, options: ReadOptions): AsyncGenerator<string> {
  const splitter = createSplitter(splitBy, file.bytes, file.path);
  for await (const piece of readText(file.path, options)) yield* splitter.push(piece);
  yield* splitter.end();
}

function resolveInput(input: string, extensions: readonly string[]): SourceFile[] {
  const status = statusOf(input);
  if (status === undefined && isGlob(input)) return resolveMany(input, findFiles(input), "files that match");
  if (status === undefined) {
    throw new DataError(`${input}: expected a file, folder or pattern, got nothing there`, { hint: "Check the path." });
  }
  if (status.isDirectory()) {
    const paths = listFolder(input).filter((path) => extensions.includes(extname(path).toLowerCase()));
    return resolveMany(input, paths.sort(byCodeUnit), `files ending in ${extensions.join(", ")}`);
  }
  if (!status.isFile()) throw new DataError(`${input}: expected a file, folder or pattern, got a device or pipe`);
  if (status.size === 0) throw new DataError(`${input}: expected text, got an empty file`, { hint: "Name a file with text in it." });
  return [describe(input, status)];
}

/** Empty files among others are nothing unusual; nothing but empty files is a mistake. */
function resolveMany(input: string, paths: readonly string[], expected: string): SourceFile[] {
  const files = paths.map((path) => describe(path, statSync(path)));
  const filled = files.filter(({ bytes }) => bytes > 0);
  if (filled.length === 0) {
    throw new DataError(`${input}: expected ${expected}, got ${files.length === 0 ? "none" : `${files.length} empty ones`}`, {
      hint: existsSync(input) ? "Name the files, use a pattern, or set extensions." : "Check the pattern.",
    });
  }
  return filled;
}

const describe = (path: string, status: Stats): SourceFile => ({ path, bytes: status.size, modifiedMs: status.mtimeMs });

function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new DataError(`${path}: expected a readable file or folder, got ${code ?? String(cause)}`, { cause });
  }
}

/** Hidden entries and links to folders are left out. */
function listFolder(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".")) return [];
    if (entry.isDirectory()) return listFolder(path);
    return entry.isFile() || (entry.isSymbolicLink() && statSync(path, { throwIfNoEntry: false })?.isFile()) ? [path] : [];
  });
}
