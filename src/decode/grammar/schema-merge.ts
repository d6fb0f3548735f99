// JSON schemas without references and combinations: what `allOf`, `anyOf`, `oneOf` and `$ref` beside other keywords come down to, as a list
// of plain schemas of which one has to hold. `oneOf` is read as `anyOf`, as in llama.cpp's converter.
import { UsageError } from "../../base/errors.ts";
import { show } from "../../base/schema.ts";

/** A JSON schema that is an object. */
export type SchemaObject = Readonly<Record<string, unknown>>;

const maxAlternatives = 256;
const maxDepth = 64;

export const isSchemaObject = (value: unknown): value is SchemaObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const schemaError = (path: string, expected: string, got: unknown, hint?: string): UsageError =>
  new UsageError(`JSON schema ${path}: expected ${expected}, got ${show(got)}`, hint === undefined ? {} : { hint });

/** The part of a schema that a local reference points to. @throws UsageError. */
export function resolveReference(root: unknown, reference: unknown, path: string): unknown {
  if (typeof reference !== "string" || !(reference === "#" || reference.startsWith("#/"))) {
    throw schemaError(`${path}/$ref`, "a reference into the schema itself (#/…)", reference, "Put what it refers to under $defs.");
  }
  let at: unknown = root;
  for (const part of reference.split("/").slice(1)) {
    const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    const holder = at as Record<string, unknown>;
    if (typeof at !== "object" || at === null || !Object.hasOwn(holder, key))
      throw schemaError(`${path}/$ref`, "a part of the schema", reference);
    at = holder[key];
  }
  return at;
}

/** Plain schemas of which one has to hold; none when nothing can. @throws UsageError for what cannot be joined. */
export function alternativesOf(schema: unknown, root: unknown, path: string, depth = 0): SchemaObject[] {
  if (depth > maxDepth) throw schemaError(path, "combinations that end", schema, "A schema refers to itself within allOf.");
  if (schema === true) return [{}];
  if (schema === false) return [];
  if (!isSchemaObject(schema)) throw schemaError(path, "an object or a boolean", schema);
  const { $ref, allOf, anyOf, oneOf, ...rest } = schema;
  let found: readonly SchemaObject[] = [rest];
  const join = (others: readonly SchemaObject[]): void => {
    found = found.flatMap((a) =>
      others.flatMap((b) => {
        const joined = merge(a, b, path);
        return joined ? [joined] : [];
      }),
    );
    if (found.length > maxAlternatives) throw schemaError(path, `at most ${maxAlternatives} combinations`, found.length);
  };
  if ($ref !== undefined) join(alternativesOf(resolveReference(root, $ref, path), root, path, depth + 1));
  for (const part of listOf(allOf, `${path}/allOf`)) join(alternativesOf(part, root, path, depth + 1));
  for (const options of [anyOf, oneOf]) {
    if (options !== undefined) join(listOf(options, path).flatMap((option) => alternativesOf(option, root, path, depth + 1)));
  }
  return [...found];
}

function listOf(value: unknown, path: string): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw schemaError(path, "a list of schemas", value);
  return value;
}

type Joiner = (a: never, b: never) => unknown;
const larger: Joiner = (a: number, b: number) => Math.max(a, b);
const smaller: Joiner = (a: number, b: number) => Math.min(a, b);
const both: Joiner = (a: unknown, b: unknown) => ({ allOf: [a, b] });

const joiners: Readonly<Record<string, Joiner>> = {
  minimum: larger,
  exclusiveMinimum: larger,
  minLength: larger,
  minItems: larger,
  minProperties: larger,
  maximum: smaller,
  exclusiveMaximum: smaller,
  maxLength: smaller,
  maxItems: smaller,
  maxProperties: smaller,
  items: both,
  additionalProperties: (a: unknown, b: unknown) =>
    a === false || b === false ? false : a === true ? b : b === true ? a : { allOf: [a, b] },
  required: (a: string[], b: string[]) => [...new Set([...a, ...b])],
};

const annotations = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$comment",
  "$id",
  "$schema",
  "$defs",
  "definitions",
  "deprecated",
]);

/** A schema that holds where both do, or undefined where they exclude each other. */
function merge(a: SchemaObject, b: SchemaObject, path: string): SchemaObject | undefined {
  const merged: Record<string, unknown> = { ...a, ...b };
  for (const key of Object.keys(a)) {
    if (!(key in b) || annotations.has(key)) continue;
    const [left, right] = [a[key], b[key]];
    if (JSON.stringify(left) === JSON.stringify(right)) continue;
    if (key === "type") merged.type = commonTypes(typesOf(left), typesOf(right));
    else if (key === "enum") merged.enum = common(left as unknown[], right as unknown[]);
    else if (key === "const") return undefined;
    else if (key !== "properties") {
      const join = joiners[key];
      if (!join) throw schemaError(`${path}/${key}`, "one value in combined schemas", [left, right]);
      merged[key] = join(left as never, right as never);
    }
  }
  if ("const" in merged && Array.isArray(merged.enum)) {
    if (!common(merged.enum, [merged.const]).length) return undefined;
    delete merged.enum;
  }
  if (Array.isArray(merged.type) && merged.type.length === 0) return undefined;
  if (Array.isArray(merged.enum) && merged.enum.length === 0) return undefined;
  if (isSchemaObject(a.properties) && isSchemaObject(b.properties)) merged.properties = joinProperties(a, b);
  else if (isSchemaObject(merged.properties)) merged.properties = joinProperties({ properties: {}, ...a }, { properties: {}, ...b });
  return merged;
}

/** Properties of either; those that the other one forbids are forbidden. */
function joinProperties(a: SchemaObject, b: SchemaObject): Record<string, unknown> {
  const [left, right] = [a.properties as Record<string, unknown>, b.properties as Record<string, unknown>];
  const joined: Record<string, unknown> = {};
  for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
    const [inLeft, inRight] = [Object.hasOwn(left, name), Object.hasOwn(right, name)];
    const other = inLeft ? b.additionalProperties : a.additionalProperties;
    const own = inLeft ? left[name] : right[name];
    if (inLeft && inRight) joined[name] = { allOf: [left[name], right[name]] };
    else joined[name] = other === false ? false : isSchemaObject(other) ? { allOf: [own, other] } : own;
  }
  return joined;
}

export const typesOf = (type: unknown): string[] => (Array.isArray(type) ? type.map(String) : [String(type)]);

/** Every integer is a number. */
function commonTypes(a: readonly string[], b: readonly string[]): string[] {
  const has = (types: readonly string[], type: string): boolean => types.includes(type) || (type === "integer" && types.includes("number"));
  return [...new Set([...a.filter((type) => has(b, type)), ...b.filter((type) => has(a, type))])];
}

function common(a: readonly unknown[], b: readonly unknown[]): unknown[] {
  const texts = new Set(b.map((value) => JSON.stringify(value)));
  return a.filter((value) => texts.has(JSON.stringify(value)));
}
