// What every batch shares, wherever its environments run: public buffers that change only when all environments have stepped well.
import { EnvironmentError, UsageError } from "../../base/errors.ts";
import type { JsonRecord } from "../../engine/events.ts";
import type { Autoreset, FinishedEpisode, VectorEnvironment } from "./environment.ts";
import { featureSize, type Space, valueSize } from "./spaces.ts";
import { allocateRows, type BatchOptions, type RowBuffers } from "./vector-slice.ts";

export abstract class Batch implements VectorEnvironment {
  readonly name: string;
  readonly autoreset: Autoreset;
  readonly numEnvironments: number;
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  readonly featureSize: number;
  readonly observations: Float32Array;
  readonly finalObservations: Float32Array;
  readonly rewards: Float64Array;
  readonly terminated: Uint8Array;
  readonly truncated: Uint8Array;
  readonly actionMasks?: Uint8Array;
  readonly finishedEpisodes: FinishedEpisode[] = [];
  readonly #staged: RowBuffers;
  readonly #actionSize: number;
  #state: "new" | "running" | "failed" | "disposed" = "new";

  /** @param staged what a step writes; copied to the public buffers when it went well. */
  constructor(observationSpace: Space, actionSpace: Space, staged: RowBuffers, options: BatchOptions) {
    this.name = options.name ?? "environment";
    this.autoreset = options.autoreset ?? "same-step";
    this.numEnvironments = staged.rewards.length;
    this.observationSpace = observationSpace;
    this.actionSpace = actionSpace;
    this.featureSize = featureSize(observationSpace);
    this.#actionSize = valueSize(actionSpace);
    const own = allocateRows(this.numEnvironments, this.featureSize, staged.actionMasks.length / this.numEnvironments);
    this.observations = own.observations;
    this.finalObservations = own.finalObservations;
    this.rewards = own.rewards;
    this.terminated = own.terminated;
    this.truncated = own.truncated;
    if (staged.actionMasks.length > 0) this.actionMasks = own.actionMasks;
    this.#staged = staged;
  }

  abstract reset(seed?: number): void | Promise<void>;
  abstract resetRows(rows: readonly number[]): void | Promise<void>;
  abstract step(actions: Float32Array | Float64Array | Int32Array): void | Promise<void>;
  abstract saveState(): JsonRecord | undefined;
  abstract restoreState(state: JsonRecord): void;

  dispose(): void {
    this.#state = "disposed";
  }

  get isDisposed(): boolean {
    return this.#state === "disposed";
  }

  protected checkSeed(seed: number | undefined): void {
    if (seed !== undefined && (!Number.isSafeInteger(seed) || seed < 0))
      throw new UsageError(`${this.name}: expected a seed from 0 to 2^53 - 1, got ${seed}`);
  }

  /** @returns [N] 1 for the rows named. */
  protected rowMask(rows: readonly number[]): Uint8Array {
    this.checkRunning();
    const mask = new Uint8Array(this.numEnvironments);
    for (const row of rows) {
      if (!Number.isInteger(row) || row < 0 || row >= this.numEnvironments)
        throw new UsageError(`${this.name}: expected rows from 0 to ${this.numEnvironments - 1}, got ${row}`);
      mask[row] = 1;
    }
    return mask;
  }

  protected checkActions(actions: ArrayLike<number>): void {
    this.checkRunning();
    const size = this.numEnvironments * this.#actionSize;
    if (actions.length !== size)
      throw new UsageError(
        `${this.name}: expected ${size} numbers for the actions of ${this.numEnvironments} environments, got ${actions.length}`,
      );
  }

  protected checkRunning(): void {
    this.#checkAlive();
    if (this.#state === "new") throw new EnvironmentError(`${this.name}: expected environments that were reset, got new ones`, resetHint);
    if (this.#state === "failed")
      throw new EnvironmentError(`${this.name}: expected environments in step with each other, got some that failed before`, resetHint);
  }

  #checkAlive(): void {
    if (this.isDisposed) throw new EnvironmentError(`${this.name}: expected environments in use, got disposed ones`);
  }

  /** Until `commit`, some environments have changed and others have not: then only a reset or a saved state helps. */
  protected begin(): void {
    this.#checkAlive();
    this.#state = "failed";
  }

  /** Makes public what was staged. @param stepped whether flags tell of the last step. */
  protected commit(stepped: boolean): void {
    if (this.isDisposed) return;
    const staged = this.#staged;
    this.#state = "running";
    this.observations.set(staged.observations);
    this.rewards.set(staged.rewards);
    this.terminated.set(staged.terminated);
    this.truncated.set(staged.truncated);
    this.actionMasks?.set(staged.actionMasks);
    if (this.finishedEpisodes.length > 0) this.finishedEpisodes.length = 0;
    if (!stepped) return;
    const size = this.featureSize;
    for (let row = 0; row < this.numEnvironments; row++) {
      if (!staged.terminated[row] && !staged.truncated[row]) continue;
      for (let at = row * size; at < (row + 1) * size; at++) this.finalObservations[at] = staged.finalObservations[at];
      this.finishedEpisodes.push({ row, return: staged.episodeReturns[row], length: staged.episodeLengths[row] });
    }
  }
}

const resetHint = { hint: "Call reset() first." };

/** @throws UsageError for a number of environments, or options, out of range. */
export function checkBatchOptions(n: number, { maxEpisodeSteps, autoreset = "same-step" }: BatchOptions): void {
  if (!Number.isInteger(n) || n < 1) throw new UsageError(`environments: expected a positive integer, got ${n}`);
  if (maxEpisodeSteps !== undefined && (!Number.isInteger(maxEpisodeSteps) || maxEpisodeSteps < 1))
    throw new UsageError(`maxEpisodeSteps: expected a positive integer, got ${maxEpisodeSteps}`);
  if (!["same-step", "next-step", "disabled"].includes(autoreset))
    throw new UsageError(`autoreset: expected same-step, next-step or disabled, got ${autoreset}`);
}
