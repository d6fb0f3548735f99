// Learning end to end in environments with known answers; resume to the bit; agents and what they export.
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { collectEvents } from "../../engine/events.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { Agent, type AgentOptions, a2c, evaluatePolicy, loadAgentPolicy, ppo, reinforce, trpo } from "./agent.ts";
import { CartPole } from "./environments/cart-pole.ts";
import { type ControlOptions, controlSettings } from "./options.ts";
import { endless, signs, type TinyKind } from "./testing/tiny-environments.ts";
import { ControlTrainer } from "./trainer.ts";
import { batchEnvironments } from "./vector.ts";
import { timeLimit } from "./wrappers/time-limit.ts";

let backend: Backend;
const temporary = mkdtempSync(join(tmpdir(), "longwave-control-"));
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(temporary, { recursive: true, force: true });
});

test("with values behind time limits, the value of an endless task becomes 1 / (1 − γ)", async () => {
  // Of Stable-Baselines3's tests: γ 0.98, so 50; without the bootstrap it would stay near the sum of 8 rewards.
  const options: AgentOptions = { env: () => endless(), backend, gamma: 0.98, learningRate: 0.01, hidden: [8], seed: 1 };
  using agent = a2c(options);
  await agent.train(3000);
  for (const state of [0, 1, 2, 3]) expect(Math.abs(agent.policy.predictFully(state).value - 50)).toBeLessThan(1);
  using without = a2c({ ...options, bootstrapTruncation: false });
  await without.train(1500);
  expect(without.policy.predictFully(0).value).toBeLessThan(12);
});

describe("every algorithm learns every kind of action", () => {
  const short = { numEnvs: 4, numSteps: 16, batchSize: 32, hidden: [16], learningRate: 0.01, gamma: 0.9 };
  const algorithms: Record<string, (options: AgentOptions) => Agent> = {
    ppo: (options) => ppo({ ...options, numEpochs: 4 }),
    a2c: (options) => a2c({ ...options, numSteps: 8, learningRate: 0.01 }),
    trpo: (options) => trpo({ ...options, targetKl: 0.02 }),
    npg: (options) => new Agent("npg", { ...options, targetKl: 0.02 }),
    reinforce: (options) => reinforce({ ...options, valueEpochs: 5 }),
  };
  const cases: [algo: string, kind: TinyKind, more: Partial<ControlOptions>][] = [
    ...Object.keys(algorithms).map((algo): [string, TinyKind, Partial<ControlOptions>] => [algo, "discrete", {}]),
    ["ppo", "box", {}],
    ["ppo", "box", { squash: true }],
    ["ppo", "box", { useSde: true, sdeSampleFreq: 4 }],
    ["trpo", "box", { useSde: true, squash: true }],
    ["ppo", "multi-discrete", { trunk: [16] }],
    ["trpo", "multi-discrete", { trunk: [16] }],
    ["ppo", "multi-binary", { klPenalty: "adaptive", targetKl: 0.02, clip: false }],
    ["trpo", "multi-binary", { fisher: "kl-hessian", precision: "float64" }],
    ["ppo", "masked", { dualClip: 3, valueClip: "max" }],
    ["trpo", "masked", { subSamplingFactor: 2, fisherSubSampling: 2 }],
  ];
  test.each(cases)("%s, %s %j", async (algo, kind, more) => {
    using agent = algorithms[algo]({ ...short, ...more, env: () => signs(kind, { start: kind === "discrete" ? 5 : 0 }), backend, seed: 2 });
    await agent.train(algo === "a2c" || algo === "reinforce" ? 6000 : 3000);
    const results = await agent.evaluate(64);
    const mean = results.reduce((sum, result) => sum + result.return, 0) / results.length;
    expect(mean).toBeGreaterThan(0.9);
  });
});

describe("resume", () => {
  const cases: [string, ControlOptions][] = [
    [
      "ppo with normalisation",
      {
        algo: "ppo",
        numEnvs: 2,
        numSteps: 16,
        batchSize: 8,
        numEpochs: 2,
        normalizeObservations: true,
        normalizeRewards: true,
        learningRateSchedule: "linear",
      },
    ],
    ["a2c", { algo: "a2c", numEnvs: 3 }],
    ["trpo", { algo: "trpo", numEnvs: 2, numSteps: 16, batchSize: 8, numCriticUpdates: 2 }],
    [
      "ppo with an adaptive penalty",
      { algo: "ppo", numEnvs: 2, numSteps: 16, batchSize: 8, numEpochs: 2, klPenalty: "adaptive", targetKl: 0.001 },
    ],
  ];
  const environments = (count: number) => batchEnvironments(() => timeLimit(new CartPole(), 30), count, { name: "CartPole" });
  const trainerFor = (options: ControlOptions): ControlTrainer => {
    const settings = controlSettings({ hidden: [8], ...options });
    return new ControlTrainer(backend, environments(settings.numEnvs), { settings, seed: 3, totalSteps: 1000 });
  };

  test.each(cases)("%s: as if it had not been interrupted, to the bit", async (name, options) => {
    using whole = trainerFor(options);
    using first = trainerFor(options);
    for (let i = 0; i < 3; i++) {
      await whole.step();
      await first.step();
    }
    const directory = mkdtempSync(join(temporary, "checkpoint-"));
    first.save(directory);
    const state = JSON.parse(JSON.stringify(first.state()));
    using second = trainerFor(options);
    await second.restore(directory, state);
    expect(second.numTimesteps).toBe(whole.numTimesteps);
    for (let i = 0; i < 3; i++) {
      const [a, b] = [await whole.step(), await second.step()];
      const lasting = ({ metrics }: typeof a) =>
        Object.fromEntries(Object.entries(metrics).filter(([key]) => !/^(time\/fps|seconds)/.test(key)));
      expect(lasting(b)).toEqual(lasting(a));
    }
    expect(second.policy.parameters.buffer.data).toEqual(whole.policy.parameters.buffer.data);
    expect(name).toBeTruthy();
  });

  test("a checkpoint of another environment, or of another shape, is refused", async () => {
    using trainer = trainerFor({ algo: "ppo", numSteps: 8, batchSize: 8 });
    await trainer.step();
    const directory = mkdtempSync(join(temporary, "other-"));
    trainer.save(directory);
    const settings = controlSettings({ algo: "ppo", numSteps: 8, batchSize: 8, hidden: [8] });
    using other = new ControlTrainer(
      backend,
      batchEnvironments(() => signs("box"), 1, { name: "signs" }),
      { settings, seed: 1, totalSteps: 10 },
    );
    await expect(other.restore(directory, trainer.state())).rejects.toThrow(/observations in Box\(4\) \(it was trained in CartPole\)/);
    using wide = trainerFor({ algo: "ppo", numSteps: 8, batchSize: 8, hidden: [9] });
    await expect(wide.restore(directory, trainer.state())).rejects.toThrow(/policy of this run's shape/);
    await expect(wide.restore(directory, { place: 3 })).rejects.toThrow(/state of a run in environments/);
  });
});

describe("agents", () => {
  test("what is saved acts the same; an exported file acts the same in onnxruntime-node, normalisation included", async () => {
    const ort = createRequire(import.meta.url)("onnxruntime-node") as {
      InferenceSession: {
        create(
          path: string,
        ): Promise<{ run(feeds: unknown): Promise<Record<string, { data: ArrayLike<number | bigint>; dims: number[] }>> }>;
      };
      Tensor: new (type: string, data: unknown, dims: number[]) => unknown;
    };
    const cases: [TinyKind, Partial<ControlOptions>][] = [
      ["box", { squash: true, normalizeObservations: true }],
      ["box", {}],
      ["discrete", { trunk: [4] }],
      ["multi-discrete", {}],
      ["multi-binary", { normalizeObservations: true, normalizeRewards: true }],
    ];
    for (const [kind, options] of cases) {
      using agent = ppo({ env: () => signs(kind, { start: 3 }), backend, numSteps: 32, batchSize: 16, hidden: [8], ...options });
      await agent.train(64);
      const folder = join(temporary, `saved-${kind}-${Object.keys(options).length}`);
      agent.policy.save(folder);
      using loaded = loadAgentPolicy(folder, { backend });
      const file = join(temporary, "policy.onnx");
      agent.policy.exportOnnx(file);
      const session = await ort.InferenceSession.create(file);
      const observations = [-1, -0.2, 0.7];
      const outputs = await session.run({ observations: new ort.Tensor("float32", Float32Array.from(observations), [3, 1]) });
      for (const [row, value] of observations.entries()) {
        const own = agent.policy.predictFully([value]);
        expect(loaded.predictFully([value])).toEqual(own);
        const numbers = typeof own.action === "number" ? [own.action] : Array.from(own.action);
        const width = outputs.actions.data.length / 3;
        for (const [i, number] of numbers.entries()) expect(Number(outputs.actions.data[row * width + i])).toBeCloseTo(number, 4);
        expect(Number(outputs.values.data[row])).toBeCloseTo(own.value, 4);
      }
    }
  });

  test("events are the engine's: metrics by Stable-Baselines3's names, evaluations, an end at the threshold", async () => {
    using agent = ppo({
      env: () => signs("discrete"),
      backend,
      numEnvs: 2,
      numSteps: 32,
      batchSize: 32,
      hidden: [8],
      learningRate: 0.01,
      gamma: 0.9,
      rewardThreshold: 0.95,
    });
    const events = await collectEvents(agent.learn(64 * 200, { evaluateEvery: 128 }));
    const steps = events.filter(({ kind }) => kind === "step") as { metrics: Record<string, number> }[];
    for (const name of [
      "rollout/ep_rew_mean",
      "rollout/ep_len_mean",
      "time/fps",
      "time/total_timesteps",
      "train/approx_kl",
      "train/clip_fraction",
    ])
      expect(Object.keys(steps[0].metrics)).toContain(name);
    const end = events.at(-1) as { reason: string; totalTokens: number };
    expect(end.reason).toBe("done");
    expect(end.totalTokens).toBeLessThan(64 * 200);
    const evaluations = events.filter(({ kind }) => kind === "evaluation") as { metrics: Record<string, number> }[];
    expect(Math.max(...evaluations.map(({ metrics }) => metrics["eval/mean_reward"]))).toBeGreaterThanOrEqual(0.95);
  });

  test("the same seed gives the same run, another seed another one, and learning may go on", async () => {
    const run = async (seed: number, parts: number[]): Promise<Float32Array> => {
      using agent = ppo({ env: () => signs("box"), backend, numSteps: 16, batchSize: 8, hidden: [4], seed });
      for (const steps of parts) await agent.train(steps);
      return (agent.trainer.policy.parameters.buffer.data as Float32Array).slice();
    };
    const once = await run(1, [64]);
    expect(await run(1, [64])).toEqual(once);
    expect(await run(1, [32, 32])).toEqual(once);
    expect(await run(2, [64])).not.toEqual(once);
  });

  test("an abort between steps is an AbortedError, and the agent can go on", async () => {
    using agent = ppo({ env: () => signs("box"), backend, numSteps: 16, batchSize: 8, hidden: [4] });
    const controller = new AbortController();
    const run = async (): Promise<void> => {
      for await (const event of agent.learn(1e6, { signal: controller.signal })) if (event.kind === "step") controller.abort();
    };
    await expect(run()).rejects.toThrow(/aborted/);
    expect(agent.trainer.numTimesteps).toBe(16);
    await agent.train(16);
    expect(agent.trainer.numTimesteps).toBe(32);
  });

  test("mistakes are told in words", async () => {
    const env = () => signs("discrete");
    expect(() => ppo({ env, backend, numSteps: 0 })).toThrow(/`numSteps`: expected an integer > 0, got 0/);
    expect(() => ppo({ env, backend, useSde: true })).toThrow(/useSde: expected continuous actions, got Discrete\(2\)/);
    expect(() => ppo({ env: "CartPole-v7", backend })).toThrow(/expected `CartPole-v1`/);
    // The environment itself where a function that makes one is wanted.
    const single = new CartPole() as never;
    expect(() => ppo({ env: single, backend })).toThrow(/^env: expected an id, a function .*, got one environment/);
    expect(() => ppo({ env, evaluationEnv: single, backend })).toThrow(/^evaluationEnv: expected/);
    expect(() => ppo({ env, backend, klPenalty: "adaptive" })).toThrow(/targetKl: expected a KL/);
    expect(() => ppo({ env, backend, learnRate: 1 } as never)).toThrow(/`learningRate`/);
    using agent = ppo({ env, backend, numSteps: 8, batchSize: 8, hidden: [4] });
    await expect(agent.train(0)).rejects.toThrow(/at least one environment step/);
    expect(() => agent.policy.predict([Number.NaN])).toThrow(/expected finite observations, got NaN/);
    expect(() => agent.policy.predict([1, 2])).toThrow(/expected an observation of 1 numbers/);
    await expect(
      evaluatePolicy(
        backend,
        agent.policy.control,
        batchEnvironments(() => endless(), 1),
        { episodes: 1 },
      ),
    ).rejects.toThrow(/expected an environment with observations in Box\(1\)/);
    using broken = ppo({
      env: () => ({ ...signs("discrete"), step: () => ({ observation: [Number.NaN], reward: 1, terminated: false, truncated: false }) }),
      backend,
      numSteps: 8,
      batchSize: 8,
      hidden: [4],
    });
    await expect(broken.train(8)).rejects.toMatchObject({ name: "EnvironmentError" });
  });
});
