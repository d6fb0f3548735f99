// Medusa-1 (Cai et al. 2024, Sec. 2.2.1): heads learn on a frozen target, whose hidden rows the same program computes without gradient.
// Loss: Σ_k λ^k CE_k, head k (from 0) guessing the token k + 2 places ahead. Texts should be the target's own (self-distillation), because
// what counts is whether heads guess what the target says.
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type Batch, BatchLoader, evaluationBatches, type PackedRows } from "../data/index.ts";
import { type JsonRecord, type Metrics, type StepResult, saveTrainerState, type Trainable } from "../engine/index.ts";
import { decoderForward, finalNorm, outputMatrix } from "../models/decoder/decoder.ts";
import type { DecoderParameters } from "../models/decoder/parameters.ts";
import type { InferenceModel } from "../models/decoder/quantise.ts";
import { checkMedusaTarget, type MedusaHeads, type MedusaParameters, medusaLogits } from "../models/heads/medusa.ts";
import { loadMedusa, type MedusaInfo, saveMedusa } from "../models/heads/medusa-checkpoint.ts";
import { scheduleSchema, trainingOptimizerSchema } from "../optim/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../runtime/program.ts";
import { reshape, stopGradient, sum } from "../tensor/core.ts";
import type { DType } from "../tensor/dtype.ts";
import { add, div, maximum, mul, neg } from "../tensor/elementwise.ts";
import { gradients } from "../tensor/gradient.ts";
import type { Tensor } from "../tensor/graph.ts";
import { labelLogProbs } from "../tensor/loss.ts";
import { topK } from "../tensor/reduce.ts";
import { pad, slice, stack } from "../tensor/shape.ts";
import { flatten, mapTree } from "../tensor/tree.ts";
import { GradientUpdate } from "./gradient-update.ts";

export const medusaTrainingSchema = z.strictObject({
  batchSize: z.int().positive().default(8).describe("Sequences of a step"),
  sequenceLength: z.int().positive().optional().describe("Tokens of a sequence. Default: the model's context length, at most 256"),
  headDecay: z.number().positive().max(1).default(0.8).describe("Weight of each head's loss relative to the head before it"),
  learningRate: z.number().positive().default(1e-3).describe("Peak learning rate, with whatever optimizer; the schedule multiplies it"),
  maxGradientNorm: z.number().nonnegative().default(1).describe("Clip gradients to this global norm; 0: no clipping"),
  evaluationBatches: z.int().positive().optional().describe("Batches of an evaluation. Default: the whole held-out text"),
  guesses: z.int().positive().max(64).default(8).describe("Best guesses of each head that calibration looks at"),
  schedule: scheduleSchema.prefault({ kind: "cosine", warmupSteps: 0.1 }).describe("Learning-rate schedule"),
  optimizer: trainingOptimizerSchema.prefault({ kind: "adamw", weightDecay: 0 }).describe("Optimiser"),
});
export type MedusaTrainingOptions = z.input<typeof medusaTrainingSchema>;

export interface MedusaData {
  readonly train: PackedRows;
  /** Texts that no step sees: for evaluation and calibration. */
  readonly heldOut: PackedRows;
}

/** How good the guesses of the heads are on held-out text. */
export interface MedusaCalibration {
  /** [K][j]: share of positions at which the j-th guess of head k is right. */
  readonly accuracies: readonly (readonly number[])[];
  /** [positions, K]: which guess of each head was right, −1 where none of them was. Positions whose next K + 1 tokens are all known. */
  readonly ranks: Int8Array;
  readonly numPositions: number;
  /** Nats a token of each head. */
  readonly losses: readonly number[];
}

interface Inputs {
  target: DecoderParameters<TensorSpec>;
  heads: MedusaParameters<TensorSpec>;
  ids: TensorSpec;
  labels: TensorSpec;
  weights: TensorSpec;
}
interface Traced {
  target: DecoderParameters<Tensor>;
  heads: MedusaParameters<Tensor>;
  ids: Tensor;
  labels: Tensor;
  weights: Tensor;
}
interface StepOutputs {
  loss: Tensor;
  losses: Tensor;
  gradients: unknown;
}
interface CalibrationOutputs {
  losses: Tensor;
  guesses: Tensor;
}
interface Buffers {
  ids: TensorBuffer<"i32">;
  labels: TensorBuffer<"i32">;
  weights: TensorBuffer<"f32">;
}

export class MedusaTrainer implements Trainable {
  readonly heads: MedusaHeads;
  readonly options: z.output<typeof medusaTrainingSchema>;
  readonly #backend: Backend;
  readonly #target: InferenceModel;
  readonly #data: MedusaData;
  readonly #info: () => MedusaInfo;
  readonly #program: Program<Inputs, StepOutputs>;
  readonly #step: BoundProgram<Inputs, StepOutputs>;
  readonly #loader: BatchLoader;
  readonly #update: GradientUpdate<MedusaHeads["specs"]>;
  #calibration: Calibrator | undefined;

  /**
   * @param target frozen: nothing of it changes.
   * @param options.totalSteps of the whole run: the schedule's length.
   * @param info what is saved beside the weights, asked for at each save.
   * @throws UsageError for heads of another model.
   */
  constructor(
    backend: Backend,
    target: InferenceModel,
    heads: MedusaHeads,
    data: MedusaData,
    options: MedusaTrainingOptions & { totalSteps: number; seed?: number },
    info: () => MedusaInfo = () => ({}),
  ) {
    const { totalSteps, seed = 0, ...given } = options;
    this.options = parseOptions(medusaTrainingSchema, given);
    checkMedusaTarget(heads.config, target.config);
    const { length } = data.train;
    if (length < heads.config.heads + 2 || data.heldOut.length !== length)
      throw new UsageError(
        `medusa: expected sequences of at least ${heads.config.heads + 2} tokens, of one length, got ${length} and ${data.heldOut.length}`,
        {
          hint: "Head k guesses k + 2 tokens ahead: give longer sequences or fewer heads.",
        },
      );
    this.heads = heads;
    this.#backend = backend;
    this.#target = target;
    this.#data = data;
    this.#info = info;
    const { batchSize, headDecay } = this.options;
    this.#update = new GradientUpdate(backend, heads, { ...this.options, totalSteps });
    this.#program = compile(
      backend,
      (inputs): StepOutputs => {
        const traced = inputs as unknown as Traced;
        const { losses } = headLosses(target, traced);
        const loss = losses.map((one, k) => mul(one, headDecay ** k)).reduce((total, one) => add(total, one));
        return { loss, losses: stack(losses), gradients: gradients(loss, traced.heads) };
      },
      inputSpecs(target, heads, batchSize, length),
      { name: "medusa training step", weights: frozen(target) },
    );
    this.#step = this.#program.bind({ heads: heads.parameters.tree } as never, { gradients: this.#update.gradients.tree } as never);
    this.#loader = new BatchLoader(data.train, batchOf(this.#step), { batchSize, seed, shiftWindows: data.train.canShift });
  }

  async step(index: number): Promise<StepResult> {
    this.#loader.next();
    await this.#step.runAsync();
    const { loss, losses } = this.#step.outputs as unknown as { loss: TensorBuffer<"f32">; losses: TensorBuffer<"f32"> };
    const { metrics, skipped } = this.#update.apply(index, loss.data[0]);
    return {
      metrics: { loss: metrics.loss, ...named("loss", losses.data), ...metrics },
      tokens: this.options.batchSize * this.#data.train.length,
      skipped,
    };
  }

  /** loss, and share of positions at which the first guess of head k is right: accuracy1, accuracy2 … */
  async evaluate(): Promise<Metrics> {
    const { losses, accuracies } = await this.calibrate(this.options.evaluationBatches);
    const loss = losses.reduce((total, one, k) => total + one * this.options.headDecay ** k, 0);
    return {
      loss,
      ...named("loss", losses),
      ...named(
        "accuracy",
        accuracies.map(([first]) => first),
      ),
    };
  }

  /** What the heads know now about the held-out texts. */
  calibrate(maxBatches?: number, signal?: AbortSignal): Promise<MedusaCalibration> {
    const { batchSize, guesses } = this.options;
    this.#calibration ??= new Calibrator(this.#backend, this.#target, this.heads, {
      batchSize,
      length: this.#data.heldOut.length,
      guesses: Math.min(guesses, this.heads.config.vocabSize),
    });
    return this.#calibration.run(this.#data.heldOut, maxBatches, signal);
  }

  save(directory: string): void {
    saveMedusa(directory, this.heads, this.#info());
    saveTrainerState(directory, this.#update.state());
  }

  state(): JsonRecord {
    return { data: { ...this.#loader.position } };
  }

  restore(directory: string, state: JsonRecord): void {
    const load = () => loadMedusa(directory).parameters;
    this.#loader.restore(this.#update.restore(directory, state, "a training run of Medusa heads", load));
  }

  dispose(): void {
    this.#calibration?.dispose();
    this.#update.dispose();
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** name1, name2 … */
const named = (name: string, values: ArrayLike<number>): Record<string, number> =>
  Object.fromEntries(Array.from(values, (value, i) => [`${name}${i + 1}`, value]));

/** Parameters of the target as shared initializers: they never change. */
const frozen = ({ parameters: { tree } }: InferenceModel): Map<string, TensorBuffer> =>
  new Map(flatten<TensorBuffer>(tree as never).map(([path, leaf]) => [`target.${path}`, leaf]));

function inputSpecs(target: InferenceModel, heads: MedusaHeads, batchSize: number, length: number): Inputs {
  const declare = ({ dtype, shape }: { dtype: string; shape: readonly (number | string)[] }): TensorSpec => spec(dtype as DType, shape);
  const ids = spec("i32", [batchSize, length]);
  return {
    target: mapTree(target.parameters.tree, declare) as unknown as DecoderParameters<TensorSpec>,
    heads: mapTree(heads.specs, declare) as unknown as MedusaParameters<TensorSpec>,
    ids,
    labels: ids,
    weights: spec("f32", [batchSize, length]),
  };
}

/** Memory of a batch. */
function batchOf({ inputs }: { inputs: unknown }): Batch & { lossMask: Float32Array<ArrayBuffer> } {
  const { ids, labels, weights } = inputs as Buffers;
  return { inputs: ids.data, targets: labels.data, lossMask: weights.data };
}

/**
 * Loss of each head, its logits [N, V] and labels [N]. labels [B, T] follow their ids by one; head k's follow by k + 2. A position
 * counts where none of the tokens up to the label is masked: beyond the end of a text there is nothing to guess.
 */
function headLosses(target: InferenceModel, { target: parameters, heads, ids, labels, weights }: Traced) {
  const { config } = target;
  const { hidden } = decoderForward(config, parameters, ids);
  const rows = stopGradient(finalNorm(config, parameters, hidden));
  const logits = medusaLogits(heads, rows, { config, matrix: outputMatrix(parameters) });
  // The array seen `by` places further left, 0 at its end.
  const shifted = (x: Tensor, by: number): Tensor => pad(slice(x, 1, by), { axis: 1, after: by });
  let counted = weights;
  const parts = logits.map((one, k) => {
    counted = mul(counted, shifted(weights, k + 1));
    const weight = reshape(counted, [-1]);
    const label = reshape(shifted(labels, k + 1), [-1]);
    const logProbs = labelLogProbs(one, label);
    return { loss: neg(div(sum(mul(logProbs, weight)), maximum(sum(weight), 1))) };
  });
  return { logits, losses: parts.map(({ loss }) => loss) };
}

/** Runs the heads over held-out texts. */
class Calibrator {
  readonly #program: Program<Inputs, CalibrationOutputs>;
  readonly #call: BoundProgram<Inputs, CalibrationOutputs>;
  readonly #batch: ReturnType<typeof batchOf>;
  readonly #sizes: { batchSize: number; length: number; guesses: number; heads: number };

  constructor(backend: Backend, target: InferenceModel, heads: MedusaHeads, sizes: { batchSize: number; length: number; guesses: number }) {
    this.#sizes = { ...sizes, heads: heads.config.heads };
    this.#program = compile(
      backend,
      (inputs): CalibrationOutputs => {
        const { logits, losses } = headLosses(target, inputs as unknown as Traced);
        return { losses: stack(losses), guesses: stack(logits.map((one) => topK(one, sizes.guesses).indices)) };
      },
      inputSpecs(target, heads, sizes.batchSize, sizes.length),
      { name: "medusa calibration", weights: frozen(target) },
    );
    this.#call = this.#program.bind({ heads: heads.parameters.tree } as never);
    this.#batch = batchOf(this.#call);
  }

  async run(rows: PackedRows, maxBatches?: number, signal?: AbortSignal): Promise<MedusaCalibration> {
    const { batchSize, length, guesses: numGuesses, heads } = this.#sizes;
    const outputs = this.#call.outputs as unknown as { losses: TensorBuffer<"f32">; guesses: TensorBuffer<"i64"> };
    const words = new Int32Array(outputs.guesses.data.buffer, outputs.guesses.data.byteOffset, outputs.guesses.data.length * 2);
    const { targets, lossMask } = this.#batch;
    const ranks: number[] = [];
    const right = Array.from({ length: heads }, () => new Array<number>(numGuesses).fill(0));
    const losses = new Array<number>(heads).fill(0);
    let numBatches = 0;
    for (const _ of evaluationBatches(rows, this.#batch, { batchSize, maxBatches })) {
      await this.#call.runAsync(signal);
      for (let k = 0; k < heads; k++) losses[k] += outputs.losses.data[k];
      numBatches++;
      for (let row = 0; row < batchSize; row++) {
        for (let t = 0; t + heads < length; t++) {
          const at = row * length + t;
          let known = true;
          for (let i = 0; i <= heads; i++) known &&= lossMask[at + i] > 0;
          if (!known) continue;
          for (let k = 0; k < heads; k++) {
            const label = Number(targets[at + k + 1]);
            const first = 2 * (k * batchSize * length + at) * numGuesses;
            let rank = -1;
            for (let j = 0; j < numGuesses && rank < 0; j++) if (words[first + 2 * j] === label) rank = j;
            ranks.push(rank);
            if (rank >= 0) right[k][rank]++;
          }
        }
      }
    }
    const numPositions = ranks.length / heads;
    return {
      accuracies: right.map((counts) => counts.map((count) => (numPositions === 0 ? 0 : count / numPositions))),
      ranks: Int8Array.from(ranks),
      numPositions,
      losses: losses.map((total) => total / numBatches),
    };
  }

  dispose(): void {
    this.#program.dispose();
  }
}
