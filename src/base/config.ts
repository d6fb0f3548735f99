// Reads a configuration file (JSON or YAML) of bounded size and remembers on which line each value stands,
// so that a wrong setting is reported as `run.yaml:4`.
import { readFileSync, statSync } from "node:fs";
import { basename, extname } from "node:path";
import { type Document, isMap, isNode, isScalar, LineCounter, type Node, parseDocument, type YAMLMap } from "yaml";
import { UsageError } from "./errors.ts";
import type { SettingsLayer } from "./schema.ts";

export interface ConfigFile extends SettingsLayer {
  readonly values: Record<string, unknown>;
  readonly locate: (path: readonly string[]) => string | undefined;
}

export interface ConfigFileOptions {
  /** Larger files are refused unread. Default 1 MiB. */
  maxBytes?: number;
}

/**
 * Reads `file.json`, `file.yaml` or `file.yml`. An empty YAML file is an empty configuration.
 * @throws UsageError for a missing, oversized or malformed file (with its line), and for one that does not hold an object.
 */
export function readConfigFile(path: string, options: ConfigFileOptions = {}): ConfigFile {
  const { maxBytes = 2 ** 20 } = options;
  const name = basename(path);
  const kind = extname(path).toLowerCase();
  if (kind !== ".json" && kind !== ".yaml" && kind !== ".yml") {
    throw new UsageError(`config file ${path}: expected a name that ends in .json, .yaml or .yml, got "${name}"`);
  }
  const text = readBounded(path, maxBytes);
  const lines = new LineCounter();
  // YAML 1.2 contains JSON: the same parser finds the lines of both.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const values = kind === ".json" ? parseJson(path, text) : parseYaml(path, document, lines);
  if (typeof values !== "object" || values === null || Array.isArray(values)) {
    throw new UsageError(`config file ${path}: expected an object of settings, got ${Array.isArray(values) ? "a list" : typeof values}`);
  }
  return {
    values: values as Record<string, unknown>,
    locate: (keys) => {
      const offset = offsetOf(document, keys);
      return offset === undefined ? name : `${name}:${lines.linePos(offset).line}`;
    },
  };
}

function readBounded(path: string, maxBytes: number): string {
  try {
    const stats = statSync(path);
    if (!stats.isFile()) throw new UsageError(`config file ${path}: expected a file, got something else`);
    if (stats.size > maxBytes) {
      throw new UsageError(`config file ${path}: expected at most ${maxBytes} bytes, got ${stats.size}`, {
        hint: "Is this a data file? --config takes a file of settings.",
      });
    }
    return readFileSync(path, "utf8").replace(/^\uFEFF/, "");
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    throw new UsageError(`config file ${path}: expected a readable file, got ${code === "ENOENT" ? "none" : code}`, { cause });
  }
}

function parseYaml(path: string, document: Document, lines: LineCounter): unknown {
  const error = document.errors[0];
  if (error) throw malformed(path, "YAML", lines.linePos(error.pos[0]).line, error.message, error);
  try {
    return document.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (cause) {
    throw new UsageError(`config file ${path}: expected YAML with few aliases, got "${(cause as Error).message}"`, { cause });
  }
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const { message } = cause as Error;
    const position = /position (\d+)/.exec(message);
    const end = position === null ? text.length : Number(position[1]);
    throw malformed(path, "JSON", text.slice(0, end).split("\n").length, message.replace(/ in JSON at position.*$/, ""), cause);
  }
}

const malformed = (path: string, format: string, line: number, message: string, cause: unknown): UsageError =>
  new UsageError(`config file ${path}:${line}: expected ${format}, got "${message.trim()}"`, { cause });

/** Where the key of the last path element that exists begins. */
function offsetOf(document: Document, path: readonly string[]): number | undefined {
  let at: unknown = document.contents;
  let offset: number | undefined;
  for (let depth = 0; depth < path.length && isMap(at); depth++) {
    // A key may hold several path elements: `optim.learningRate: 3e-4`.
    const rest = path.slice(depth).join(".");
    const named = (name: string) => (at as YAMLMap).items.find(({ key }) => isScalar(key) && key.value === name);
    const pair = named(rest) ?? named(path[depth]);
    if (!pair) break;
    if (isNode(pair.key)) offset = (pair.key as Node).range?.[0];
    at = pair.value;
  }
  return offset;
}
