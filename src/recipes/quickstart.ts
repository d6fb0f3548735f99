// The quickstart: a tokenizer and a small decoder on the State of the Union addresses, in two minutes on two cores. A preset of pretrain().
import type { PretrainOptions } from "./pretrain-options.ts";

/** What `longwave quickstart` trains; every value can be changed. */
export const quickstartOptions = {
  name: "quickstart",
  vocabSize: 2048,
  size: "nano",
  batchSize: 16,
  sequenceLength: 128,
  steps: 500,
  learningRate: 3e-3,
  schedule: { kind: "cosine-warmup-with-min-lr", warmupSteps: 25 },
  evaluateEvery: 250,
  sampleEvery: 250,
  checkpointEvery: 250,
  samplePrompt: "The people of the United States",
} as const satisfies PretrainOptions;
