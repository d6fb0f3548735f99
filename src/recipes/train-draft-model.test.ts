// A draft model from end to end for the model of stories, in a few steps: texts that go on where they were interrupted, training and its resume,
// greedy text that is the same with the draft model, and errors where it does not belong.
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { DraftModelDrafter } from "../decode/drafters/draft-model.ts";
import { complete } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { blockVerifier } from "../decode/verifiers/block.ts";
import { collectEvents, type RunDirectory, type RunEvent } from "../engine/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { isTrimmedDraft, loadTrimmedDraft, saveTrimmedDraft } from "./draft-checkpoint.ts";
import { projectedRows } from "./draft-embedding.ts";
import { draftRows, frequentIds } from "./draft-rows.ts";
import type { SpeculationReport } from "./speculation-report.ts";
import { openDrafterSpec } from "./text-model/drafter-spec.ts";
import { type LoadedModel, loadModel } from "./text-model/load-model.ts";
import { trainDrafter } from "./train-drafter.ts";
import { savedDrafterSettings, type TrainDrafterOptions } from "./train-drafter-options.ts";

const model = "assets/stories260k/stories260K.bin";

let backend: Backend;
let runs: string;
let target: LoadedModel;
beforeAll(async () => {
  backend = openBackend({ threads: 1 }).backend;
  runs = mkdtempSync(join(tmpdir(), "longwave-draft-model-"));
  target = await loadModel(model);
});
afterAll(() => {
  backend.dispose();
  rmSync(runs, { recursive: true });
});

const options = (): TrainDrafterOptions => ({
  model,
  kind: "draft",
  runs,
  draft: { vocabSize: 200, width: 32, layers: 1, heads: 4, kvHeads: 2 },
  tokens: 4000,
  heldOutTokens: 600,
  textLength: 100,
  openingTokens: 12,
  temperature: 0,
  writeBatch: 8,
  batchSize: 4,
  steps: 30,
  learningRate: 1e-2,
  evaluateEvery: 15,
  checkpointEvery: 15,
  sampleEvery: 15,
  measurePrompts: 2,
  measureTokens: 30,
  measureRounds: 1,
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

  test("learns to say what the model says", () => {
    expect(events.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(["stage", "run-start", "step", "evaluation", "checkpoint", "artifact", "run-end"]),
    );
    const evaluations = events.flatMap((event) => (event.kind === "evaluation" ? [event.metrics] : []));
    const samples = events.flatMap((event) => (event.kind === "sample" ? [event.sample] : []));
    expect(samples.length).toBe(2);
    const [first] = evaluations;
    const last = evaluations[evaluations.length - 1];
    expect(last.loss).toBeLessThan(first.loss - 0.5);
    expect(last.agreement).toBeGreaterThan(first.agreement);
    // A step has at least the model's own token; what it has besides follows from the acceptance of the first draft.
    expect(last.tokensPerStep).toBeGreaterThan(1);
    expect(last.overlap).toBeGreaterThan(0);
    expect(last.overlap).toBeLessThan(1);
    const reports = events.flatMap((event) => (event.kind === "artifact" ? [event.data as unknown as SpeculationReport] : []));
    expect(reports.map(({ identical }) => identical)).toEqual([true]);
  });

  test("the draft model gives the same greedy text, and samples of the model's own with its own draws", async () => {
    for (const spec of [`draft:${run.path}`, `draft:${join(run.path, "drafter")},adaptive=false,numTokens=5`, run.path]) {
      using drafter = (await openDrafterSpec(spec, { backend, ...target, capacity: 256 })) as DraftModelDrafter;
      using runner = new DecoderRunner(backend, target.model, { capacity: 256 });
      const request = { ids: [...target.tokenizer.encode("Once upon a time, Zoe")], sampling: { doSample: false }, maxNewTokens: 80 };
      const plain = await complete(runner, request, {});
      const drafted = await complete(runner, request, { drafter });
      expect(drafted.ids).toEqual(plain.ids);
      const known = new Set(loadTrimmedDraft(join(run.path, "drafter")).vocabulary.target_ids);
      // Tokens that the draft model does not know are said as well.
      expect(plain.ids.some((id) => !known.has(id))).toBe(true);
    }
    using drafter = (await openDrafterSpec(
      `draft:${run.path},adaptive=false`,
      { backend, ...target, capacity: 256 },
      { draw: true },
    )) as DraftModelDrafter;
    using runner = new DecoderRunner(backend, target.model, { capacity: 256 });
    const ids = [...target.tokenizer.encode("The dog")];
    const sampled = await complete(runner, { ids, maxNewTokens: 60, seed: 3 }, { drafter, verifier: blockVerifier });
    expect(sampled.speculation?.numAcceptedTokens).toBeGreaterThan(0);
  });

  test("goes on from its checkpoint to the same weights, and from its texts", async () => {
    const weights = readFileSync(join(run.path, "drafter", "model.safetensors"));
    const texts = readFileSync(join(run.path, "texts", "train.jsonl"));
    // The newest one is damaged: it is passed over.
    rmSync(join(run.checkpoints.pathOf(30), "config.json"));
    rmSync(join(run.path, "drafter"), { recursive: true });
    // A line that was being written when the process ended.
    appendFileSync(join(run.path, "texts", "train.jsonl"), '{"index":99999,"ids":[1,');
    const saved = { ...savedDrafterSettings(run.path), measurePrompts: 0 } as TrainDrafterOptions;
    const again = await collectEvents(trainDrafter({ ...saved, resume: run.path }, { backend }));
    expect(again.find(({ kind }) => kind === "run-start")).toMatchObject({ step: 15 });
    expect(readFileSync(join(run.path, "drafter", "model.safetensors")).equals(weights)).toBe(true);
    expect(readFileSync(join(run.path, "texts", "train.jsonl")).equals(texts)).toBe(true);
  });

  test("texts are written once, whatever interrupts it", async () => {
    const folder = join(runs, "interrupted");
    const stop = new AbortController();
    const whole = join(folder, "texts", "heldOut.jsonl");
    const ask = { ...options(), runs: folder, texts: join(folder, "texts"), tokens: 600, steps: 1, evaluateEvery: 0, measurePrompts: 0 };
    // Stopped while it writes: what is finished stays.
    const timer = setInterval(() => {
      if (existsSync(whole) && readFileSync(whole, "utf8").split("\n").length > 3) stop.abort();
    }, 1);
    await expect(collectEvents(trainDrafter(ask, { backend, signal: stop.signal }))).rejects.toThrow();
    clearInterval(timer);
    const before = readFileSync(whole, "utf8");
    await collectEvents(trainDrafter(ask, { backend }));
    const after = readFileSync(whole, "utf8");
    expect(after.startsWith(before)).toBe(true);
    const indices = after
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => (JSON.parse(line) as { index: number }).index);
    expect(new Set(indices).size).toBe(indices.length);
    // Texts of the same seed are those of the other run.
    const byIndex = (path: string): Map<number, number[]> =>
      new Map(
        readFileSync(path, "utf8")
          .trim()
          .split("\n")
          .slice(1)
          .map((line) => [JSON.parse(line).index, JSON.parse(line).ids] as const),
      );
    const other = byIndex(join(run.path, "texts", "heldOut.jsonl"));
    for (const [index, ids] of byIndex(whole)) if (other.has(index)) expect(ids).toEqual(other.get(index));
    await expect(collectEvents(trainDrafter({ ...ask, seed: 5 }, { backend }))).rejects.toThrow("seed");
    writeFileSync(whole, "no texts\n");
    await expect(collectEvents(trainDrafter(ask, { backend }))).rejects.toThrow("expected texts that train-drafter wrote");
  });

  test("a draft model of another target is refused", async () => {
    const { decoder, vocabulary } = loadTrimmedDraft(join(run.path, "drafter"));
    const folder = (name: string, changed: Partial<typeof vocabulary>): string => {
      const path = join(runs, name);
      mkdirSync(path);
      saveTrimmedDraft(path, decoder, { ...vocabulary, ...changed });
      return path;
    };
    const open = (path: string) => openDrafterSpec(`draft:${path}`, { backend, ...target, capacity: 64 });
    expect(isTrimmedDraft(folder("size", { target_vocab_size: 4096 }))).toBe(true);
    await expect(open(join(runs, "size"))).rejects.toThrow("expected a target of 4096 tokens");
    await expect(open(folder("tokenizer", { tokenizer_hash: "another" }))).rejects.toThrow("another tokenizer");
    await expect(open(folder("ids", { target_ids: [1, 2, 512] }))).rejects.toThrow("expected ids below 512");
    await expect(open(folder("twice", { target_ids: [1, 2, 2] }))).rejects.toThrow("each once");
    await expect(open(folder("many", { target_ids: Array.from({ length: 400 }, (_, id) => id) }))).rejects.toThrow("draft_vocabulary");
  });
});

test("a draft model of all the target's layers and tokens says what it says", async () => {
  const draft = { vocabSize: 512, layersFrom: [0, 1, 2, 3, 4] };
  const ask = { ...options(), name: "all", draft, tokens: 600, steps: 1, evaluateEvery: 1, measurePrompts: 0 };
  const events = await collectEvents(trainDrafter(ask, { backend }));
  const first = events.find((event) => event.kind === "evaluation");
  const { metrics } = first as { metrics: Record<string, number> };
  expect(metrics.agreement).toBe(1);
  expect([metrics.accepted1, metrics.accepted5]).toEqual([1, 1]);
  // Eight drafts and the target's own token, but for texts whose end cuts a step short.
  expect(metrics.tokensPerStep).toBeGreaterThan(8);
  const refused = { ...ask, draft: { layersFrom: [5] } };
  await expect(collectEvents(trainDrafter(refused, { backend }))).rejects.toThrow("layers 0 to 4");
});

test("an embedding along principal axes keeps what tokens have in common", () => {
  // Rank two: three tokens of six, in four features.
  const table = Float32Array.of(9, 9, 9, 9, 1, 0, 1, 0, 0, 2, 0, 2, 9, 0, 0, 9, 1, 2, 1, 2, 0, 0, 0, 9);
  const ids = [1, 2, 4];
  const rows = projectedRows(table, 4, ids, { width: 2, std: 0.5 });
  const dot = (of: Float32Array, width: number, a: number, b: number): number => {
    let sum = 0;
    for (let c = 0; c < width; c++) sum += of[a * width + c] * of[b * width + c];
    return sum;
  };
  const scale = dot(table, 4, 1, 1) / dot(rows, 2, 0, 0);
  for (let a = 0; a < 3; a++) for (let b = 0; b < 3; b++) expect(scale * dot(rows, 2, a, b)).toBeCloseTo(dot(table, 4, ids[a], ids[b]), 4);
  expect(Math.sqrt(rows.reduce((sum, x) => sum + x * x, 0) / rows.length)).toBeCloseTo(0.5, 6);
});

test("prompts of one's own are answered, and one is held out", async () => {
  const file = join(runs, "prompts.txt");
  writeFileSync(file, Array.from({ length: 10 }, (_, i) => `Once upon a time there were ${i} cats.`).join("\n"));
  let run: RunDirectory | undefined;
  const onRun = (directory: RunDirectory): void => {
    run = directory;
  };
  const events = await collectEvents(
    trainDrafter({ ...options(), prompts: [file], name: "prompts", steps: 1, evaluateEvery: 0, measurePrompts: 0 }, { backend, onRun }),
  );
  // Ten greedy answers are fewer than what was asked for.
  expect(events.find(({ kind }) => kind === "warning")).toMatchObject({ message: expect.stringContaining("prompts gave") });
  const lines = (name: string) =>
    readFileSync(join(run?.path ?? "", "texts", `${name}.jsonl`), "utf8")
      .trim()
      .split("\n").length - 1;
  expect([lines("train"), lines("heldOut")]).toEqual([9, 1]);
});

test("rows tell of answers alone, with what the model thought of them", () => {
  // Draft ids 0, 1, 2 are the target's 2, 5, 7; 3 is all others.
  const text = {
    index: 0,
    ids: [1, 5, 7, 2, 9],
    promptLength: 2,
    topIds: Int32Array.of(7, 9, 5, 7, 9, 2),
    topLogProbs: Float32Array.from([0.6, 0.2, 0.5, 0.25, 0.9, 0.1], Math.log),
  };
  expect([...frequentIds([text], 3, 10)]).toEqual([2, 7, 9]);
  const vocabulary = new (class {
    readonly size = 3;
    readonly toDraft = Int32Array.of(-1, -1, 0, -1, -1, 1, -1, 2, -1, -1);
    draftId(id: number): number {
      return this.toDraft[id] < 0 ? 3 : this.toDraft[id];
    }
  })();
  const rows = draftRows([text], vocabulary as never, { length: 5, top: 2, distillation: 0.5 });
  const memory = { ids: new Int32Array(10), weights: new Float32Array(10), probabilities: new Float32Array(10) };
  rows.bind(memory);
  const seen: number[][] = [];
  const writer = {
    set: (_: number, t: number, input: number, label: number, weight: number) => {
      seen[t] = [input, label, weight];
    },
    pad: () => {},
  };
  rows.fill(0, writer as never, 0);
  // The prompt's place does not count. That of 9, which the draft model does not know, does: its draft will be wrong.
  expect(seen).toEqual([
    [3, 1, 0],
    [1, 2, 1],
    [2, 0, 1],
    [0, 3, 1],
  ]);
  // 7 was said with 0.6 of 0.8: 0.5 · 0.75 + 0.5. 9 is unknown.
  expect([...memory.weights.subarray(2, 4)]).toEqual([Math.fround(0.875), 0]);
  expect([...memory.ids.subarray(2, 4)]).toEqual([2, 0]);
  // 2 was said from further down than two: it takes the last place; 5 was thought likely with 2/3.
  expect([...memory.ids.subarray(4, 6)]).toEqual([1, 0]);
  expect(memory.weights[4]).toBeCloseTo(1 / 3, 6);
  expect(memory.weights[5]).toBeCloseTo(0.5, 6);
  expect([...memory.probabilities.subarray(4, 6)]).toEqual([0.5, 0]);
  expect([...memory.weights.subarray(0, 2), ...memory.weights.subarray(6)]).toEqual([0, 0, 0, 0, 0, 0]);
  const withPrompts = draftRows([text], vocabulary as never, { length: 5, top: 2, distillation: 0.5, promptWeight: 0.25 });
  withPrompts.bind(memory);
  withPrompts.fill(0, writer as never, 0);
  expect(seen[0]).toEqual([3, 1, 0]);
  expect([...memory.ids.subarray(0, 2), ...memory.weights.subarray(0, 2)]).toEqual([1, 0, 0.25, 0]);
});
