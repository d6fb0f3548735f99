// Texts drawn from a schema's grammar token by token, as a model that knows nothing would write them, are JSON and satisfy the schema.
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { randomUniform, streamId } from "../../runtime/rng.ts";
import { loadTokenizer } from "../../text/index.ts";
import { constrain } from "./compile-grammar.ts";
import { Grammar } from "./grammar.ts";
import { invalidity } from "./testing/validate.ts";

const tokenizer = loadTokenizer(fileURLToPath(new URL("../../../test/golden/tokenizers/llama3-bytelevel", import.meta.url)));
const eos = tokenizer.specialIds.eos as number;
const stream = streamId("grammar test");

/** A random text of at most `length` tokens; prefers what ends it as it grows long. Undefined when it did not end. */
function draw(grammar: Grammar, seed: number, length = 400): string | undefined {
  const constraint = constrain(grammar, tokenizer);
  const logits = new Float32Array(tokenizer.vocabSize);
  const ids: number[] = [];
  for (let i = 0; i < length; i++) {
    logits.fill(0);
    constraint.apply(logits, { ids, promptLength: 0 });
    const allowed = [...logits.keys()].filter((id) => logits[id] === 0);
    expect(allowed.length).toBeGreaterThan(0);
    if (allowed.includes(eos) && randomUniform(seed, stream, 1, i, 0) < 0.5) return tokenizer.decode(ids);
    const closing = allowed.filter((id) => /^["\]}]+,?$/.test(tokenizer.idToToken(id) ?? ""));
    const among = closing.length > 0 && randomUniform(seed, stream, 2, i, 0) < i / 60 ? closing : allowed;
    const id = among[Math.floor(randomUniform(seed, stream, 0, i, 0) * among.length)];
    if (id === eos) return tokenizer.decode(ids);
    ids.push(id);
  }
  return undefined;
}

const schemas: Record<string, unknown> = {
  anything: true,
  object: {
    type: "object",
    properties: {
      name: { type: "string", maxLength: 8 },
      age: { type: "integer", minimum: 0, maximum: 130 },
      'odd "name"é': { type: ["boolean", "null"] },
      tags: { type: "array", items: { enum: ["a", "b\n", 3, null] }, minItems: 1, maxItems: 3 },
    },
    required: ["age", "tags"],
  },
  "all optional": { type: "object", properties: { a: { const: 1 }, b: { const: [1, { x: 2 }] }, c: { type: "null" } } },
  "additional properties": {
    type: "object",
    properties: { ab: { const: 1 }, abc: { type: "boolean" }, "": { const: 2 } },
    required: ["ab"],
    additionalProperties: { type: "integer", maximum: -3 },
  },
  dictionary: { type: "object", additionalProperties: { type: "array", items: { type: "number", minimum: -2, maximum: 11 }, maxItems: 2 } },
  tuple: { type: "array", prefixItems: [{ type: "string", format: "date" }, { type: "boolean" }], items: { type: "integer" }, maxItems: 4 },
  tree: {
    $ref: "#/$defs/node",
    $defs: {
      node: {
        type: "object",
        properties: {
          value: { type: "string", pattern: "^[a-c]{1,3}(x|yz)?$" },
          children: { type: "array", items: { $ref: "#/$defs/node" }, maxItems: 2 },
        },
        required: ["value", "children"],
      },
    },
  },
  combined: {
    allOf: [
      { type: "object", properties: { kind: { enum: ["a", "b", "c"] } }, required: ["kind"] },
      {
        properties: { kind: { enum: ["b", "c", "d"] }, size: { type: "number", exclusiveMinimum: 0, exclusiveMaximum: 100 } },
        required: ["size"],
      },
    ],
    anyOf: [
      { required: ["note"], properties: { note: { type: "string", minLength: 2, maxLength: 3 } } },
      { properties: { ok: { const: true } }, required: ["ok"] },
    ],
  },
  union: {
    anyOf: [
      { type: "integer", minimum: 8, maximum: 1205 },
      { type: "string", pattern: '\\d[^a"]|é\\\\' },
      { type: "array", items: false },
    ],
  },
};

describe.each(Object.entries(schemas))("%s", (_, schema) => {
  const grammar = Grammar.fromJsonSchema(schema);
  test("drawn texts satisfy the schema", () => {
    let numWhole = 0;
    for (let seed = 0; seed < 25; seed++) {
      const text = draw(grammar, seed);
      if (text === undefined) continue;
      numWhole++;
      expect(invalidity(JSON.parse(text), schema as never), text).toBeUndefined();
    }
    expect(numWhole).toBeGreaterThan(5);
  });
});

describe("what a schema allows", () => {
  const accepts = (schema: unknown, value: unknown): boolean =>
    Grammar.fromJsonSchema(schema).matches(typeof value === "string" ? value : JSON.stringify(value));

  test("whole numbers between bounds, all of them and no others", () => {
    for (const [minimum, maximum] of [
      [0, 9],
      [7, 23],
      [-12, 5],
      [-305, -17],
      [99, 1001],
      [0, 0],
      [-1, 1],
    ]) {
      const grammar = Grammar.fromJsonSchema({ type: "integer", minimum, maximum });
      for (let n = minimum - 120; n <= maximum + 120; n++)
        expect(grammar.matches(String(n)), `${n} in [${minimum}, ${maximum}]`).toBe(n >= minimum && n <= maximum);
      expect(grammar.matches("01")).toBe(false);
      expect(grammar.matches("-0")).toBe(false);
    }
    const positive = Grammar.fromJsonSchema({ type: "integer", minimum: 15 });
    for (const n of [15, 16, 99, 100, 123456789012345]) expect(positive.matches(String(n))).toBe(true);
    for (const n of [14, 9, 0, -15]) expect(positive.matches(String(n))).toBe(false);
  });

  test("numbers between bounds", () => {
    const grammar = Grammar.fromJsonSchema({ type: "number", minimum: -1.5, maximum: 3 });
    for (const n of ["-1", "-0.99", "0", "0.5", "2.9999", "3"]) expect(grammar.matches(n), n).toBe(true);
    for (const n of ["3.1", "-1.6", "4", "-2", "1."]) expect(grammar.matches(n), n).toBe(false);
  });

  test("properties in order, optional ones left out", () => {
    const schema = { properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } }, required: ["b"] };
    for (const text of ['{"b":2}', '{"a":1,"b":2}', '{ "b": 2 , "c":3}', '{"a":1,"b":2,"c":3}'])
      expect(accepts(schema, text.replaceAll(" ,", ",")), text).toBe(true);
    for (const text of ["{}", '{"a":1}', '{"b":2,"a":1}', '{"b":2,}', '{,"b":2}', '{"b":2,"d":1}'])
      expect(accepts(schema, text), text).toBe(false);
  });

  test("additional keys are none of the declared ones, however they are spelled", () => {
    const schema = { properties: { ab: { const: 1 } }, additionalProperties: { const: 2 } };
    for (const text of ['{"a":2}', '{"abc":2}', '{"ab":1,"b":2}', '{"":2}', '{"\\n":2}']) expect(accepts(schema, text), text).toBe(true);
    for (const text of ['{"ab":2}', '{"\\u0061b":2}', '{"a\\u0062":2}', '{"ab":1,"ab":2}']) expect(accepts(schema, text), text).toBe(false);
  });

  test("strings: escapes, formats and whole characters", () => {
    expect(accepts({ type: "string" }, 'a"\\é😀\n')).toBe(false);
    expect(accepts({ type: "string" }, JSON.stringify('a"\\é😀\n\u0001'))).toBe(true);
    expect(accepts({ type: "string" }, '"\\ud83d"')).toBe(false);
    expect(accepts({ type: "string", minLength: 2, maxLength: 2 }, '"😀é"')).toBe(true);
    expect(accepts({ type: "string", format: "date" }, '"2024-13-01"')).toBe(false);
    expect(accepts({ type: "string", format: "date-time" }, '"2024-12-31T23:59:60Z"')).toBe(false);
    expect(accepts({ type: "string", format: "date-time" }, '"2024-12-31T23:59:59.123+01:00"')).toBe(true);
    expect(accepts({ type: "string", format: "uuid" }, '"123e4567-e89b-12d3-a456-426614174000"')).toBe(true);
    expect(accepts({ type: "string", format: "ipv4" }, '"256.1.1.1"')).toBe(false);
    expect(accepts({ type: "string", pattern: "b" }, '"abc"')).toBe(true);
  });

  test("schemas that refer to themselves", () => {
    const list = { type: "object", properties: { next: { anyOf: [{ $ref: "#" }, { type: "null" }] } }, required: ["next"] };
    expect(accepts(list, { next: { next: { next: null } } })).toBe(true);
    expect(accepts(list, { next: { next: {} } })).toBe(false);
  });

  test.each([
    [{ type: "array", uniqueItems: true }, /uniqueItems/],
    [{ not: { type: "string" } }, /\/not/],
    [{ $ref: "https://example.com/schema" }, /reference into the schema/],
    [{ $ref: "#/$defs/none" }, /a part of the schema/],
    [{ type: "text" }, /object, array, string/],
    [{ type: "integer", minimum: 3, maximum: 2 }, /whole number between/],
    [{ type: "string", pattern: "(?=a)" }, /look-around/],
    [{ type: "string", minLength: 1e9 }, /up to/],
    [{ allOf: [{ type: "string" }, { type: "null" }] }, /some value satisfies/],
    [{ properties: { a: { properties: { b: false }, required: ["b"] } } }, /#\/properties\/a\/properties\/b/],
    [{ $defs: { a: { allOf: [{ $ref: "#/$defs/a" }] } }, $ref: "#/$defs/a" }, /combinations that end/],
  ])("%j is refused", (schema, message) => {
    expect(() => Grammar.fromJsonSchema(schema)).toThrow(UsageError);
    expect(() => Grammar.fromJsonSchema(schema)).toThrow(message);
  });

  test("unsupported keywords can be ignored", () => {
    const grammar = Grammar.fromJsonSchema({ type: "array", items: { const: 1 }, uniqueItems: true }, { strict: false });
    expect(grammar.matches("[1,1]")).toBe(true);
    expect(Grammar.fromJsonSchema({ type: "string", pattern: "^(?!a)b$", maxLength: 1 }, { strict: false }).matches('"c"')).toBe(true);
  });
});
