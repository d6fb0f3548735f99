// Passes over a batch in minibatches, and what a pass tells: the loop that PPO, A2C, REINFORCE and the critic of TRPO share.
import type { TensorBuffer } from "../../../runtime/buffer.ts";
import type { SampleBatch } from "../buffer.ts";
import { normaliseAdvantages } from "../estimators.ts";
import type { GradientStep, StepNumbers, StepOutcome } from "./gradient-step.ts";

/** minibatch: Stable-Baselines3's (ddof 1, + 1e-8); batch: the same over all samples; spinning-up: population std over all samples. */
export const advantageNormalisations = ["minibatch", "batch", "spinning-up", "none"] as const;
export type AdvantageNormalisation = (typeof advantageNormalisations)[number];

export interface EpochOptions {
  epochs: number;
  /** Rows of a minibatch; the last one of a pass may have fewer. */
  batchSize: number;
  /** Default minibatch. */
  normaliseAdvantage?: AdvantageNormalisation;
  numbers: StepNumbers;
  /** The pass ends, and no further one begins, when the KL of a minibatch is above this; `numbers.maxKl` is set to it. */
  maxKl?: number;
  /** Row numbers of a pass, in order. */
  orderOf(epoch: number): ArrayLike<number>;
  oldParameters?: readonly TensorBuffer[];
  /** Hears of every step; the outcome is overwritten by the next one. */
  onStep?(outcome: Readonly<StepOutcome>): void;
}

/** Means over minibatches; `loss`, `gradientNorm` and `isMade` of the last one. */
export interface EpochMeans extends StepOutcome {
  /** Passes begun. */
  epochs: number;
  /** Steps made. */
  steps: number;
  /** Of the last pass alone. */
  approxKl: number;
  /** False when a minibatch ended the update: by its KL, or by a gradient that is not finite. */
  isMade: boolean;
}

/** Runs all passes at once. */
export function runEpochs(step: GradientStep, batch: SampleBatch, options: EpochOptions): EpochMeans {
  const passes = epochsOf(step, batch, options);
  for (;;) {
    const { done, value } = passes.next();
    if (done) return value;
  }
}

/** The same in pieces: yields after every minibatch, so that the caller can do something else in between. */
export function* epochsOf(step: GradientStep, batch: SampleBatch, options: EpochOptions): Generator<undefined, EpochMeans> {
  const { epochs, batchSize, normaliseAdvantage: kind = "minibatch", orderOf, onStep, oldParameters } = options;
  const numbers: StepNumbers = { ...options.numbers, maxKl: options.maxKl ?? Number.POSITIVE_INFINITY };
  const advantages =
    kind === "batch" || kind === "spinning-up"
      ? normaliseAdvantages(takeRows(batch.advantages, batch.size), kind === "batch" ? "sb3" : "spinning-up")
      : batch.advantages;
  const rows = new Float64Array(batchSize);
  const sums = { policyLoss: 0, valueLoss: 0, entropy: 0, approxKlK1: 0, clipFraction: 0, kl: 0 };
  const means: EpochMeans = { ...sums, loss: 0, approxKl: 0, gradientNorm: 0, isMade: true, epochs: 0, steps: 0 };
  let seen = 0;
  for (let epoch = 0; epoch < epochs && means.isMade; epoch++) {
    const order = orderOf(epoch);
    let [epochKl, epochSteps] = [0, 0];
    means.epochs++;
    for (let from = 0; from < order.length && means.isMade; from += batchSize) {
      const count = Math.min(batchSize, order.length - from);
      for (let i = 0; i < count; i++) rows[i] = advantages[order[from + i]];
      const own = rows.subarray(0, count);
      if (kind === "minibatch") normaliseInPlace(own);
      const outcome = step.run(batch, order, from, count, own, numbers, oldParameters);
      onStep?.(outcome);
      for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += outcome[name];
      seen++;
      epochKl += outcome.approxKl;
      epochSteps++;
      means.loss = outcome.loss;
      means.gradientNorm = outcome.gradientNorm;
      means.isMade = outcome.isMade;
      if (outcome.isMade) means.steps++;
      yield;
    }
    means.approxKl = epochKl / Math.max(1, epochSteps);
  }
  for (const name of Object.keys(sums) as (keyof typeof sums)[]) means[name] = sums[name] / Math.max(1, seen);
  return means;
}

/** Mean 0, std 1 (ddof 1, + 1e-8); a single value stays. As {@link normaliseAdvantages}, without memory of its own. */
function normaliseInPlace(values: Float64Array): void {
  const n = values.length;
  if (n < 2) return;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += values[i];
  mean /= n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (values[i] - mean) ** 2;
  const scale = 1 / (Math.sqrt(squares / (n - 1)) + 1e-8);
  for (let i = 0; i < n; i++) values[i] = (values[i] - mean) * scale;
}

const takeRows = (values: ArrayLike<number>, count: number): ArrayLike<number> =>
  values.length === count ? values : Array.prototype.slice.call(values, 0, count);

/** 0, 1, …, n − 1. */
export function inOrder(n: number): Uint32Array {
  const order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  return order;
}
