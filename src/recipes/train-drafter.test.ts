// Drafter training from end to end on the model of stories, in a few steps: events, files, artifacts, resume, and generation with the result.
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { complete } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { collectEvents, type RunDirectory, type RunEvent, readMetrics } from "../engine/index.ts";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import { loadMedusa } from "../models/heads/medusa-checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { loadTokenizer } from "../text/index.ts";
import { openDrafter } from "./drafter-source.ts";
import { selfDistil } from "./self-distillation.ts";
import type { SpeculationReport, TokenTreeReport } from "./speculation-report.ts";
import { trainDrafter } from "./train-drafter.ts";
import { savedDrafterSettings, type TrainDrafterOptions, tourAccelerateOptions, trainDrafterSchema } from "./train-drafter-options.ts";

const model = "assets/stories260k/stories260K.bin";
const stories = loadDecoder(model);
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");

let backend: Backend;
let runs: string;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  runs = mkdtempSync(join(tmpdir(), "longwave-drafter-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(runs, { recursive: true });
});

const options = (): TrainDrafterOptions => ({
  model,
  runs,
  medusa: { heads: 2 },
  tokens: 3000,
  heldOutTokens: 600,
  textLength: 100,
  sequenceLength: 32,
  batchSize: 8,
  steps: 12,
  learningRate: 2e-2,
  evaluateEvery: 6,
  checkpointEvery: 6,
  maxTreeNodes: 5,
  measurePrompts: 2,
  measureTokens: 30,
});

describe("a run", () => {
  let run: RunDirectory;
  let events: RunEvent[];
  beforeAll(async () => {
    const onRun = (directory: RunDirectory): void => {
      run = directory;
    };
    events = await collectEvents(trainDrafter(options(), { backend, onRun }));
  });
  const artifact = (name: string): unknown => events.find((event) => event.kind === "artifact" && event.name === name);

  test("tells its stages, learns, and ends", async () => {
    expect(events.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(["stage", "run-start", "step", "evaluation", "checkpoint", "artifact"]),
    );
    expect(events.at(-1)).toMatchObject({ kind: "run-end", reason: "finished" });
    const losses = events.flatMap((event) => (event.kind === "evaluation" ? [event.metrics.loss] : []));
    expect(losses.at(-1)).toBeLessThan(losses[0]);
    // The file holds what was told.
    const stored: RunEvent[] = [];
    for await (const event of readMetrics(run.metricsPath)) stored.push(event);
    expect(stored.filter(({ kind }) => kind === "artifact").length).toBe(3);
  });

  test("measures: the same text, and numbers that fit each other", () => {
    const { data } = artifact("speculation") as { data: SpeculationReport };
    expect(data.identical).toBe(true);
    expect(data.plain.tokens).toBe(data.speculative.tokens);
    expect(data.ratio).toBeCloseTo(data.speculative.tokensPerSecond / data.plain.tokensPerSecond, 10);
    expect(data.tokensPerStep).toBeGreaterThanOrEqual(1);
    expect(data.costCurve[0].tokens).toBe(1);
    expect(Object.values(data.timeShares).reduce((a, b) => a + b)).toBeCloseTo(1, 10);
  });

  test("shows the tree of one step", () => {
    const { nodes } = (artifact("token-tree") as { data: TokenTreeReport }).data;
    expect(nodes[0]).toMatchObject({ id: 0, parent: -1, probability: 1, accepted: true });
    for (const { id, parent, probability, accepted } of nodes.slice(1)) {
      expect(parent).toBeLessThan(id);
      expect(probability).toBeGreaterThan(0);
      expect(probability).toBeLessThanOrEqual(1);
      // A path has no gaps, and goes along the most probable tokens.
      if (accepted) expect(nodes[parent].accepted).toBe(true);
    }
    for (const { id } of nodes) {
      const siblings = nodes.filter(({ parent }) => parent === id);
      expect(siblings.reduce((sum, { probability }) => sum + probability, 0)).toBeLessThan(1 + 1e-6);
      expect(siblings.filter(({ accepted }) => accepted).length).toBeLessThan(2);
    }
  });

  test("leaves a drafter that the model can be generated with", async () => {
    const { info, config } = loadMedusa(join(run.path, "drafter"));
    expect(config.heads).toBe(2);
    expect(info.tokenizerHash).toBe(tokenizer.hash);
    expect(info.choices?.length).toBeGreaterThan(0);
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const request = { ids: [...tokenizer.encode("The dog")], sampling: { doSample: false }, maxNewTokens: 40 };
    const plain = await complete(runner, request, { tokenizer });
    // Of the run its finished drafter; of a checkpoint the heads with a chain.
    for (const path of [run.path, run.checkpoints.pathOf(12)]) {
      using drafter = openDrafter(backend, path, stories, tokenizer.hash);
      expect((await complete(runner, request, { tokenizer, drafter })).text).toBe(plain.text);
    }
    expect(() => openDrafter(backend, run.path, stories, "another")).toThrow("tokenizer");
    expect(() => openDrafter(backend, join(runs, "nowhere"), stories)).toThrow("nothing there");
    expect(() => openDrafter(backend, "assets/stories260k", stories)).toThrow("medusa_lm_head.safetensors");
  });

  test("goes on from its checkpoint to the same weights", async () => {
    const weights = readFileSync(join(run.checkpoints.pathOf(12), "medusa_lm_head.safetensors"));
    rmSync(run.checkpoints.pathOf(12), { recursive: true });
    rmSync(join(run.path, "drafter"), { recursive: true });
    const saved = { ...savedDrafterSettings(run.path), measurePrompts: 0 } as TrainDrafterOptions;
    const again = await collectEvents(trainDrafter({ ...saved, resume: run.path }, { backend }));
    expect(again.find(({ kind }) => kind === "run-start")).toMatchObject({ step: 6 });
    expect(readFileSync(join(run.checkpoints.pathOf(12), "medusa_lm_head.safetensors")).equals(weights)).toBe(true);
    expect(existsSync(join(run.path, "drafter"))).toBe(true);
  });
});

test("settings that do not fit leave nothing behind", async () => {
  const refused = async (changed: Partial<TrainDrafterOptions>, message: string): Promise<void> => {
    const folder = join(runs, "refused");
    await expect(collectEvents(trainDrafter({ ...options(), runs: folder, ...changed }, { backend }))).rejects.toThrow(message);
    expect(existsSync(folder)).toBe(false);
  };
  await refused({ textLength: 4096 }, "context of 512");
  await refused({ sequenceLength: 3 }, "at least 4 tokens");
  await refused({ model: "assets/nothing.bin" }, "assets/nothing.bin");
  await refused({ resume: "assets" }, "run folder");
  await refused({ kind: "eagle" as never }, "kind");
});

test("a model's own texts are the same for the same seed, begin as asked, and end in time", async () => {
  const ask = { start: [1], tokens: 300, textLength: 60, openingTokens: 24, temperature: 0, eosTokenIds: [], seed: 3 };
  const texts = await selfDistil(backend, stories, ask);
  expect(await selfDistil(backend, stories, { ...ask, batch: 3 })).toEqual(texts);
  expect(texts.length).toBe(5);
  expect(new Set(texts.map(({ ids }) => ids.join())).size).toBe(5);
  using runner = new DecoderRunner(backend, stories, { weights: "shared" });
  for (const { ids, openingLength } of texts) {
    expect(ids.length).toBe(60);
    expect(openingLength).toBeLessThanOrEqual(25);
    const rest = await complete(runner, {
      ids: ids.slice(0, openingLength),
      sampling: { doSample: false },
      maxNewTokens: 60 - openingLength,
      eosTokenIds: [],
    });
    expect(ids.slice(openingLength)).toEqual(rest.ids);
  }
});

test("the tour's settings are settings", () => {
  expect(trainDrafterSchema.parse({ ...tourAccelerateOptions, model })).toMatchObject({ medusa: { unembedding: "own" }, headDecay: 0.8 });
});
