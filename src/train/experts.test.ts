// A small mixture of experts learns, and the load-balancing loss spreads its tokens.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packDocuments, tokensOf } from "../data/index.ts";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { type DecoderTensors, languageModelLoss } from "../models/decoder/decoder.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { compile, spec } from "../runtime/program.ts";
import { uniforms } from "../tensor/testing/reference.ts";
import { mapTree } from "../tensor/tree.ts";
import { type LanguageModelOptions, LanguageModelTrainer } from "./language-model.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const vocabSize = 16;

/** Documents in which every token but the first follows from the one before. */
function documents(count: number): number[][] {
  const next = uniforms(1);
  return Array.from({ length: count }, () => {
    const ids = [1 + Math.floor(next() * (vocabSize - 1))];
    while (ids.length < 12) ids.push(1 + ((ids[ids.length - 1] * 7 + 2) % (vocabSize - 1)));
    return ids;
  });
}

async function train(
  balance: number,
  optimizer: LanguageModelOptions["optimizer"] = undefined,
): Promise<{ losses: number[]; balance: number }> {
  const config = decoderConfig({
    vocabSize,
    width: 16,
    layers: 2,
    heads: 2,
    contextLength: 16,
    initStd: 0.2,
    experts: { count: 4, chosen: 1, width: 16, denseLayers: [0], normalise: false, balanceLoss: balance },
  });
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs, decoder.parameters, 3);
  const rows = packDocuments(tokensOf(documents(60)), { length: 12, separator: 0 });
  const options = { schedule: { kind: "constant" }, totalSteps: 80, learningRate: 0.01, ...(optimizer ? { optimizer } : {}) } as const;
  const trainer = new LanguageModelTrainer(backend, decoder, { train: rows }, options);
  const losses: number[] = [];
  for (let step = 0; step < 80; step++) losses.push((await trainer.step(step)).metrics.loss);
  trainer.dispose();
  const ids = documents(8).flat();
  const program = compile(
    backend,
    ({ parameters, ids: tokens }) =>
      languageModelLoss(config, parameters as unknown as DecoderTensors, { ids: tokens, labels: tokens }).balance,
    { parameters: mapTree(decoder.specs, ({ shape }) => spec("f32", shape)), ids: spec("i32", [8, 12]) },
    { threads: 1 },
  );
  const output = program.run({ parameters: decoder.parameters.tree, ids: bufferFrom("i32", [8, 12], ids) } as never);
  program.dispose();
  return { losses, balance: Number((output as unknown as TensorBuffer<"f32">).data[0]) };
}

describe("experts", () => {
  test("learn with Muon, which leaves them to AdamW", async () => {
    const { losses } = await train(0.01, { kind: "muon" });
    expect(losses.at(-1)).toBeLessThan(0.6 * losses[0]);
  });

  test("learn, and share the tokens when they are told to", async () => {
    const [free, balanced] = [await train(0), await train(0.1)];
    for (const { losses } of [free, balanced]) {
      expect(losses[0]).toBeGreaterThan(2);
      expect(losses.at(-1)).toBeLessThan(0.6 * losses[0]);
    }
    expect(balanced.balance).toBeLessThan(free.balance);
    expect(balanced.balance).toBeLessThan(1.2);
  });
});
