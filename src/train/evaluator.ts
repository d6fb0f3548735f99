// Loss of a decoder on packed text: forward passes only, over live weights, so that a training run evaluates what it has now.
import { type Batch, evaluationBatches, type PackedRows } from "../data/index.ts";
import { languageModelLoss } from "../models/decoder/decoder.ts";
import type { Backend } from "../runtime/backend.ts";
import { type BoundProgram, compile, type Program } from "../runtime/program.ts";
import type { Tensor } from "../tensor/graph.ts";
import { type BatchBuffers, lossArguments, type StepInputs, stepInputs, type TrainableDecoder } from "./decoder-program.ts";

export interface EvaluatorOptions {
  /** B: sequences at a time. */
  batchSize: number;
  /** T: tokens of a sequence. */
  length: number;
  /** Packed documents do not see each other, and positions restart. Default false. */
  isolateDocuments?: boolean;
}

export interface EvaluationRunOptions {
  /** UTF-8 bytes of the text of a target token, by id: gives bits per byte. */
  bytesOfToken?: ArrayLike<number>;
  /** Stop after so many batches. Default: all rows. */
  maxBatches?: number;
  /** Stops between and within batches. */
  signal?: AbortSignal;
  /** Called after each batch: how many of `batches` are done, the targets seen so far and their mean loss. */
  onProgress?: (progress: { batch: number; batches: number; tokens: number; loss: number }) => void;
}

export class Evaluator {
  readonly #program: Program<StepInputs, { logProbs: Tensor }>;
  readonly #call: BoundProgram<StepInputs, { logProbs: Tensor }>;
  readonly #batch: Batch & { lossMask: Float32Array<ArrayBuffer> };
  readonly #batchSize: number;

  constructor(backend: Backend, decoder: TrainableDecoder, { batchSize, length, isolateDocuments = false }: EvaluatorOptions) {
    this.#batchSize = batchSize;
    this.#program = compile(
      backend,
      (inputs) => ({ logProbs: languageModelLoss(decoder.config, ...lossArguments(inputs)).logProbs }),
      stepInputs(decoder, batchSize, length, { isolateDocuments }),
      { name: "evaluation" },
    );
    this.#call = this.#program.bind({ parameters: decoder.parameters.tree } as never);
    const { ids, labels, documents, positions } = this.#call.inputs as unknown as BatchBuffers;
    this.#batch = {
      inputs: ids.data,
      targets: labels.data,
      lossMask: new Float32Array(batchSize * length),
      ...(isolateDocuments ? { documentIds: documents?.data, positions: positions?.data } : {}),
    };
  }

  /** loss (nats a token), perplexity, tokens; with `bytesOfToken` also bits per byte. */
  async run(rows: PackedRows, options: EvaluationRunOptions = {}): Promise<Record<string, number>> {
    const { bytesOfToken, maxBatches = Number.POSITIVE_INFINITY, signal, onProgress } = options;
    const batches = Math.min(maxBatches, Math.ceil(rows.numRows / this.#batchSize));
    const logProbs = (this.#call.outputs as unknown as { logProbs: { data: Float32Array } }).logProbs.data;
    const { targets, lossMask } = this.#batch;
    let [batch, total, tokens, bytes] = [0, 0, 0, 0];
    for (const _ of evaluationBatches(rows, this.#batch, { batchSize: this.#batchSize, maxBatches })) {
      await this.#call.runAsync(signal);
      for (let i = 0; i < logProbs.length; i++) {
        if (lossMask[i] === 0) continue;
        total -= logProbs[i];
        tokens++;
        if (bytesOfToken) bytes += bytesOfToken[Number(targets[i])];
      }
      onProgress?.({ batch: ++batch, batches, tokens, loss: total / tokens });
    }
    const loss = total / tokens;
    return { loss, perplexity: Math.exp(loss), ...(bytes > 0 ? { bitsPerByte: total / Math.LN2 / bytes } : {}), tokens };
  }

  dispose(): void {
    this.#program.dispose();
  }
}
