// Learning from reward in environments, as the engine's loop sees it: one step is one rollout and one update.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError, UsageError } from "../../base/errors.ts";
import type { JsonRecord, Metrics } from "../../engine/events.ts";
import { deriveSeed } from "../../engine/seeds.ts";
import type { StepResult, Trainable } from "../../engine/trainable.ts";
import { openSafetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors-write.ts";
import { readWeights } from "../../models/policy/checkpoint.ts";
import { type PolicyOptions, policyConfig, policySchema } from "../../models/policy/config.ts";
import { createPolicy, type Policy } from "../../models/policy/parameters.ts";
import type { Backend } from "../../runtime/backend.ts";
import { streamId } from "../../runtime/rng.ts";
import { meanOf, stdOf } from "../core/statistics.ts";
import { headFor } from "./actions.ts";
import type { FinishedEpisode, VectorEnvironment } from "./environment.ts";
import { discountedReturns, gae, nStepReturns, spinningUpGae } from "./estimators.ts";
import { Evaluator } from "./evaluation.ts";
import type { ControlSettings } from "./options.ts";
import { type ControlPolicy, checkSpaces, loadControlPolicy, saveControlPolicy } from "./policy-file.ts";
import { Rollouts } from "./rollouts.ts";
import { createUpdate, type PolicyUpdate } from "./updates/algorithm.ts";
import { type NormalisedEnvironments, normalise } from "./wrappers/normalised-environments.ts";

export interface ControlTrainerOptions {
  /** From `controlSettings`. */
  settings: ControlSettings;
  seed: number;
  /** Environment steps of the whole run: the end of schedules. */
  totalSteps: number;
  /** Environments for evaluations, of their own. They are disposed with the trainer. */
  evaluation?: VectorEnvironment;
}

const episodeSchema = z.array(z.tuple([z.number(), z.number()])).max(1_000_000);
const stateSchema = z.object({
  iteration: z.int().nonnegative(),
  environments: z.record(z.string(), z.unknown()).nullable(),
  normaliser: z.record(z.string(), z.unknown()).nullable(),
  episodes: episodeSchema,
  update: z.record(z.string(), z.unknown()),
  hasReached: z.boolean(),
});

export class ControlTrainer implements Trainable {
  readonly settings: ControlSettings;
  readonly policy: Policy;
  /** Environment steps of the whole run; schedules end there. */
  totalSteps: number;
  readonly #backend: Backend;
  readonly #seed: number;
  readonly #environments: VectorEnvironment;
  readonly #normalised: NormalisedEnvironments | undefined;
  readonly #evaluation: VectorEnvironment | undefined;
  readonly #rollouts: Rollouts;
  readonly #update: PolicyUpdate;
  #evaluator: Evaluator | undefined;
  /** [return, length] of the latest episodes, oldest first. */
  #episodes: [number, number][] = [];
  #iteration = 0;
  #isRunning = false;
  /** An evaluation reached the threshold: the next step is the last. */
  #hasReached = false;
  #startedAt = 0;
  #stepsSinceStart = 0;

  /**
   * @param environments a batch of `settings.numEnvs` environments, without normalisation; disposed with the trainer.
   * @throws UsageError for settings that do not fit the spaces.
   */
  constructor(backend: Backend, environments: VectorEnvironment, { settings, seed, totalSteps, evaluation }: ControlTrainerOptions) {
    if (environments.numEnvironments !== settings.numEnvs)
      throw new UsageError(`numEnvs: expected a batch of ${settings.numEnvs} environments, got ${environments.numEnvironments}`);
    this.#backend = backend;
    this.settings = settings;
    this.totalSteps = totalSteps;
    this.#seed = seed;
    const { normalizeObservations, normalizeRewards, clipObservation, clipReward, gamma } = settings;
    if (normalizeObservations || normalizeRewards) {
      const options = { observations: normalizeObservations, rewards: normalizeRewards, clipObservation, clipReward, gamma };
      this.#normalised = normalise(environments, options);
    }
    this.#environments = this.#normalised ?? environments;
    if (evaluation) {
      checkSpaces(
        { environment: environments.name, observationSpace: environments.observationSpace, actionSpace: environments.actionSpace },
        evaluation,
      );
      this.#evaluation = this.#normalised
        ? normalise(evaluation, { normaliser: this.#normalised.normaliser, training: false })
        : evaluation;
    }
    const head = headFor(environments.actionSpace, settings);
    const network = Object.fromEntries(Object.keys(policySchema.shape).map((key) => [key, settings[key as keyof PolicyOptions]]));
    const dtype = settings.precision === "float64" ? "f64" : "f32";
    this.policy = createPolicy(policyConfig(environments.featureSize, head, network, dtype), deriveSeed(seed, "policy"));
    const key = { seed: deriveSeed(seed, "actions"), stream: streamId("actions") };
    this.#rollouts = new Rollouts(backend, this.policy, this.#environments, settings, key, (episode) => this.#note(episode));
    this.#update = createUpdate(backend, this.policy, settings, this.#rollouts.buffer.size, environments.actionMasks !== undefined);
  }

  /** Environment steps of one iteration. */
  get stepsPerIteration(): number {
    return this.#rollouts.buffer.size;
  }

  /** Environment steps so far. */
  get numTimesteps(): number {
    return this.#iteration * this.stepsPerIteration;
  }

  /** The policy with what it needs to act; live. */
  get control(): ControlPolicy {
    const inner = this.#normalised?.inner ?? this.#environments;
    return {
      policy: this.policy,
      environment: inner.name,
      observationSpace: inner.observationSpace,
      actionSpace: inner.actionSpace,
      ...(this.#normalised?.normaliser.settings.observations ? { normaliser: this.#normalised.normaliser } : {}),
    };
  }

  async step(): Promise<StepResult> {
    if (!this.#isRunning) await this.#begin();
    const { buffer } = this.#rollouts;
    const startedAt = performance.now();
    await this.#rollouts.collect(this.#iteration * this.settings.numSteps);
    const collected = performance.now();
    this.#estimate();
    const { metrics, skipped } = await this.#update.run(buffer, {
      iteration: this.#iteration,
      progressRemaining: 1 - (this.numTimesteps + buffer.size) / this.totalSteps,
      seed: deriveSeed(this.#seed, "minibatches"),
    });
    const updated = performance.now();
    this.#iteration++;
    this.#stepsSinceStart += buffer.size;
    return {
      metrics: {
        ...this.#episodeMetrics(),
        "time/fps": this.#stepsSinceStart / Math.max(1e-9, (updated - this.#startedAt) / 1000),
        "time/total_timesteps": this.numTimesteps,
        "time/iterations": this.#iteration,
        "seconds/rollouts": (collected - startedAt) / 1000,
        "seconds/updates": (updated - collected) / 1000,
        ...metrics,
      },
      tokens: buffer.size,
      skipped,
      done: this.#hasReached,
    };
  }

  /** Mean return over whole episodes, in environments of their own and with the same random numbers each time. */
  async evaluate(): Promise<Metrics> {
    if (!this.#evaluation) return {};
    const { evaluationEpisodes, deterministicEvaluation, rewardThreshold, sdeSampleFreq } = this.settings;
    this.#evaluator ??= new Evaluator(this.#backend, this.policy, this.#evaluation);
    const results = await this.#evaluator.run({
      episodes: evaluationEpisodes,
      deterministic: deterministicEvaluation,
      seed: environmentSeed(this.#seed, "evaluation"),
      sdeSampleFreq,
    });
    const returns = results.map((result) => result.return);
    const mean = meanOf(returns);
    if (rewardThreshold !== undefined && mean >= rewardThreshold) this.#hasReached = true;
    return {
      "eval/mean_reward": mean,
      "eval/std_reward": stdOf(returns, 0),
      "eval/mean_ep_length": meanOf(results.map(({ length }) => length)),
    };
  }

  /** policy.json and model.safetensors, which are the policy, and trainer.safetensors with the moments of the optimisers. */
  save(directory: string): void {
    saveControlPolicy(directory, this.control);
    const tensors = Object.entries(this.#update.state()).map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, data }));
    writeSafetensors(join(directory, "trainer.safetensors"), tensors);
  }

  state(): JsonRecord {
    return {
      iteration: this.#iteration,
      environments: this.#isRunning ? (this.#environments.saveState() ?? null) : null,
      normaliser: this.#normalised?.normaliser.saveState() ?? null,
      episodes: this.#episodes,
      update: this.#update.saveState(),
      hasReached: this.#hasReached,
    };
  }

  async restore(directory: string, state: JsonRecord): Promise<void> {
    const parsed = stateSchema.safeParse(state);
    if (!parsed.success)
      throw new CheckpointError(`${directory}: expected the state of a run in environments, got ${JSON.stringify(state).slice(0, 60)}`, {
        hint: "This checkpoint was not written by longwave rl.",
      });
    const saved = loadControlPolicy(directory);
    checkSpaces(saved, { ...this.control, name: this.control.environment });
    if (JSON.stringify(saved.policy.parameters.layout) !== JSON.stringify(this.policy.parameters.layout))
      throw new CheckpointError(`${directory}: expected a policy of this run's shape, got another`, {
        hint: "Resume with the settings that the run was started with.",
      });
    const { iteration, environments, normaliser, episodes, update, hasReached } = parsed.data;
    readWeights(join(directory, "model.safetensors"), this.policy);
    using source = openSafetensors(join(directory, "trainer.safetensors"));
    for (const [name, buffer] of Object.entries(this.#update.state())) source.readInto(name, buffer);
    this.#update.restoreState(update as JsonRecord);
    this.#iteration = iteration;
    this.#episodes = episodes;
    this.#hasReached = hasReached;
    await this.#begin(environments as JsonRecord | null);
    if (normaliser && this.#normalised) this.#normalised.normaliser.restoreState(normaliser as JsonRecord);
  }

  /** rollout.json with the present rollout, and the policy. */
  dump(directory: string): void {
    const { buffer } = this.#rollouts;
    const lists = ["observations", "actions", "logProbs", "values", "rewards", "terminated", "truncated", "advantages", "returns"] as const;
    const told = Object.fromEntries(
      lists.map((name) => [name, Array.from(buffer[name], (value) => (Number.isFinite(value) ? value : String(value)))]),
    );
    writeFileSync(
      join(directory, "rollout.json"),
      JSON.stringify({ numSteps: buffer.numSteps, numEnvironments: buffer.numEnvironments, ...told }),
    );
    saveControlPolicy(directory, this.control);
  }

  dispose(): void {
    this.#rollouts.dispose();
    this.#update.dispose();
    this.#evaluator?.dispose();
    this.#environments.dispose();
    this.#evaluation?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Starts the environments, or puts them back where they were. */
  async #begin(saved: JsonRecord | null = null): Promise<void> {
    // Environments that could not tell their state start anew, with other numbers than at the start of the run.
    const name = this.#iteration === 0 ? "environments" : `environments from ${this.#iteration}`;
    await this.#environments.reset(environmentSeed(this.#seed, name));
    if (saved) this.#environments.restoreState(saved);
    this.#isRunning = true;
    this.#startedAt = performance.now();
    this.#stepsSinceStart = 0;
  }

  #estimate(): void {
    const { buffer } = this.#rollouts;
    const { estimator, gamma, gaeLambda: lambda, nStep, bootstrapTruncation } = this.settings;
    switch (estimator) {
      case "gae":
        gae(buffer, { gamma, lambda, bootstrapTruncation }, buffer);
        break;
      case "spinning-up":
        spinningUpGae(buffer, { gamma, lambda, bootstrapTruncation }, buffer);
        break;
      case "monte-carlo":
        discountedReturns(buffer, { gamma }, buffer);
        break;
      case "n-step":
        nStepReturns(buffer, { gamma, n: nStep }, buffer);
        break;
    }
  }

  #note({ return: sum, length }: FinishedEpisode): void {
    this.#episodes.push([sum, length]);
    if (this.#episodes.length > this.settings.statsWindow) this.#episodes.shift();
  }

  #episodeMetrics(): Record<string, number> {
    if (this.#episodes.length === 0) return {};
    return {
      "rollout/ep_rew_mean": meanOf(this.#episodes.map(([sum]) => sum)),
      "rollout/ep_len_mean": meanOf(this.#episodes.map(([, length]) => length)),
    };
  }
}

/** Environments are seeded with this and the numbers after it. */
const environmentSeed = (seed: number, name: string): number => Math.floor(deriveSeed(seed, name) / 2 ** 22);
