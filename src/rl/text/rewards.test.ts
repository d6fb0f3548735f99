// Reward functions that behave, and every way in which they may not.
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { AbortedError, UsageError } from "../../base/errors.ts";
import { namedReward, namedRewardUsages } from "./named-rewards.ts";
import {
  type Reward,
  RewardError,
  type RewardInput,
  type RewardOptions,
  type RewardSample,
  resolveRewards,
  scoreSamples,
} from "./rewards.ts";

const sample = (completion: string, more: Partial<RewardSample> = {}): RewardSample => ({
  prompt: "Tom",
  completion,
  completionIds: Array.from(completion, (_, i) => i),
  isComplete: true,
  ...more,
});
const samples = [sample(" ran.", { answer: 1 }), sample(" sat", { answer: 2 })];
const score = (rewards: readonly RewardInput[], options?: RewardOptions, signal?: AbortSignal) =>
  scoreSamples(resolveRewards(rewards), samples, options, signal);
const rowsOf = (values: readonly Float64Array[]): number[][] => values.map((row) => [...row]);

describe("rewards", () => {
  test("several, sync and async, by sample and by batch, with columns and weights", async () => {
    const table = await score([
      function column({ answer }) {
        return answer as number;
      },
      { name: "later", weight: 0.5, score: async ({ completion }) => completion.length },
      { name: "batch", scoreBatch: async (all) => all.map(({ prompt }) => prompt.length) },
    ]);
    expect(table.names).toEqual(["column", "later", "batch"]);
    expect(table.weights).toEqual([1, 0.5, 1]);
    expect(rowsOf(table.values)).toEqual([
      [1, 5, 3],
      [2, 4, 3],
    ]);
  });

  test("null is not applicable, true and false are 1 and 0", async () => {
    const table = await score([
      { name: "some", score: ({ answer }) => (answer === 1 ? null : 7) },
      { name: "flag", score: ({ completion }) => completion.endsWith(".") as never },
    ]);
    expect(rowsOf(table.values)).toEqual([
      [Number.NaN, 1],
      [7, 0],
    ]);
  });

  test("samples are scored side by side", async () => {
    let [running, most] = [0, 0];
    const slow = async (): Promise<number> => {
      most = Math.max(most, ++running);
      await sleep(5);
      running--;
      return 1;
    };
    await scoreSamples(
      resolveRewards([{ name: "slow", score: slow }]),
      Array.from({ length: 9 }, () => samples[0]),
    );
    expect(most).toBe(9);
  });

  const second =
    (value: () => unknown): Reward["score"] =>
    ({ answer }) =>
      answer === 2 ? (value() as number) : 0;
  const throwing = (): never => {
    throw new TypeError("no such field");
  };
  const wrong: [what: string, reward: Reward, message: RegExp][] = [
    [
      "throws",
      { name: "r", score: second(throwing) },
      /reward "r", sample 1 \(prompt "Tom", completion " sat"\): threw TypeError: no such field/,
    ],
    ["rejects", { name: "r", score: second(() => Promise.reject(new Error("offline"))) }, /sample 1 .*threw Error: offline/],
    ["gives NaN", { name: "r", score: second(() => Number.NaN) }, /sample 1 .*expected a finite number or null, got NaN/],
    ["gives an infinity", { name: "r", score: second(() => Number.POSITIVE_INFINITY) }, /got Infinity/],
    ["gives nothing", { name: "r", score: second(() => undefined) }, /expected a finite number or null, got nothing/],
    ["gives a text", { name: "r", score: second(() => "1") }, /got "1"/],
    ["throws for the batch", { name: "r", scoreBatch: throwing }, /reward "r", batch of 2: threw TypeError/],
    ["rejects for the batch", { name: "r", scoreBatch: async () => throwing() }, /batch of 2: threw TypeError/],
    ["gives too few", { name: "r", scoreBatch: () => [1] }, /expected a list of 2 values, one a sample, got 1/],
    ["gives no list", { name: "r", scoreBatch: () => 1 as never }, /expected a list of 2 values, one a sample, got 1/],
    ["gives NaN in a list", { name: "r", scoreBatch: () => [0, Number.NaN] }, /sample 1 .*got NaN/],
    ["never settles", { name: "r", score: second(() => new Promise(() => {})) }, /sample 1 .*expected an answer within 0.05 s, got none/],
    ["never settles for the batch", { name: "r", scoreBatch: () => new Promise(() => {}) }, /batch of 2: expected an answer within 0.05 s/],
  ];

  test.each(wrong)("one that %s is an error that names the reward and the sample", async (_, reward, message) => {
    const error = await score([reward], { timeoutSeconds: 0.05 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RewardError);
    expect((error as RewardError).message).toMatch(message);
    expect((error as RewardError).hint).toMatch(/null/);
  });

  test.each(wrong)("one that %s counts as not applicable where errors are ignored", async (_, reward) => {
    const table = await score([reward, { name: "good", score: () => 1 }], { timeoutSeconds: 0.05, onError: "ignore" });
    expect(table.values[1][0]).toBeNaN();
    expect(table.values.map((row) => row[1])).toEqual([1, 1]);
    expect(table.numFailures[0]).toBeGreaterThan(0);
    expect(table.numFailures[1]).toBe(0);
  });

  test("an abort ends the wait", async () => {
    const controller = new AbortController();
    const waiting = score([{ name: "r", score: () => new Promise(() => {}) }], {}, controller.signal);
    controller.abort();
    await expect(waiting).rejects.toThrow(AbortedError);
  });

  test("an answer that comes too late is dropped without noise", async () => {
    await expect(
      score([{ name: "r", score: () => sleep(30).then(() => Promise.reject(new Error("late"))) }], { timeoutSeconds: 0.005 }),
    ).rejects.toThrow(/within 0.005 s/);
    await sleep(50);
  });

  test("wrong definitions", () => {
    expect(() => resolveRewards([])).toThrow(/expected at least one reward function/);
    const twice: RewardInput = { name: "a", score: () => 1 };
    expect(() => resolveRewards([twice, twice])).toThrow(/expected names that differ, got "a" twice/);
    expect(() => resolveRewards([{ name: "a" }])).toThrow(/expected score or scoreBatch, got neither/);
    expect(() => resolveRewards([{ ...(twice as Reward), weight: Number.NaN }])).toThrow(/expected a finite weight/);
    expect(
      resolveRewards([
        (
          () => () =>
            1
        )(),
      ])[0].name,
    ).toBe("reward1");
  });
});

describe("rewards by name", () => {
  const value = (name: string, completion: string, more: Partial<RewardSample> = {}): unknown =>
    namedReward(name).score?.(sample(completion, more));

  test("words, sentences, lengths", () => {
    expect(value("contains:cat", " A Cat sat.")).toBe(1);
    expect(value("contains:cat", " to catch")).toBe(0);
    expect(value("contains:a.b", " axb")).toBe(0);
    expect(value("ends-with-sentence", ' He said, "Go!" ')).toBe(1);
    expect(value("ends-with-sentence", " He said")).toBe(0);
    expect(value("complete", "", { isComplete: false })).toBe(0);
    expect(value("length:4", "abcd")).toBe(1);
    expect(value("length:4", "abcdef")).toBe(0.5);
  });

  test("soft overlong punishment of DAPO", () => {
    const of = (length: number) => value("soft-overlong:100:20", "", { completionIds: new Array(length).fill(0) });
    expect([50, 80, 90, 100, 110].map(of)).toEqual([0, 0, -0.5, -1, -1]);
  });

  test("repeated n-grams", () => {
    expect(value("repetition:2", "5 5 5 5 5")).toBe(-0.75);
    expect(value("repetition:2", "1 2 1 2 1 2")).toBeCloseTo(-0.6, 12);
    expect(value("repetition:2:-0.5", "5 5 5 5 5")).toBe(-0.375);
    expect(value("repetition:3", "1 2")).toBeCloseTo(0, 12);
  });

  test("unknown names suggest the nearest", () => {
    expect(() => namedReward("contians:x")).toThrow(UsageError);
    expect(() => namedReward("length")).toThrow(/length:<tokens>, got no number/);
    expect(namedRewardUsages.length).toBeGreaterThan(4);
  });
});
