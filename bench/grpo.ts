// One step of GRPO: 8 prompts x 8 completions of exactly 64 tokens, a reward, advantages, one update with AdamW; beta 0, float32.
// The peer is TRL's GRPOTrainer on the same weights, prompts and lengths; what is compared besides the time is the entropy that each
// finds in its own samples, which is that of the model.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { allocateDecoder, loadDecoder, saveDecoder } from "../src/models/decoder/checkpoint.ts";
import { decoderConfig } from "../src/models/decoder/config.ts";
import { initializeParameters } from "../src/nn/parameter.ts";
import { GroupPolicyTrainer, type PolicyDecoder } from "../src/rl/index.ts";
import type { Backend } from "../src/runtime/backend.ts";
import { openBackend } from "../src/runtime/open.ts";
import { type Benchmark, type Case, type Context, median } from "./harness/benchmark.ts";

const numPrompts = 8;
const numGenerations = 8;
const completionLength = 64;
const promptLength = 8;
const learningRate = 1e-6;
const stepsPerSample = 2;

export const grpo: Benchmark = {
  name: "grpo",
  summary: `one GRPO step, ${numPrompts} prompts x ${numGenerations} completions of ${completionLength} tokens: stories260K and a Llama of 8.7 M parameters`,
  peer: "trl, transformers, datasets and torch",
  seconds: 240,
  prepare,
};

function models(): { name: string; decoder: PolicyDecoder }[] {
  const stories = fileURLToPath(new URL("../assets/stories260k/stories260K.bin", import.meta.url));
  const config = decoderConfig({
    vocabSize: 4096,
    width: 320,
    layers: 6,
    heads: 5,
    mlpWidth: 864,
    contextLength: 256,
    tieEmbeddings: true,
  });
  const larger = allocateDecoder(config);
  initializeParameters(larger.specs as never, larger.parameters, 0);
  return [
    { name: "260 K", decoder: loadDecoder(stories) },
    { name: "8.7 M", decoder: larger },
  ];
}

const promptIds = (vocabSize: number): number[][] =>
  Array.from({ length: numPrompts }, (_, p) => [
    1,
    ...Array.from({ length: promptLength - 1 }, (_, i) => 3 + ((p * 31 + i * 7) % (vocabSize - 3))),
  ]);

/** Something that differs within a group: the share of even ids. */
const evenShare = (ids: readonly number[]): number => ids.filter((id) => id % 2 === 0).length / ids.length;

function openTrainer(backend: Backend, decoder: PolicyDecoder): GroupPolicyTrainer {
  const prompts = promptIds(decoder.config.vocabSize).map((ids) => ({ text: ids.join(" "), ids: Int32Array.from(ids), columns: {} }));
  return new GroupPolicyTrainer(
    backend,
    decoder,
    { prompts, rewards: [({ completionIds }) => evenShare(completionIds)], endTokenIds: [], textOf: (_, ids) => Array.from(ids).join(" ") },
    { totalSteps: 1e6, promptsPerStep: numPrompts, numGenerations, maxCompletionLength: completionLength, learningRate, beta: 0 },
  );
}

async function prepare({ threads, peers, cacheFolder, defer }: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads });
  defer(() => backend.dispose());
  const cases: Case[] = [];
  for (const { name, decoder } of models()) {
    const folder = join(cacheFolder, `grpo-${decoder.config.width}`);
    mkdirSync(folder, { recursive: true });
    saveDecoder(folder, decoder);
    const trainer = openTrainer(backend, decoder);
    defer(() => trainer.dispose());
    let index = 0;
    let last: Readonly<Record<string, number>> = {};
    const sample = async (): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < stepsPerSample; i++) {
        const start = performance.now();
        last = (await trainer.step(index++)).metrics;
        times.push(performance.now() - start);
      }
      return median(times);
    };
    const entry: Case = { name, unit: "ms", contenders: [{ name: "longwave", side: "ours", sample }] };
    let theirs: { entropy: number; generate: number } | undefined;
    if (peers) {
      const peer = peers("grpo.py");
      const version = await peer.call<string>("load", {
        folder,
        prompts: promptIds(decoder.config.vocabSize),
        numGenerations,
        completionLength,
        learningRate,
        vocabSize: decoder.config.vocabSize,
      });
      entry.contenders.push({
        name: "TRL",
        side: "peer",
        note: `${version}; GRPOTrainer with generation by transformers`,
        sample: async () => {
          const told = await peer.call<{ ms: number; entropy: number; generate: number }>("step", { steps: stepsPerSample });
          theirs = told;
          return told.ms;
        },
      });
    }
    entry.facts = () => [
      `ours: rollouts ${(last["seconds/rollouts"] * 1000).toFixed(0)} ms, rewards ${(last["seconds/rewards"] * 1000).toFixed(0)} ms, update ${(last["seconds/updates"] * 1000).toFixed(0)} ms`,
      `mean length ${last["completions/mean_length"]}, entropy of the samples ${last.entropy.toFixed(3)}${theirs ? `, TRL's ${theirs.entropy.toFixed(3)}; TRL's generate ${theirs.generate.toFixed(0)} ms` : ""}`,
    ];
    cases.push(entry);
  }
  return cases;
}
