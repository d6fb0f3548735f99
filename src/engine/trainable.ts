// What the loop needs of a thing that learns. Training on data, reinforcement learning and drafter training each implement this.
import type { JsonRecord, Metrics } from "./events.ts";

export interface StepResult {
  /** `loss` and `gradientNorm` are watched: they must be finite. */
  readonly metrics: Metrics;
  /** Tokens, samples or environment steps that this step learned from. Default 0. */
  readonly tokens?: number;
  /**
   * The step left parameters and optimiser as they were, because a number was not finite. With `onNotFinite: "skip"` the run goes on
   * only after such a step: weights that took in a NaN are lost.
   */
  readonly skipped?: boolean;
  /** Nothing is left to learn: the run ends after this step. */
  readonly done?: boolean;
}

export interface Trainable {
  /**
   * One update. `index` counts from 0, also across resumes; a schedule's multiplier for this update is `schedule(index)`. Where a step can
   * be given up after an abort, it throws an AbortedError and leaves everything as it was before: that is saved. So may `evaluate`.
   */
  step(index: number): StepResult | Promise<StepResult>;
  /** Metrics on held-out data or episodes. It must not change what later steps compute. */
  evaluate?(): Metrics | Promise<Metrics>;
  /** What the model produces now. It must not change what later steps compute. */
  sample?(): string | readonly JsonRecord[] | Promise<string | readonly JsonRecord[]>;
  /** Writes all files of a checkpoint into an empty directory. The name trainer.json is taken. May return a promise. */
  save(directory: string): void | Promise<void>;
  /** Small values to resume from (data position, random states, running statistics); kept in trainer.json. Default none. */
  state?(): JsonRecord;
  /** Back to exactly the state that `save` and `state` recorded. */
  restore(directory: string, state: JsonRecord): void | Promise<void>;
  /** Writes what helps to understand a step that was not finite (the batch, the gradients) into an empty directory. */
  dump?(directory: string): void | Promise<void>;
}
