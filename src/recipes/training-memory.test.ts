import { expect, test } from "vitest";
import { expectFittingStep } from "./training-memory.ts";

// 1 GB of weights and their state, 1 MB a token.
const estimate = { trainingStateBytes: 1e9, activationBytes: (tokens: number) => 1e6 * tokens };
const step = (batchSize: number, memory: number) => () => expectFittingStep(estimate, { batchSize, length: 100 }, memory);

test("a step that cannot fit is refused with a batch that does", () => {
  expect(step(100, 10e9)).not.toThrow();
  // Half of 1 GB and a fifth of 500 rows of 0.1 GB; 0.8 of 10 GB less 1 GB holds 70 rows.
  expect(step(500, 10e9)).toThrow(/fits into the 10\.0 GB of this machine, got 500 rows of 100 tokens, which need 10\.5 GB or more$/);
  expect(step(500, 10e9)).toThrow(expect.objectContaining({ hint: expect.stringMatching(/^Give batchSize 70 or less/) }));
  expect(step(70, 10e9)).not.toThrow();
  expect(step(1, 0.5e9)).toThrow(expect.objectContaining({ hint: expect.stringMatching(/smaller size/) }));
});
