// A validator of JSON schemas for tests, written from the specification (draft 2020-12) and independent of the grammar.
type Schema = boolean | { readonly [key: string]: unknown };

/** What is wrong with a value, or undefined. */
export function invalidity(value: unknown, schema: Schema, root: Schema = schema, path = "#"): string | undefined {
  if (schema === true) return undefined;
  if (schema === false) return `${path}: nothing is allowed`;
  const s = schema as Record<string, never>;
  const check = (ok: boolean, what: string): string | undefined => (ok ? undefined : `${path}: ${what}: ${JSON.stringify(value)}`);
  const first = (...found: (string | undefined)[]): string | undefined => found.find((problem) => problem !== undefined);
  const under = (part: unknown, sub: Schema, name: string | number): string | undefined => invalidity(part, sub, root, `${path}/${name}`);
  const problems: (string | undefined)[] = [];
  if (s.$ref !== undefined) {
    let at: unknown = root;
    for (const key of String(s.$ref).split("/").slice(1)) at = (at as Record<string, unknown>)[key];
    problems.push(invalidity(value, at as Schema, root, path));
  }
  if (s.type !== undefined)
    problems.push(
      check(
        [s.type].flat().some((type) => hasType(value, type)),
        `type ${s.type}`,
      ),
    );
  if (s.enum !== undefined)
    problems.push(
      check(
        (s.enum as unknown[]).some((item) => same(item, value)),
        "enum",
      ),
    );
  if (s.const !== undefined) problems.push(check(same(s.const, value), "const"));
  for (const part of (s.allOf as Schema[]) ?? []) problems.push(invalidity(value, part, root, path));
  if (s.anyOf)
    problems.push(
      check(
        (s.anyOf as Schema[]).some((part) => !invalidity(value, part, root)),
        "anyOf",
      ),
    );
  if (typeof value === "number") {
    problems.push(
      check(value >= (s.minimum ?? -Infinity) && value <= (s.maximum ?? Infinity), "bounds"),
      check(value > (s.exclusiveMinimum ?? -Infinity) && value < (s.exclusiveMaximum ?? Infinity), "exclusive bounds"),
    );
  }
  if (typeof value === "string") {
    const length = [...value].length;
    problems.push(check(length >= (s.minLength ?? 0) && length <= (s.maxLength ?? Infinity), "length"));
    if (s.pattern !== undefined) problems.push(check(new RegExp(s.pattern, "u").test(value), "pattern"));
    if (s.format === "date") problems.push(check(/^\d{4}-\d\d-\d\d$/.test(value), "date"));
  }
  if (Array.isArray(value)) {
    problems.push(check(value.length >= (s.minItems ?? 0) && value.length <= (s.maxItems ?? Infinity), "items"));
    const prefix: Schema[] = s.prefixItems ?? [];
    value.forEach((item, i) => {
      problems.push(i < prefix.length ? under(item, prefix[i], i) : s.items === undefined ? undefined : under(item, s.items, i));
    });
  } else if (typeof value === "object" && value !== null) {
    const object = value as Record<string, unknown>;
    const properties: Record<string, Schema> = s.properties ?? {};
    for (const name of (s.required as string[]) ?? []) problems.push(check(Object.hasOwn(object, name), `required ${name}`));
    for (const [name, item] of Object.entries(object)) {
      if (Object.hasOwn(properties, name)) problems.push(under(item, properties[name], name));
      else if (s.additionalProperties !== undefined) problems.push(under(item, s.additionalProperties, name));
    }
  }
  return first(...problems);
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function hasType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}
