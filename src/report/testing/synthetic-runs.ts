// Runs for the report's tests, made of events as the recipes emit them, with values that have a plausible course. Deterministic.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JsonRecord, RunEvent } from "../../engine/index.ts";
import { createJsonlSink } from "../../engine/index.ts";

const start = Date.UTC(2026, 0, 31, 12, 0, 0);

/** A small generator (Park & Miller 1988): the same numbers everywhere. */
export function uniform(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

export function writeRun(folder: string, config: JsonRecord, events: readonly RunEvent[]): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
  const sink = createJsonlSink(join(folder, "metrics.jsonl"));
  for (const event of events) sink.write(event);
  sink.close();
}

/** `train/`, `align/` and `accelerate/` in one folder. */
export function writeTour(folder: string): void {
  writeRun(join(folder, "train"), trainConfig, trainEvents());
  writeRun(join(folder, "align"), alignConfig, alignEvents());
  writeRun(join(folder, "accelerate"), accelerateConfig, accelerateEvents());
}

const machine: RunEvent = {
  kind: "artifact",
  step: 0,
  total: 0,
  time: start,
  name: "machine",
  data: {
    cpu: "Intel Xeon Platinum 8481C",
    threads: 2,
    memoryBytes: 8 * 2 ** 30,
    node: "22.14.0",
    onnxruntime: "1.30.0",
    platform: "linux-x64",
  },
};

export const trainConfig = {
  data: [],
  size: "nano",
  vocabSize: 2048,
  batchSize: 16,
  sequenceLength: 128,
  learningRate: 0.003,
  schedule: { kind: "cosine-warmup-with-min-lr", warmupSteps: 25, minRatio: 0.1 },
  optimizer: { kind: "adamw", weightDecay: 0.1, beta1: 0.9, beta2: 0.95 },
  seed: 0,
  steps: 300,
  samplePrompt: "The people of the United States",
};

export function trainEvents(total = 300): RunEvent[] {
  const random = uniform(7);
  const at = (step: number) => ({ step, total, time: start + 5000 + step * 240 });
  const events: RunEvent[] = [
    machine,
    {
      kind: "stage",
      ...at(0),
      total: 0,
      name: "model",
      message: "model: 2.16 M parameters, 15.0 MFLOP a token",
      progress: 1,
      metrics: { parameters: 2_163_456, trainingFlopsPerToken: 15e6 },
    },
    { kind: "run-start", ...at(0), config: trainConfig },
    { kind: "sample", ...at(0), sample: "The people of the United States shall ources assist charact 6 6 establform which which which" },
  ];
  const loss = (step: number): number => 3.1 + 4.5 * Math.exp(-step / 55);
  for (let step = 1; step <= total; step++) {
    const learningRate = step < 25 ? (0.003 * step) / 25 : 0.0003 + 0.00135 * (1 + Math.cos((Math.PI * (step - 25)) / (total - 25)));
    const gradientNorm = (step === 140 ? 9 : 0.6) + 1.8 * Math.exp(-step / 20) + random() * 0.2;
    events.push({
      kind: "step",
      ...at(step),
      metrics: { loss: loss(step) + (random() - 0.5) * 0.35, learningRate, gradientNorm, mfu: 0.4 + random() * 0.08, epoch: step / 1350 },
      seconds: 0.22 + random() * 0.04,
      tokens: 2048,
      elapsedSeconds: step * 0.24,
      totalTokens: step * 2048,
      remainingSeconds: (total - step) * 0.24,
    });
    if (step % 50 === 0) {
      const value = loss(step) + 0.06;
      const metrics = { loss: value, perplexity: Math.exp(value), bitsPerByte: value * 0.39, tokens: 171_519 };
      events.push({ kind: "evaluation", ...at(step), metrics, seconds: 1.2, best: true });
    }
    if (step === 150)
      events.push({
        kind: "sample",
        ...at(step),
        sample: "The people of the United States have been of the present and the great of our country, and the law of the Government.",
      });
    if (step === 200)
      events.push({
        kind: "checkpoint",
        ...at(step),
        path: "runs/tour/train/checkpoints/step-00000200",
        reason: "interval",
        bytes: 26_105_733,
        seconds: 0.2,
      });
  }
  events.push(
    {
      kind: "warning",
      ...at(total),
      code: "other",
      message: "validation: too few documents to choose among",
      hint: "splitBy sets what a document is.",
    },
    {
      kind: "sample",
      ...at(total),
      sample:
        "The people of the United States are entitled to the full enjoyment of their rights, and the Congress will, I trust, give to this subject the attention which its importance demands.\n\nThe receipts of the Treasury during the last fiscal year",
    },
    { kind: "run-end", ...at(total), reason: "finished", elapsedSeconds: total * 0.24, totalTokens: total * 2048 },
  );
  return events;
}

export const alignConfig = {
  model: "stories260K",
  prompts: 32,
  groupSize: 8,
  learningRate: 1e-4,
  loss: { aggregation: "token-mean", clipRange: 0.2, klCoefficient: 0.02 },
  rewards: { animal: 1, ending: 0.5 },
  seed: 0,
  steps: 60,
};

const prompts = ["Once upon a time, there was a", "One day, Lily went to the park and", "Tom and Sam were", "The little girl had a"];
const starts = [" little dog named Max.", " big red ball.", " very happy cat.", " box full of toys.", " bird in the tree."];
const ends = [
  " He liked to run and play all day.",
  " She wanted to play with it, but",
  ' Her mom said, "Be careful <b>now</b> & always!"',
  " They became best friends.",
];

/** Completions whose text comes from users' models may hold anything, markup included. */
export function alignEvents(total = 60): RunEvent[] {
  const random = uniform(11);
  const time = (step: number): number => start + 120_000 + step * 1300;
  const at = (step: number) => ({ step, total, time: time(step) });
  const events: RunEvent[] = [{ ...machine, time: time(0) } as RunEvent, { kind: "run-start", ...at(0), config: alignConfig }];
  for (let step = 1; step <= total; step++) {
    const progress = 1 / (1 + Math.exp(-(step - 24) / 7));
    const animal = 0.22 + 0.7 * progress + (random() - 0.5) * 0.08;
    const ending = 0.35 + 0.55 * progress + (random() - 0.5) * 0.1;
    const rows = Array.from({ length: 16 }, (_, i) => {
      const [hit, closed] = [random() < animal ? 1 : 0, random() < ending ? 1 : 0];
      const completion = starts[Math.floor(random() * starts.length)] + ends[Math.floor(random() * ends.length)];
      return {
        prompt: prompts[i >> 2],
        completion: i % 5 === 0 ? `${completion} ${completion} ${completion}` : completion,
        rewards: { animal: hit, ending: i === 3 ? null : closed },
        reward: hit + 0.5 * closed,
        advantage: hit + 0.5 * closed - (animal + 0.5 * ending),
      };
    });
    events.push({
      kind: "step",
      ...at(step),
      metrics: {
        loss: (random() - 0.5) * 0.01,
        reward: animal + 0.5 * ending,
        reward_std: 0.55 - 0.35 * progress,
        "rewards/animal/mean": animal,
        "rewards/animal/std": 0.42 - 0.25 * progress,
        "rewards/ending/mean": ending,
        "rewards/ending/std": 0.48 - 0.2 * progress,
        frac_reward_zero_std: 0.05 + 0.5 * progress,
        kl: 0.0004 + 0.21 * progress + random() * 0.01,
        entropy: 1.62 - 0.55 * progress + random() * 0.05,
        "completions/mean_length": 44 - 12 * progress + random() * 3,
        "completions/min_length": 14 + random() * 4,
        "completions/max_length": 64,
        "completions/clipped_ratio": 0.42 - 0.38 * progress,
        "clip_ratio/region_mean": 0.01 + 0.02 * random(),
        "clip_ratio/low_mean": 0.004 + 0.01 * random(),
        "clip_ratio/high_mean": 0.006 + 0.01 * random(),
        learningRate: 1e-4 * (1 - step / total),
        gradientNorm: 0.3 + random() * 0.2,
      },
      seconds: 1.2 + random() * 0.1,
      tokens: 64 * 40,
      elapsedSeconds: step * 1.3,
      totalTokens: step * 64 * 40,
      remainingSeconds: (total - step) * 1.3,
    });
    if (step === 1 || step % 10 === 0) events.push({ kind: "sample", ...at(step), sample: rows });
    if (step % 20 === 0)
      events.push({ kind: "evaluation", ...at(step), metrics: { reward: animal + 0.5 * ending - 0.03 }, seconds: 2, best: true });
  }
  events.push(
    {
      kind: "artifact",
      ...at(total),
      name: "texts",
      data: {
        pairs: prompts.slice(0, 2).map((prompt, i) => ({
          prompt,
          before: `${starts[i + 1]}${ends[1]}`,
          after: `${starts[i * 2]}${ends[0]}${ends[3]}`,
        })),
      },
    },
    { kind: "run-end", ...at(total), reason: "finished", elapsedSeconds: total * 1.3, totalTokens: total * 64 * 40 },
  );
  return events;
}

export const accelerateConfig = { model: "stories260K", kind: "medusa", heads: 4, tree: { size: 24 }, seed: 0, steps: 120 };

export function accelerateEvents(total = 120): RunEvent[] {
  const random = uniform(13);
  const at = (step: number) => ({ step, total, time: start + 210_000 + step * 200 });
  const events: RunEvent[] = [{ ...machine, time: start + 210_000 } as RunEvent, { kind: "run-start", ...at(0), config: accelerateConfig }];
  for (let step = 1; step <= total; step++) {
    const fall = Math.exp(-step / 30);
    events.push({
      kind: "step",
      ...at(step),
      metrics: {
        loss: 1.4 + 3.2 * fall + random() * 0.15,
        "accuracy/head1": 0.62 - 0.5 * fall,
        "accuracy/head2": 0.44 - 0.4 * fall,
        learningRate: 1e-3 * (1 - step / total),
        gradientNorm: 0.5 + fall + random() * 0.1,
      },
      seconds: 0.2,
      tokens: 1024,
      elapsedSeconds: step * 0.2,
      totalTokens: step * 1024,
      remainingSeconds: (total - step) * 0.2,
    });
  }
  events.push(
    { kind: "artifact", ...at(total), name: "speculation", data: speculation },
    { kind: "artifact", ...at(total), name: "token-tree", data: { title: "Step 12 of “Once upon a time”", nodes: treeNodes() } },
    {
      kind: "artifact",
      ...at(total),
      name: "commands",
      data: { commands: ["longwave train-drafter stories260K --kind medusa --steps 120"] },
    },
    { kind: "run-end", ...at(total), reason: "finished", elapsedSeconds: total * 0.2, totalTokens: total * 1024 },
  );
  return events;
}

export const speculation = {
  drafter: "Medusa, 4 heads",
  verifier: "greedy (lossless)",
  plain: { tokensPerSecond: 1480 },
  speculative: { tokensPerSecond: 2310 },
  tokensPerStep: 2.41,
  acceptanceByPosition: [0.78, 0.55, 0.36, 0.2],
  identical: true,
  ratio: 1.56,
  costCurve: [1, 2, 4, 8, 16, 24, 32, 48, 64].map((tokens) => ({ tokens, milliseconds: 0.62 + 0.012 * tokens })),
  treeSize: 24,
};

export function treeNodes(): JsonRecord[] {
  const nodes: JsonRecord[] = [{ id: 0, parent: null, text: " little", probability: 1, accepted: true }];
  const add = (parent: number, text: string, probability: number, accepted = false): number => {
    nodes.push({ id: nodes.length, parent, text, probability, accepted });
    return nodes.length - 1;
  };
  const girl = add(0, " girl", 0.61, true);
  const boy = add(0, " boy", 0.24);
  const dog = add(0, " dog", 0.06);
  add(0, " bird", 0.03);
  const named = add(girl, " named", 0.72, true);
  const who = add(girl, " who", 0.13);
  add(girl, ".", 0.05);
  add(boy, " named", 0.7);
  add(boy, " called", 0.09);
  add(dog, " named", 0.4);
  const lily = add(named, " Lily", 0.55, true);
  const mia = add(named, " Mia", 0.12);
  add(named, " Sue", 0.08);
  add(who, " liked", 0.31);
  add(who, " lived", 0.2);
  add(lily, ".", 0.83, true);
  add(lily, ",", 0.08);
  add(mia, ".", 0.8);
  add(mia, "\n", 0.02);
  return nodes;
}
