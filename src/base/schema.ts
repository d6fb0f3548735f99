// One zod object describes every setting of a thing: from it come the flat option list (for flags, help and documents) and the
// validation that turns zod's issues into one UsageError. A preset is data: a partial value of the schema, laid under the user's.
// Everything is read from the JSON Schema that zod writes, never from zod's internals.
import { z } from "zod";
import { nearest, UsageError } from "./errors.ts";
import { calledElsewhere } from "./names-elsewhere.ts";
import { choicesOf, expectation, fieldsOf, itemTypesOf, type Node, type OptionMeta, typesOf, type ValueType } from "./schema-node.ts";

export type { OptionMeta, ValueType } from "./schema-node.ts";

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
  /** Of a union of objects: the option belongs to these kinds only (`{ option: "optim.kind", values: ["adamw"] }`). */
  readonly onlyFor?: { readonly option: string; readonly values: readonly string[] };
}

/** Settings from one place. Later layers win over earlier ones, leaf by leaf. */
export interface SettingsLayer {
  readonly values: unknown;
  /** Where a leaf was written (`run.yaml:4`), for error messages. */
  readonly locate?: (path: readonly string[]) => string | undefined;
}

/** A nested object, or a union of objects. */
interface Group {
  readonly name: string;
  readonly path: readonly string[];
  /** It and everything around it must be there. */
  readonly required: boolean;
  readonly defaultValue: Readonly<Record<string, unknown>> | undefined;
  /** Full name of the option that tells the union's objects apart. */
  readonly discriminator: string | undefined;
}

interface Shape {
  readonly options: readonly OptionInfo[];
  readonly byName: ReadonlyMap<string, OptionInfo>;
  /** Outer ones first. */
  readonly groups: readonly Group[];
}

const shapes = new WeakMap<z.ZodObject, Shape>();

/** Schemas are constants: each is read once. */
function shapeOf(schema: z.ZodObject): Shape {
  let shape = shapes.get(schema);
  if (shape === undefined) {
    const options: OptionInfo[] = [];
    const groups: Group[] = [];
    visit(z.toJSONSchema(schema, { io: "input", unrepresentable: "any", reused: "inline" }) as unknown as Node, [], true, undefined, {
      leaf: (option) => options.push(option),
      group: (group) => groups.push(group),
    });
    shape = { options, byName: new Map(options.map((option) => [option.name, option])), groups };
    shapes.set(schema, shape);
  }
  return shape;
}

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Every leaf setting of a schema, in the order of its declaration. Nested objects, and unions of objects, become dotted names. */
export const listOptions = (schema: z.ZodObject): OptionInfo[] => [...shapeOf(schema).options];

interface Visitor {
  leaf(option: OptionInfo): void;
  group(group: Group): void;
}

function visit(node: Node, path: readonly string[], isRequired: boolean, defaults: Group["defaultValue"], visitor: Visitor): void {
  const { properties = {}, required = [], discriminator, onlyFor } = fieldsOf(node) ?? {};
  const prefix = path.map((key) => `${key}.`).join("");
  if (path.length > 0) {
    const tag = discriminator === undefined ? undefined : prefix + discriminator;
    visitor.group({ name: path.join("."), path, required: isRequired, defaultValue: defaults, discriminator: tag });
  }
  for (const [key, child] of Object.entries(properties)) {
    // The default of an object is the default of its fields.
    const value = defaults !== undefined && Object.hasOwn(defaults, key) ? defaults[key] : child.default;
    const childRequired = isRequired && required.includes(key);
    if (fieldsOf(child)) {
      visit(child, [...path, key], childRequired, isPlainObject(value) ? value : undefined, visitor);
      continue;
    }
    const kinds = onlyFor?.get(key);
    visitor.leaf({
      name: prefix + key,
      path: [...path, key],
      types: typesOf(child),
      itemTypes: itemTypesOf(child),
      choices: choicesOf(child),
      description: child.description ?? (key === discriminator ? (node.description ?? `Kind of ${path.join(".")}`) : ""),
      defaultValue: value,
      required: childRequired && value === undefined,
      expected: expectation(child),
      group: child.group ?? (path.length > 0 ? path.join(".") : undefined),
      flag: child.flag,
      short: child.short,
      placeholder: child.placeholder,
      ...(kinds === undefined ? {} : { onlyFor: { option: `${prefix}${discriminator}`, values: kinds } }),
    });
  }
}

/** The fully defaulted value of a schema whose every field has a default. @throws UsageError naming a field that has none. */
export function defaultsOf<S extends z.ZodObject>(schema: S): z.output<S> {
  return parseOptions(schema, {});
}

/** Validates one plain object. Unknown keys are errors; nested objects may be left out when their fields have defaults. */
export function parseOptions<S extends z.ZodObject>(schema: S, values: unknown): z.output<S> {
  return resolveLayers(schema, [{ values }]);
}

type Given = Map<string, { value: unknown; layer: SettingsLayer }>;

/**
 * Merges layers (defaults below the first, the last on top) and validates the result.
 * Leaves are replaced whole: a list in a later layer does not extend the earlier one.
 * @throws UsageError ``option `optim.learningRate`: expected a number > 0, got "fast"`` and where it was written.
 */
export function resolveLayers<S extends z.ZodObject>(schema: S, layers: readonly SettingsLayer[]): z.output<S> {
  const { byName, groups } = shapeOf(schema);
  const given: Given = new Map();
  for (const layer of layers) {
    const leaves = flatten(layer, byName);
    dropOtherKinds(groups, leaves, given, byName);
    for (const [name, value] of leaves) given.set(name, { value, layer });
  }
  fillDefaults(groups, given, byName);
  refuseOtherKinds(given, byName);
  const tree: Record<string, unknown> = {};
  // Required objects start empty, so that authors need no `.prefault({})` on every level.
  for (const group of groups) if (group.required && group.defaultValue === undefined) place(tree, group.path, {});
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

/** The error for a name that no option has; suggests the one that ends in the same word, or the nearest. */
export function unknownOption(name: string, names: readonly string[], suffix = ""): UsageError {
  const last = name.split(".").at(-1) ?? name;
  const alike = names.filter((candidate) => candidate.split(".").at(-1) === last);
  const guess =
    nearest(name, alike) ??
    alike[0] ??
    calledElsewhere(name, names) ??
    nearest(name, names) ??
    names.find((candidate) => nearest(last, [candidate.split(".").at(-1) ?? ""]) !== undefined);
  const expected = guess === undefined ? "a known option" : `\`${guess}\``;
  return new UsageError(`option \`${name}\`: expected ${expected}, got an unknown name${suffix}`, {
    hint: guess === undefined ? `The options are: ${briefly(names).join(", ")}.` : `Did you mean \`${guess}\`${suffix}?`,
  });
}

/** Where there are many, a group stands for the options in it. */
const briefly = (names: readonly string[]): string[] =>
  names.length <= 20 ? [...names] : [...new Set(names.map((name) => name.replace(/\..*/s, ".…")))];

const kindOf = (name: string, given: Given, byName: Shape["byName"]): unknown => given.get(name)?.value ?? byName.get(name)?.defaultValue;

/** A layer that chooses another kind of a union (`optim.kind: muon`) takes back what lower layers set for the former kind. */
function dropOtherKinds(groups: readonly Group[], leaves: ReadonlyMap<string, unknown>, given: Given, byName: Shape["byName"]): void {
  for (const { name, discriminator } of groups) {
    if (discriminator === undefined || !leaves.has(discriminator)) continue;
    if (leaves.get(discriminator) === kindOf(discriminator, given, byName)) continue;
    for (const key of [...given.keys()]) if (key.startsWith(`${name}.`)) given.delete(key);
  }
}

/** An object given in part keeps the rest of its default; a union only when its kind is that of the default. */
function fillDefaults(groups: readonly Group[], given: Given, byName: Shape["byName"]): void {
  for (const { name, path, discriminator, defaultValue } of groups) {
    const isTouched = [...given.keys()].some((key) => key.startsWith(`${name}.`));
    if (defaultValue === undefined || !isTouched) continue;
    if (discriminator !== undefined && kindOf(discriminator, given, byName) !== byName.get(discriminator)?.defaultValue) continue;
    const values = path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), defaultValue);
    for (const [leaf, value] of flatten({ values }, byName)) {
      if (!given.has(leaf)) given.set(leaf, { value, layer: { values: {} } });
    }
  }
}

/** @throws UsageError for an option of another kind than the chosen one. */
function refuseOtherKinds(given: Given, byName: Shape["byName"]): void {
  for (const [name, { value, layer }] of given) {
    const option = byName.get(name);
    if (option?.onlyFor === undefined) continue;
    const kind = kindOf(option.onlyFor.option, given, byName);
    if (kind === undefined || option.onlyFor.values.includes(String(kind))) continue;
    const location = layer.locate?.(option.path);
    throw new UsageError(
      `option \`${name}\`: expected no value where \`${option.onlyFor.option}\` is ${kind}, got ${show(value)}${location === undefined ? "" : ` (${location})`}`,
      { hint: `It belongs to ${option.onlyFor.option} ${option.onlyFor.values.join(" or ")}.` },
    );
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

/** The list that a text is as JSON, `[[1, 2], [3]]`; undefined when it is none. */
function jsonList(text: string): unknown[] | undefined {
  if (!text.trimStart().startsWith("[")) return undefined;
  try {
    return JSON.parse(text) as unknown[];
  } catch {
    return undefined;
  }
}

/** The value that a text stands for (a flag's argument). A text of the wrong type comes back as it is: validation reports it. */
export function valueFromText(option: Pick<OptionInfo, "types" | "itemTypes">, text: string): unknown {
  const { types, itemTypes } = option;
  if (types.includes("list")) {
    const written = itemTypes.includes("string") ? undefined : jsonList(text);
    // One list of a list of lists may stand alone.
    if (written) return itemTypes.includes("list") && !written.every(Array.isArray) ? [written] : written;
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
