// What happens between two rollouts: the algorithms as compositions of gradient steps and trust-region steps, with Stable-Baselines3's
// metric names.
import { setImmediate as nextTurn } from "node:timers/promises";
import { invariant } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { Policy } from "../../../models/policy/parameters.ts";
import type { OptimizerOptions } from "../../../optim/optimizer-options.ts";
import type { Backend } from "../../../runtime/backend.ts";
import type { TensorBuffer } from "../../../runtime/buffer.ts";
import { Random } from "../../../runtime/rng.ts";
import type { RolloutBuffer } from "../buffer.ts";
import { explainedVariance, normaliseAdvantages } from "../estimators.ts";
import type { ControlSettings } from "../options.ts";
import { type EpochMeans, type EpochOptions, epochsOf, inOrder } from "./epochs.ts";
import { GradientStep, type StepNumbers } from "./gradient-step.ts";
import { trustRegionStep } from "./trust-region.ts";
import { TrustRegionPrograms } from "./trust-region-programs.ts";

export interface UpdateContext {
  /** Rollouts before this one. */
  iteration: number;
  /** 1 at the start of the run, 0 at its end. */
  progressRemaining: number;
  /** Seed of the orders of minibatches. */
  seed: number;
}

export interface UpdateResult {
  metrics: Record<string, number>;
  /** The first step already was not finite, and nothing has changed. */
  skipped: boolean;
}

/** One algorithm with its programs and optimiser states. */
export interface PolicyUpdate extends Disposable {
  run(buffer: RolloutBuffer, context: UpdateContext): Promise<UpdateResult>;
  /** Live buffers by name, for checkpoints. */
  state(): Record<string, TensorBuffer>;
  /** Numbers besides, for checkpoints. */
  saveState(): JsonRecord;
  restoreState(state: JsonRecord): void;
  dispose(): void;
}

/** @param size samples of a rollout. */
export function createUpdate(backend: Backend, policy: Policy, settings: ControlSettings, size: number, masked: boolean): PolicyUpdate {
  return settings.algo === "trpo" || settings.algo === "npg"
    ? new TrustRegionUpdate(backend, policy, settings, size, masked)
    : new GradientUpdate(backend, policy, settings, size, masked);
}

const turnMs = 25;

/** Runs passes with turns for the event loop. */
async function inTurns(passes: Generator<undefined, EpochMeans>): Promise<EpochMeans> {
  let lastTurn = performance.now();
  for (;;) {
    const { done, value } = passes.next();
    if (done) return value;
    if (performance.now() - lastTurn > turnMs) {
      await nextTurn();
      lastTurn = performance.now();
    }
  }
}

function optimizerOptions({ optimizer, optimizerEpsilon: epsilon, weightDecay }: ControlSettings): OptimizerOptions {
  if (optimizer === "sgd") return { kind: "sgd", weightDecay };
  return { kind: optimizer, epsilon, weightDecay };
}

/** Orders of a pass: permutations keyed by rollout and pass, so that a resumed run draws the same ones. */
function orders({ seed, iteration }: UpdateContext, size: number, batchSize: number, stream: string): (epoch: number) => ArrayLike<number> {
  if (batchSize >= size) {
    const order = inOrder(size);
    return () => order;
  }
  return (epoch) => new Random(seed, { stream: `${stream} ${epoch}`, request: iteration }).permutation(size);
}

const scheduled = (value: number, schedule: "constant" | "linear", { progressRemaining }: UpdateContext): number =>
  schedule === "linear" ? value * Math.max(0, progressRemaining) : value;

/** Mean standard deviation of a Gaussian policy; undefined for others. */
function meanStd({ parameters }: Policy): number | undefined {
  const logStd = parameters.leaves.get("actor.logStd")?.data as Float64Array | undefined;
  return logStd && logStd.reduce((sum, value) => sum + Math.exp(value), 0) / logStd.length;
}

function commonMetrics(policy: Policy, buffer: RolloutBuffer, numUpdates: number, learningRate: number): Record<string, number> {
  const std = meanStd(policy);
  return {
    "train/explained_variance": explainedVariance(buffer.values, buffer.returns),
    "train/n_updates": numUpdates,
    "train/learning_rate": learningRate,
    ...(std === undefined ? {} : { "train/std": std }),
  };
}

/** PPO, A2C and REINFORCE: minibatch steps on one loss, or on the policy and then on the value network. */
class GradientUpdate implements PolicyUpdate {
  readonly #policy: Policy;
  readonly #settings: ControlSettings;
  readonly #size: number;
  readonly #main: GradientStep;
  readonly #critic: GradientStep | undefined;
  /** For the exact KL to the policy before the update. */
  readonly #trust: TrustRegionPrograms | undefined;
  #numUpdates = 0;
  #klCoefficient: number;

  constructor(backend: Backend, policy: Policy, settings: ControlSettings, size: number, masked: boolean) {
    const { algo, valueLearningRate, klPenalty, clip, dualClip, valueClip, entropyCoefficient, maxGradNorm } = settings;
    this.#policy = policy;
    this.#settings = settings;
    this.#size = size;
    this.#klCoefficient = settings.klCoefficient;
    const optimizer = optimizerOptions(settings);
    const isSeparate = valueLearningRate !== undefined;
    const ppoClip = { kind: "ppo", low: 0.2, high: 0.2, ...(dualClip === undefined ? {} : { dual: dualClip }) } as const;
    this.#main = new GradientStep(backend, policy, {
      part: isSeparate ? "actor" : "both",
      optimizer,
      clip: algo !== "ppo" ? { kind: "log-prob" } : clip ? ppoClip : { kind: "none" },
      valueClip,
      valueCoefficient: settings.valueCoefficient,
      entropy: entropyCoefficient !== 0,
      klPenalty: klPenalty !== "none",
      maxGradNorm,
      masked,
    });
    if (isSeparate) this.#critic = new GradientStep(backend, policy, { part: "critic", optimizer, valueClip, maxGradNorm });
    if (klPenalty !== "none")
      this.#trust = new TrustRegionPrograms(backend, policy, {
        rows: size,
        direction: "old-new",
        reduction: "sum",
        fisher: "gauss-newton",
        masked,
      });
  }

  async run(buffer: RolloutBuffer, context: UpdateContext): Promise<UpdateResult> {
    const settings = this.#settings;
    const { algo, klPenalty, targetKl, numEpochs, normalizeAdvantage: normaliseAdvantage, valueLearningRate } = settings;
    // A2C and REINFORCE learn from a sample once: the whole rollout is one batch.
    const batchSize = algo === "ppo" ? Math.min(settings.batchSize, this.#size) : this.#size;
    const learningRate = scheduled(settings.learningRate, settings.learningRateSchedule, context);
    const clipRange = scheduled(settings.clipRange, settings.clipRangeSchedule, context);
    const numbers: StepNumbers = {
      learningRate,
      clipRange,
      clipRangeValue: settings.clipRangeValue,
      entropyCoefficient: settings.entropyCoefficient,
      klCoefficient: this.#klCoefficient,
    };
    if (this.#trust) this.#trust.prepare(buffer, inOrder(this.#size), buffer.advantages);
    const passes: EpochOptions = {
      epochs: numEpochs,
      batchSize,
      normaliseAdvantage,
      numbers,
      orderOf: orders(context, this.#size, batchSize, "minibatches"),
      ...(algo === "ppo" && klPenalty !== "adaptive" && targetKl !== undefined ? { maxKl: 1.5 * targetKl } : {}),
      ...(this.#trust ? { oldParameters: this.#trust.oldParameters } : {}),
    };
    const means = await inTurns(epochsOf(this.#main, buffer, passes));
    this.#numUpdates += means.epochs;
    let valueLoss = means.valueLoss;
    if (this.#critic) {
      const rate = scheduled(valueLearningRate as number, settings.learningRateSchedule, context);
      const critic = await inTurns(
        epochsOf(this.#critic, buffer, {
          epochs: settings.valueEpochs,
          batchSize,
          normaliseAdvantage: "none",
          numbers: { ...numbers, learningRate: rate },
          orderOf: orders(context, this.#size, batchSize, "critic minibatches"),
        }),
      );
      valueLoss = critic.valueLoss;
    }
    const isPpo = algo === "ppo";
    return {
      metrics: {
        [isPpo ? "train/policy_gradient_loss" : "train/policy_loss"]: means.policyLoss,
        "train/value_loss": valueLoss,
        "train/entropy_loss": -means.entropy,
        "train/loss": means.loss,
        "train/gradient_norm": means.gradientNorm,
        ...(isPpo
          ? {
              "train/approx_kl": means.approxKl,
              "train/clip_fraction": means.clipFraction,
              "train/clip_range": clipRange,
              ...(settings.valueClip === "none" ? {} : { "train/clip_range_vf": settings.clipRangeValue }),
            }
          : {}),
        ...this.#afterPenalty(),
        ...commonMetrics(this.#policy, buffer, this.#numUpdates, learningRate),
      },
      skipped: means.steps === 0 && !Number.isFinite(means.gradientNorm),
    };
  }

  /** The KL of the whole update, and the next coefficient (Schulman et al. 2017, section 4). */
  #afterPenalty(): Record<string, number> {
    if (!this.#trust) return {};
    const { klPenalty, targetKl = 0 } = this.#settings;
    const { kl } = this.#trust.try(new Float64Array(this.#trust.numParameters));
    const coefficient = this.#klCoefficient;
    if (klPenalty === "adaptive") this.#klCoefficient = nextKlCoefficient(coefficient, kl, targetKl);
    return { "train/kl": kl, "train/kl_coefficient": coefficient };
  }

  state(): Record<string, TensorBuffer> {
    return { ...prefixed("policy", this.#main.state), ...(this.#critic ? prefixed("critic", this.#critic.state) : {}) };
  }

  saveState(): JsonRecord {
    return { numUpdates: this.#numUpdates, klCoefficient: this.#klCoefficient };
  }

  restoreState({ numUpdates, klCoefficient }: JsonRecord): void {
    this.#numUpdates = Number(numUpdates);
    this.#klCoefficient = Number(klCoefficient);
  }

  dispose(): void {
    this.#main.dispose();
    this.#critic?.dispose();
    this.#trust?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** β of the next update: halved where the KL stayed below 2/3 of its aim, doubled where it went above 3/2 of it. */
export function nextKlCoefficient(coefficient: number, kl: number, target: number): number {
  if (kl < target / 1.5) return coefficient / 2;
  return kl > target * 1.5 ? coefficient * 2 : coefficient;
}

/** TRPO and the natural policy gradient: one step of the policy, then passes of the value network. */
class TrustRegionUpdate implements PolicyUpdate {
  readonly #policy: Policy;
  readonly #settings: ControlSettings;
  readonly #size: number;
  /** Rows that the policy's step uses. */
  readonly #rows: Uint32Array;
  readonly #programs: TrustRegionPrograms;
  readonly #critic: GradientStep;
  #numUpdates = 0;

  constructor(backend: Backend, policy: Policy, settings: ControlSettings, size: number, masked: boolean) {
    const { subSamplingFactor, fisherSubSampling, klDirection, klReduction, fisher } = settings;
    this.#policy = policy;
    this.#settings = settings;
    this.#size = size;
    this.#rows = Uint32Array.from({ length: Math.ceil(size / subSamplingFactor) }, (_, i) => i * subSamplingFactor);
    this.#programs = new TrustRegionPrograms(backend, policy, {
      rows: this.#rows.length,
      fisherRows: Math.ceil(this.#rows.length / fisherSubSampling),
      direction: klDirection,
      reduction: klReduction,
      fisher,
      masked,
    });
    this.#critic = new GradientStep(backend, policy, { part: "critic", optimizer: optimizerOptions(settings) });
  }

  async run(buffer: RolloutBuffer, context: UpdateContext): Promise<UpdateResult> {
    const settings = this.#settings;
    const { normalizeAdvantage, targetKl, algo } = settings;
    invariant(targetKl !== undefined, "a trust region without a bound");
    const chosen = Float64Array.from(this.#rows, (row) => buffer.advantages[row]);
    const advantages =
      normalizeAdvantage === "none" ? chosen : normaliseAdvantages(chosen, normalizeAdvantage === "spinning-up" ? "spinning-up" : "sb3");
    const prepared = this.#programs.prepare(buffer, this.#rows, advantages);
    const step = trustRegionStep(this.#programs, prepared, {
      targetKl,
      cgMaxSteps: settings.cgMaxSteps,
      cgDamping: settings.cgDamping,
      cgResidualTolerance: 1e-10,
      lineSearch: algo === "trpo",
      lineSearchMaxIterations: settings.lineSearchMaxIterations,
      lineSearchShrinkingFactor: settings.lineSearchShrinkingFactor,
      minImprovementRatio: settings.minImprovementRatio,
    });
    await nextTurn();
    const learningRate = scheduled(settings.learningRate, settings.learningRateSchedule, context);
    const batchSize = Math.min(settings.batchSize, this.#size);
    const critic = await inTurns(
      epochsOf(this.#critic, buffer, {
        epochs: settings.numCriticUpdates,
        batchSize,
        normaliseAdvantage: "none",
        numbers: { learningRate },
        orderOf: orders(context, this.#size, batchSize, "critic minibatches"),
      }),
    );
    this.#numUpdates++;
    const norm = Math.sqrt(prepared.gradient.reduce((sum, g) => sum + g * g, 0));
    return {
      metrics: {
        "train/policy_objective": step.surrogate,
        "train/kl_divergence_loss": step.kl,
        "train/is_line_search_success": step.accepted ? 1 : 0,
        "train/line_search_steps": step.tries.length,
        "train/cg_steps": step.cgSteps,
        "train/value_loss": critic.valueLoss,
        "train/gradient_norm": norm,
        ...commonMetrics(this.#policy, buffer, this.#numUpdates, learningRate),
      },
      skipped: !Number.isFinite(norm) && critic.steps === 0,
    };
  }

  state(): Record<string, TensorBuffer> {
    return prefixed("critic", this.#critic.state);
  }

  saveState(): JsonRecord {
    return { numUpdates: this.#numUpdates };
  }

  restoreState({ numUpdates }: JsonRecord): void {
    this.#numUpdates = Number(numUpdates);
  }

  dispose(): void {
    this.#programs.dispose();
    this.#critic.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const prefixed = (prefix: string, state: Readonly<Record<string, TensorBuffer>>): Record<string, TensorBuffer> =>
  Object.fromEntries(Object.entries(state).map(([name, buffer]) => [`${prefix}.${name}`, buffer]));
