// A batch of environments whose observations and rewards are normalised by running statistics, as Stable-Baselines3's VecNormalize.
import { CheckpointError, invariant, UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { Autoreset, FinishedEpisode, VectorEnvironment } from "../environment.ts";
import { savedNumbers } from "../environments/native-environment.ts";
import { Box, describeSpace, type Space } from "../spaces.ts";
import { Normaliser, type NormaliserOptions } from "./normaliser.ts";

export interface NormaliseOptions extends NormaliserOptions {
  /** False: statistics are used but not updated, and rewards stay as they are; for evaluation. Default true. */
  training?: boolean;
  /** Statistics shared with another batch, such as those of training while this one evaluates. Its settings are then that batch's. */
  normaliser?: Normaliser;
}

class NormalisedEnvironments implements VectorEnvironment {
  readonly inner: VectorEnvironment;
  readonly normaliser: Normaliser;
  training: boolean;
  readonly name: string;
  readonly autoreset?: Autoreset;
  readonly numEnvironments: number;
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  readonly featureSize: number;
  readonly observations: Float32Array;
  readonly finalObservations: Float32Array;
  readonly rewards: Float64Array;
  readonly resetRows?: (rows: readonly number[]) => void | Promise<void>;
  readonly #sums: Float64Array;

  constructor(inner: VectorEnvironment, normaliser: Normaliser, training: boolean) {
    this.inner = inner;
    this.normaliser = normaliser;
    this.training = training;
    this.name = inner.name;
    this.autoreset = inner.autoreset;
    this.numEnvironments = inner.numEnvironments;
    this.actionSpace = inner.actionSpace;
    this.featureSize = inner.featureSize;
    const { observations, clipObservation } = normaliser.settings;
    const { observationSpace } = inner;
    this.observationSpace =
      observations && observationSpace.kind === "box" ? Box(-clipObservation, clipObservation, observationSpace.shape) : observationSpace;
    this.observations = observations ? new Float32Array(inner.observations.length) : inner.observations;
    this.finalObservations = observations ? new Float32Array(inner.finalObservations.length) : inner.finalObservations;
    this.rewards = new Float64Array(inner.rewards.length);
    this.#sums = new Float64Array(inner.numEnvironments);
    if (inner.resetRows) {
      this.resetRows = (rows) => {
        const done = (): void => {
          for (const row of rows) this.#sums[row] = 0;
          this.#showObservations();
        };
        return after((inner.resetRows as NonNullable<typeof inner.resetRows>)(rows), done);
      };
    }
  }

  /** [N, F] as the environments gave them. */
  get originalObservations(): Float32Array {
    return this.inner.observations;
  }

  /** [N] as the environments gave them. */
  get originalRewards(): Float64Array {
    return this.inner.rewards;
  }

  get terminated(): Uint8Array {
    return this.inner.terminated;
  }

  get truncated(): Uint8Array {
    return this.inner.truncated;
  }

  get actionMasks(): Uint8Array | undefined {
    return this.inner.actionMasks;
  }

  get finishedEpisodes(): readonly FinishedEpisode[] {
    return this.inner.finishedEpisodes;
  }

  reset(seed?: number): void | Promise<void> {
    return after(this.inner.reset(seed), () => {
      this.#sums.fill(0);
      this.#takeIn();
      this.#showObservations();
    });
  }

  step(actions: Float32Array | Float64Array | Int32Array): void | Promise<void> {
    const stepped = this.inner.step(actions);
    // No closure in the usual case.
    if (stepped === undefined) this.#afterStep();
    else return stepped.then(() => this.#afterStep());
  }

  #afterStep(): void {
    const { inner, normaliser } = this;
    this.#takeIn();
    this.#showObservations();
    if (this.training) normaliser.accumulate(inner.rewards, this.#sums);
    if (normaliser.settings.rewards && this.training) normaliser.normaliseRewards(inner.rewards, this.rewards);
    else this.rewards.set(inner.rewards);
    for (let row = 0; row < this.numEnvironments; row++) {
      if (!inner.terminated[row] && !inner.truncated[row]) continue;
      this.#sums[row] = 0;
      if (normaliser.settings.observations) normaliser.normaliseObservations(inner.finalObservations, this.finalObservations, row, 1);
    }
  }

  #takeIn(): void {
    const { observationMoments, settings } = this.normaliser;
    if (this.training && settings.observations) observationMoments.update(this.inner.observations, this.numEnvironments);
  }

  #showObservations(): void {
    if (this.normaliser.settings.observations)
      this.normaliser.normaliseObservations(this.inner.observations, this.observations, 0, this.numEnvironments);
  }

  /** With the statistics, unless they belong to another batch's state as well. */
  saveState(): JsonRecord | undefined {
    const inner = this.inner.saveState();
    return inner && { inner, statistics: this.normaliser.saveState(), sums: [...this.#sums] };
  }

  restoreState(state: JsonRecord): void {
    const { inner, statistics } = state;
    if (typeof inner !== "object" || inner === null || typeof statistics !== "object" || statistics === null)
      throw new CheckpointError("normalised environments: expected a state with statistics, got another");
    this.inner.restoreState(inner as JsonRecord);
    this.normaliser.restoreState(statistics as JsonRecord);
    this.#sums.set(savedNumbers(state, "sums", this.numEnvironments));
    this.#showObservations();
  }

  dispose(): void {
    this.inner.dispose();
  }
}

function after(work: void | Promise<void>, then: () => void): void | Promise<void> {
  if (work !== undefined) return work.then(then);
  then();
}

export type { NormalisedEnvironments };

/**
 * Normalises the observations and rewards of a batch. `originalObservations` and `originalRewards` are those of the environments;
 * `finishedEpisodes` has original returns.
 * For evaluation: `normalise(others, { normaliser: trained.normaliser, training: false })`.
 * @throws UsageError for observations that are not a box (with `observations: true`), or statistics of another shape.
 */
export function normalise(inner: VectorEnvironment, options: NormaliseOptions = {}): NormalisedEnvironments {
  const { training = true, normaliser: shared, ...settings } = options;
  const normaliser = shared ?? new Normaliser(inner.featureSize, settings);
  if (shared && Object.keys(settings).length > 0)
    throw new UsageError(`normalise: expected no settings beside shared statistics, got ${Object.keys(settings).join(", ")}`);
  if (normaliser.observationMoments.mean.length !== inner.featureSize)
    throw new UsageError(
      `normalise: expected statistics of ${inner.featureSize} features, got ${normaliser.observationMoments.mean.length}`,
    );
  if (normaliser.settings.observations && inner.observationSpace.kind !== "box")
    throw new UsageError(`normalise: expected observations in a Box, got ${describeSpace(inner.observationSpace)}`, {
      hint: "Pass observations: false to normalise rewards alone.",
    });
  invariant(inner.observations.length === inner.numEnvironments * inner.featureSize, "normalise: one row for each environment");
  return new NormalisedEnvironments(inner, normaliser, training);
}
