// Reads the JSON Schema that zod writes for settings: types, choices, fields and, in words, what a value must be.
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

/** The part of JSON Schema (2020-12) that zod writes for settings. */
export interface Node extends OptionMeta {
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

export const typesOf = (node: Node): ValueType[] => [...new Set(alternatives(node).map(typeOf))];

export function itemTypesOf(node: Node): ValueType[] {
  const lists = alternatives(node).filter((part) => typeOf(part) === "list");
  const items = lists.flatMap((list) => list.prefixItems ?? (typeof list.items === "object" ? [list.items] : []));
  return [...new Set(items.flatMap(typesOf))];
}

export function choicesOf(node: Node): string[] {
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
export function expectation(node: Node): string {
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
      const choices = typeof node.items === "object" ? choicesOf(node.items) : [];
      const plain = types.length === 0 ? "values" : types.map((type) => plurals[type]).join(" or ");
      const nouns = choices.length > 1 ? `${plain} out of ${choices.join(", ")}` : plain;
      if (node.prefixItems) return `a list of ${node.prefixItems.length} ${nouns}`;
      if (node.minItems === 1) return `a non-empty list of ${nouns}`;
      return node.minItems !== undefined && node.minItems > 0 ? `a list of at least ${node.minItems} ${nouns}` : `a list of ${nouns}`;
    }
    case "json":
      return "an object";
  }
}

export interface Fields {
  readonly properties: Readonly<Record<string, Node>>;
  readonly required: readonly string[];
  /** Of a union of objects: the field whose value tells them apart. */
  readonly discriminator?: string;
  /** Of a union of objects: for a field that not all of them have, the values of the discriminator that do. */
  readonly onlyFor: ReadonlyMap<string, readonly string[]>;
}

/** The fields of an object, or of a discriminated union of objects taken together; undefined for every other node. */
export function fieldsOf(node: Node): Fields | undefined {
  if (node.properties) return { properties: node.properties, required: node.required ?? [], onlyFor: new Map() };
  const variants = node.oneOf ?? node.anyOf;
  if (!variants || variants.length === 0 || !variants.every((variant) => variant.properties)) return undefined;
  const isTag = (key: string): boolean => variants.every((variant) => typeof variant.properties?.[key]?.const === "string");
  const discriminator = Object.keys(variants[0].properties ?? {}).find(isTag);
  if (discriminator === undefined) return undefined;

  const tagOf = (variant: Node): string => String(variant.properties?.[discriminator].const);
  const properties: Record<string, Node> = {};
  const onlyFor = new Map<string, readonly string[]>();
  for (const key of new Set(variants.flatMap((variant) => Object.keys(variant.properties ?? {})))) {
    const owners = variants.filter((variant) => variant.properties?.[key] !== undefined);
    const nodes = owners.map((variant) => variant.properties?.[key] as Node);
    properties[key] = key === discriminator ? { ...nodes[0], const: undefined, type: "string", enum: owners.map(tagOf) } : merged(nodes);
    if (owners.length < variants.length) onlyFor.set(key, owners.map(tagOf));
  }
  const isRequired = (key: string): boolean => variants.every((variant) => variant.required?.includes(key));
  return { properties, required: Object.keys(properties).filter(isRequired), discriminator, onlyFor };
}

/** One node for a field that several variants have; a default stands only where they agree on it. */
function merged(nodes: readonly Node[]): Node {
  const [first] = nodes;
  if (nodes.every((node) => JSON.stringify(node) === JSON.stringify(first))) return first;
  const { default: value, description, ...rest } = first;
  const same = nodes.every((node) => JSON.stringify(node.default) === JSON.stringify(value));
  const types = nodes.map(({ default: _, description: __, ...type }) => type);
  const sameType = types.every((type) => JSON.stringify(type) === JSON.stringify(rest));
  return { ...(sameType ? rest : { anyOf: types }), description, ...(same && value !== undefined ? { default: value } : {}) };
}
