// A folder of golden data: its files, and their JSON parsed once.
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { readJson } from "../../src/formats/json-file.ts";
import { Malformed } from "./fields.ts";

const maxJsonBytes = 256 << 20;
const maxDepth = 8;

export class Folder {
  readonly path: string;
  /** Path below the folder that was asked for, which it begins with. */
  readonly label: string;
  readonly files: ReadonlySet<string>;
  readonly #parsed = new Map<string, { value: unknown } | { error: Error }>();

  constructor(path: string, label: string, files: Iterable<string>) {
    this.path = path;
    this.label = label;
    this.files = new Set(files);
  }

  get name(): string {
    return basename(this.path);
  }

  get parentName(): string {
    return basename(dirname(this.path));
  }

  has(...names: readonly string[]): boolean {
    return names.every((name) => this.files.has(name));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** @throws Malformed when there is no such file or it is not JSON. */
  json(name: string): unknown {
    let entry = this.#parsed.get(name);
    if (!entry) {
      try {
        entry = { value: readJson(this.file(name), { maxBytes: maxJsonBytes }) };
      } catch (error) {
        entry = { error: new Malformed(`${name}: ${(error as Error).message.replace(`${this.file(name)}: `, "")}`) };
      }
      this.#parsed.set(name, entry);
    }
    if ("error" in entry) throw entry.error;
    return entry.value;
  }

  /** The object in a JSON file, or undefined: for recognising. */
  peek(name: string): Readonly<Record<string, unknown>> | undefined {
    if (!this.files.has(name)) return undefined;
    try {
      const value = this.json(name);
      return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
    } catch {
      return undefined;
    }
  }

  /** The first entry of a list in a JSON file, when it is an object. */
  peekFirst(name: string, field: string): Readonly<Record<string, unknown>> | undefined {
    const list = this.peek(name)?.[field];
    const first: unknown = Array.isArray(list) ? list[0] : undefined;
    return typeof first === "object" && first !== null ? (first as Record<string, unknown>) : undefined;
  }
}

/** The folder at `path` and all folders below it, in the order of their names; of a file, the folder that holds it. */
export function* foldersOf(path: string): Generator<Folder> {
  const root = statSync(path).isDirectory() ? path : dirname(path);
  if (root === path) yield* walk(path, basename(path), 0);
  else yield* walk(root, basename(root), maxDepth);
}

function* walk(path: string, label: string, depth: number): Generator<Folder> {
  const files: string[] = [];
  const folders: string[] = [];
  for (const name of readdirSync(path).sort()) {
    if (name.startsWith(".") || name === "node_modules") continue;
    const status = statSync(join(path, name), { throwIfNoEntry: false });
    if (status?.isDirectory()) folders.push(name);
    else if (status?.isFile() && !name.endsWith(".md")) files.push(name);
  }
  yield new Folder(path, label, files);
  if (depth < maxDepth) for (const name of folders) yield* walk(join(path, name), `${label}/${name}`, depth + 1);
}
