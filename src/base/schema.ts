// One zod object describes every setting of a thing: from it come the flat option list (for flags, help and documents) and the
// validation that turns zod's issues into one UsageError. A preset is data: a partial value of the schema, laid under the user's.
// Everything is read from the JSON Schema that zod writes, never from zod's internals.
import { z } from "zod";
import { nearest, UsageError } from "./errors.ts";

/** What a field's `.meta()` may hold besides `description`. */
export interface OptionMeta {
  /** Heading under which help lists the option. Default: the name of the enclosing object. */
  group?: string;
  /** A second, shorter long flag, without dashes: `learning-rate` for `optim.learningRate`. */
  flag?: string;
  /** One-letter flag, without the dash. */
  short?: string;
  /** Placeholder of the value in help, e.g. `file`. Default: from the type. */
  placeholder?: string;
}

export type ValueType = "number" | "integer" | "boolean" | "string" | "null" | "list" | "json";

/** One leaf of a settings schema. */
export interface OptionInfo extends OptionMeta {
  /** Dotted name, as in configuration files: `optim.learningRate`. */
  readonly name: string;
  readonly path: readonly string[];
  /** Every type that the option accepts. */
  readonly types: readonly ValueType[];
  /** Types of a list's elements; empty for other options. */
  readonly itemTypes: readonly ValueType[];
  /** The allowed words, when they are few and fixed. */
  readonly choices: readonly string[];
  readonly description: string;
  /** Undefined when the option is required or has no default. */
  readonly defaultValue: unknown;
  readonly required: boolean;
  /** What a value must be, in words: `a number > 0`. */
  readonly expected: string;
}

/** Settings from one place. Later layers win over earlier ones, leaf by leaf. */
export interface SettingsLayer {
  readonly values: unknown;
  /** Where a leaf was written (`run.yaml:4`), for error messages. */
  readonly locate?: (path: readonly string[]) => string | undefined;
}

/** The part of JSON Schema (2020-12) that zod writes for settings. */
interface Node extends OptionMeta {
  type?: string | string[];
  properties?: Record<string, Node>;
  required?: string[];
  items?: Node | boolean;
  prefixItems?: Node[];
  anyOf?: Node[];
  oneOf?: Node[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  pattern?: string;
}

const nodes = new WeakMap<z.ZodObject, Node>();

/** Schemas are constants: each is converted once. */
function rootNode(schema: z.ZodObject): Node {
  let node = nodes.get(schema);
  if (node === undefined) {
    node = z.toJSONSchema(schema, { io: "input", unrepresentable: "any", reused: "inline" }) as unknown as Node;
    nodes.set(schema, node);
  }
  return node;
}

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const alternatives = (node: Node): Node[] => {
  const parts = node.anyOf ?? node.oneOf;
  if (parts) return parts.flatMap(alternatives);
  if (Array.isArray(node.type)) return node.type.map((type) => ({ ...node, type }));
  return [node];
};

function typeOf(node: Node): ValueType {
  const value = node.const ?? node.enum?.[0];
  const type = node.type ?? (value === null ? "null" : value === undefined ? undefined : typeof value);
  if (type === "array") return "list";
  if (type === "number" || type === "integer" || type === "boolean" || type === "string" || type === "null") return type;
  return "json";
}

const typesOf = (node: Node): ValueType[] => [...new Set(alternatives(node).map(typeOf))];

function itemTypesOf(node: Node): ValueType[] {
  const lists = alternatives(node).filter((part) => typeOf(part) === "list");
  const items = lists.flatMap((list) => list.prefixItems ?? (typeof list.items === "object" ? [list.items] : []));
  return [...new Set(items.flatMap(typesOf))];
}

function choicesOf(node: Node): string[] {
  const parts = alternatives(node);
  if (!parts.every((part) => part.enum !== undefined || part.const !== undefined)) return [];
  return parts.flatMap((part) => part.enum ?? [part.const]).map(String);
}

/** Bounds in words. Zod gives every integer the bounds of safe integers; those say nothing and are left out. */
function bounded(noun: string, node: Node): string {
  const low = node.minimum !== undefined && node.minimum > Number.MIN_SAFE_INTEGER ? node.minimum : undefined;
  const high = node.maximum !== undefined && node.maximum < Number.MAX_SAFE_INTEGER ? node.maximum : undefined;
  if (low !== undefined && high !== undefined && node.exclusiveMinimum === undefined && node.exclusiveMaximum === undefined)
    return `${noun} between ${low} and ${high}`;
  const bounds = [];
  if (node.exclusiveMinimum !== undefined) bounds.push(`> ${node.exclusiveMinimum}`);
  else if (low !== undefined) bounds.push(`>= ${low}`);
  if (node.exclusiveMaximum !== undefined) bounds.push(`< ${node.exclusiveMaximum}`);
  else if (high !== undefined) bounds.push(`<= ${high}`);
  return bounds.length === 0 ? noun : `${noun} ${bounds.join(" and ")}`;
}

const plurals: Record<ValueType, string> = {
  number: "numbers",
  integer: "integers",
  boolean: "booleans",
  string: "strings",
  null: "nulls",
  list: "lists",
  json: "values",
};

/** What a value must be, in words. */
function expectation(node: Node): string {
  const choices = choicesOf(node);
  if (choices.length > 0) return choices.length === 1 ? choices[0] : `one of ${choices.join(", ")}`;
  const parts = alternatives(node);
  if (parts.length > 1) return parts.map(expectation).join(" or ");
  switch (typeOf(node)) {
    case "number":
      return bounded("a number", node);
    case "integer":
      return bounded("an integer", node);
    case "boolean":
      return "true or false";
    case "null":
      return "null";
    case "string":
      if (node.pattern !== undefined) return `a string that matches /${node.pattern}/`;
      if (node.maxLength !== undefined) return `a string of at most ${node.maxLength} characters`;
      return node.minLength !== undefined && node.minLength > 0 ? "a non-empty string" : "a string";
    case "list": {
      const types = itemTypesOf(node);
      const nouns = types.length === 0 ? "values" : types.map((type) => plurals[type]).join(" or ");
      if (node.prefixItems) return `a list of ${node.prefixItems.length} ${nouns}`;
      if (node.minItems === 1) return `a non-empty list of ${nouns}`;
      return node.minItems !== undefined && node.minItems > 0 ? `a list of at least ${node.minItems} ${nouns}` : `a list of ${nouns}`;
    }
    case "json":
      return "an object";
  }
}

/** Every leaf setting of a schema, in the order of its declaration. Nested objects become dotted names. */
export function listOptions(schema: z.ZodObject): OptionInfo[] {
  return leavesOf(rootNode(schema), []);
}

function leavesOf(node: Node, path: readonly string[]): OptionInfo[] {
  return Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
    const childPath = [...path, key];
    if (child.properties) return leavesOf(child, childPath);
    return [
      {
        name: childPath.join("."),
        path: childPath,
        types: typesOf(child),
        itemTypes: itemTypesOf(child),
        choices: choicesOf(child),
        description: child.description ?? "",
        defaultValue: child.default,
        required: (node.required ?? []).includes(key),
        expected: expectation(child),
        group: child.group ?? (path.length > 0 ? path.join(".") : undefined),
        flag: child.flag,
        short: child.short,
        placeholder: child.placeholder,
      },
    ];
  });
}

/** The fully defaulted value of a schema whose every field has a default. @throws UsageError naming a field that has none. */
export function defaultsOf<S extends z.ZodObject>(schema: S): z.output<S> {
  return parseOptions(schema, {});
}

/** Validates one plain object. Unknown keys are errors; nested objects may be left out when their fields have defaults. */
export function parseOptions<S extends z.ZodObject>(schema: S, values: unknown): z.output<S> {
  return resolveLayers(schema, [{ values }]);
}

/**
 * Merges layers (defaults below the first, the last on top) and validates the result.
 * Leaves are replaced whole: a list in a later layer does not extend the earlier one.
 * @throws UsageError ``option `optim.learningRate`: expected a number > 0, got "fast"`` and where it was written.
 */
export function resolveLayers<S extends z.ZodObject>(schema: S, layers: readonly SettingsLayer[]): z.output<S> {
  const root = rootNode(schema);
  const options = leavesOf(root, []);
  const byName = new Map(options.map((option) => [option.name, option]));
  const given = new Map<string, { value: unknown; layer: SettingsLayer }>();
  for (const layer of layers) {
    for (const [name, value] of flatten(layer, byName)) given.set(name, { value, layer });
  }
  const tree: Record<string, unknown> = {};
  fillGroups(root, tree);
  for (const [name, { value }] of given) place(tree, byName.get(name)?.path ?? [name], value);

  const result = schema.safeParse(tree);
  if (result.success) return result.data;
  const messages = result.error.issues.map((issue) => {
    const path = issue.path.map(String);
    const option = optionAt(path, byName);
    const entry = given.get(option?.name ?? "");
    const location = entry?.layer.locate?.(option?.path ?? path);
    return issueMessage(issue, path, option, entry?.value) + (location === undefined ? "" : ` (${location})`);
  });
  throw new UsageError([...new Set(messages)].join("; "));
}

function issueMessage(issue: z.core.$ZodIssue, path: readonly string[], option: OptionInfo | undefined, value: unknown): string {
  const name = option?.name ?? path.join(".");
  // A check written by hand knows more than the type does.
  if (issue.code === "custom") return name === "" ? issue.message : `option \`${name}\`: ${issue.message}`;
  return `option \`${name}\`: expected ${option?.expected ?? "a valid value"}, got ${show(value)}`;
}

/** The option that owns a path; a path into a list or an object belongs to that list or object. */
function optionAt(path: readonly string[], byName: ReadonlyMap<string, OptionInfo>): OptionInfo | undefined {
  for (let length = path.length; length > 0; length--) {
    const option = byName.get(path.slice(0, length).join("."));
    if (option) return option;
  }
  return undefined;
}

/** Leaves of one layer by dotted name. Keys with dots are accepted as such. */
function flatten(layer: SettingsLayer, byName: ReadonlyMap<string, OptionInfo>): Map<string, unknown> {
  const leaves = new Map<string, unknown>();
  const names = [...byName.keys()];
  const at = (path: readonly string[]): string => {
    const location = layer.locate?.(path);
    return location === undefined ? "" : ` (${location})`;
  };
  const visit = (values: unknown, path: readonly string[]): void => {
    if (!isPlainObject(values)) {
      const name = path.length === 0 ? "options" : `option \`${path.join(".")}\``;
      throw new UsageError(`${name}: expected an object, got ${show(values)}${at(path)}`);
    }
    for (const [key, value] of Object.entries(values)) {
      const name = [...path, key].join(".");
      if (byName.has(name)) {
        if (value !== undefined) leaves.set(name, value);
      } else if (names.some((candidate) => candidate.startsWith(`${name}.`))) visit(value, [...path, key]);
      else throw unknownOption(name, names, at([...path, key]));
    }
  };
  visit(layer.values, []);
  return leaves;
}

/** The error for a name that no option has; suggests the nearest one, or the one that ends in the same word. */
export function unknownOption(name: string, names: readonly string[], suffix = ""): UsageError {
  const last = name.split(".").at(-1) ?? name;
  const guess =
    nearest(name, names) ??
    names.find((candidate) => candidate.split(".").at(-1) === last) ??
    names.find((candidate) => nearest(last, [candidate.split(".").at(-1) ?? ""]) !== undefined);
  const expected = guess === undefined ? "a known option" : `\`${guess}\``;
  return new UsageError(`option \`${name}\`: expected ${expected}, got an unknown name${suffix}`, {
    hint: guess === undefined ? `The options are: ${names.join(", ")}.` : `Did you mean \`${guess}\`?`,
  });
}

/** Required nested objects start empty, so that authors need no `.prefault({})` on every level. */
function fillGroups(node: Node, tree: Record<string, unknown>): void {
  for (const [key, child] of Object.entries(node.properties ?? {})) {
    if (!child.properties || !(node.required ?? []).includes(key)) continue;
    const group = {};
    fillGroups(child, group);
    tree[key] = group;
  }
}

function place(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = tree;
  for (const key of path.slice(0, -1)) {
    if (!isPlainObject(at[key])) at[key] = {};
    at = at[key] as Record<string, unknown>;
  }
  at[path[path.length - 1]] = value;
}

/** A value as an error message quotes it: JSON, cut at 60 characters. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** The value that a text stands for (a flag's argument). A text of the wrong type comes back as it is: validation reports it. */
export function valueFromText(option: Pick<OptionInfo, "types" | "itemTypes">, text: string): unknown {
  const { types, itemTypes } = option;
  if (types.includes("list")) {
    // Texts may contain commas: only lists of other things are split.
    const parts = itemTypes.includes("string") ? [text] : text.split(",");
    return parts.map((part) => valueFromText({ types: itemTypes, itemTypes: [] }, part));
  }
  if (types.includes("null") && (text === "null" || text === "none")) return null;
  if ((types.includes("number") || types.includes("integer")) && text.trim() !== "" && !Number.isNaN(Number(text))) return Number(text);
  if (types.includes("boolean") && (text === "true" || text === "false")) return text === "true";
  if (types.includes("json")) {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  return text;
}
