// Learning from reward as a library: an environment and options in, a handle out that learns, predicts, saves and exports.

import { writeDirectoryAtomic } from "../../base/atomic.ts";
import { UsageError } from "../../base/errors.ts";
import type { Metrics, RunEvent } from "../../engine/events.ts";
import type { LoopOptions } from "../../engine/loop.ts";
import { runLoop } from "../../engine/loop.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import type { EnvironmentFactory, Value, VectorEnvironment } from "./environment.ts";
import { type EpisodeResult, Evaluator } from "./evaluation.ts";
import { exportPolicy } from "./export.ts";
import { type ControlAlgorithm, type ControlOptions, controlSettings } from "./options.ts";
import { type ControlPolicy, checkSpaces, loadControlPolicy, saveControlPolicy } from "./policy-file.ts";
import { type Prediction, type PredictOptions, Predictor } from "./predict.ts";
import { makeEnvironment } from "./registry.ts";
import { ControlTrainer } from "./trainer.ts";
import { batchEnvironments } from "./vector.ts";
import { normalise } from "./wrappers/normalised-environments.ts";

/** What makes one environment, a batch of them, or the id of one that needs no loading (`CartPole-v1`). */
export type EnvironmentSource = (() => ReturnType<EnvironmentFactory>) | EnvironmentFactory | VectorEnvironment | string;

export interface AgentOptions extends Omit<ControlOptions, "algo"> {
  env: EnvironmentSource;
  /** Environments for evaluations. Default: more of `env`, unless that is a batch. */
  evaluationEnv?: EnvironmentSource;
  /** Default 0. */
  seed?: number;
  /** Default: one of its own, with one thread. */
  backend?: Backend;
}

export interface LearnOptions extends Omit<LoopOptions, "steps" | "stepSize" | "evaluateEvery"> {
  /** Evaluate every so many environment steps; 0 (default): never. */
  evaluateEvery?: number;
  signal?: AbortSignal;
}

/** A policy in use: {@link Agent.policy} and {@link loadAgentPolicy}. */
export interface UsablePolicy extends Disposable {
  readonly control: ControlPolicy;
  /** The action for an observation, as the environment takes it. */
  predict(observation: Value, options?: PredictOptions): Value;
  /** The action with its log-probability and the value of the observation. */
  predictFully(observation: Value, options?: PredictOptions): Prediction;
  /** policy.json and model.safetensors into `directory`, which is made. */
  save(directory: string): void;
  /** A plain ONNX file with the normalisation inside; see {@link exportPolicy}. */
  exportOnnx(path: string): void;
  dispose(): void;
}

/**
 * An algorithm with its environments. `learn` may be called again, and goes on.
 * ```ts
 * using agent = ppo({ env: "CartPole-v1", numEnvs: 8, numSteps: 32, batchSize: 256 });
 * for await (const event of agent.learn(50_000)) if (event.kind === "step") console.log(event.metrics["rollout/ep_rew_mean"]);
 * agent.policy.predict([0, 0, 0.02, 0]); // 0 or 1
 * ```
 */
export class Agent implements Disposable {
  readonly trainer: ControlTrainer;
  readonly policy: UsablePolicy;
  readonly #backend: Backend;
  readonly #ownsBackend: boolean;
  readonly #options: AgentOptions;
  #isLearning = false;

  /** Use {@link ppo}, {@link a2c}, {@link trpo}, {@link npg}, {@link reinforce}. */
  constructor(algo: ControlAlgorithm, options: AgentOptions) {
    const { env, evaluationEnv, seed = 0, backend, ...rest } = options;
    checkSource(env, "env");
    if (evaluationEnv !== undefined) checkSource(evaluationEnv, "evaluationEnv");
    const given = isBatch(env) ? { ...rest, numEnvs: rest.numEnvs ?? env.numEnvironments } : rest;
    const settings = controlSettings({ ...given, algo });
    this.#options = options;
    this.#ownsBackend = backend === undefined;
    this.#backend = backend ?? openBackend({ threads: 1 }).backend;
    const held = evaluationEnv ?? (isBatch(env) ? undefined : env);
    try {
      this.trainer = new ControlTrainer(this.#backend, batchOf(env, settings.numEnvs), {
        settings,
        seed,
        totalSteps: 1,
        ...(held === undefined ? {} : { evaluation: batchOf(held, settings.evaluationEnvs) }),
      });
    } catch (error) {
      if (this.#ownsBackend) this.#backend.dispose();
      throw error;
    }
    this.policy = usable(this.#backend, this.trainer.control, seed);
  }

  /**
   * Learns for so many more environment steps, rounded up to whole rollouts, and tells about it.
   * @throws what the engine's loop throws; UsageError for less than one step, or while another call runs.
   */
  async *learn(steps: number, { signal, evaluateEvery = 0, ...loop }: LearnOptions = {}): AsyncGenerator<RunEvent> {
    if (!(steps >= 1)) throw new UsageError(`learn: expected at least one environment step, got ${steps}`);
    if (this.#isLearning) throw new UsageError("learn: expected the former call to be finished, got a second one");
    const { trainer } = this;
    const { stepsPerIteration } = trainer;
    const iterations = Math.ceil(steps / stepsPerIteration);
    trainer.totalSteps = trainer.numTimesteps + steps;
    this.#isLearning = true;
    try {
      yield* runLoop(
        trainer,
        {
          watchedMetrics: ["train/loss", "train/value_loss", "train/gradient_norm"],
          ...loop,
          steps: iterations,
          stepSize: stepsPerIteration,
          evaluateEvery: evaluateEvery > 0 ? Math.max(1, Math.round(evaluateEvery / stepsPerIteration)) : 0,
        },
        signal,
      );
    } finally {
      this.#isLearning = false;
    }
  }

  /** {@link learn} to its end. @returns the metrics of the last step. */
  async train(steps: number, options: LearnOptions = {}): Promise<Metrics> {
    let metrics: Metrics = {};
    for await (const event of this.learn(steps, options)) if (event.kind === "step") metrics = event.metrics;
    return metrics;
  }

  /** Returns of whole episodes, in environments of their own. */
  async evaluate(episodes: number, options: { deterministic?: boolean; seed?: number } = {}): Promise<EpisodeResult[]> {
    const { env, evaluationEnv } = this.#options;
    const source = evaluationEnv ?? env;
    if (isBatch(source)) throw new UsageError("evaluate: expected environments for evaluation, got none", { hint: "Give evaluationEnv." });
    return evaluatePolicy(this.#backend, this.trainer.control, batchOf(source, 1), { episodes, ...options });
  }

  dispose(): void {
    this.policy.dispose();
    this.trainer.dispose();
    if (this.#ownsBackend) this.#backend.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const isBatch = (source: EnvironmentSource): source is VectorEnvironment => typeof source === "object";

/** @throws UsageError for a single environment: rollouts and evaluations make their own. */
function checkSource(source: EnvironmentSource, name: string): void {
  if (typeof source === "string" || typeof source === "function") return;
  if (isBatch(source) && source?.numEnvironments > 0) return;
  throw new UsageError(
    `${name}: expected an id, a function that makes an environment, or a batch, got ${source ? "one environment" : String(source)}`,
    {
      hint: `Give the function: ${name}: () => new MyEnvironment().`,
    },
  );
}

function batchOf(source: EnvironmentSource, count: number): VectorEnvironment {
  if (isBatch(source)) return source;
  if (typeof source === "string") return batchEnvironments(() => makeEnvironment(source), count, { name: source });
  return batchEnvironments(source as EnvironmentFactory, count);
}

/**
 * Plays episodes with a policy. The environments are disposed.
 * @param environments without normalisation: that of the policy is applied.
 * @throws UsageError when their spaces are not the policy's.
 */
export async function evaluatePolicy(
  backend: Backend,
  control: ControlPolicy,
  environments: VectorEnvironment,
  {
    episodes,
    deterministic = true,
    seed = 0,
    signal,
    onStep,
  }: { episodes: number; deterministic?: boolean; seed?: number; signal?: AbortSignal; onStep?: () => void },
): Promise<EpisodeResult[]> {
  try {
    checkSpaces(control, environments);
    const seen = control.normaliser ? normalise(environments, { normaliser: control.normaliser, training: false }) : environments;
    const evaluator = new Evaluator(backend, control.policy, seen);
    try {
      return await evaluator.run({ episodes, deterministic, seed, ...(signal ? { signal } : {}), ...(onStep ? { onStep } : {}) });
    } finally {
      evaluator.dispose();
    }
  } finally {
    environments.dispose();
  }
}

function usable(backend: Backend, control: ControlPolicy, seed: number, dispose: () => void = () => {}): UsablePolicy {
  let predictor: Predictor | undefined;
  const predictFully = (observation: Value, options?: PredictOptions): Prediction => {
    predictor ??= new Predictor(backend, control, seed);
    return predictor.predict(observation, options);
  };
  const release = (): void => {
    predictor?.dispose();
    dispose();
  };
  return {
    control,
    predictFully,
    predict: (observation, options) => predictFully(observation, options).action,
    save: (directory) => writeDirectoryAtomic(directory, (path) => saveControlPolicy(path, control)),
    exportOnnx: (path) => exportPolicy(control, path),
    dispose: release,
    [Symbol.dispose]: release,
  };
}

/** A policy that was saved by {@link UsablePolicy.save} or is part of a checkpoint. @throws FormatError for a damaged one. */
export function loadAgentPolicy(directory: string, { backend, seed = 0 }: { backend?: Backend; seed?: number } = {}): UsablePolicy {
  const control = loadControlPolicy(directory);
  const used = backend ?? openBackend({ threads: 1 }).backend;
  return usable(used, control, seed, () => {
    if (backend === undefined) used.dispose();
  });
}

/** Proximal policy optimisation (Schulman et al. 2017), by default as Stable-Baselines3 has it. */
export const ppo = (options: AgentOptions): Agent => new Agent("ppo", options);
/** Advantage actor-critic (Mnih et al. 2016, synchronous). */
export const a2c = (options: AgentOptions): Agent => new Agent("a2c", options);
/** Trust region policy optimisation (Schulman et al. 2015). */
export const trpo = (options: AgentOptions): Agent => new Agent("trpo", options);
/** The natural policy gradient (Kakade 2001): TRPO without its line search. */
export const npg = (options: AgentOptions): Agent => new Agent("npg", options);
/** REINFORCE with a value baseline (Williams 1992; Spinning Up's VPG). */
export const reinforce = (options: AgentOptions): Agent => new Agent("reinforce", options);
