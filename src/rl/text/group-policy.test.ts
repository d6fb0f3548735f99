// The trainer on a tiny random decoder: it learns, it resumes bit for bit, micro-batches change nothing, and mistakes leave no trace.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AbortedError } from "../../base/errors.ts";
import { decoderConfig } from "../../models/decoder/config.ts";
import { randomDecoder } from "../../models/decoder/testing/variants.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { type GroupPolicyHooks, GroupPolicyTrainer } from "./group-policy.ts";
import type { GroupPolicyOptions } from "./options.ts";
import { groupPolicyPresets } from "./presets.ts";
import { PromptOrder } from "./prompts.ts";
import type { RewardInput } from "./rewards.ts";

let backend: Backend;
let folder = "";
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-group-policy-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const config = decoderConfig({ vocabSize: 13, width: 16, layers: 2, heads: 2, mlpWidth: 24, contextLength: 24, initStd: 0.35 });
const prompt = (...ids: number[]) => ({ text: ids.join(" "), ids: Int32Array.from(ids), columns: {} });
const prompts = [prompt(1, 5, 7), prompt(2), prompt(3, 4, 5, 6), prompt(8, 8), prompt(9, 1)];

/** Share of the completion that is token 5. */
const fives: RewardInput = {
  name: "fives",
  score: ({ completionIds }) => completionIds.filter((id) => id === 5).length / completionIds.length,
};

interface Setup {
  options?: GroupPolicyOptions;
  rewards?: readonly RewardInput[];
  hooks?: GroupPolicyHooks;
  heldOut?: boolean;
  seed?: number;
  ends?: readonly number[];
}

function open({ options = {}, rewards = [fives], hooks, heldOut = false, seed = 3, ends = [0] }: Setup = {}) {
  const decoder = randomDecoder(config);
  const trainer = new GroupPolicyTrainer(
    backend,
    decoder,
    {
      prompts,
      ...(heldOut ? { heldOut: [prompt(7, 2), prompt(4), prompt(6, 6, 6)] } : {}),
      rewards,
      endTokenIds: ends,
      textOf: (_, ids) => Array.from(ids).join(" "),
    },
    {
      totalSteps: 100,
      seed,
      promptsPerStep: 3,
      numGenerations: 4,
      maxCompletionLength: 6,
      learningRate: 0.01,
      schedule: { kind: "constant" },
      ...options,
    },
    hooks,
  );
  return { trainer, weights: decoder.parameters.buffer.data as Float32Array };
}

async function steps(trainer: GroupPolicyTrainer, from: number, to: number): Promise<Record<string, number>[]> {
  const metrics: Record<string, number>[] = [];
  for (let i = from; i < to; i++) metrics.push({ ...(await trainer.step(i)).metrics });
  return metrics;
}

const withoutTimes = (metrics: Record<string, number>) =>
  Object.fromEntries(Object.entries(metrics).filter(([name]) => !name.startsWith("seconds/")));

describe("group policy optimisation", () => {
  test("raises the reward on prompts that it does not train on, and tells TRL's metrics", async () => {
    const { trainer } = open({ heldOut: true, options: { evaluationGenerations: 16 } });
    const before = await trainer.evaluate();
    const [first] = await steps(trainer, 0, 25);
    const after = await trainer.evaluate();
    expect(after.reward).toBeGreaterThan(before.reward + 5 * Math.max(before.reward_stderr, after.reward_stderr, 0.02));
    expect(before.kl).toBeCloseTo(0, 10);
    expect(after.kl).toBeGreaterThan(0.01);
    for (const name of [
      "loss",
      "gradientNorm",
      "reward",
      "reward_std",
      "frac_reward_zero_std",
      "entropy",
      "num_tokens",
      "clip_ratio/region_mean",
    ])
      expect(first[name], name).toBeTypeOf("number");
    expect(first["sampling/sampling_logp_difference/max"]).toBeLessThan(1e-4);
    expect(first["rewards/fives/mean"]).toBeCloseTo(first.reward, 12);
    const rows = trainer.sample();
    expect(rows).toHaveLength(12);
    expect(rows[0]).toMatchObject({ prompt: expect.any(String), completion: expect.any(String), rewards: { fives: expect.any(Number) } });
    trainer.dispose();
  });

  const variants: [string, GroupPolicyOptions][] = [
    ...Object.entries(groupPolicyPresets).map(([name, { values }]): [string, GroupPolicyOptions] => [name, values]),
    ["several passes and minibatches", { numIterations: 2, minibatches: 3, lossType: "grpo", beta: 0.02 }],
    ["recorded log-probabilities", { numIterations: 2, oldLogProbs: "recorded" }],
    ["a reference that follows", { beta: 0.05, syncReferenceEvery: 2 }],
    ["truncated sampling with correction", { topP: 0.8, importanceCorrection: "sequence" }],
    ["tokens of high entropy, entropy bonus", { topEntropyQuantile: 0.5, entropyCoef: 0.01, useBiasCorrectionKl: true, beta: 0.01 }],
    ["sapo", { lossType: "sapo", offPolicyMaskThreshold: 0.5, numIterations: 2 }],
  ];

  test.each(variants)("%s: a resumed run goes on bit for bit", async (name, options) => {
    const whole = open({ options });
    const expected = (await steps(whole.trainer, 0, 5)).map(withoutTimes);
    for (const metrics of expected) expect(Object.values(metrics).every(Number.isFinite), JSON.stringify(metrics)).toBe(true);

    const before = open({ options });
    await steps(before.trainer, 0, 3);
    const place = mkdtempSync(join(folder, name.replaceAll(/\W/g, "-")));
    before.trainer.save(place);
    const after = open({ options });
    after.trainer.restore(place, JSON.parse(JSON.stringify(before.trainer.state())));
    expect((await steps(after.trainer, 3, 5)).map(withoutTimes)).toEqual(expected.slice(3));
    expect(Buffer.from(after.weights.buffer).equals(Buffer.from(whole.weights.buffer))).toBe(true);
    for (const { trainer } of [whole, before, after]) trainer.dispose();
  });

  test.each(["dapo", "grpo", "dr_grpo"] as const)("%s: micro-batches add up to the batch", async (lossType) => {
    const [one, many] = [12, 5].map((microBatchSize) =>
      open({ options: { lossType, beta: 0.05, microBatchSize, optimizer: { kind: "sgd" } } }),
    );
    const [a] = await steps(one.trainer, 0, 1);
    const [b] = await steps(many.trainer, 0, 1);
    expect(b.loss).toBeCloseTo(a.loss, 6);
    expect(b.gradientNorm / a.gradientNorm).toBeCloseTo(1, 4);
    for (const [i, value] of one.weights.entries()) expect(Math.abs(many.weights[i] - value)).toBeLessThan(1e-6);
    one.trainer.dispose();
    many.trainer.dispose();
  });

  test("groups whose rewards are all equal are counted and change nothing", async () => {
    const { trainer, weights } = open({ rewards: [{ name: "same", score: () => 1 }] });
    const saved = weights.slice();
    const [metrics] = await steps(trainer, 0, 1);
    expect(metrics).toMatchObject({ frac_reward_zero_std: 1, reward: 1, reward_std: 0, gradientNorm: 0, "advantages/abs_mean": 0 });
    expect(weights).toEqual(saved);
    trainer.dispose();
  });

  test("dynamic sampling replaces them by other prompts, and gives up in the end", async () => {
    // Only prompts that begin with 1 or 9 tell their completions apart.
    const some: RewardInput = { name: "some", score: ({ prompt, completionIds }) => (/^[19]/.test(prompt) ? completionIds[0] : 0) };
    const { trainer } = open({ rewards: [some], options: { dynamicSampling: 8, promptsPerStep: 2 } });
    const [metrics] = await steps(trainer, 0, 1);
    expect(metrics.frac_reward_zero_std).toBe(0);
    expect(metrics["dynamic_sampling/dropped"]).toBeGreaterThan(0);
    expect(trainer.sample().every(({ prompt }) => /^[19]/.test(prompt as string))).toBe(true);
    trainer.dispose();
    const none = open({ rewards: [{ name: "same", score: () => 1 }], options: { dynamicSampling: 2 } });
    expect(await steps(none.trainer, 0, 1)).toMatchObject([{ frac_reward_zero_std: 1, epoch: 9 / 5 }]);
    none.trainer.dispose();
  });

  test("an evaluation or a sample changes nothing that follows", async () => {
    const [plain, looked] = [open({ heldOut: true }), open({ heldOut: true })];
    const expected = (await steps(plain.trainer, 0, 3)).map(withoutTimes);
    const metrics: unknown[] = [];
    for (let i = 0; i < 3; i++) {
      await looked.trainer.evaluate();
      looked.trainer.sample();
      metrics.push(withoutTimes((await steps(looked.trainer, i, i + 1))[0]));
    }
    expect(metrics).toEqual(expected);
    plain.trainer.dispose();
    looked.trainer.dispose();
  });

  test("an abort within a step leaves everything as it was before the step", async () => {
    const controller = new AbortController();
    let calls = 0;
    const patient: RewardInput = {
      name: "patient",
      score: (sample) => {
        // The first step passes; in the second one the answer never comes.
        if (++calls <= 12) return sample.completionIds[0];
        controller.abort();
        return new Promise(() => {});
      },
    };
    const { trainer, weights } = open({ rewards: [patient], hooks: { signal: controller.signal } });
    await steps(trainer, 0, 1);
    const [saved, state] = [weights.slice(), trainer.state()];
    await expect(trainer.step(1)).rejects.toThrow(AbortedError);
    expect(weights).toEqual(saved);
    expect(trainer.state()).toEqual(state);
    trainer.dispose();
  });

  test("a loss that is not finite leaves the weights alone and is told", async () => {
    const { trainer, weights } = open({
      rewards: [{ name: "huge", score: ({ completionIds }) => completionIds[0] * 1e300 }],
      options: { scaleRewards: "none" },
    });
    const saved = weights.slice();
    const result = await trainer.step(0);
    expect(result.skipped).toBe(true);
    expect(Number.isFinite(result.metrics.gradientNorm)).toBe(false);
    expect(weights).toEqual(saved);
    const place = mkdtempSync(join(folder, "dump-"));
    trainer.dump(place);
    expect(JSON.parse(readFileSync(join(place, "step.json"), "utf8")).samples).toHaveLength(12);
    trainer.dispose();
  });

  test("truncated completions can be left out of the loss", async () => {
    for (const maskTruncatedCompletions of [true, false]) {
      const { trainer, weights } = open({ options: { maskTruncatedCompletions, beta: 0.1 }, ends: [] });
      const saved = weights.slice();
      expect(await steps(trainer, 0, 1)).toMatchObject([{ "completions/clipped_ratio": 1 }]);
      expect(weights.every((value, i) => value === saved[i])).toBe(maskTruncatedCompletions);
      trainer.dispose();
    }
  });
});

describe("wrong settings", () => {
  const wrong: [Setup, RegExp][] = [
    [{ options: { topK: 5 } }, /topK: expected no truncation during rollouts, got topK 5/],
    [{ options: { minP: 0.1 } }, /minP: expected no truncation/],
    [{ options: { numGenerations: 1 } }, /numGenerations: expected at least 2/],
    [{ options: { minibatches: 13 } }, /minibatches: expected at most the 12 completions of a step, got 13/],
    [{ options: { delta: 1.1 } }, /delta: expected more than 1 \+ epsilonHigh/],
    [{ options: { rewardWeights: [1, 2] } }, /reward weights: expected 1/],
    [{ rewards: [] }, /rewards: expected at least one/],
  ];
  test.each(wrong)("%j", (setup, message) => {
    expect(() => open(setup)).toThrow(message);
  });

  test("prompts that fill the context, are empty, or have a column whose name is taken", () => {
    const withPrompt = (bad: (typeof prompts)[0]) => () =>
      new GroupPolicyTrainer(
        backend,
        randomDecoder(config),
        { prompts: [prompts[0], bad], rewards: [fives], endTokenIds: [], textOf: () => "" },
        { totalSteps: 1 },
      );
    expect(withPrompt(prompt(...new Array(24).fill(1)))).toThrow(
      /prompts\[1\].*expected fewer tokens than the model's context of 24, got 24/,
    );
    expect(withPrompt(prompt())).toThrow(/prompts\[1\].*expected at least one token/);
    expect(withPrompt({ ...prompts[1], columns: { completion: "x" } } as never)).toThrow(/column of another name than "completion"/);
  });

  test("a checkpoint of another kind or shape", async () => {
    const { trainer } = open();
    const place = mkdtempSync(join(folder, "other-"));
    trainer.save(place);
    expect(() => trainer.restore(place, { data: 1 })).toThrow(/expected a place in the prompts/);
    trainer.dispose();
  });
});

test("every pass over the prompts has each of them once, in an order of its own", () => {
  const order = new PromptOrder(7, 5);
  const passes = [0, 1, 2].map((pass) => Array.from({ length: 7 }, (_, i) => order.at(7 * pass + i)));
  for (const pass of passes) expect([...pass].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(new Set(passes.map(String)).size).toBe(3);
  expect(order.at(3)).toBe(passes[0][3]);
});
