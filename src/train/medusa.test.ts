// Medusa-1 on a tiny target: the loss and its gradient against arithmetic over the target's own hidden rows, the frozen target, learning,
// calibration against a count of one's own, and a resume that goes on bit for bit.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type PackedRows, packDocuments, tokensOf } from "../data/index.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { TreeShape } from "../decode/token-tree.ts";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { createMedusa, type MedusaHead, type MedusaHeads } from "../models/heads/medusa.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { Random } from "../runtime/rng.ts";
import { MedusaTrainer, type MedusaTrainingOptions } from "./medusa.ts";

let backend: Backend;
let folder: string;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-medusa-training-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

const [vocabSize, width, length, numHeads] = [12, 16, 10, 2];
const target = allocateDecoder(decoderConfig({ vocabSize, width, layers: 1, heads: 2, headWidth: 8, contextLength: 16, initStd: 0.3 }));
initializeParameters(target.specs as never, target.parameters, 1);

/** Texts in which the next token follows from the last: x → 5 x + 1 (mod 11), now and then a jump. */
function texts(count: number, seed: number): number[][] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const ids = [random.integer(11)];
    while (ids.length < 24) ids.push(random.uniform() < 0.05 ? 11 : (5 * (ids.at(-1) as number) + 1) % 11);
    return ids;
  });
}
const pack = (documents: number[][]): PackedRows =>
  packDocuments(tokensOf(documents), { length, separator: null, crossDocumentTargets: false });
const [trainTexts, heldOutTexts] = [texts(20, 3), texts(6, 4)];
const data = { train: pack(trainTexts), heldOut: pack(heldOutTexts) };

function trainer(
  options: Partial<MedusaTrainingOptions> = {},
  heads: MedusaHeads = createMedusa(target, { heads: numHeads }),
): MedusaTrainer {
  return new MedusaTrainer(backend, target, heads, data, {
    batchSize: 4,
    learningRate: 0.02,
    guesses: 3,
    totalSteps: 60,
    seed: 9,
    schedule: { kind: "constant" },
    ...options,
  });
}

/** Logits of the heads after every token of a row, in loops over the target's hidden rows. */
function headLogits(ids: readonly number[], { parameters }: MedusaHeads): number[][][] {
  using runner = new DecoderRunner(backend, target, { weights: "shared" });
  runner.provide({ hidden: true });
  const hidden = runner.appendTree(0, TreeShape.chain(ids.length - 1), ids).hidden as Float32Array;
  const product = (w: Float32Array, x: readonly number[]): number[] =>
    Array.from({ length: w.length / x.length }, (_, o) => x.reduce((sum, value, i) => sum + value * w[o * x.length + i], 0));
  return (parameters.tree.heads as MedusaHead<TensorBuffer<"f32">>[]).map(({ blocks: [block], unembedding }) =>
    ids.map((_, t) => {
      const x = Array.from(hidden.subarray(t * width, (t + 1) * width));
      const y = product(block.weight.data, x).map((value, i) => value + block.bias.data[i]);
      return product(
        (unembedding as { weight: TensorBuffer<"f32"> }).weight.data,
        x.map((value, i) => value + y[i] / (1 + Math.exp(-y[i]))),
      );
    }),
  );
}

/** Rows of the held-out texts as packing cuts them, with the document of every token. */
function heldOutRows(): { ids: number[]; documents: number[] }[] {
  const stream = heldOutTexts.flatMap((ids, document) => ids.map((id) => ({ id, document })));
  return Array.from({ length: data.heldOut.numRows }, (_, row) => {
    const part = stream.slice(row * length, row * length + length + 1);
    return { ids: part.map(({ id }) => id), documents: part.map(({ document }) => document) };
  });
}

test("losses and calibration are those of a count by hand", async () => {
  using run = trainer({ batchSize: 1 });
  for (let step = 0; step < 5; step++) await run.step(step);
  const { losses, accuracies, ranks, numPositions } = await run.calibrate();
  const sums = Array.from({ length: numHeads }, () => ({ rows: 0, loss: 0 }));
  const expectedRanks: number[] = [];
  const right = Array.from({ length: numHeads }, () => [0, 0, 0]);
  for (const { ids, documents } of heldOutRows()) {
    const inputs = ids.slice(0, -1);
    const logits = headLogits(inputs, run.heads);
    const inRow = Array.from({ length: numHeads }, () => ({ loss: 0, count: 0 }));
    for (let t = 0; t < inputs.length; t++) {
      for (let k = 0; k < numHeads; k++) {
        const label = ids[t + k + 2];
        if (label === undefined || documents[t + k + 2] !== documents[t]) continue;
        const row = logits[k][t];
        const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
        inRow[k].loss += total - row[label];
        inRow[k].count++;
      }
      // Only places whose next K + 1 tokens belong to the same text; the last row is shorter.
      if (t + numHeads >= length || documents[t + numHeads + 1] !== documents[t]) continue;
      for (let k = 0; k < numHeads; k++) {
        const order = logits[k][t].map((x, id) => ({ x, id })).sort((a, b) => b.x - a.x);
        const rank = order.slice(0, 3).findIndex(({ id }) => id === ids[t + k + 2]);
        expectedRanks.push(rank);
        if (rank >= 0) right[k][rank]++;
      }
    }
    for (let k = 0; k < numHeads; k++) {
      sums[k].loss += inRow[k].count === 0 ? 0 : inRow[k].loss / inRow[k].count;
      sums[k].rows++;
    }
  }
  expect(numPositions).toBe(expectedRanks.length / numHeads);
  expect(Array.from(ranks)).toEqual(expectedRanks);
  for (let k = 0; k < numHeads; k++) {
    expect(losses[k]).toBeCloseTo(sums[k].loss / sums[k].rows, 4);
    for (const [j, count] of right[k].entries()) expect(accuracies[k][j]).toBeCloseTo(count / numPositions, 10);
  }
});

test("heads learn what follows, the target stays as it is", async () => {
  const before = (target.parameters.buffer.data as Float32Array).slice();
  using run = trainer();
  const first = await run.evaluate();
  for (let step = 0; step < 60; step++) {
    const { metrics } = await run.step(step);
    if (step > 0) continue;
    // λ^k, from 0.
    expect(metrics.loss).toBeCloseTo(metrics.loss1 + 0.8 * metrics.loss2, 4);
  }
  const last = await run.evaluate();
  expect(last.loss).toBeLessThan(0.6 * first.loss);
  // Jumps (5 of 100) and the token after them cannot be known.
  expect(last.accuracy1).toBeGreaterThan(0.75);
  expect(last.accuracy2).toBeGreaterThan(0.7);
  expect(target.parameters.buffer.data).toEqual(before);
});

test("a step moves the heads along the gradient of the loss", async () => {
  // Plain gradient descent: the update tells the gradient, and a small step lowers the loss by its square.
  const heads = createMedusa(target, { heads: numHeads });
  const rate = 1e-3;
  using run = trainer({ optimizer: { kind: "sgd" }, learningRate: rate, maxGradientNorm: 0, batchSize: data.train.numRows }, heads);
  const { metrics } = await run.step(0);
  const { metrics: after } = await run.step(1);
  expect((metrics.loss - after.loss) / (rate * metrics.gradientNorm ** 2)).toBeCloseTo(1, 1);
});

test("a resumed run goes on bit for bit", async () => {
  using whole = trainer();
  for (let step = 0; step < 12; step++) await whole.step(step);
  using first = trainer();
  for (let step = 0; step < 7; step++) await first.step(step);
  first.save(folder);
  using second = trainer();
  second.restore(folder, first.state());
  for (let step = 7; step < 12; step++) await second.step(step);
  expect(second.heads.parameters.buffer.data).toEqual(whole.heads.parameters.buffer.data);
});

describe("what does not fit is refused", () => {
  test("heads, lengths and checkpoints of something else", () => {
    const other = allocateDecoder(decoderConfig({ vocabSize, width: 32, layers: 1, heads: 2 }));
    expect(() => trainer({}, createMedusa(other))).toThrow("width 16");
    expect(() => trainer({}, createMedusa(target, { heads: 9 }))).toThrow("at least 11 tokens");
    using run = trainer();
    run.save(folder);
    using more = trainer({}, createMedusa(target, { heads: 3 }));
    expect(() => more.restore(folder, run.state())).toThrow("another shape");
    expect(() => run.restore(folder, { data: { epoch: -1 } })).toThrow("position in the data");
  });
});
