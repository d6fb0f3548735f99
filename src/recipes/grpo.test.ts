// The recipe with the stories model: a run folder, resume from it, prompts and rewards from files, and input that is wrong.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AbortedError, CheckpointError, DataError, UsageError } from "../base/errors.ts";
import type { RunEvent } from "../engine/index.ts";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import { namedReward, RewardError, type RewardInput } from "../rl/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { tourAlignOptions } from "./align-stories.ts";
import { grpo } from "./grpo.ts";
import { type GrpoOptions, savedGrpoSettings } from "./grpo-options.ts";
import { splitPrompts, storyPrompts } from "./prompt-source.ts";
import { openRewards } from "./reward-source.ts";

const model = "assets/stories260k/stories260K.bin";
let backend: Backend;
let folder = "";
beforeAll(() => {
  backend = openBackend({ threads: 2 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-grpo-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const small: GrpoOptions = {
  model,
  rewards: ["contains:he"],
  promptsPerStep: 2,
  numGenerations: 4,
  maxCompletionLength: 8,
  learningRate: 1e-3,
  evaluateEvery: 0,
  sampleEvery: 0,
  checkpointEvery: 0,
};

/** @param each sees every event; what it throws ends the run. */
async function run(options: GrpoOptions, { signal, each = () => {} }: { signal?: AbortSignal; each?: (event: RunEvent) => void } = {}) {
  const events: RunEvent[] = [];
  let path = "";
  const onRun = (directory: { path: string }): void => {
    path = directory.path;
  };
  const stream = grpo({ ...small, runs: join(folder, "runs"), ...options }, { backend, signal, onRun });
  for await (const event of stream) {
    events.push(event);
    each(event);
  }
  return { events, path };
}

const failure = (options: GrpoOptions): Promise<unknown> =>
  run({ ...options, runs: join(folder, "none") }).then(
    () => undefined,
    (error: unknown) => error,
  );

const weightsOf = (path: string): Buffer => {
  const { parameters } = loadDecoder(path);
  return Buffer.from((parameters.buffer.data as Float32Array).buffer);
};

test("events, files and a model that loads", async () => {
  const { events, path } = await run({ steps: 3, evaluateEvery: 2, sampleEvery: 2, evaluationGenerations: 2 });
  const kinds = events.map(({ kind }) => kind);
  expect(kinds.slice(0, 3)).toEqual(["stage", "stage", "run-start"]);
  expect(kinds.filter((kind) => kind === "evaluation")).toHaveLength(3);
  // Of the first step, the second, and the last.
  const samples = events.flatMap((event) => (event.kind === "sample" ? [event] : []));
  expect(samples.map(({ step }) => step)).toEqual([1, 2, 3]);
  expect(samples[0].sample).toHaveLength(8);
  expect((samples[0].sample as object[])[0]).toMatchObject({
    rewards: { "contains:he": expect.any(Number) },
    advantage: expect.any(Number),
  });
  const [checkpoint] = readdirSync(join(path, "checkpoints")).filter((name) => name.startsWith("step-"));
  expect(readdirSync(join(path, "checkpoints", checkpoint))).toEqual(
    expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.bin", "trainer.json", "trainer.safetensors"]),
  );
  const lines = readFileSync(join(path, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.filter(({ kind }) => kind === "step").map(({ metrics }) => metrics.num_tokens)).toHaveLength(3);
});

test("an interrupted run is resumed with its own settings and ends with the same bytes", async () => {
  const whole = await run({ steps: 4 });
  const controller = new AbortController();
  let path = "";
  const interrupted = grpo(
    { ...small, steps: 4, runs: join(folder, "runs") },
    {
      backend,
      signal: controller.signal,
      onRun: (directory) => {
        path = directory.path;
      },
    },
  );
  await expect(
    (async () => {
      for await (const event of interrupted) if (event.kind === "step" && event.step === 2) controller.abort();
    })(),
  ).rejects.toThrow(AbortedError);
  const { events } = await run({ ...savedGrpoSettings(path), resume: path });
  expect(events.find(({ kind }) => kind === "run-start")).toMatchObject({ resumedFrom: expect.stringContaining("step-00000002") });
  expect(weightsOf(join(path, "checkpoints", "step-00000004")).equals(weightsOf(join(whole.path, "checkpoints", "step-00000004")))).toBe(
    true,
  );
  const other = await run({ ...savedGrpoSettings(path), steps: 5, learningRate: 2e-3, resume: path }).catch((error: unknown) => error);
  expect(other).toBeInstanceOf(CheckpointError);
  expect((other as Error).message).toMatch(/learningRate/);
});

test("a rollout that does not end after an abort is given up; the steps before it are saved, and the run goes on from there", async () => {
  const whole = await run({ steps: 4 });
  const controller = new AbortController();
  const reward = namedReward("contains:he");
  let calls = 0;
  // The same numbers, until the third step waits for ever.
  const hanging: RewardInput = {
    name: reward.name,
    score: (sample) => {
      if (calls++ < 2 * 8) return reward.score?.(sample) ?? null;
      controller.abort();
      return new Promise<number>(() => {});
    },
  };
  const events: RunEvent[] = [];
  let path = "";
  const onRun = (directory: { path: string }): void => {
    path = directory.path;
  };
  const options = { ...small, steps: 4, runs: join(folder, "runs"), rewards: [hanging] };
  const interrupted = grpo(options, { backend, signal: controller.signal, graceSeconds: 0.05, onRun });
  await expect(
    (async () => {
      for await (const event of interrupted) events.push(event);
    })(),
  ).rejects.toThrow(/after step 2 of 4/);
  expect(events.slice(-2)).toMatchObject([
    { kind: "checkpoint", step: 2, reason: "aborted" },
    { kind: "run-end", step: 2, reason: "aborted" },
  ]);
  await run({ ...savedGrpoSettings(path), rewards: ["contains:he"], resume: path });
  const last = join("checkpoints", "step-00000004");
  expect(weightsOf(join(path, last)).equals(weightsOf(join(whole.path, last)))).toBe(true);
});

test("prompts given as texts are among the settings of a run", async () => {
  const { path } = await run({ steps: 1, prompts: ["Tom", "Sue", "Max"], validation: 0 });
  const { events } = await run({ ...savedGrpoSettings(path), steps: 2, resume: path });
  expect(events.filter(({ kind }) => kind === "step")).toHaveLength(1);
  const other = await run({ ...savedGrpoSettings(path), prompts: ["Tom"], steps: 3, resume: path }).catch((error: unknown) => error);
  expect((other as Error).message).toMatch(/promptsFingerprint/);
});

test("prompts and rewards of one's own, from files and from code", async () => {
  const module = join(folder, "rewards.mjs");
  writeFileSync(
    module,
    "export function level({ level }) { return level ?? null; }\nexport const all = { weight: 2, scoreBatch: (s) => s.map(() => 1) };\n",
  );
  const data = join(folder, "prompts.jsonl");
  writeFileSync(data, '{"prompt":"Tom","level":1}\n{"prompt":"Sue","level":2}\n{"prompt":"Max"}\n');
  const { events } = await run({ data: [data], rewards: [module, ({ completionIds }) => completionIds.length], steps: 1, validation: 0 });
  const step = events.find((event) => event.kind === "step");
  expect(step).toMatchObject({ metrics: { "rewards/all/mean": 1, "rewards/reward3/mean": 8 } });
  const records = await run({ prompts: ["Once", { prompt: "Tom", level: 3 }], rewards: [module], steps: 1, validation: 0 });
  expect(records.events.find((event) => event.kind === "step")).toMatchObject({ metrics: { "rewards/level/mean": 3 } });
});

describe("wrong input leaves no run folder", () => {
  const file = (name: string, content: string): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const cases: [string, () => GrpoOptions, new (...parts: never[]) => Error, RegExp][] = [
    ["no rewards", () => ({ rewards: [] }), UsageError, /rewards: expected at least one/],
    ["an unknown reward", () => ({ rewards: ["contain:x"] }), UsageError, /reward: expected the path of a .js or .mjs module, or one of/],
    [
      "a reward module that does not load",
      () => ({ rewards: [file("bad.mjs", "export const = 1")] }),
      UsageError,
      /expected a module that loads/,
    ],
    [
      "a reward module without functions",
      () => ({ rewards: [file("no.mjs", "export const x = 1")] }),
      UsageError,
      /expected exported functions, got x/,
    ],
    [
      "a prompt longer than the context",
      () => ({ prompts: ["Once ".repeat(600), "Tom", "Sue"], validation: 0 }),
      UsageError,
      /expected fewer tokens than the model's context of 512/,
    ],
    [
      "a record without the field",
      () => ({ data: [file("a.jsonl", '{"text":"x"}\n')] }),
      DataError,
      /a.jsonl:1: expected a text in field "prompt", got fields text/,
    ],
    ["an empty file", () => ({ data: [file("e.jsonl", "\n")] }), DataError, /expected prompts, got none/],
    ["one prompt for two sides", () => ({ prompts: ["Tom"] }), UsageError, /expected at least two/],
    ["no model", () => ({ model: undefined }), UsageError, /model: expected a checkpoint folder/],
    ["the best of no evaluations", () => ({ keepBest: true }), UsageError, /expected evaluations, got none/],
    ["top-p without correction", () => ({ topP: 0.9 }), UsageError, /topP: expected no truncation/],
  ];
  test.each(cases)("%s", async (_, options, kind, message) => {
    const error = await failure(options());
    expect(error).toBeInstanceOf(kind);
    expect((error as Error).message).toMatch(message);
    expect(existsSync(join(folder, "none"))).toBe(false);
  });
});

test("a reward that fails in a later step ends the run; the last checkpoint stays", async () => {
  let calls = 0;
  const fragile = { name: "fragile", score: () => (++calls > 16 ? Number.NaN : calls) };
  const seen: RunEvent[] = [];
  let path = "";
  const stream = grpo(
    { ...small, rewards: [fragile], steps: 5, checkpointEvery: 1, validation: 0, runs: join(folder, "runs") },
    { backend, onRun: (directory) => (path = directory.path) },
  );
  const error = await (async () => {
    for await (const event of stream) seen.push(event);
  })().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(RewardError);
  expect(seen.at(-1)).toMatchObject({ kind: "run-end", reason: "failed" });
  expect(readdirSync(join(path, "checkpoints"))).toContain("step-00000001");
});

test("held-out prompts are a share chosen by the seed; story prompts differ", async () => {
  const { train, heldOut } = splitPrompts(storyPrompts, 0.2, 1);
  expect(heldOut).toHaveLength(Math.round(0.2 * storyPrompts.length));
  expect(new Set([...train, ...heldOut]).size).toBe(storyPrompts.length);
  expect(new Set(storyPrompts.map(({ prompt }) => prompt)).size).toBe(storyPrompts.length);
  expect(splitPrompts(storyPrompts, 0.2, 2).heldOut).not.toEqual(heldOut);
  expect(await openRewards(tourAlignOptions.rewards)).toHaveLength(2);
});

test.runIf(process.env.LONGWAVE_TEST_LONG === "1")(
  "the alignment of the tour: the held-out reward rises by five standard errors and closes half of the gap to its maximum",
  async () => {
    const { events } = await run({ ...tourAlignOptions, model });
    const evaluations = events.flatMap((event) => (event.kind === "evaluation" ? [event.metrics] : []));
    const [first, last] = [evaluations[0], evaluations[evaluations.length - 1]];
    expect(last.reward - first.reward).toBeGreaterThan(5 * Math.max(first.reward_stderr, last.reward_stderr));
    expect(last.reward - first.reward).toBeGreaterThan(0.5 * (2 - first.reward));
  },
  3_600_000,
);
