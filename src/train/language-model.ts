// Trains a decoder on packed text: next-token cross-entropy, micro-batches, clipping by global norm, any optimiser and schedule.
// Parameters, gradients and moments are flat buffers that the compiled step reads and writes in place.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/errors.ts";
import { BatchLoader, evaluationBatches, type LoaderPosition, type PackedRows } from "../data/index.ts";
import type { JsonRecord, Metrics, StepResult, Trainable } from "../engine/index.ts";
import { openSafetensors, writeSafetensors } from "../formats/index.ts";
import { loadDecoder, saveDecoder } from "../models/decoder/checkpoint.ts";
import type { DecoderConfig } from "../models/decoder/config.ts";
import { languageModelLoss } from "../models/decoder/decoder.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import type { DecoderParameters } from "../models/decoder/parameters.ts";
import type { ParameterSpec } from "../nn/parameter.ts";
import {
  clipFactor,
  createAccumulator,
  createEma,
  createNorm,
  createOptimizer,
  createSchedule,
  optimizerSchema,
  scheduleSchema,
} from "../optim/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec } from "../runtime/program.ts";
import { gradients } from "../tensor/gradient.ts";
import type { Tensor } from "../tensor/graph.ts";
import { flatten, mapTree } from "../tensor/tree.ts";

export const languageModelSchema = z.strictObject({
  batchSize: z.int().positive().default(8).describe("Sequences of a micro-batch"),
  sequenceLength: z.int().positive().optional().describe("Tokens of a sequence. Default: the model's context length"),
  accumulate: z.int().positive().default(1).describe("Micro-batches whose gradients are averaged before each update"),
  learningRate: z.number().positive().default(1e-3).describe("Peak learning rate; the schedule multiplies it"),
  maxGradientNorm: z.number().nonnegative().default(1).describe("Clip gradients to this global norm; 0: no clipping"),
  ema: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe("Decay of an exponential moving average of the weights, evaluated and saved beside them; 0: none"),
  evaluationBatches: z.int().positive().optional().describe("Batches of an evaluation. Default: the whole validation set"),
  schedule: scheduleSchema.prefault({ kind: "cosine-warmup-with-min-lr", warmupSteps: 0.02 }).describe("Learning-rate schedule"),
  optimizer: optimizerSchema.prefault({ kind: "adamw", beta2: 0.95, weightDecay: 0.1 }).describe("Optimiser"),
});
export type LanguageModelOptions = z.input<typeof languageModelSchema>;

/** A decoder whose parameters are trained in place. */
export interface TrainableDecoder {
  readonly config: DecoderConfig;
  readonly specs: DecoderParameters<ParameterSpec>;
  readonly parameters: FlatBuffer<DecoderParameters<ParameterSpec>>;
}

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

type StepInputs = { parameters: unknown; ids: unknown; labels: unknown; weights?: unknown };

export class LanguageModelTrainer implements Trainable {
  readonly decoder: TrainableDecoder;
  /** Tokens of one update. */
  readonly tokensPerStep: number;
  readonly options: z.output<typeof languageModelSchema>;
  readonly #backend: Backend;
  readonly #data: LanguageModelData;
  readonly #hooks: LanguageModelHooks;
  readonly #gradients: FlatBuffer<DecoderParameters<ParameterSpec>>;
  readonly #sum: FlatBuffer<DecoderParameters<ParameterSpec>> | undefined;
  readonly #program: Program<StepInputs, { loss: Tensor; gradients: unknown }>;
  readonly #step: BoundProgram<StepInputs, { loss: Tensor; gradients: unknown }>;
  readonly #batch: { inputs: Int32Array<ArrayBuffer>; targets: Int32Array<ArrayBuffer>; lossMask?: Float32Array<ArrayBuffer> };
  readonly #loader: BatchLoader;
  readonly #optimizer: ReturnType<typeof createOptimizer>;
  readonly #norm: ReturnType<typeof createNorm>;
  readonly #accumulator: ReturnType<typeof createAccumulator> | undefined;
  readonly #ema: ReturnType<typeof createEma> | undefined;
  readonly #schedule: (step: number) => number;
  readonly #flopsPerToken: number;
  #evaluation: Evaluator | undefined;

  /** @param totalSteps of the whole run: the schedule's length. */
  constructor(
    backend: Backend,
    decoder: TrainableDecoder,
    data: LanguageModelData,
    options: LanguageModelOptions & { totalSteps: number; seed?: number },
    hooks: LanguageModelHooks = {},
  ) {
    const { totalSteps, seed = 0, ...given } = options;
    this.options = languageModelSchema.parse(given);
    this.decoder = decoder;
    this.#backend = backend;
    this.#data = data;
    this.#hooks = hooks;
    const { batchSize, accumulate } = this.options;
    const length = data.train.length;
    this.tokensPerStep = batchSize * length * accumulate;
    this.#flopsPerToken = estimateDecoder(decoder.config, length).trainingFlopsPerToken;
    this.#gradients = allocateFlat(decoder.specs, decoder.parameters.layout);
    if (accumulate > 1) this.#sum = allocateFlat(decoder.specs, decoder.parameters.layout);
    const masked = data.train.numPairs < data.train.numRows * length;
    this.#program = compile(
      backend,
      ({ parameters, ids, labels, weights }) => {
        const { loss } = languageModelLoss(decoder.config, parameters as never, { ids, labels, weights } as never);
        return { loss, gradients: gradients(loss, parameters) };
      },
      {
        parameters: mapTree(decoder.specs, (leaf) => spec("f32", leaf.shape as number[])),
        ids: spec("i32", [batchSize, length]),
        labels: spec("i32", [batchSize, length]),
        ...(masked ? { weights: spec("f32", [batchSize, length]) } : {}),
      } as StepInputs,
      { name: "training step" },
    ) as never;
    this.#step = this.#program.bind({ parameters: decoder.parameters.tree } as never, { gradients: this.#gradients.tree } as never);
    const memory = this.#step.inputs as unknown as {
      ids: { data: Int32Array<ArrayBuffer> };
      labels: { data: Int32Array<ArrayBuffer> };
      weights?: { data: Float32Array<ArrayBuffer> };
    };
    this.#batch = { inputs: memory.ids.data, targets: memory.labels.data, ...(masked ? { lossMask: memory.weights?.data } : {}) };
    this.#loader = new BatchLoader(data.train, this.#batch, { batchSize, seed, shiftWindows: data.train.canShift });
    const target = this.#sum ?? this.#gradients;
    const groups = { plain: { weightDecay: 0 } };
    this.#optimizer = createOptimizer(backend, this.options.optimizer, decoder.parameters, target, groups, {
      fusedRows: fusedRows(decoder.specs),
    });
    this.#norm = createNorm(backend, target);
    this.#accumulator = this.#sum && createAccumulator(backend, this.#gradients, this.#sum);
    this.#ema = this.options.ema > 0 ? createEma(backend, decoder.parameters, { decay: this.options.ema }) : undefined;
    this.#schedule = createSchedule(this.options.schedule, { totalSteps });
  }

  async step(index: number): Promise<StepResult> {
    const startedAt = performance.now();
    const { accumulate, learningRate, maxGradientNorm } = this.options;
    let loss = 0;
    this.#accumulator?.zero();
    for (let i = 0; i < accumulate; i++) {
      this.#loader.next();
      await this.#step.runAsync();
      loss += Number((this.#step.outputs as unknown as { loss: { data: Float32Array } }).loss.data[0]) / accumulate;
      this.#accumulator?.add(1 / accumulate);
    }
    const gradientNorm = this.#norm.compute();
    const rate = learningRate * this.#schedule(index);
    const metrics: Record<string, number> = { loss, learningRate: rate, gradientNorm };
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) return { metrics, tokens: this.tokensPerStep, skipped: true };
    this.#optimizer.step({ learningRate: rate, gradientScale: maxGradientNorm > 0 ? clipFactor(gradientNorm, maxGradientNorm) : 1 });
    this.#ema?.update();
    if (this.#hooks.peakFlops) {
      const seconds = (performance.now() - startedAt) / 1000;
      metrics.mfu = (this.#flopsPerToken * this.tokensPerStep) / seconds / this.#hooks.peakFlops;
    }
    metrics.epoch = this.#loader.position.epoch + this.#loader.position.index / this.#loader.rowsPerEpoch;
    return { metrics, tokens: this.tokensPerStep };
  }

  async evaluate(): Promise<Metrics> {
    const { validation } = this.#data;
    if (!validation) return {};
    this.#evaluation ??= new Evaluator(this.#backend, this.decoder, this.options.batchSize, validation.length);
    const run = () =>
      (this.#evaluation as Evaluator).run(validation, {
        bytesOfToken: this.#data.bytesOfToken,
        maxBatches: this.options.evaluationBatches,
      });
    if (!this.#ema) return run();
    const metrics = { ...(await run()) };
    this.#ema.swap();
    try {
      metrics.emaLoss = (await run()).loss;
    } finally {
      this.#ema.swap();
    }
    return metrics;
  }

  sample(): string | Promise<string> {
    return this.#hooks.sample?.() ?? "";
  }

  save(directory: string): void {
    saveDecoder(directory, this.decoder, { fields: this.#hooks.configFields });
    this.#hooks.saveExtras?.(directory);
    const state = { ...this.#optimizer.state(), ...(this.#ema ? { ema: this.#ema.average } : {}) };
    const tensors = Object.entries(state).map(([name, buffer]) => ({ name, dtype: buffer.dtype, shape: buffer.shape, data: buffer.data }));
    writeSafetensors(join(directory, "trainer.safetensors"), tensors);
  }

  state(): JsonRecord {
    return { data: { ...this.#loader.position } };
  }

  restore(directory: string, state: JsonRecord): void {
    const saved = loadDecoder(directory);
    if (JSON.stringify(saved.parameters.layout) !== JSON.stringify(this.decoder.parameters.layout)) {
      throw new CheckpointError(`${directory}: expected a checkpoint of this model, got one of another shape`, {
        hint: "Resume with the configuration that the run was started with.",
      });
    }
    (this.decoder.parameters.buffer.data as Float32Array).set(saved.parameters.buffer.data as Float32Array);
    using source = openSafetensors(join(directory, "trainer.safetensors"));
    for (const [name, buffer] of Object.entries(this.#tensors())) source.readInto(name, buffer);
    this.#loader.restore(state.data as unknown as LoaderPosition);
  }

  /** Everything besides the weights that a resume needs, as live buffers: written to a checkpoint and read back in place. */
  #tensors(): Record<string, TensorBuffer> {
    const named = (prefix: string, state: Readonly<Record<string, TensorBuffer>>) =>
      Object.entries(state).map(([name, buffer]) => [`${prefix}.${name}`, buffer] as const);
    return Object.fromEntries([...named("optimizer", this.#optimizer.state()), ...(this.#ema ? named("ema", this.#ema.state()) : [])]);
  }

  /** The batch and the gradients' norms by parameter, of a step that was not finite. */
  dump(directory: string): void {
    mkdirSync(directory, { recursive: true });
    const norms: Record<string, string> = {};
    for (const [path, { data }] of this.#gradients.leaves)
      norms[path] = String(Math.sqrt((data as Float32Array).reduce((sum, x) => sum + x * x, 0)));
    const batch = { inputs: Array.from(this.#batch.inputs), targets: Array.from(this.#batch.targets) };
    writeFileSync(join(directory, "step.json"), JSON.stringify({ batch, gradientNorms: norms }));
    saveDecoder(directory, this.decoder);
  }

  dispose(): void {
    this.#evaluation?.dispose();
    this.#optimizer.dispose();
    this.#norm.dispose();
    this.#accumulator?.dispose();
    this.#ema?.dispose();
    this.#program.dispose();
  }
}

/** Rows of the matrices that are stored as one: Muon orthogonalises each by itself. */
function fusedRows(specs: DecoderParameters<ParameterSpec>): Record<string, number[]> {
  const fused = flatten<ParameterSpec>(specs as never).filter(([, { parts, shape }]) => parts && shape.length === 2);
  return Object.fromEntries(fused.map(([path, { parts }]) => [path, (parts ?? []).map(({ rows }) => rows)]));
}

/** Loss of a decoder on packed text: forward passes only. */
export class Evaluator {
  readonly #program: Program<StepInputs, { logProbs: Tensor }>;
  readonly #call: BoundProgram<StepInputs, { logProbs: Tensor }>;
  readonly #batch: { inputs: Int32Array<ArrayBuffer>; targets: Int32Array<ArrayBuffer>; lossMask: Float32Array<ArrayBuffer> };
  readonly #batchSize: number;

  constructor(backend: Backend, decoder: TrainableDecoder, batchSize: number, length: number) {
    this.#batchSize = batchSize;
    this.#program = compile(
      backend,
      ({ parameters, ids, labels }) => ({
        logProbs: languageModelLoss(decoder.config, parameters as never, { ids, labels } as never).logProbs,
      }),
      {
        parameters: mapTree(decoder.specs, (leaf) => spec("f32", leaf.shape as number[])),
        ids: spec("i32", [batchSize, length]),
        labels: spec("i32", [batchSize, length]),
      } as StepInputs,
      { name: "evaluation" },
    ) as never;
    this.#call = this.#program.bind({ parameters: decoder.parameters.tree } as never);
    const memory = this.#call.inputs as unknown as { ids: { data: Int32Array<ArrayBuffer> }; labels: { data: Int32Array<ArrayBuffer> } };
    this.#batch = { inputs: memory.ids.data, targets: memory.labels.data, lossMask: new Float32Array(batchSize * length) };
  }

  /**
   * loss (nats a token), perplexity, tokens; with `bytesOfToken` also bits per byte.
   * @param options.maxBatches stops early. Default: all rows.
   */
  async run(
    rows: PackedRows,
    options: { bytesOfToken?: ArrayLike<number>; maxBatches?: number; signal?: AbortSignal } = {},
  ): Promise<Record<string, number>> {
    const { bytesOfToken, maxBatches, signal } = options;
    const logProbs = (this.#call.outputs as unknown as { logProbs: { data: Float32Array } }).logProbs.data;
    const { targets, lossMask } = this.#batch;
    let [total, tokens, bytes] = [0, 0, 0];
    for (const _ of evaluationBatches(rows, this.#batch, { batchSize: this.#batchSize, maxBatches })) {
      await this.#call.runAsync(signal);
      for (let i = 0; i < logProbs.length; i++) {
        if (lossMask[i] === 0) continue;
        total -= logProbs[i];
        tokens++;
        if (bytesOfToken) bytes += bytesOfToken[targets[i]];
      }
    }
    const loss = total / tokens;
    return { loss, perplexity: Math.exp(loss), ...(bytes > 0 ? { bitsPerByte: total / Math.LN2 / bytes } : {}), tokens };
  }

  dispose(): void {
    this.#program.dispose();
  }
}
