// Parts of the recipes: what is held out for validation, how long a run is, which options mean nothing, progress of a long call.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DataError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type TokenSource, tokensOf } from "../data/index.ts";
import type { RunEvent } from "../engine/index.ts";
import { decoderPresets } from "../models/decoder/presets.ts";
import { follow, stage } from "./events.ts";
import { holdOut } from "./hold-out.ts";
import {
  ignoredSettings,
  type PretrainOptions,
  type PretrainSettings,
  pretrainSchema,
  recordedSettings,
  stepsOf,
  uselessPasses,
} from "./pretrain-options.ts";
import { locateRun } from "./training-run.ts";

const documentsOf = (source: TokenSource | undefined): number[][] => {
  if (!source) return [];
  return Array.from({ length: source.numDocuments }, (_, document) => {
    const [start, end] = [source.documentStart(document), source.documentStart(document + 1)];
    const ids = new Int32Array(end - start);
    source.read(start, ids, 0, ids.length);
    return [...ids];
  });
};

describe("the optimiser of a recipe", () => {
  const optimizer = (value?: unknown) => (parseOptions(pretrainSchema, value ? { optimizer: value } : {}) as PretrainSettings).optimizer;

  test("keeps the recipe's defaults when its kind is written out, and takes another kind's own", () => {
    expect(optimizer()).toMatchObject({ kind: "adamw", beta2: 0.95, weightDecay: 0.1 });
    expect(optimizer({ kind: "adamw" })).toEqual(optimizer());
    expect(optimizer({ kind: "adamw", beta2: 0.9 })).toEqual({ ...optimizer(), beta2: 0.9 });
    expect(optimizer({ kind: "lion" })).toMatchObject({ kind: "lion", beta2: 0.99, weightDecay: 0 });
  });

  test("has no rate of its own, and the checks of its kind", () => {
    expect(optimizer()).not.toHaveProperty("learningRate");
    expect(() => optimizer({ learningRate: 1 })).toThrow("option `optimizer.learningRate`: expected `learningRate`, got an unknown name");
    expect(() => optimizer({ kind: "sgd", nesterov: true })).toThrow("option `optimizer.nesterov`: expected a momentum above 0");
  });
});

describe("holdOut", () => {
  const numbers = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

  test("keeps whole documents where there are enough", () => {
    const docs = numbers(50).map((i) => numbers(3, 3 * i));
    const { train, validation, by } = holdOut(tokensOf(docs), 0.2);
    expect(by).toBe("documents");
    const [a, b] = [documentsOf(train), documentsOf(validation)];
    expect(b.length).toBeGreaterThan(2);
    expect([...a, ...b].sort((x, y) => x[0] - y[0])).toEqual(docs);
  });

  test.each([
    ["one document", [numbers(40)], 0.1, [numbers(36)], [numbers(4, 36)]],
    ["a cut inside the second", [numbers(6), numbers(14, 6)], 0.5, [numbers(6), numbers(4, 6)], [numbers(10, 10)]],
    ["a cut between two", [numbers(6), numbers(6, 6)], 0.5, [numbers(6)], [numbers(6, 6)]],
    ["at least a pair", [numbers(9)], 0.05, [numbers(7)], [numbers(2, 7)]],
  ])("takes the last tokens of %s", (_, docs, share, train, validation) => {
    // Equal hashes: all documents fall on one side.
    const sides = holdOut(
      tokensOf(
        docs,
        docs.map(() => 1),
      ),
      share,
    );
    expect(sides.by).toBe("end");
    expect(documentsOf(sides.train)).toEqual(train);
    expect(documentsOf(sides.validation)).toEqual(validation);
  });

  test("nothing for a share of 0, an error for too few tokens", () => {
    expect(holdOut(tokensOf([[1, 2]]), 0)).toMatchObject({ validation: undefined, by: "none" });
    expect(() => holdOut(tokensOf([[1, 2, 3]]), 0.5)).toThrow(DataError);
  });
});

describe("settings of pretraining", () => {
  const settings = (options: PretrainOptions): PretrainSettings => parseOptions(pretrainSchema, options) as PretrainSettings;
  const data = { rows: 100, rowsPerStep: 8, tokensPerStep: 8 * 32 };

  test("the length of a run", () => {
    expect(stepsOf(settings({}), data)).toBe(1000);
    expect(stepsOf(settings({ steps: 7 }), data)).toBe(7);
    expect(stepsOf(settings({ epochs: 2 }), data)).toBe(25);
    expect(stepsOf(settings({ epochs: 0.001, steps: 9 }), data)).toBe(1);
    expect(stepsOf(settings({ tokens: 1000 }), data)).toBe(4);
  });

  test("more than forty passes are told, unless something may end them", () => {
    const few = { rows: 100, rowsPerStep: 8 };
    expect(uselessPasses(settings({}), 500, few)).toBeUndefined();
    expect(uselessPasses(settings({}), 1000, few)).toBe(80);
    expect(uselessPasses(settings({ earlyStopping: { metric: "loss" } }), 1000, few)).toBeUndefined();
  });

  test("only what is given changes a size", () => {
    expect(settings({ model: { width: 64 } }).model).toEqual({ width: 64 });
    expect(settings({ size: "gpt2-124m" }).model).toEqual({});
    expect(decoderPresets["gpt2-124m"].options.norm).toBe("layer");
    expect(() => settings({ model: { widht: 64 } as never })).toThrow(/model.width/);
  });

  test("what is recorded reads back as the same settings", () => {
    const before = settings({ epochs: 2, optimizer: { kind: "muon" }, model: { window: 8 }, runs: "elsewhere", data: ["a.txt"] });
    const recorded = JSON.parse(JSON.stringify(recordedSettings(before, 25)));
    expect(recorded).not.toHaveProperty("runs");
    expect(settings(recorded)).toEqual({ ...before, epochs: undefined, steps: 25, runs: "runs" });
  });

  test("options that have no effect are named", () => {
    expect(ignoredSettings(settings({}), true)).toEqual([]);
    expect(ignoredSettings(settings({ optimizer: { kind: "lion" } }), true)).toEqual([]);
    expect(ignoredSettings(settings({ tokenizer: "x", vocabSize: 300 }), true)).toEqual([
      "vocabSize has no effect: tokenizer brings its own vocabulary",
    ]);
    expect(ignoredSettings(settings({ sampleEvery: 0, sampleTokens: 3, evaluateEvery: 7 }), false)).toHaveLength(2);
  });
});

describe("follow", () => {
  test("yields what a call reports, at its own pace, and returns its result", async () => {
    const run = async (everyMs: number) => {
      const events = follow(async (report) => {
        for (let i = 0; i < 3; i++) {
          report(() => stage("x", String(i)));
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
        return 42;
      }, everyMs);
      const seen: RunEvent[] = [];
      let next = await events.next();
      for (; !next.done; next = await events.next()) seen.push(next.value);
      return { result: next.value, seen };
    };
    expect(await run(0)).toMatchObject({ result: 42, seen: [0, 1, 2].map((i) => ({ kind: "stage", message: String(i) })) });
    // What follows the last one too closely is dropped.
    expect(await run(1e6)).toEqual({ result: 42, seen: [] });
    const failing = follow(() => Promise.reject(new DataError("no text")));
    await expect(failing.next()).rejects.toThrow("no text");
  });
});

test("a checkpoint that a run left is no place to go on from", () => {
  const folder = mkdtempSync(join(tmpdir(), "longwave-left-"));
  try {
    for (const name of ["step-00000004", "left-step-00000008-2"]) {
      mkdirSync(join(folder, "checkpoints", name), { recursive: true });
      writeFileSync(join(folder, "checkpoints", name, "trainer.json"), "{}");
    }
    expect(locateRun(join(folder, "checkpoints", "step-00000004"))).toEqual({ run: folder, checkpoint: "step-00000004" });
    expect(() => locateRun(join(folder, "checkpoints", "left-step-00000008-2"))).toThrow(/got one that the run left when it went back$/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
