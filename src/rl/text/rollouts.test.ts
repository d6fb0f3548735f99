// Rollouts: what is recorded is what the model says, whatever the batch; samples follow the distribution; ends, limits, errors.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AbortedError, UsageError } from "../../base/errors.ts";
import { decoderConfig } from "../../models/decoder/config.ts";
import { negativeLogLikelihood, referenceLogits } from "../../models/decoder/testing/reference.ts";
import { randomDecoder, variants } from "../../models/decoder/testing/variants.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import type { RolloutWeights } from "./rollout-programs.ts";
import { type Completion, type RolloutOptions, Rollouts } from "./rollouts.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const config = decoderConfig({ vocabSize: 13, width: 16, layers: 2, heads: 2, mlpWidth: 24, contextLength: 24, initStd: 0.35 });
const prompts = [[1, 5, 7], [2], [3, 4, 5, 6, 8]];
const base: RolloutOptions = { numGenerations: 4, maxNewTokens: 8, maxPromptLength: 6, endTokenIds: [] };
const open = (options: Partial<RolloutOptions> = {}, decoder = randomDecoder(config)) =>
  new Rollouts(backend, decoder, { ...base, ...options });
const idsOf = (groups: readonly Completion[][]): number[][][] => groups.map((group) => group.map(({ ids }) => [...ids]));

/** Recorded log-probabilities against the plain implementation in float64. */
function expectRecorded(decoder: ReturnType<typeof randomDecoder>, groups: readonly Completion[][], temperature: number): void {
  for (const [p, group] of groups.entries()) {
    for (const { ids, logProbs } of group) {
      const logits = referenceLogits(decoder.config, decoder.parameters.leaves, [...prompts[p], ...ids]);
      for (const [t, logProb] of logProbs.entries()) {
        const row = logits[prompts[p].length - 1 + t];
        expect(Math.abs(logProb + negativeLogLikelihood(Array.from(row, (x) => x / temperature) as never, ids[t]))).toBeLessThan(2e-4);
      }
    }
  }
}

describe("rollouts", () => {
  test.each(["as Llama", "as GPT-2", "grouped heads", "head width no multiple of 8", "sliding windows"])(
    "%s: log-probabilities under the temperature alone",
    async (name) => {
      const variant = variants.find((one) => one.name === name);
      const decoder = randomDecoder({ ...(variant as (typeof variants)[0]).config });
      using rollouts = open({ temperature: 0.7, maxNewTokens: 5 }, decoder);
      const groups = await rollouts.run(prompts, 3);
      expect(groups.map((group) => group.length)).toEqual([4, 4, 4]);
      expectRecorded(decoder, groups, 0.7);
    },
  );

  test("the same seed gives the same completions, another one others", async () => {
    using rollouts = open();
    const first = idsOf(await rollouts.run(prompts, 3));
    expect(idsOf(await rollouts.run(prompts, 3))).toEqual(first);
    expect(idsOf(await rollouts.run(prompts, 4))).not.toEqual(first);
  });

  test("a completion does not depend on what runs beside it", async () => {
    const decoder = randomDecoder(config);
    // Ends make rows come and go: 12 rows at once, 4 at a time, 3 at a time.
    const all: number[][][][] = [];
    for (const maxRows of [12, 4, 3]) {
      using rollouts = open({ maxRows, endTokenIds: [0, 1, 2], maxNewTokens: 16 }, decoder);
      const groups = await rollouts.run(prompts, 9);
      expectRecorded(decoder, groups, 1);
      all.push(idsOf(groups));
    }
    expect(new Set(all[0].flat().map(({ length }) => length)).size).toBeGreaterThan(3);
    expect(all[1]).toEqual(all[0]);
    expect(all[2]).toEqual(all[0]);
  });

  test("first tokens follow the model's distribution", async () => {
    const decoder = randomDecoder(config);
    const count = 4000;
    using rollouts = open({ numGenerations: count, maxNewTokens: 1, maxRows: count, temperature: 1.3 }, decoder);
    const [group] = await rollouts.run([[1, 5]], 11);
    const observed = new Float64Array(config.vocabSize);
    for (const { ids } of group) observed[ids[0]]++;
    const [, logits] = referenceLogits(config, decoder.parameters.leaves, [1, 5]);
    const weights = Array.from(logits, (x) => Math.exp(x / 1.3));
    const total = weights.reduce((a, b) => a + b, 0);
    const statistic = observed.reduce(
      (sum, seen, id) => sum + (seen - (count * weights[id]) / total) ** 2 / ((count * weights[id]) / total),
      0,
    );
    // 12 degrees of freedom: 32.9 is passed once in a thousand.
    expect(statistic).toBeLessThan(32.9);
  });

  test.each(["bound", "shared", "packed"] satisfies RolloutWeights[])(
    "%s weights: an update is seen by the next rollout",
    async (weights) => {
      const decoder = randomDecoder(config);
      using rollouts = open({ weights }, decoder);
      await rollouts.run(prompts, 3);
      const { data } = decoder.parameters.buffer;
      for (let i = 0; i < data.length; i++) (data as Float32Array)[i] *= 0.9;
      expectRecorded(decoder, await rollouts.run(prompts, 3), 1);
    },
  );

  test("an end token is part of the completion; others end at their length or with the context", async () => {
    using rollouts = open({ endTokenIds: [0, 1, 2, 3], maxNewTokens: 23, maxPromptLength: 6 });
    for (const [p, group] of (await rollouts.run(prompts, 1)).entries()) {
      for (const { ids, finish } of group) {
        const last = ids.at(-1) as number;
        expect(ids.slice(0, -1).every((id) => id > 3)).toBe(true);
        if (finish === "end") expect(last).toBeLessThan(4);
        else expect([finish, ids.length]).toEqual(["context", config.contextLength - prompts[p].length]);
      }
    }
    using short = open({ maxNewTokens: 2 });
    expect((await short.run(prompts, 1)).flat().every(({ finish, ids }) => finish === "length" && ids.length === 2)).toBe(true);
  });

  test("truncated sampling records both distributions", async () => {
    const decoder = randomDecoder(config);
    using rollouts = open({ topK: 3, temperature: 0.8 }, decoder);
    const groups = await rollouts.run(prompts, 5);
    expectRecorded(decoder, groups, 0.8);
    for (const { logProbs, samplingLogProbs } of groups.flat())
      for (const [t, logProb] of logProbs.entries()) expect(samplingLogProbs[t]).toBeGreaterThan(logProb);
  });

  test("an abort stops between two tokens", async () => {
    using rollouts = open();
    const controller = new AbortController();
    controller.abort();
    await expect(rollouts.run(prompts, 1, { signal: controller.signal })).rejects.toThrow(AbortedError);
  });

  test("prompts that do not fit, ids of another vocabulary, no temperature", async () => {
    using rollouts = open({ maxPromptLength: 40 });
    await expect(rollouts.run([new Array(24).fill(1)], 1)).rejects.toThrow(/prompt 0: expected fewer tokens than the context of 24/);
    await expect(rollouts.run([[1], []], 1)).rejects.toThrow(/prompt 1: expected at least one token/);
    await expect(rollouts.run([[13]], 1)).rejects.toThrow(/expected token ids below 13, got 13/);
    expect(() => open({ temperature: 0 })).toThrow(UsageError);
  });
});
