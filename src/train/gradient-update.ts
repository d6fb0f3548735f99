// What becomes of gradients that a program has left in memory: norm, clipping, the optimiser at the schedule's learning rate. Where loss or
// norm is not finite nothing changes. It knows the state of the optimiser, so that a run can be resumed from a checkpoint.
import { z } from "zod";
import type { LoaderPosition } from "../data/index.ts";
import { checkTrainerState, createModelOptimizer, type JsonRecord, type NamedBuffers, restoreTrainerState } from "../engine/index.ts";
import { clipFactor, createNorm, createSchedule, type Optimizer, type trainingOptimizerSchema } from "../optim/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocateFlat, type FlatBuffer } from "../runtime/flat.ts";

export interface UpdateOptions {
  /** Peak; the schedule multiplies it. */
  readonly learningRate: number;
  /** 0: no clipping. */
  readonly maxGradientNorm: number;
  readonly schedule: Parameters<typeof createSchedule>[0];
  readonly optimizer: z.output<typeof trainingOptimizerSchema>;
  /** Of the whole run: the schedule's length. */
  readonly totalSteps: number;
}

export class GradientUpdate<T> {
  /** What `apply` reads: the step's program writes it, or an accumulator. */
  readonly gradients: FlatBuffer<T>;
  readonly #parameters: FlatBuffer<T>;
  readonly #options: UpdateOptions;
  readonly #schedule: ReturnType<typeof createSchedule>;
  readonly #optimizer: Optimizer;
  readonly #norm: ReturnType<typeof createNorm>;

  /** @throws UsageError for options that do not fit each other or the parameters. */
  constructor(backend: Backend, { specs, parameters }: { specs: T; parameters: FlatBuffer<T> }, options: UpdateOptions) {
    this.#parameters = parameters;
    this.#options = options;
    this.#schedule = createSchedule(options.schedule, { totalSteps: options.totalSteps });
    this.gradients = allocateFlat(specs, parameters.layout);
    this.#optimizer = createModelOptimizer(backend, { specs, parameters }, this.gradients, options.optimizer);
    this.#norm = createNorm(backend, this.gradients);
  }

  /** Of step `index`. */
  learningRate(index: number): number {
    return this.#options.learningRate * this.#schedule(index);
  }

  /**
   * Updates the parameters, or leaves them and the optimiser as they are: `skipped`.
   * @param index of the step, from 0.
   * @param scale factor of the gradients, before their norm is taken. Default 1.
   */
  apply(index: number, loss: number, scale = 1): { metrics: Record<string, number>; skipped?: true } {
    const { maxGradientNorm } = this.#options;
    const learningRate = this.learningRate(index);
    const gradientNorm = this.#norm.compute() * scale;
    const metrics = { loss, learningRate, gradientNorm };
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) return { metrics, skipped: true };
    const clip = maxGradientNorm > 0 ? clipFactor(gradientNorm, maxGradientNorm) : 1;
    this.#optimizer.step({ learningRate, gradientScale: scale * clip });
    return { metrics };
  }

  /** The optimiser's live buffers. */
  state(): NamedBuffers {
    return this.#optimizer.state();
  }

  /**
   * Brings parameters and `buffers` back in place. @param run what writes such checkpoints. @param saved loads the checkpoint's parameters.
   * @returns the place in the data. @throws CheckpointError, FormatError.
   */
  restore(directory: string, state: JsonRecord, run: string, saved: () => FlatBuffer<unknown>, buffers = this.state()): LoaderPosition {
    const { data } = checkTrainerState(stateSchema, state, directory, ["a position in the data", run]);
    restoreTrainerState(directory, { live: this.#parameters, saved: saved(), buffers });
    return data;
  }

  dispose(): void {
    this.#optimizer.dispose();
    this.#norm.dispose();
  }
}

const stateSchema = z.object({ data: z.object({ epoch: z.int().nonnegative(), index: z.int().nonnegative() }) });
