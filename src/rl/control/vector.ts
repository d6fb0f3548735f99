// A batch of environments in this thread.
import { UsageError } from "../../base/errors.ts";
import type { JsonRecord } from "../../engine/events.ts";
import type { Environment, EnvironmentFactory, VectorEnvironment } from "./environment.ts";
import { featureSize } from "./spaces.ts";
import { Batch, checkBatchOptions } from "./vector-batch.ts";
import { allocateRows, type BatchOptions, EnvironmentSlice, maskGroups, type RowBuffers } from "./vector-slice.ts";

class InProcessBatch extends Batch {
  readonly #slice: EnvironmentSlice;

  constructor(environments: readonly Environment[], staged: RowBuffers, options: BatchOptions) {
    super(environments[0].observationSpace, environments[0].actionSpace, staged, options);
    this.#slice = new EnvironmentSlice(environments, staged, 0, options);
  }

  reset(seed?: number): void {
    this.checkSeed(seed);
    this.begin();
    this.#slice.reset(seed ?? Number.NaN);
    this.commit(false);
  }

  resetRows(rows: readonly number[]): void {
    const mask = this.rowMask(rows);
    this.begin();
    this.#slice.resetRows(mask);
    this.commit(false);
  }

  step(actions: Float32Array | Float64Array | Int32Array): void {
    this.checkActions(actions);
    this.begin();
    this.#slice.step(actions);
    this.commit(true);
  }

  saveState(): JsonRecord | undefined {
    this.checkRunning();
    return this.#slice.saveState();
  }

  restoreState(state: JsonRecord): void {
    this.begin();
    this.#slice.restoreState(state);
    this.commit(false);
  }

  /** What to draw of one environment. */
  drawing(row: number): ReturnType<NonNullable<Environment["drawing"]>> | undefined {
    return this.#slice.environments[row]?.drawing?.();
  }

  override dispose(): void {
    if (this.isDisposed) return;
    super.dispose();
    this.#slice.dispose();
  }
}

export type { InProcessBatch };

/** M: entries of a mask of one environment; 0 when it has none. @throws UsageError for a mask over a Box. */
export function maskSizeOf({ actionMask, actionSpace }: Environment): number {
  if (!actionMask) return 0;
  const groups = maskGroups(actionSpace);
  if (groups.length === 0) throw new UsageError("actionMask: expected discrete actions, got a Box");
  return groups.reduce((sum, count) => sum + count, 0);
}

/**
 * Runs `n` environments in this thread, one after another: the fastest for native ones. They need a `reset` first.
 *
 * What environments return is checked: a NaN, another shape, an action outside its space or an error in `step` is an EnvironmentError that
 * names the environment and the step; buffers then keep the last good step, and the batch must be reset or restored.
 * @param factory makes the environment of a row.
 * @throws UsageError for wrong options, EnvironmentError for environments with different spaces.
 */
export function batchEnvironments(factory: EnvironmentFactory, n: number, options: BatchOptions = {}): InProcessBatch & VectorEnvironment {
  checkBatchOptions(n, options);
  const environments = Array.from({ length: n }, (_, index) => factory(index));
  const staged = allocateRows(n, featureSize(environments[0].observationSpace), maskSizeOf(environments[0]));
  return new InProcessBatch(environments, staged, options);
}
