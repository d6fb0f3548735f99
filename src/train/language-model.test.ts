// The trainer: it learns, micro-batches equal a larger batch, padding and other documents do not count, and a step that is not finite
// leaves everything as it was and can be reproduced from its record.
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckpointError, UsageError } from "../base/errors.ts";
import { type PackingOptions, packDocuments, tokensOf } from "../data/index.ts";
import { allocateDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "../models/decoder/config.ts";
import { negativeLogLikelihood, referenceLogits } from "../models/decoder/testing/reference.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { uniforms } from "../tensor/testing/reference.ts";
import { Evaluator } from "./evaluator.ts";
import { type LanguageModelHooks, type LanguageModelOptions, LanguageModelTrainer } from "./language-model.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-train-"));
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(root, { recursive: true, force: true });
});

const vocabSize = 16;
const separator = 0;

function newDecoder(options: Partial<DecoderOptions> = {}) {
  const config = decoderConfig({ vocabSize, width: 16, layers: 2, heads: 2, contextLength: 16, ...options });
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs as never, decoder.parameters, 3);
  return decoder;
}

/** Documents of random length in which every token but the first follows from the one before. */
function documents(count: number, seed = 1): number[][] {
  const next = uniforms(seed);
  return Array.from({ length: count }, () => {
    const ids = [1 + Math.floor(next() * (vocabSize - 1))];
    for (let length = 3 + Math.floor(next() * 12); ids.length < length; ) ids.push(1 + ((ids[ids.length - 1] * 7 + 2) % (vocabSize - 1)));
    return ids;
  });
}

const pack = (docs: number[][], length: number, options: Partial<PackingOptions> = {}) =>
  packDocuments(tokensOf(docs), { length, separator, ...options });

interface Setup {
  docs?: number[][];
  length?: number;
  packing?: Partial<PackingOptions>;
  model?: Partial<DecoderOptions>;
  validation?: number[][];
  hooks?: LanguageModelHooks;
  totalSteps?: number;
}

function newTrainer(options: LanguageModelOptions = {}, setup: Setup = {}) {
  const { docs = documents(60), length = 12, packing, model, validation, hooks, totalSteps = 100 } = setup;
  const data = { train: pack(docs, length, packing), ...(validation ? { validation: pack(validation, length, packing) } : {}) };
  return new LanguageModelTrainer(backend, newDecoder(model), data, { schedule: { kind: "constant" }, totalSteps, ...options }, hooks);
}

const weightsOf = ({ decoder }: LanguageModelTrainer): Float32Array => (decoder.parameters.buffer.data as Float32Array).slice();

async function take(trainer: LanguageModelTrainer, count: number, from = 0): Promise<number[]> {
  const losses: number[] = [];
  for (let i = 0; i < count; i++) losses.push((await trainer.step(from + i)).metrics.loss);
  return losses;
}

describe("learning", () => {
  test.each<[string, LanguageModelOptions, Setup]>([
    ["AdamW", { learningRate: 0.01 }, {}],
    ["Muon", { learningRate: 0.02, optimizer: { kind: "muon" } }, {}],
    ["documents apart, best fit", { learningRate: 0.01, isolateDocuments: true }, { packing: { mode: "bestFit" } }],
    [
      "as GPT-2, micro-batches",
      { learningRate: 0.01, accumulate: 2, batchSize: 4 },
      { model: { norm: "layer", position: "learned", mlp: "plain" } },
    ],
  ])("%s overfits a small text", async (_, options, setup) => {
    const trainer = newTrainer(options, { docs: documents(4), ...setup });
    const losses = await take(trainer, 120);
    // At first it knows nothing: ln V. What cannot be known is the first token of each document: about 0.3 nats a token here.
    expect(losses[0]).toBeGreaterThan(Math.log(vocabSize) - 0.4);
    expect(losses[0]).toBeLessThan(Math.log(vocabSize) + 0.4);
    expect(Math.min(...losses.slice(-10))).toBeLessThan(0.45);
    trainer.dispose();
  });

  test("reports rate, norm, epoch, tokens and the share of the peak", async () => {
    const trainer = newTrainer(
      { batchSize: 4, learningRate: 0.01, schedule: { kind: "linear" } },
      { totalSteps: 10, hooks: { peakFlops: 1e11 } },
    );
    const { metrics, tokens } = await trainer.step(5);
    expect(metrics.learningRate).toBeCloseTo(0.005, 12);
    expect(metrics.gradientNorm).toBeGreaterThan(0);
    expect(tokens).toBe(4 * 12);
    expect(metrics.mfu).toBeGreaterThan(0);
    expect(metrics.mfu).toBeLessThan(1);
    const rows = pack(documents(60), 12).numRows;
    expect(metrics.epoch).toBeCloseTo(4 / rows, 12);
    trainer.dispose();
  });

  test("Muon leaves embeddings to AdamW", async () => {
    const trainer = newTrainer({ optimizer: { kind: "muon" }, learningRate: 0.01 }, { model: { tieEmbeddings: false } });
    const before = trainer.decoder.parameters.leaves.get("embedding.tokens")?.data.slice() as Float32Array;
    await trainer.step(0);
    const after = trainer.decoder.parameters.leaves.get("embedding.tokens")?.data as Float32Array;
    // AdamW's first step moves every element that has a gradient by the rate; an orthogonalised one moves them by different amounts.
    const moves = after.map((value, i) => Math.abs(value - before[i])).filter((move) => move > 1e-3);
    expect(moves.length).toBeGreaterThan(50);
    for (const move of moves) expect(move).toBeCloseTo(0.01, 3);
    trainer.dispose();
  });

  test("options that do not exist or contradict are named", () => {
    expect(() => newTrainer({ batchsize: 3 } as never)).toThrow(UsageError);
    expect(() => newTrainer({ schedule: { kind: "cosine" } }, { totalSteps: 0 })).toThrow(/number of steps/);
  });
});

describe("what counts", () => {
  /** Mean over the labels of all rows by the plain implementation. */
  const referenceLoss = (trainer: LanguageModelTrainer, docs: number[][]): number => {
    let [total, count] = [0, 0];
    for (const doc of docs) {
      const ids = [...doc, separator];
      const logits = referenceLogits(trainer.decoder.config, trainer.decoder.parameters.leaves, ids.slice(0, -1));
      for (const [t, row] of logits.entries()) total += negativeLogLikelihood(row, ids[t + 1]);
      count += logits.length;
    }
    return total / count;
  };

  test.each(["bestFit", "concatenate"] as const)("%s: documents apart have the loss that each has alone, padding none", async (mode) => {
    const docs = documents(5);
    const numRows = pack(docs, 16, { mode, crossDocumentTargets: false }).numRows;
    const trainer = newTrainer(
      { isolateDocuments: true, batchSize: numRows },
      { docs, length: 16, packing: { mode, crossDocumentTargets: false }, validation: docs },
    );
    if (mode === "bestFit") expect((await trainer.evaluate()).loss).toBeCloseTo(referenceLoss(trainer, docs), 5);
    const expected = referenceLoss(trainer, docs);
    const { metrics, tokens } = await trainer.step(0);
    if (mode === "bestFit") {
      expect(metrics.loss).toBeCloseTo(expected, 5);
      expect(tokens).toBe(docs.reduce((sum, doc) => sum + doc.length, 0));
    } else {
      // The stream is cut every 16 tokens, and shifted: pairs across documents are what must not count.
      expect(tokens).toBeLessThan(docs.reduce((sum, doc) => sum + doc.length, 0) + 1);
    }
    trainer.dispose();
  });

  test("k micro-batches are one batch k times as large, also where they hold different amounts of padding", async () => {
    const docs = documents(37);
    const setup: Setup = { docs, packing: { mode: "bestFit" } };
    const numRows = pack(docs, 12, { mode: "bestFit" }).numRows;
    expect(numRows).toBeGreaterThan(8);
    const large = newTrainer({ batchSize: 8, maxGradientNorm: 0.1 }, setup);
    const small = newTrainer({ batchSize: 2, accumulate: 4, maxGradientNorm: 0.1 }, setup);
    for (let step = 0; step < 5; step++) {
      const [a, b] = [await large.step(step), await small.step(step)];
      expect(b.tokens).toBe(a.tokens);
      expect(b.metrics.loss).toBeCloseTo(a.metrics.loss, 4);
      expect(b.metrics.gradientNorm / a.metrics.gradientNorm).toBeCloseTo(1, 3);
    }
    large.dispose();
    small.dispose();
  });

  test("evaluation: loss, perplexity, bits per byte and tokens by hand; it changes nothing", async () => {
    const docs = documents(9, 4);
    const decoder = newDecoder();
    const rows = pack(docs, 12);
    const evaluator = new Evaluator(backend, decoder, { batchSize: 4, length: 12 });
    const bytesOfToken = Array.from({ length: vocabSize }, (_, id) => (id === separator ? 0 : 3));
    const metrics = await evaluator.run(rows, { bytesOfToken });
    const stream = docs.flatMap((doc) => [...doc, separator]);
    let total = 0;
    for (let start = 0; start < stream.length - 1; start += 12) {
      const ids = stream.slice(start, start + 13);
      const logits = referenceLogits(decoder.config, decoder.parameters.leaves, ids.slice(0, -1));
      for (const [t, row] of logits.entries()) total += negativeLogLikelihood(row, ids[t + 1]);
    }
    const bytes = stream.slice(1).filter((id) => id !== separator).length * 3;
    expect(metrics.tokens).toBe(stream.length - 1);
    expect(metrics.loss).toBeCloseTo(total / metrics.tokens, 5);
    expect(metrics.perplexity).toBeCloseTo(Math.exp(metrics.loss), 9);
    expect(metrics.bitsPerByte).toBeCloseTo(total / Math.LN2 / bytes, 5);
    expect((await evaluator.run(rows, { maxBatches: 1 })).tokens).toBe(48);
    evaluator.dispose();

    const [watched, plain] = [newTrainer({}, { validation: docs }), newTrainer()];
    const losses: number[] = [];
    for (let step = 0; step < 4; step++) {
      losses.push((await watched.step(step)).metrics.loss);
      await watched.evaluate();
    }
    expect(await take(plain, 4)).toEqual(losses);
    watched.dispose();
    plain.dispose();
  });
});

describe("averaged weights", () => {
  test("are evaluated beside the trained ones and saved as a model", async () => {
    const trainer = newTrainer({ ema: 0.5, learningRate: 0.02 }, { validation: documents(6, 2) });
    const before = await trainer.evaluate();
    expect(before.emaLoss).toBe(before.loss);
    await trainer.step(0);
    const first = weightsOf(trainer);
    await trainer.step(1);
    const second = weightsOf(trainer);
    const metrics = await trainer.evaluate();
    expect(metrics.emaLoss).not.toBe(metrics.loss);
    expect(weightsOf(trainer)).toEqual(second);
    const folder = mkdtempSync(join(root, "ema-"));
    trainer.save(folder);
    const averaged = loadDecoder(join(folder, "ema"));
    const data = averaged.parameters.buffer.data as Float32Array;
    for (let i = 0; i < data.length; i += 7) expect(data[i]).toBeCloseTo((first[i] + second[i]) / 2, 6);
    const evaluator = new Evaluator(backend, averaged, { batchSize: 8, length: 12 });
    expect((await evaluator.run(pack(documents(6, 2), 12))).loss).toBeCloseTo(metrics.emaLoss, 6);
    evaluator.dispose();
    trainer.dispose();
  });
});

describe("checkpoints", () => {
  test.each<[string, LanguageModelOptions]>([
    ["AdamW with an average", { ema: 0.9 }],
    ["Muon, micro-batches", { optimizer: { kind: "muon" }, accumulate: 2 }],
    ["SGD with momentum", { optimizer: { kind: "sgd", momentum: 0.9 } }],
    ["Lion", { optimizer: { kind: "lion" }, learningRate: 1e-4 }],
  ])("%s: going on from one equals not having stopped, bit for bit", async (_, options) => {
    const validation = documents(6, 2);
    const undisturbed = newTrainer(options, { validation });
    const losses = await take(undisturbed, 9);
    const before = newTrainer(options, { validation });
    await take(before, 5);
    const folder = mkdtempSync(join(root, "resume-"));
    before.save(folder);
    const state = JSON.parse(JSON.stringify(before.state()));
    before.dispose();
    const after = newTrainer(options, { validation });
    await after.step(0);
    after.restore(folder, state);
    expect(await take(after, 4, 5)).toEqual(losses.slice(5));
    expect(weightsOf(after)).toEqual(weightsOf(undisturbed));
    expect(await after.evaluate()).toEqual(await undisturbed.evaluate());
    undisturbed.dispose();
    after.dispose();
  });

  test("of another model, optimiser or place in the data are refused", async () => {
    const trainer = newTrainer();
    await trainer.step(0);
    const folder = mkdtempSync(join(root, "other-"));
    trainer.save(folder);
    const state = trainer.state();
    trainer.dispose();
    const wider = newTrainer({}, { model: { width: 32 } });
    expect(() => wider.restore(folder, state)).toThrow(CheckpointError);
    wider.dispose();
    const muon = newTrainer({ optimizer: { kind: "muon" } });
    const before = weightsOf(muon);
    expect(() => muon.restore(folder, state)).toThrow(/expected/);
    expect(weightsOf(muon)).toEqual(before);
    muon.dispose();
    const same = newTrainer();
    expect(() => same.restore(folder, {})).toThrow(/position in the data/);
    expect(() => same.restore(folder, { data: { epoch: 0, index: 1e6 } })).toThrow(CheckpointError);
    same.dispose();
  });
});

describe("a step that is not finite", () => {
  const breakWeights = (trainer: LanguageModelTrainer, value: number): void => {
    (trainer.decoder.parameters.leaves.get("layers.1.mlp.down.weight")?.data as Float32Array)[3] = value;
  };

  test.each([1, 3])("is skipped, leaves everything as it was and is recorded (%i micro-batches)", async (accumulate) => {
    const trainer = newTrainer({ accumulate, ema: 0.5, batchSize: 4 });
    await trainer.step(0);
    breakWeights(trainer, Number.NaN);
    const [folder, before] = [mkdtempSync(join(root, "nan-")), weightsOf(trainer)];
    const { data } = trainer.state();
    const result = await trainer.step(1);
    expect(result.skipped).toBe(true);
    expect(result.metrics.loss).toBeNaN();
    expect(weightsOf(trainer)).toEqual(before);
    trainer.dump(folder);
    const record = JSON.parse(readFileSync(join(folder, "step.json"), "utf8"));
    expect(record).toMatchObject({ step: 1, microBatch: 0, dataPosition: data, length: 12 });
    expect(record.batch.inputs).toHaveLength(48);
    expect(record.gradientNorms["layers.1.mlp.down.weight"]).toBe("NaN");
    // The record is enough to see it again: the weights and the batch.
    const decoder = loadDecoder(folder);
    const logits = referenceLogits(decoder.config, decoder.parameters.leaves, record.batch.inputs.slice(0, 12));
    expect(negativeLogLikelihood(logits[11], record.batch.targets[11])).toBeNaN();
    // With the weights mended the run goes on with the next rows, and the optimiser has not seen the bad ones.
    breakWeights(trainer, 0);
    expect((await trainer.step(2)).skipped).toBeUndefined();
    trainer.dispose();
  });

  test("by its gradient alone is skipped as well", async () => {
    // Embeddings of 0 have no direction: with hardly an epsilon the norm's derivative there is beyond float32, its value is not.
    const trainer = newTrainer({ batchSize: 4 }, { model: { normEpsilon: 2e-38, tieEmbeddings: false } });
    for (const [path, { shape, data }] of trainer.decoder.parameters.leaves)
      if (shape.length === 2) for (let i = 0; i < data.length; i++) (data as Float32Array)[i] *= path === "head.weight" ? 1e5 : 0;
    const result = await trainer.step(0);
    expect(result.skipped).toBe(true);
    expect(result.metrics.loss).toBeCloseTo(Math.log(vocabSize), 5);
    const folder = mkdtempSync(join(root, "gradient-"));
    trainer.dump(folder);
    expect(existsSync(join(folder, "model.safetensors"))).toBe(true);
    trainer.dispose();
  });
});
