// The quickstart: a tokenizer and a small decoder on the State of the Union addresses, in two minutes on two cores. A preset of pretrain().
import type { PretrainOptions } from "./pretrain-options.ts";

/** What `longwave quickstart` trains; every value can be changed. */
export const quickstartOptions = {
  name: "quickstart",
  vocabSize: 2048,
  size: "nano",
  batchSize: 16,
  sequenceLength: 128,
  steps: 450,
  // A processor without wide vectors would need six minutes.
  fitSeconds: 140,
  // With AdamW (rate 3e-3) 500 steps end at 4.38 nats, which Muon passes before its 225th (docs/log.md).
  optimizer: { kind: "muon", adamw: { beta2: 0.95, weightDecay: 0.1 } },
  learningRate: 0.02,
  schedule: { kind: "cosine-warmup-with-min-lr", warmupSteps: 20 },
  evaluateEvery: 225,
  sampleEvery: 225,
  checkpointEvery: 225,
  samplePrompt: "The people of the United States",
} as const satisfies PretrainOptions;
