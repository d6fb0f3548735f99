import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { UsageError } from "./errors.ts";
import { defaultsOf, listOptions, parseOptions, resolveLayers, valueFromText } from "./schema.ts";

const schema = z.object({
  files: z.array(z.string()).min(1).describe("Training files."),
  steps: z.int().min(1).default(1000).describe("Optimiser steps."),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout."),
  seed: z.int().nullable().default(null).describe("Seed."),
  optim: z.object({
    kind: z.enum(["adamw", "muon"]).default("adamw").describe("Optimiser."),
    learningRate: z.number().positive().default(3e-4).describe("Peak learning rate.").meta({ flag: "learning-rate", group: "Optimiser" }),
    betas: z.tuple([z.number(), z.number()]).default([0.9, 0.95]).describe("Adam's decay rates."),
    warmup: z
      .union([z.literal("auto"), z.int().nonnegative()])
      .default("auto")
      .describe("Warm-up steps."),
  }),
  tie: z.boolean().default(true).describe("Tie embeddings."),
});

const message = (values: unknown): string => {
  try {
    parseOptions(schema, values);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  return "";
};

describe("listOptions", () => {
  const options = new Map(listOptions(schema).map((option) => [option.name, option]));

  it("flattens nested objects to dotted names with type, default, choices and description", () => {
    expect([...options.keys()]).toEqual([
      "files",
      "steps",
      "dropout",
      "seed",
      "optim.kind",
      "optim.learningRate",
      "optim.betas",
      "optim.warmup",
      "tie",
    ]);
    expect(options.get("optim.kind")).toMatchObject({ choices: ["adamw", "muon"], defaultValue: "adamw", group: "optim" });
    expect(options.get("optim.learningRate")).toMatchObject({ flag: "learning-rate", group: "Optimiser", required: false });
    expect(options.get("files")).toMatchObject({ required: true, types: ["list"], itemTypes: ["string"], defaultValue: undefined });
    expect(options.get("seed")?.types).toEqual(["integer", "null"]);
  });

  it("says in words what each value must be", () => {
    const expected = (name: string) => options.get(name)?.expected;
    expect(expected("steps")).toBe("an integer >= 1");
    expect(expected("dropout")).toBe("a number >= 0 and < 1");
    expect(expected("optim.learningRate")).toBe("a number > 0");
    expect(expected("optim.betas")).toBe("a list of 2 numbers");
    expect(expected("optim.warmup")).toBe("auto or an integer >= 0");
    expect(expected("seed")).toBe("an integer or null");
    expect(expected("files")).toBe("a non-empty list of strings");
  });
});

describe("parseOptions", () => {
  it("fills defaults on every level", () => {
    expect(parseOptions(schema, { files: ["a"] })).toEqual({
      files: ["a"],
      steps: 1000,
      dropout: 0,
      seed: null,
      optim: { kind: "adamw", learningRate: 3e-4, betas: [0.9, 0.95], warmup: "auto" },
      tie: true,
    });
    expect(defaultsOf(z.object({ a: z.object({ b: z.int().default(2) }) }))).toEqual({ a: { b: 2 } });
  });

  it("names the option, what it expects and what it got", () => {
    expect(message({ files: ["a"], optim: { learningRate: "fast" } })).toBe(
      'option `optim.learningRate`: expected a number > 0, got "fast"',
    );
    expect(message({ files: ["a"], optim: { kind: "adam" } })).toBe('option `optim.kind`: expected one of adamw, muon, got "adam"');
    expect(message({ files: ["a"], optim: { betas: [0.9] } })).toBe("option `optim.betas`: expected a list of 2 numbers, got [0.9]");
    expect(message({ files: ["a"], optim: { warmup: "soon" } })).toContain("expected auto or an integer >= 0");
    expect(message({})).toBe("option `files`: expected a non-empty list of strings, got nothing");
    expect(message({ files: ["a", 3] })).toContain('option `files`: expected a non-empty list of strings, got ["a",3]');
    expect(message({ files: ["a"], optim: 3 })).toBe("option `optim`: expected an object, got 3");
    expect(message([])).toBe("options: expected an object, got []");
  });

  it("reports every wrong option at once", () => {
    const text = message({ files: ["a"], steps: 0, dropout: 1 });
    expect(text).toContain("`steps`");
    expect(text).toContain("`dropout`");
  });

  it("refuses unknown keys and suggests the nearest", () => {
    const attempt = (values: unknown) => () => parseOptions(schema, values);
    expect(attempt({ optim: { learningrate: 1 } })).toThrow("expected `optim.learningRate`, got an unknown name");
    expect(attempt({ "learning-rate": 1 })).toThrow("expected `optim.learningRate`");
    expect(attempt({ learningRate: 1 })).toThrow("expected `optim.learningRate`");
    expect(attempt({ setps: 1 })).toThrow("expected `steps`");
    expect(attempt(JSON.parse('{"__proto__": {"steps": 3}}'))).toThrow(UsageError);
    expect(attempt({ constructor: 1 })).toThrow(UsageError);
  });

  it("keeps the message of a check across fields", () => {
    const ordered = z
      .object({ low: z.number().default(0).describe("Low."), high: z.number().default(1).describe("High.") })
      .refine(({ low, high }) => low < high, { path: ["high"], message: "expected more than low" });
    expect(() => parseOptions(ordered, { low: 2 })).toThrow("option `high`: expected more than low");
  });
});

describe("resolveLayers", () => {
  it("lets the later layer win, leaf by leaf, and says where a wrong value stands", () => {
    const preset = { values: { steps: 5, optim: { learningRate: 1, betas: [0.1, 0.2] } } };
    const file = { values: { optim: { learningRate: 2 } }, locate: () => "run.yaml:2" };
    const flags = { values: { files: ["a"], "optim.kind": "muon" } };
    const resolved = resolveLayers(schema, [preset, file, flags]);
    expect(resolved).toMatchObject({ steps: 5, optim: { kind: "muon", learningRate: 2, betas: [0.1, 0.2] } });
    const wrong = { ...file, values: { optim: { learningRate: -2 } } };
    expect(() => resolveLayers(schema, [preset, wrong, flags])).toThrow("expected a number > 0, got -2 (run.yaml:2)");
  });

  it("ignores a layer's undefined, so that absent flags hide nothing", () => {
    expect(resolveLayers(schema, [{ values: { files: ["a"], steps: 3 } }, { values: { steps: undefined } }]).steps).toBe(3);
  });
});

describe("a union of objects", () => {
  const union = z.object({
    optimizer: z
      .discriminatedUnion("kind", [
        z.strictObject({
          kind: z.literal("adamw"),
          weightDecay: z.number().default(0).describe("Decay."),
          beta: z.number().default(0.9).describe("Beta."),
        }),
        z.strictObject({
          kind: z.literal("muon"),
          weightDecay: z.number().default(0).describe("Decay."),
          steps: z.int().min(1).default(5).describe("Iterations."),
        }),
      ])
      .default({ kind: "adamw", weightDecay: 0.1, beta: 0.95 })
      .describe("Optimiser."),
    stop: z.object({ metric: z.string().describe("Metric."), patience: z.int().default(3).describe("Patience.") }).optional(),
  });
  const parse = (values: unknown) => parseOptions(union, values);

  it("is a list of options, each with the kinds it belongs to", () => {
    const options = listOptions(union).map(({ name, choices, defaultValue, onlyFor, required }) => ({
      name,
      choices,
      defaultValue,
      onlyFor,
      required,
    }));
    expect(options).toEqual([
      { name: "optimizer.kind", choices: ["adamw", "muon"], defaultValue: "adamw", onlyFor: undefined, required: false },
      { name: "optimizer.weightDecay", choices: [], defaultValue: 0.1, onlyFor: undefined, required: false },
      {
        name: "optimizer.beta",
        choices: [],
        defaultValue: 0.95,
        onlyFor: { option: "optimizer.kind", values: ["adamw"] },
        required: false,
      },
      { name: "optimizer.steps", choices: [], defaultValue: 5, onlyFor: { option: "optimizer.kind", values: ["muon"] }, required: false },
      { name: "stop.metric", choices: [], defaultValue: undefined, onlyFor: undefined, required: false },
      { name: "stop.patience", choices: [], defaultValue: 3, onlyFor: undefined, required: false },
    ]);
  });

  it("keeps the rest of its default when given in part, also with its kind, and nothing of it for another kind", () => {
    expect(parse({}).optimizer).toEqual({ kind: "adamw", weightDecay: 0.1, beta: 0.95 });
    expect(parse({ optimizer: { weightDecay: 0.5 } }).optimizer).toEqual({ kind: "adamw", weightDecay: 0.5, beta: 0.95 });
    expect(parse({ optimizer: { kind: "muon" } }).optimizer).toEqual({ kind: "muon", weightDecay: 0, steps: 5 });
    expect(parse({ optimizer: { kind: "adamw" } }).optimizer).toEqual({ kind: "adamw", weightDecay: 0.1, beta: 0.95 });
    expect(parse({ optimizer: { kind: "adamw", beta: 0.5 } }).optimizer).toEqual({ kind: "adamw", weightDecay: 0.1, beta: 0.5 });
  });

  it("forgets what lower layers set for another kind", () => {
    const preset = { values: { optimizer: { kind: "adamw", beta: 0.5, weightDecay: 0.3 } } };
    expect(resolveLayers(union, [preset, { values: { "optimizer.kind": "muon", "optimizer.steps": 3 } }]).optimizer).toEqual({
      kind: "muon",
      weightDecay: 0,
      steps: 3,
    });
    expect(resolveLayers(union, [preset, { values: { "optimizer.kind": "adamw" } }]).optimizer).toMatchObject({ beta: 0.5 });
    const muon = { values: { optimizer: { kind: "muon", steps: 3, weightDecay: 0.3 } } };
    const back = resolveLayers(union, [muon, { values: { "optimizer.kind": "adamw" } }]);
    expect(back.optimizer).toEqual({ kind: "adamw", weightDecay: 0.1, beta: 0.95 });
  });

  it("refuses an option of another kind, and an unknown kind", () => {
    expect(() => parse({ optimizer: { steps: 3 } })).toThrow(
      "option `optimizer.steps`: expected no value where `optimizer.kind` is adamw, got 3",
    );
    expect(() => parse({ optimizer: { kind: "sgd" } })).toThrow('option `optimizer.kind`: expected one of adamw, muon, got "sgd"');
    expect(() => parse({ optimizer: { kind: "muon", steps: 0 } })).toThrow("option `optimizer.steps`: expected an integer >= 1, got 0");
  });

  it("leaves an optional object out until one of its fields is given, and then needs the others", () => {
    expect(parse({}).stop).toBeUndefined();
    expect(parse({ stop: { metric: "loss" } }).stop).toEqual({ metric: "loss", patience: 3 });
    expect(() => parse({ stop: { patience: 2 } })).toThrow("option `stop.metric`: expected a string, got nothing");
  });
});

describe("valueFromText", () => {
  it("takes lists as JSON too, and a single one of a list of lists", () => {
    const of = (itemTypes: ("integer" | "list" | "string")[], text: string) => valueFromText({ types: ["list"], itemTypes }, text);
    expect(of(["integer"], "[4,5]")).toEqual([4, 5]);
    expect(of(["integer"], "4,5")).toEqual([4, 5]);
    expect(of(["list"], "[[1,2],[3]]")).toEqual([[1, 2], [3]]);
    expect(of(["list"], "[1,2]")).toEqual([[1, 2]]);
    expect(of(["list"], "[[6],1.5]")).toEqual([[[6], 1.5]]);
    // Texts are taken as they are.
    expect(of(["string"], '["a"]')).toEqual(['["a"]']);
    expect(of(["integer"], "[4,5")).toEqual(["[4", 5]);
  });

  const options = new Map(listOptions(schema).map((option) => [option.name, option]));
  const read = (name: string, text: string) => valueFromText(options.get(name) as never, text);

  it("turns texts into the types that the option accepts", () => {
    expect(read("steps", "1e3")).toBe(1000);
    expect(read("steps", "")).toBe("");
    expect(read("steps", "many")).toBe("many");
    expect(read("seed", "none")).toBe(null);
    expect(read("optim.betas", "0.9,0.99")).toEqual([0.9, 0.99]);
    expect(read("optim.warmup", "auto")).toBe("auto");
    expect(read("optim.warmup", "20")).toBe(20);
    expect(read("files", "a,b.txt")).toEqual(["a,b.txt"]);
    expect(read("tie", "false")).toBe(false);
  });

  it("reads back every finite number", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) =>
        Object.is(valueFromText({ types: ["number"], itemTypes: [] }, Object.is(value, -0) ? "-0" : String(value)), value),
      ),
    );
  });
});
