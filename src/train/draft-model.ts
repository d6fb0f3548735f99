// Trains a small decoder to guess what a larger one says: cross-entropy with the larger one's most probable tokens and their probabilities
// (Hinton et al. 2015; DistillSpec, Zhou et al. 2024, forward KL), mixed with the tokens that were said. Only places that count are learnt.
// Letters: B rows, T positions, K tokens that a place is told of, N = B·T.
import { DataError } from "../base/errors.ts";
import { BatchLoader, evaluationBatches, type PackedRows } from "../data/index.ts";
import { type JsonRecord, type Metrics, type StepResult, saveTrainerState, type Trainable } from "../engine/index.ts";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderTensors, decoderForward, decoderLogits } from "../models/decoder/decoder.ts";
import type { DecoderParameters } from "../models/decoder/parameters.ts";
import type { Backend } from "../runtime/backend.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../runtime/program.ts";
import { reshape, sum } from "../tensor/core.ts";
import { div, exp, mul, neg } from "../tensor/elementwise.ts";
import { gatherElements } from "../tensor/gather.ts";
import { gradients } from "../tensor/gradient.ts";
import type { Tensor } from "../tensor/graph.ts";
import { logSoftmax } from "../tensor/norm.ts";
import { argmax } from "../tensor/reduce.ts";
import { slice } from "../tensor/shape.ts";
import { mapTree } from "../tensor/tree.ts";
import type { TrainableDecoder } from "./decoder-program.ts";
import { GradientUpdate, type UpdateOptions } from "./gradient-update.ts";

/** The part of drafter training's settings that a draft model has as well. */
export type DraftTrainingOptions = Omit<UpdateOptions, "totalSteps"> & { batchSize: number; evaluationBatches?: number };

/** Rows with what the target said of each place: `bind` gives the memory that `fill` writes besides the batch. */
export interface DistillationRows extends PackedRows {
  /** K */
  readonly top: number;
  /** ids [B, T, K] (0 where there is none) and weights [B, T, K], which sum to at most 1 at places that count; at others (prompts) to less or to 0. */
  bind(memory: { ids: Int32Array; weights: Float32Array; probabilities?: Float32Array }): void;
}

export interface DraftModelData {
  readonly train: DistillationRows;
  readonly heldOut: DistillationRows;
}

interface Inputs {
  parameters: DecoderParameters<TensorSpec>;
  ids: TensorSpec;
  documents: TensorSpec;
  positions: TensorSpec;
  top: TensorSpec;
  weights: TensorSpec;
}
interface Traced {
  parameters: DecoderTensors;
  ids: Tensor;
  documents: Tensor;
  positions: Tensor;
  top: Tensor;
  weights: Tensor;
}
interface StepOutputs {
  loss: Tensor;
  gradients: unknown;
}
interface EvaluationOutputs {
  loss: Tensor;
  best: Tensor;
  chances: Tensor;
}
interface Memory {
  inputs: Record<"ids" | "documents" | "positions" | "top", { data: Int32Array<ArrayBuffer> }> & {
    weights: { data: Float32Array<ArrayBuffer> };
  };
}

export class DraftModelTrainer implements Trainable {
  readonly decoder: TrainableDecoder;
  readonly options: DraftTrainingOptions;
  readonly #backend: Backend;
  readonly #data: DraftModelData;
  readonly #hooks: DraftModelHooks;
  readonly #program: Program<Inputs, StepOutputs>;
  readonly #step: BoundProgram<Inputs, StepOutputs>;
  readonly #loader: BatchLoader;
  readonly #update: GradientUpdate<TrainableDecoder["specs"]>;
  #evaluation: DraftEvaluation | undefined;

  /** @param options.totalSteps of the whole run: the schedule's length. */
  constructor(
    backend: Backend,
    decoder: TrainableDecoder,
    data: DraftModelData,
    { totalSteps, seed = 0, ...options }: DraftTrainingOptions & { totalSteps: number; seed?: number },
    hooks: DraftModelHooks,
  ) {
    this.options = options;
    this.decoder = decoder;
    this.#backend = backend;
    this.#data = data;
    this.#hooks = hooks;
    const { batchSize } = options;
    const { train } = data;
    this.#update = new GradientUpdate(backend, decoder, { ...options, totalSteps });
    this.#program = compile(
      backend,
      (inputs): StepOutputs => {
        const traced = inputs as unknown as Traced;
        const { loss } = distillationLoss(decoder, traced);
        return { loss, gradients: gradients(loss, traced.parameters) };
      },
      inputSpecs(decoder, batchSize, train),
      { name: "draft model training step" },
    );
    this.#step = this.#program.bind({ parameters: decoder.parameters.tree } as never, { gradients: this.#update.gradients.tree } as never);
    const memory = this.#step as unknown as Memory;
    train.bind({ ids: memory.inputs.top.data, weights: memory.inputs.weights.data });
    this.#loader = new BatchLoader(train, batchOf(memory), { batchSize, seed, shiftWindows: false });
  }

  async step(index: number): Promise<StepResult> {
    this.#loader.next();
    await this.#step.runAsync();
    const loss = Number((this.#step.outputs as unknown as { loss: { data: Float32Array } }).loss.data[0]);
    const { metrics, skipped } = this.#update.apply(index, loss);
    const { epoch, index: row } = this.#loader.position;
    metrics.epoch = epoch + row / this.#loader.rowsPerEpoch;
    return { metrics, tokens: this.options.batchSize * this.#data.train.length, skipped };
  }

  /** See {@link DraftEvaluation.run}. */
  async evaluate(): Promise<Metrics> {
    const { batchSize, evaluationBatches: maxBatches } = this.options;
    this.#evaluation ??= new DraftEvaluation(this.#backend, this.decoder, this.#data.heldOut, batchSize);
    const { loss, agreement, overlap, tokensPerStep, acceptanceByPosition } = await this.#evaluation.run(maxBatches);
    const byPosition = acceptanceByPosition.slice(0, 5).map((share, i): [string, number] => [`accepted${i + 1}`, share]);
    return { loss, agreement, overlap, tokensPerStep, ...Object.fromEntries(byPosition) };
  }

  sample(): string | Promise<string> {
    return this.#hooks.sample?.() ?? "";
  }

  save(directory: string): void {
    this.#hooks.save(directory);
    saveTrainerState(directory, this.#update.state());
  }

  state(): JsonRecord {
    return { data: { ...this.#loader.position } };
  }

  restore(directory: string, state: JsonRecord): void {
    const load = () => loadDecoder(directory).parameters;
    this.#loader.restore(this.#update.restore(directory, state, "a training run of a draft model", load));
  }

  dispose(): void {
    this.#evaluation?.dispose();
    this.#update.dispose();
    this.#program.dispose();
  }
}

export interface DraftModelHooks {
  /** Writes the model into a checkpoint folder. */
  save: (directory: string) => void;
  /** Text that the draft model writes now. */
  sample?: () => string | Promise<string>;
}

export interface DraftEvaluationResult {
  /** Cross-entropy with what the target said, in nats. */
  readonly loss: number;
  /** Share of places at which the draft model's most probable token is the target's. */
  readonly agreement: number;
  /** Mean of Σ_x min(p, q) over the tokens that the target's are known of: acceptance by rejection at temperature 1, from below. */
  readonly overlap: number;
  /** Tokens of a step if eight are always drafted, the target's own included (greedy): the chain is walked as decoding would. */
  readonly tokensPerStep: number;
  /** Share of such steps' drafts that are right at each position where those before were. */
  readonly acceptanceByPosition: readonly number[];
}

/** Drafts of a step that the walk makes. */
const walkDrafts = 8;

/** How a draft model fares on held-out texts of its target, from forward passes alone: what is greedy is exact. */
class DraftEvaluation {
  readonly #program: Program<Inputs, EvaluationOutputs>;
  readonly #call: BoundProgram<Inputs, EvaluationOutputs>;
  readonly #rows: DistillationRows;
  readonly #batchSize: number;
  readonly #probabilities: Float32Array;

  constructor(backend: Backend, decoder: TrainableDecoder, rows: DistillationRows, batchSize: number) {
    this.#rows = rows;
    this.#batchSize = batchSize;
    this.#program = compile(
      backend,
      (inputs): EvaluationOutputs => {
        const { loss, logits, chances } = distillationLoss(decoder, inputs as unknown as Traced);
        // Ids from the padding's on stand for tokens that cannot be drafted.
        return { loss, best: argmax(slice(logits, 1, 0, rows.padding)), chances };
      },
      inputSpecs(decoder, batchSize, rows),
      { name: "draft model evaluation" },
    );
    this.#call = this.#program.bind({ parameters: decoder.parameters.tree } as never);
    this.#probabilities = new Float32Array(batchSize * rows.length * rows.top);
  }

  async run(maxBatches?: number): Promise<DraftEvaluationResult> {
    const memory = this.#call as unknown as Memory & {
      outputs: { loss: { data: Float32Array }; best: { data: BigInt64Array }; chances: { data: Float32Array } };
    };
    const { outputs, inputs } = memory;
    const probabilities = this.#probabilities;
    this.#rows.bind({ ids: inputs.top.data, weights: inputs.weights.data, probabilities });
    const batch = batchOf(memory);
    const { targets, lossMask } = batch;
    const { length, top } = this.#rows;
    const [reached, accepted] = [new Float64Array(walkDrafts), new Float64Array(walkDrafts)];
    let [loss, weight, places, right, overlap, steps, tokens] = [0, 0, 0, 0, 0, 0, 0];
    for (const _ of evaluationBatches(this.#rows, batch, { batchSize: this.#batchSize, maxBatches })) {
      await this.#call.runAsync();
      const isRight = (at: number): boolean => Number(outputs.best.data[at]) === Number(targets[at]);
      const here = inputs.weights.data.reduce((sum, one) => sum + one, 0);
      if (here > 0) loss += Number(outputs.loss.data[0]) * here;
      weight += here;
      for (let at = 0; at < lossMask.length; at++) {
        if (lossMask[at] === 0) continue;
        places++;
        if (isRight(at)) right++;
        for (let k = at * top; k < (at + 1) * top; k++) overlap += Math.min(probabilities[k], outputs.chances.data[k]);
      }
      for (let row = 0; row < this.#batchSize; row++) {
        const end = (row + 1) * length;
        for (let at = row * length; at < end; ) {
          if (lossMask[at] === 0) {
            at++;
            continue;
          }
          let count = 0;
          // A chain that the text's end cuts off tells nothing of what comes after it.
          while (count < walkDrafts && at < end && lossMask[at] > 0) {
            reached[count]++;
            if (!isRight(at)) break;
            accepted[count++]++;
            at++;
          }
          steps++;
          tokens += count + 1;
          // The target's own token.
          at++;
        }
      }
    }
    if (places === 0)
      throw new DataError("held-out texts: expected answers to compare with, got none", { hint: "Give more texts: raise heldOutTokens." });
    return {
      // The target may say of all places only what cannot be drafted.
      loss: weight > 0 ? loss / weight : 0,
      agreement: right / places,
      overlap: overlap / places,
      tokensPerStep: tokens / steps,
      acceptanceByPosition: Array.from(reached, (count, i) => (count > 0 ? accepted[i] / count : 0)),
    };
  }

  dispose(): void {
    this.#program.dispose();
  }
}

function inputSpecs({ specs }: TrainableDecoder, batchSize: number, { length, top }: DistillationRows): Inputs {
  const ids = spec("i32", [batchSize, length]);
  return {
    parameters: mapTree(specs, ({ dtype, shape }) => spec(dtype as "f32", shape)) as unknown as DecoderParameters<TensorSpec>,
    ids,
    documents: ids,
    positions: ids,
    top: spec("i32", [batchSize, length, top]),
    weights: spec("f32", [batchSize, length, top]),
  };
}

/** Memory of a batch; targets and places that count are read on the host only. */
function batchOf({ inputs: { ids, documents, positions } }: Memory) {
  const { length } = ids.data;
  return {
    inputs: ids.data,
    documentIds: documents.data,
    positions: positions.data,
    targets: new Int32Array(length),
    lossMask: new Float32Array(length),
  };
}

/** −Σ w log q / Σ w; logits [N, V]; the draft model's chances [N, K] of the tokens told of. */
function distillationLoss({ config }: TrainableDecoder, { parameters, ids, documents, positions, top, weights }: Traced) {
  const { hidden } = decoderForward(config, parameters, ids, { documents, positions });
  const logits = decoderLogits(config, parameters, hidden);
  const numTop = top.shape.at(-1) as number;
  const flat = (x: Tensor): Tensor => reshape(x, [-1, numTop]);
  const logProbs = gatherElements(logSoftmax(logits), flat(top), -1);
  return { loss: neg(div(sum(mul(logProbs, flat(weights))), sum(weights))), logits, chances: exp(logProbs) };
}
