// The alignment of the tour: stories260K learns to tell of a dog and to end with a full sentence within 80 tokens. A preset of grpo().
// In 60 steps the mean reward on held-out prompts rises from about 0.1 to nearly 2, its maximum; beta keeps the stories readable.
import type { GrpoOptions } from "./grpo-options.ts";

/** What `longwave grpo --preset tour` runs; every value can be changed. */
export const tourAlignOptions = {
  name: "tour-align",
  rewards: ["contains:dog", "ends-with-sentence"],
  promptsPerStep: 8,
  numGenerations: 8,
  maxCompletionLength: 80,
  lossType: "dapo",
  beta: 0.05,
  learningRate: 5e-4,
  schedule: { kind: "cosine-warmup-with-min-lr", warmupSteps: 5 },
  steps: 80,
  evaluateEvery: 20,
  evaluationGenerations: 8,
  sampleEvery: 10,
  checkpointEvery: 0,
} as const satisfies GrpoOptions;
