// The updates of one step: log-probabilities of the old policy and the reference, then several passes of minibatches over the rows, each
// update the sum of its micro-batches' gradients.
import type { Optimizer } from "../../optim/index.ts";
import { clipFactor, createAccumulator, createNorm, type GradientAccumulator, type GradientNorm } from "../../optim/index.ts";
import type { Backend } from "../../runtime/backend.ts";
import { allocateFlat, type FlatBuffer } from "../../runtime/flat.ts";
import { Random } from "../../runtime/rng.ts";
import { type AggregationOptions, aggregationWeights } from "../core/aggregation.ts";
import { highEntropyMask } from "../core/masks.ts";
import { maskOf, type PolicyRow, readGrid, sizesOf, writeGrid, writeTokens } from "./grid.ts";
import { UpdateMetrics } from "./metrics.ts";
import { type GroupPolicySettings, lossOf } from "./options.ts";
import { bucketOf, type GridSize, type LossInput, PolicyPrograms } from "./policy-programs.ts";
import type { PolicyDecoder } from "./rollout-programs.ts";

export interface UpdateResult {
  metrics: Record<string, number>;
  /** A loss or gradient was not finite: the updates from there on were left out, the weights are as they were before the first such. */
  skipped: boolean;
}

/** Bytes of logits of a micro-batch, when its size is not given. */
const logitBytes = 256 * 2 ** 20;

export class PolicyUpdates {
  readonly #decoder: PolicyDecoder;
  readonly #settings: GroupPolicySettings;
  readonly #programs: PolicyPrograms;
  readonly #gradients: FlatBuffer<unknown>;
  readonly #backend: Backend;
  readonly #limits: { time: number; columns: number };
  readonly #inputs: readonly LossInput[];
  #sum: FlatBuffer<unknown> | undefined;
  #accumulator: GradientAccumulator | undefined;
  #norm: GradientNorm | undefined;

  /** @param limits largest sizes that can occur. */
  constructor(backend: Backend, decoder: PolicyDecoder, settings: GroupPolicySettings, limits: { time: number; columns: number }) {
    this.#backend = backend;
    this.#decoder = decoder;
    this.#settings = settings;
    this.#limits = limits;
    this.#gradients = allocateFlat(decoder.specs, decoder.parameters.layout) as FlatBuffer<unknown>;
    const { loss } = lossOf(settings);
    const needsMask = loss.ratio !== "token" || loss.offPolicyThreshold !== undefined;
    this.#inputs = [
      "advantages",
      "weights",
      ...(needsMask ? (["mask"] as const) : []),
      ...(this.needsOldLogProbs ? (["oldLogProbs"] as const) : []),
      ...(this.needsReference && settings.klPlace === "loss" ? (["refLogProbs"] as const) : []),
      ...(settings.importanceCorrection !== "none" || settings.topEntropyQuantile < 1 ? (["factors"] as const) : []),
      ...(settings.entropyCoef !== 0 ? (["entropyWeights"] as const) : []),
    ];
    this.#programs = new PolicyPrograms(backend, decoder, this.#gradients, {
      loss,
      temperature: settings.temperature,
      inputs: this.#inputs,
      withEntropy: true,
    });
  }

  /** What the optimiser reads: the gradients, or their sum over micro-batches. Allocates the sum when it is asked for. */
  gradientsFor(numMicroBatches: number): FlatBuffer<unknown> {
    if (numMicroBatches <= 1) return this.#gradients;
    this.#sum ??= allocateFlat(this.#decoder.specs, this.#decoder.parameters.layout) as FlatBuffer<unknown>;
    this.#accumulator ??= createAccumulator(this.#backend, this.#gradients, this.#sum);
    return this.#sum;
  }

  /** Several updates from one rollout: the ratio is to what the policy was before the first. */
  get needsOldLogProbs(): boolean {
    return this.#settings.numIterations * this.#settings.minibatches > 1;
  }

  get needsReference(): boolean {
    return this.#settings.beta > 0;
  }

  /** Completions of a micro-batch, for a minibatch of so many. */
  microBatchOf(numRows: number): number {
    const { microBatchSize } = this.#settings;
    const fits = Math.floor(logitBytes / (4 * this.#decoder.config.vocabSize * this.#limits.columns));
    return Math.min(numRows, microBatchSize ?? Math.max(1, fits));
  }

  /** Rows of the largest minibatch. */
  minibatchRows(numRows: number): number {
    return Math.ceil(numRows / this.#settings.minibatches);
  }

  /** log p (and entropy) of the rows' tokens under some weights, before the first update. */
  async score(
    rows: readonly PolicyRow[],
    parameters: FlatBuffer<unknown>,
    signal?: AbortSignal,
  ): Promise<{ logProbs: Float64Array[]; entropies: Float64Array[] }> {
    const { promptsPerStep, numGenerations } = this.#settings;
    const size = this.#sizeOf(rows, this.microBatchOf(this.minibatchRows(promptsPerStep * numGenerations)));
    const result = { logProbs: [] as Float64Array[], entropies: [] as Float64Array[] };
    for (let start = 0; start < rows.length; start += size.rows) {
      const part = rows.slice(start, start + size.rows);
      const call = this.#programs.scoring(size, parameters);
      writeTokens(call.tokens, size, part);
      await call.run(signal);
      result.logProbs.push(...readGrid(call.logProbs, size, part));
      if (call.entropies) result.entropies.push(...readGrid(call.entropies, size, part));
    }
    return result;
  }

  /**
   * All updates of a step.
   * @param optimizer made over {@link gradientsFor} of this trainer's micro-batches. @param seed orders the rows of minibatches.
   */
  async run(rows: readonly PolicyRow[], optimizer: Optimizer, learningRate: number, seed: number): Promise<UpdateResult> {
    const { numIterations, minibatches, maxGradientNorm } = this.#settings;
    const told = new UpdateMetrics();
    const norms: number[] = [];
    const microRows = this.microBatchOf(this.minibatchRows(rows.length));
    const numMicroBatches = Math.ceil(this.minibatchRows(rows.length) / microRows);
    const target = this.gradientsFor(numMicroBatches);
    this.#norm ??= createNorm(this.#backend, target);
    for (let iteration = 0; iteration < numIterations; iteration++) {
      const order =
        minibatches > 1 ? new Random(seed, { stream: "minibatches", request: iteration }).permutation(rows.length) : rows.keys();
      const shuffled = Array.from(order, (i) => rows[i]);
      for (const minibatch of shares(shuffled, minibatches)) {
        const loss = await this.#accumulate(minibatch, microRows, numMicroBatches > 1, told, iteration === 0);
        const gradientNorm = this.#norm.compute();
        norms.push(gradientNorm);
        told.addUpdate(loss);
        if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm))
          return { metrics: { ...told.result(), loss, gradientNorm, learningRate }, skipped: true };
        const clip = maxGradientNorm > 0 ? clipFactor(gradientNorm, maxGradientNorm) : 1;
        // Where no group differs in its rewards there is nothing to learn: momentum alone would move the weights on.
        if (gradientNorm > 0) optimizer.step({ learningRate, gradientScale: clip });
      }
    }
    const gradientNorm = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
    return { metrics: { ...told.result(), gradientNorm, learningRate }, skipped: false };
  }

  /** Gradients of one minibatch. @returns its loss. */
  async #accumulate(
    rows: readonly PolicyRow[],
    microRows: number,
    isSummed: boolean,
    told: UpdateMetrics,
    isFirstPass: boolean,
  ): Promise<number> {
    const { aggregation } = lossOf(this.#settings);
    const { mask, length } = maskOf(rows);
    const options: AggregationOptions = { numSequences: rows.length, normalizer: this.#settings.maxCompletionLength };
    const weights = aggregationWeights(aggregation, mask, length, options);
    const means = aggregationWeights("token-mean", mask, length);
    const indices = new Map(rows.map((row, r) => [row, r]));
    const ofRow = (values: ArrayLike<number> & { subarray(start: number, end: number): ArrayLike<number> }, row: PolicyRow) => {
      const r = indices.get(row) as number;
      return values.subarray(r * length, r * length + row.completion.ids.length);
    };
    const sources: Record<LossInput, (row: PolicyRow) => ArrayLike<number> | undefined> = {
      advantages: (row) => row.advantages,
      weights: (row) => ofRow(weights, row),
      mask: (row) => ofRow(mask, row),
      oldLogProbs: (row) => row.oldLogProbs,
      refLogProbs: (row) => row.refLogProbs,
      factors: (row) => row.factors ?? new Float64Array(row.completion.ids.length).fill(1),
      entropyWeights: (row) => ofRow(means, row),
    };
    const size = this.#sizeOf(rows, microRows);
    let loss = 0;
    if (isSummed) this.#accumulator?.zero();
    for (let start = 0; start < rows.length; start += microRows) {
      const part = rows.slice(start, start + microRows);
      const call = this.#programs.training(size);
      writeTokens(call.tokens, size, part);
      for (const name of this.#inputs) {
        const input = call.inputs[name];
        // An input that the loss turned out not to depend on has no memory.
        if (input) writeGrid(input, size, part, sources[name]);
      }
      await call.run();
      loss += call.loss[0];
      if (isSummed) this.#accumulator?.add();
      told.addTokens(part, size.columns, { entropy: call.entropies, kl: call.kl });
      told.addClipping(part, size.columns, call.clippedLow, call.clippedHigh);
      if (isFirstPass && !this.needsOldLogProbs) {
        for (const [i, computed] of readGrid(call.logProbs, size, part).entries())
          told.addSamplingDifference(part[i].completion.logProbs, computed);
      }
    }
    return loss;
  }

  #sizeOf(rows: readonly PolicyRow[], microRows: number): GridSize {
    const { time, columns } = sizesOf(rows);
    return { rows: microRows, time: bucketOf(time, this.#limits.time), columns: bucketOf(columns, this.#limits.columns) };
  }

  dispose(): void {
    this.#programs.dispose();
    this.#norm?.dispose();
    this.#accumulator?.dispose();
  }
}

/** `count` parts of nearly equal size. */
const shares = <T>(items: readonly T[], count: number): T[][] =>
  Array.from({ length: count }, (_, i) =>
    items.slice(Math.round((i * items.length) / count), Math.round(((i + 1) * items.length) / count)),
  );

/** Factors that keep the tokens of highest entropy, times those that were there. */
export function keepHighEntropy(rows: readonly PolicyRow[], share: number): void {
  const { mask, length } = maskOf(rows);
  const entropies = new Float64Array(mask.length);
  for (const [r, row] of rows.entries()) entropies.set(row.entropies ?? [], r * length);
  const kept = highEntropyMask(entropies, mask, 1 - share);
  for (const [r, row] of rows.entries()) {
    const own = kept.subarray(r * length, r * length + row.completion.ids.length);
    row.factors = row.factors ? row.factors.map((factor, t) => factor * own[t]) : Float64Array.from(own);
  }
}
