// Trains a decoder on packed text: next-token cross-entropy, micro-batches, clipping by global norm, any optimiser and schedule.
// Parameters, gradients and moments are flat buffers that the compiled step reads and writes in place.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { parseOptions } from "../base/schema.ts";
import { type Batch, BatchLoader, type LoaderPosition, type PackedRows } from "../data/index.ts";
import { type JsonRecord, type Metrics, type StepResult, saveTrainerState, type Trainable } from "../engine/index.ts";
import { loadDecoder, saveDecoder } from "../models/decoder/checkpoint.ts";
import { languageModelLoss, trainingLoss } from "../models/decoder/decoder.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import type { DecoderParameters } from "../models/decoder/parameters.ts";
import type { ParameterSpec } from "../nn/parameter.ts";
import { createAccumulator, createEma, scheduleSchema, trainingOptimizerSchema } from "../optim/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../runtime/flat.ts";
import { type BoundProgram, compile, type Program } from "../runtime/program.ts";
import { gradients } from "../tensor/gradient.ts";
import type { Tensor } from "../tensor/graph.ts";
import { unflatten } from "../tensor/tree.ts";
import { type BatchBuffers, lossArguments, type StepInputs, stepInputs, type TrainableDecoder } from "./decoder-program.ts";
import { Evaluator } from "./evaluator.ts";
import { GradientUpdate } from "./gradient-update.ts";

export const languageModelSchema = z.strictObject({
  batchSize: z.int().positive().default(8).describe("Sequences of a micro-batch"),
  sequenceLength: z.int().positive().optional().describe("Tokens of a sequence. Default: the model's context length"),
  accumulate: z.int().positive().default(1).describe("Micro-batches whose gradients are averaged before each update"),
  learningRate: z.number().positive().default(1e-3).describe("Peak learning rate, with whatever optimizer; the schedule multiplies it"),
  maxGradientNorm: z.number().nonnegative().default(1).describe("Clip gradients to this global norm; 0: no clipping"),
  isolateDocuments: z
    .boolean()
    .default(false)
    .describe("Packed documents do not see each other, and positions restart with each; otherwise they are one stream, as in GPT"),
  ema: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe("Decay of an exponential moving average of the weights, evaluated and saved as a model of its own beside them; 0: none"),
  evaluationBatches: z.int().positive().optional().describe("Batches of an evaluation. Default: the whole validation set"),
  schedule: scheduleSchema.prefault({ kind: "cosine-warmup-with-min-lr", warmupSteps: 0.02 }).describe("Learning-rate schedule"),
  optimizer: trainingOptimizerSchema.prefault({ kind: "adamw", beta2: 0.95, weightDecay: 0.1 }).describe("Optimiser"),
});
export type LanguageModelOptions = z.input<typeof languageModelSchema>;

export interface LanguageModelData {
  readonly train: PackedRows;
  readonly validation?: PackedRows;
  /** UTF-8 bytes of the text of a target token, by id: gives bits per byte. */
  readonly bytesOfToken?: ArrayLike<number>;
}

export interface LanguageModelHooks {
  /** Text that the model writes now; the weights are current. */
  sample?: () => string | Promise<string>;
  /** More files for a checkpoint directory (tokenizer.json, generation_config.json). */
  saveExtras?: (directory: string) => void;
  /** Extra fields of config.json. */
  configFields?: Readonly<Record<string, unknown>>;
  /** float32 operations a second of this machine's matrix products: gives MFU. */
  peakFlops?: number;
}

type Parameters = DecoderParameters<ParameterSpec>;
interface StepOutputs {
  loss: Tensor;
  gradients: unknown;
}

export class LanguageModelTrainer implements Trainable {
  readonly decoder: TrainableDecoder;
  /** Tokens of one update, padding included. */
  readonly tokensPerStep: number;
  readonly options: z.output<typeof languageModelSchema>;
  readonly #backend: Backend;
  readonly #data: LanguageModelData;
  readonly #hooks: LanguageModelHooks;
  readonly #program: Program<StepInputs, StepOutputs>;
  readonly #step: BoundProgram<StepInputs, StepOutputs>;
  readonly #batch: Batch;
  readonly #loader: BatchLoader;
  readonly #update: GradientUpdate<Parameters>;
  readonly #accumulator: ReturnType<typeof createAccumulator> | undefined;
  readonly #ema: ReturnType<typeof createEma> | undefined;
  readonly #flopsPerToken: number;
  #evaluation: Evaluator | undefined;
  /** Of the step that runs or ran last: what reproduces it. */
  #record: StepRecord | undefined;

  /**
   * @param options.totalSteps of the whole run: the schedule's length.
   * @throws UsageError for options that do not fit each other.
   */
  constructor(
    backend: Backend,
    decoder: TrainableDecoder,
    data: LanguageModelData,
    options: LanguageModelOptions & { totalSteps: number; seed?: number },
    hooks: LanguageModelHooks = {},
  ) {
    const { totalSteps, seed = 0, ...given } = options;
    this.options = parseOptions(languageModelSchema, given);
    this.decoder = decoder;
    this.#backend = backend;
    this.#data = data;
    this.#hooks = hooks;
    const { batchSize, accumulate, isolateDocuments } = this.options;
    const { length, canShift } = data.train;
    this.tokensPerStep = batchSize * length * accumulate;
    this.#flopsPerToken = estimateDecoder(decoder.config, length).trainingFlopsPerToken;
    this.#update = new GradientUpdate(backend, decoder, { ...this.options, totalSteps });
    const { gradients: total } = this.#update;
    // Of a micro-batch, where there are several: they are added up.
    const own = accumulate > 1 ? allocateFlat(decoder.specs, decoder.parameters.layout) : total;
    this.#program = compile(
      backend,
      (inputs): StepOutputs => {
        const losses = languageModelLoss(decoder.config, ...lossArguments(inputs));
        return { loss: losses.loss, gradients: gradients(trainingLoss(decoder.config, losses), inputs.parameters) };
      },
      stepInputs(decoder, batchSize, length, { weighted: true, isolateDocuments }),
      { name: "training step" },
    );
    this.#step = this.#program.bind({ parameters: decoder.parameters.tree } as never, { gradients: own.tree } as never);
    const { ids, labels, weights, documents, positions } = this.#step.inputs as unknown as BatchBuffers;
    this.#batch = {
      inputs: ids.data,
      targets: labels.data,
      lossMask: weights?.data,
      ...(isolateDocuments ? { documentIds: documents?.data, positions: positions?.data } : {}),
    };
    this.#loader = new BatchLoader(data.train, this.#batch, { batchSize, seed, shiftWindows: canShift });
    this.#accumulator = own === total ? undefined : createAccumulator(backend, own, total);
    this.#ema = this.options.ema > 0 ? createEma(backend, decoder.parameters, { decay: this.options.ema }) : undefined;
  }

  async step(index: number): Promise<StepResult> {
    const startedAt = performance.now();
    const { accumulate } = this.options;
    const learningRate = this.#update.learningRate(index);
    const record: StepRecord = { step: index, learningRate, dataPosition: this.#loader.position, microBatch: accumulate - 1 };
    this.#record = record;
    let [loss, tokens] = [0, 0];
    this.#accumulator?.zero();
    for (let i = 0; i < accumulate; i++) {
      this.#loader.next();
      const count = this.#numTargets();
      if (count === 0) continue;
      await this.#step.runAsync();
      const value = this.#loss();
      loss += value * count;
      tokens += count;
      // Each micro-batch counts by its targets, so that padding does not weigh: k of them equal one batch k times as large.
      this.#accumulator?.add(count / this.tokensPerStep);
      if (!Number.isFinite(value) && !record.batch) {
        record.microBatch = i;
        record.batch = copyBatch(this.#batch);
      }
    }
    loss /= tokens;
    const { metrics, skipped } = this.#update.apply(index, loss, this.#accumulator ? this.tokensPerStep / tokens : 1);
    if (skipped) return { metrics, tokens, skipped };
    this.#ema?.update();
    if (this.#hooks.peakFlops) {
      const seconds = (performance.now() - startedAt) / 1000;
      metrics.mfu = (this.#flopsPerToken * this.tokensPerStep) / seconds / this.#hooks.peakFlops;
    }
    metrics.epoch = this.#loader.position.epoch + this.#loader.position.index / this.#loader.rowsPerEpoch;
    return { metrics, tokens };
  }

  async evaluate(): Promise<Metrics> {
    const { validation, bytesOfToken } = this.#data;
    if (!validation) return {};
    const { batchSize, isolateDocuments, evaluationBatches: maxBatches } = this.options;
    this.#evaluation ??= new Evaluator(this.#backend, this.decoder, { batchSize, length: validation.length, isolateDocuments });
    const evaluator = this.#evaluation;
    const metrics = { ...(await evaluator.run(validation, { bytesOfToken, maxBatches })) };
    if (!this.#ema) return metrics;
    // Before the first update the average is of the weights as they are.
    if (this.#ema.updateCount === 0) return { ...metrics, emaLoss: metrics.loss };
    this.#ema.swap();
    try {
      metrics.emaLoss = (await evaluator.run(validation, { maxBatches })).loss;
    } finally {
      this.#ema.swap();
    }
    return metrics;
  }

  sample(): string | Promise<string> {
    return this.#hooks.sample?.() ?? "";
  }

  /** config.json, model.safetensors and the hooks' files, the same in `ema/` for the averaged weights, and trainer.safetensors. */
  save(directory: string): void {
    const { configFields: fields, saveExtras } = this.#hooks;
    saveDecoder(directory, this.decoder, { fields });
    saveExtras?.(directory);
    if (this.#ema && this.#ema.updateCount > 0) {
      const averaged = join(directory, "ema");
      mkdirSync(averaged);
      saveDecoder(averaged, { ...this.decoder, parameters: flatOver(this.#ema.average, this.decoder) }, { fields });
      saveExtras?.(averaged);
    }
    saveTrainerState(directory, this.#state());
  }

  state(): JsonRecord {
    return { data: { ...this.#loader.position } };
  }

  restore(directory: string, state: JsonRecord): void {
    const load = () => loadDecoder(directory).parameters;
    this.#loader.restore(this.#update.restore(directory, state, "a training run of a language model", load, this.#state()));
  }

  /**
   * What reproduces a step that was not finite: step.json (number, learning rate, place in the data, the batch, and the norm of each
   * parameter's gradient) and the weights that it started from, as a model folder.
   */
  dump(directory: string): void {
    const { batch, ...record } = this.#record ?? {};
    const norms: Record<string, string> = {};
    for (const [path, { data }] of this.#update.gradients.leaves)
      norms[path] = String(Math.sqrt((data as Float32Array).reduce((sum, x) => sum + x * x, 0)));
    const arrays = Object.entries(batch ?? copyBatch(this.#batch)).map(([name, values]) => [name, Array.from(values as Int32Array)]);
    writeFileSync(
      join(directory, "step.json"),
      JSON.stringify({ ...record, length: this.#data.train.length, batch: Object.fromEntries(arrays), gradientNorms: norms }),
    );
    saveDecoder(directory, this.decoder, { fields: this.#hooks.configFields });
    this.#hooks.saveExtras?.(directory);
  }

  dispose(): void {
    this.#evaluation?.dispose();
    this.#update.dispose();
    this.#accumulator?.dispose();
    this.#ema?.dispose();
    this.#program.dispose();
  }

  #loss(): number {
    return Number((this.#step.outputs as unknown as { loss: TensorBuffer<"f32"> }).loss.data[0]);
  }

  /** Positions of the batch whose label counts. */
  #numTargets(): number {
    return (this.#batch.lossMask as Float32Array).reduce((sum, weight) => sum + weight, 0);
  }

  /** Everything besides the weights that a resume needs, as live buffers: written to a checkpoint and read back in place. */
  #state(): Record<string, TensorBuffer> {
    const named = (prefix: string, state: Readonly<Record<string, TensorBuffer>>) =>
      Object.entries(state).map(([name, buffer]) => [`${prefix}.${name}`, buffer] as const);
    return Object.fromEntries([...named("optimizer", this.#update.state()), ...(this.#ema ? named("ema", this.#ema.state()) : [])]);
  }
}

interface StepRecord {
  readonly step: number;
  readonly learningRate: number;
  /** Before the step's first micro-batch. */
  readonly dataPosition: LoaderPosition;
  /** Number of the micro-batch that `batch` is. */
  microBatch: number;
  /** The first micro-batch whose loss was not finite. */
  batch?: Batch;
}

const copyBatch = (batch: Batch): Batch =>
  Object.fromEntries(Object.entries(batch).map(([name, values]) => [name, (values as Int32Array).slice()])) as unknown as Batch;

/** A buffer of another use (averages) seen as the decoder's parameters. */
function flatOver(buffer: TensorBuffer, { specs, parameters: { layout } }: TrainableDecoder): FlatBuffer<Parameters> {
  const leaves = new Map(layout.leaves.map(({ path, shape, offset }) => [path, viewOf(buffer, shape, offset)]));
  return { layout, buffer, leaves, tree: unflatten(specs, leaves) };
}
