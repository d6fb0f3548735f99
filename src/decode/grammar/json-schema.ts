// JSON schemas as grammars, in the manner of llama.cpp's json-schema-to-grammar: properties in the order of the schema, objects with
// properties closed unless additionalProperties says otherwise, every text that the grammar allows satisfies the schema.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { choice, type Expression, literal, optional, repeat, rule, sequence } from "./expression.ts";
import { maxRepetition } from "./gbnf.ts";
import { formatRules, jsonRules, quote } from "./json-rules.ts";
import { alternativesOf, isSchemaObject, resolveReference, type SchemaObject, schemaError, typesOf } from "./schema-merge.ts";
import { integersBetween, numbersBetween } from "./schema-numbers.ts";
import { otherStrings, patternContent } from "./schema-strings.ts";

export const jsonSchemaOptions = z.strictObject({
  strict: z.boolean().default(true).describe("Refuse keywords that the grammar cannot keep to; false ignores them, as llama.cpp does."),
});
export type JsonSchemaOptions = z.input<typeof jsonSchemaOptions>;

const maxDepth = 64;
const maxProperties = 1000;
const space = rule("space");
const comma = sequence(literal(","), space);

/** Keywords that restrict what no grammar here can. */
const unsupported = [
  "patternProperties",
  "propertyNames",
  "contains",
  "not",
  "if",
  "dependentRequired",
  "dependentSchemas",
  "dependencies",
  "unevaluatedItems",
];
/** Keywords that say what kind of value is meant, where `type` does not. */
const typical: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["pattern", "minLength", "maxLength", "format"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
};

/** Rules of the texts that satisfy a schema; the first one is called root. @throws UsageError naming the part that is not supported. */
export function rulesOfSchema(schema: unknown, options: JsonSchemaOptions = {}): Map<string, Expression> {
  return new Converter(schema, parseOptions(jsonSchemaOptions, options).strict).convert();
}

class Converter {
  private readonly root: unknown;
  private readonly strict: boolean;
  private readonly rules = new Map<string, Expression>();
  private readonly references = new Map<string, string>();
  private depth = 0;

  constructor(root: unknown, strict: boolean) {
    this.root = root;
    this.strict = strict;
  }

  convert(): Map<string, Expression> {
    this.use("space");
    this.rules.set("root", sequence());
    // A text ends with its value: white space behind it would be written for as long as the model likes.
    this.rules.set("root", this.withoutSpace(this.expression(this.root, "#")));
    return this.rules;
  }

  private withoutSpace(expression: Expression, depth = 0): Expression {
    const { kind } = expression;
    if (kind === "choice") return choice(...expression.options.map((option) => this.withoutSpace(option, depth + 1)));
    if (kind === "rule" && expression.name === "space") return sequence();
    if (kind === "rule") {
      const meant = this.rules.get(expression.name);
      return meant && expression.name !== "root" && depth < 8 ? this.withoutSpace(meant, depth + 1) : expression;
    }
    if (kind !== "sequence" || expression.items.length === 0) return expression;
    const last = this.withoutSpace(expression.items[expression.items.length - 1], depth + 1);
    return sequence(...expression.items.slice(0, -1), last);
  }

  /** A rule of JSON itself, with those that it needs. */
  private use(name: string): Expression {
    if (!this.rules.has(name)) {
      const expression = jsonRules[name];
      this.rules.set(name, expression);
      this.useAll(expression);
    }
    return rule(name);
  }

  private useAll(expression: Expression): void {
    if (expression.kind === "rule" && expression.name in jsonRules) this.use(expression.name);
    if (expression.kind === "sequence") for (const item of expression.items) this.useAll(item);
    if (expression.kind === "choice") for (const option of expression.options) this.useAll(option);
    if (expression.kind === "repeat") this.useAll(expression.item);
  }

  private named(expression: Expression): Expression {
    const name = `rule-${this.rules.size}`;
    this.rules.set(name, expression);
    return rule(name);
  }

  private expression(schema: unknown, path: string): Expression {
    if (++this.depth > maxDepth) throw schemaError(path, `at most ${maxDepth} nested schemas`, this.depth);
    const made = this.anyExpression(schema, path);
    this.depth--;
    return made;
  }

  private anyExpression(schema: unknown, path: string): Expression {
    if (schema === true) return this.use("value");
    if (!isSchemaObject(schema)) throw schemaError(path, "a schema that some value satisfies", schema);
    const keys = Object.keys(schema).filter((key) => isRestricting(key));
    const only = keys.length === 1 ? keys[0] : undefined;
    if (only === "$ref") return this.reference(schema.$ref, path);
    if ((only === "anyOf" || only === "oneOf") && Array.isArray(schema[only])) {
      const options = schema[only].filter((option) => option !== false);
      if (options.length > 0) return choice(...options.map((option, i) => this.expression(option, `${path}/${only}/${i}`)));
    }
    if (!keys.some((key) => ["$ref", "allOf", "anyOf", "oneOf"].includes(key))) return this.plain(schema, path);
    const alternatives = alternativesOf(schema, this.root, path);
    if (alternatives.length === 0) throw schemaError(path, "a schema that some value satisfies", schema);
    return choice(...alternatives.map((alternative) => this.plain(alternative, path)));
  }

  /** References are rules, so that a schema may contain itself. */
  private reference(reference: unknown, path: string): Expression {
    const target = resolveReference(this.root, reference, path);
    const key = String(reference);
    let name = this.references.get(key);
    if (name === undefined) {
      name = key === "#" ? "root" : `reference-${this.references.size}`;
      this.references.set(key, name);
      if (key !== "#") {
        this.rules.set(name, sequence());
        this.rules.set(name, this.expression(target, key));
      }
    }
    return rule(name);
  }

  /** A schema without references and combinations. */
  private plain(schema: SchemaObject, path: string): Expression {
    this.refuse(schema, path);
    const types = this.typesOf(schema);
    if ("const" in schema) return this.values([schema.const], types, path);
    if (schema.enum !== undefined) {
      if (!Array.isArray(schema.enum)) throw schemaError(`${path}/enum`, "a list of values", schema.enum);
      return this.values(schema.enum, types, path);
    }
    if (types === undefined) return this.use("value");
    const options = types.map((type) => this.ofType(type, schema, path));
    return options.length === 1 ? options[0] : choice(...options);
  }

  private refuse(schema: SchemaObject, path: string): void {
    if (!this.strict) return;
    const isEmpty = (value: unknown): boolean => isSchemaObject(value) && Object.keys(value).length === 0;
    for (const key of unsupported) {
      if (schema[key] === undefined || isEmpty(schema[key])) continue;
      throw schemaError(
        `${path}/${key}`,
        "keywords that a grammar can keep to",
        schema[key],
        "Leave it out, or set strict to false to ignore it.",
      );
    }
    if (schema.uniqueItems === true || (schema.multipleOf !== undefined && schema.multipleOf !== 1)) {
      const key = schema.uniqueItems === true ? "uniqueItems" : "multipleOf";
      throw schemaError(
        `${path}/${key}`,
        "keywords that a grammar can keep to",
        schema[key],
        "Leave it out, or set strict to false to ignore it.",
      );
    }
  }

  private typesOf(schema: SchemaObject): string[] | undefined {
    if (schema.type !== undefined) return typesOf(schema.type);
    const meant = Object.keys(typical).filter((type) => typical[type].some((key) => schema[key] !== undefined));
    return meant.length === 0 ? undefined : meant;
  }

  private values(values: readonly unknown[], types: readonly string[] | undefined, path: string): Expression {
    const fits = (value: unknown): boolean => types === undefined || types.some((type) => isOfType(value, type));
    const texts = values.filter(fits).map((value) => JSON.stringify(value));
    if (texts.length === 0) throw schemaError(path, "a value of its type", values);
    return sequence(texts.length === 1 ? literal(texts[0]) : choice(...texts.map(literal)), space);
  }

  private ofType(type: string, schema: SchemaObject, path: string): Expression {
    switch (type) {
      case "object":
        return this.object(schema, path);
      case "array":
        return this.array(schema, path);
      case "string":
        return this.string(schema, path);
      case "number":
      case "integer":
        return this.number(type, schema, path);
      case "boolean":
      case "null":
        return this.use(type);
      default:
        throw schemaError(`${path}/type`, "object, array, string, number, integer, boolean or null", type);
    }
  }

  private number(type: "number" | "integer", schema: SchemaObject, path: string): Expression {
    const bound = (key: string, fallback: number): number => {
      const value = schema[key];
      if (value === undefined) return fallback;
      if (typeof value !== "number") throw schemaError(`${path}/${key}`, "a number", value);
      return value;
    };
    const low = Math.max(Math.ceil(bound("minimum", -Infinity)), Math.floor(bound("exclusiveMinimum", -Infinity)) + 1);
    const high = Math.min(Math.floor(bound("maximum", Infinity)), Math.ceil(bound("exclusiveMaximum", Infinity)) - 1);
    if (low === -Infinity && high === Infinity) return this.use(type === "integer" || schema.multipleOf === 1 ? "integer" : type);
    const between = type === "integer" || schema.multipleOf === 1 ? integersBetween(low, high) : numbersBetween(low, high);
    if (!between) throw schemaError(path, "bounds with a whole number between them", [low, high]);
    return sequence(between, space);
  }

  private string(schema: SchemaObject, path: string): Expression {
    this.use("char");
    const { pattern, format } = schema;
    const [min, max] = this.counts(schema, "Length", path);
    const hasLength = min > 0 || max < Number.POSITIVE_INFINITY;
    if (pattern !== undefined) {
      if (typeof pattern !== "string") throw schemaError(`${path}/pattern`, "a text", pattern);
      if (this.strict && hasLength)
        throw schemaError(path, "a pattern or lengths", { pattern, min, max }, "Write the length into the pattern.");
      const content = this.pattern(pattern, path);
      if (content) return sequence(quote, content, quote, space);
    }
    const known = typeof format === "string" ? formatRules[format] : undefined;
    if (known !== undefined) return this.use(known);
    return hasLength ? sequence(quote, repeat(rule("char"), min, max), quote, space) : this.use("string");
  }

  /** Undefined for a pattern that is not supported, where that is to be ignored. */
  private pattern(pattern: string, path: string): Expression | undefined {
    try {
      return patternContent(pattern, path);
    } catch (error) {
      if (this.strict || !(error instanceof UsageError)) throw error;
      return undefined;
    }
  }

  private counts(schema: SchemaObject, what: "Length" | "Items", path: string): readonly [min: number, max: number] {
    const read = (key: string, fallback: number): number => {
      const value = schema[key] ?? fallback;
      if (value === fallback) return fallback;
      if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > maxRepetition)
        throw schemaError(`${path}/${key}`, `a whole number up to ${maxRepetition}`, value);
      return value as number;
    };
    const [min, max] = [read(`min${what}`, 0), read(`max${what}`, Number.POSITIVE_INFINITY)];
    if (max < min) throw schemaError(path, `max${what} not below min${what}`, [min, max]);
    return [min, max];
  }

  private array(schema: SchemaObject, path: string): Expression {
    const legacy = Array.isArray(schema.items) ? schema.items : undefined;
    const prefix: unknown = schema.prefixItems ?? legacy ?? [];
    if (!Array.isArray(prefix)) throw schemaError(`${path}/prefixItems`, "a list of schemas", prefix);
    const rest = legacy ? schema.additionalItems : schema.items;
    let [min, max] = this.counts(schema, "Items", path);
    if (rest === false) max = Math.min(max, prefix.length);
    // A tuple is given whole, and goes on only where the schema says with what.
    else if (prefix.length > 0 && rest === undefined) max = Math.min(max, Math.max(prefix.length, min));
    min = Math.max(min, Math.min(prefix.length, max));
    if (min > max) throw schemaError(path, "items that minItems leaves room for", schema.items);
    const items = prefix.slice(0, max).map((item, i) => this.expression(item, `${path}/prefixItems/${i}`));
    const needsMore = max > items.length;
    const more = needsMore ? this.named(this.expression(rest ?? true, `${path}/items`)) : undefined;
    const body: Expression[] = items.flatMap((item, i) => (i === 0 ? [item] : [comma, item]));
    if (more) {
      const [low, high] = [min - items.length, max - items.length];
      const next = sequence(comma, more);
      if (items.length > 0) body.push(repeat(next, low, high));
      else {
        const all = sequence(more, repeat(next, Math.max(0, low - 1), high - 1));
        body.push(low === 0 ? optional(all) : all);
      }
    }
    return sequence(literal("["), space, ...body, literal("]"), space);
  }

  private object(schema: SchemaObject, path: string): Expression {
    const { properties = {}, required = [], additionalProperties } = schema;
    if (!isSchemaObject(properties)) throw schemaError(`${path}/properties`, "an object of schemas", properties);
    if (!Array.isArray(required)) throw schemaError(`${path}/required`, "a list of names", required);
    const isOpen =
      additionalProperties === undefined ? Object.keys(properties).length === 0 && required.length === 0 : additionalProperties !== false;
    const extra = isOpen ? (additionalProperties ?? true) : false;
    const names = [...new Set([...Object.keys(properties), ...required.map(String)])];
    if (names.length > maxProperties) throw schemaError(path, `at most ${maxProperties} properties`, names.length);
    this.checkNumber(schema, names, required, isOpen, path);
    if (names.length === 0 && extra === true) return this.use("object");
    const members: { member: Expression; isRequired: boolean }[] = [];
    for (const name of names) {
      const isKnown = Object.hasOwn(properties, name);
      const value = isKnown ? properties[name] : (additionalProperties ?? true);
      const isRequired = required.includes(name);
      if (value === false && !isRequired) continue;
      const place = `${path}/properties/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      const member = sequence(literal(JSON.stringify(name)), space, literal(":"), space, this.expression(value, place));
      members.push({ member: this.named(member), isRequired });
    }
    return sequence(
      literal("{"),
      space,
      this.members(members, extra === false ? undefined : this.extraMember(names, extra, path)),
      literal("}"),
      space,
    );
  }

  /** minProperties and maxProperties, where the other keywords do not see to them. */
  private checkNumber(schema: SchemaObject, names: readonly string[], required: readonly unknown[], isOpen: boolean, path: string): void {
    if (!this.strict) return;
    const { minProperties = 0, maxProperties: most = Number.POSITIVE_INFINITY } = schema as {
      minProperties?: number;
      maxProperties?: number;
    };
    if (minProperties > required.length || most < (isOpen ? Number.POSITIVE_INFINITY : names.length)) {
      throw schemaError(path, "minProperties and maxProperties that required and properties satisfy", [minProperties, most]);
    }
  }

  private extraMember(names: readonly string[], value: unknown, path: string): Expression {
    this.use("char");
    const key = names.length === 0 ? this.use("string") : sequence(quote, this.named(otherStrings(names)), quote);
    return this.named(sequence(key, space, literal(":"), space, this.expression(value, `${path}/additionalProperties`)));
  }

  /** Members in order, each once, optional ones left out at will; then others. Commas stand between what is there. */
  private members(members: readonly { member: Expression; isRequired: boolean }[], extra: Expression | undefined): Expression {
    const more = extra ? repeat(sequence(comma, extra), 0) : sequence();
    // What may follow when something was written already, and when nothing was.
    let after: Expression = more;
    let first: Expression = extra ? optional(sequence(extra, more)) : sequence();
    for (const { member, isRequired } of members.toReversed()) {
      const [afterRest, firstRest] = [after, first];
      const with_ = sequence(comma, member, afterRest);
      const alone = sequence(member, afterRest);
      after = this.named(isRequired ? with_ : choice(with_, afterRest));
      first = isRequired ? alone : this.named(choice(alone, firstRest));
    }
    return first;
  }
}

/** The rest are annotations: titles, descriptions, formats that are not checked. */
const isRestricting = (key: string): boolean =>
  ["$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "uniqueItems", ...unsupported, ...Object.values(typical).flat()].includes(
    key,
  );

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case "object":
      return isSchemaObject(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}
