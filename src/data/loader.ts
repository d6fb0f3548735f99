// Batches from packed rows: an endless stream for training, shuffled anew every epoch, whose position is two numbers; and one pass in
// order for evaluation. Rows that do not fill the last batch of an epoch are followed by rows of the next: none is dropped.
import * as z from "zod";
import { CheckpointError, UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { philox4x32 } from "../runtime/rng.ts";
import { type Batch, BatchWriter } from "./batch.ts";
import type { PackedRows } from "./packing.ts";
import { permutation, shuffleStream } from "./permutation.ts";

export const loaderSchema = z.object({
  batchSize: z.int().min(1).describe("B: rows of a batch (of one process)."),
  shuffle: z.boolean().default(true).describe("A new order every epoch; otherwise the order of the data."),
  shiftWindows: z
    .boolean()
    .default(false)
    .describe("Cut the stream at other places every epoch, so that windows differ (concatenate only)."),
  seed: z.int().min(0).default(0).describe("Same seed, same batches."),
  rank: z.int().min(0).default(0).describe("Number of this process among those that train together."),
  worldSize: z.int().min(1).default(1).describe("How many processes train together; each takes its share of every global batch."),
});

export type LoaderOptions = z.input<typeof loaderSchema>;

/** Where the stream stands: `index` rows of epoch `epoch` are consumed (by all processes together). */
export interface LoaderPosition {
  readonly epoch: number;
  readonly index: number;
}

export class BatchLoader {
  readonly rowsPerEpoch: number;
  private readonly rows: PackedRows;
  private readonly writer: BatchWriter;
  private readonly settings: z.output<typeof loaderSchema>;
  private epoch = 0;
  private index = 0;
  private order: (index: number) => number = (index) => index;
  private shift = 0;

  /**
   * @param batch memory for [batchSize, rows.length], filled by every `next`.
   * @throws ShapeError for memory of another size, UsageError for unknown or contradicting options.
   */
  constructor(rows: PackedRows, batch: Batch, options: LoaderOptions) {
    this.settings = parseOptions(loaderSchema, options);
    const { batchSize, rank, worldSize, shiftWindows } = this.settings;
    if (rank >= worldSize) throw new UsageError(`option \`rank\`: expected a number below worldSize ${worldSize}, got ${rank}`);
    if (shiftWindows && !rows.canShift) {
      throw new UsageError("option `shiftWindows`: expected rows of one stream, got packed documents", { hint: "Use mode concatenate." });
    }
    this.rows = rows;
    this.rowsPerEpoch = rows.numRows;
    this.writer = new BatchWriter(batch, batchSize, rows.length);
    this.startEpoch(0);
  }

  get position(): LoaderPosition {
    return { epoch: this.epoch, index: this.index };
  }

  /** Continues where a saved position stood: the next batch is the one that followed it. @throws CheckpointError for a foreign one. */
  restore({ epoch, index }: LoaderPosition): void {
    if (!Number.isSafeInteger(epoch) || epoch < 0 || !Number.isSafeInteger(index) || index < 0 || index >= this.rowsPerEpoch) {
      throw new CheckpointError(`data position: expected an epoch and one of ${this.rowsPerEpoch} rows, got epoch ${epoch}, row ${index}`, {
        hint: "The data or the packing changed since the checkpoint was written.",
      });
    }
    this.startEpoch(epoch);
    this.index = index;
  }

  /** Fills the batch with the next rows. */
  next(): void {
    const { batchSize, rank, worldSize } = this.settings;
    this.skip(rank * batchSize);
    for (let slot = 0; slot < batchSize; slot++) {
      this.rows.fill(this.order(this.index), this.writer, slot, this.shift);
      this.skip(1);
    }
    this.skip((worldSize - 1 - rank) * batchSize);
  }

  private skip(count: number): void {
    let index = this.index + count;
    if (index >= this.rowsPerEpoch) {
      this.startEpoch(this.epoch + Math.floor(index / this.rowsPerEpoch));
      index %= this.rowsPerEpoch;
    }
    this.index = index;
  }

  private startEpoch(epoch: number): void {
    const { shuffle, shiftWindows, seed } = this.settings;
    this.epoch = epoch;
    this.index = 0;
    if (shuffle) this.order = permutation(this.rowsPerEpoch, seed, epoch);
    if (shiftWindows) {
      const words = new Uint32Array(4);
      philox4x32(0xffffffff, epoch, Math.floor(epoch / 2 ** 32), shuffleStream, seed, Math.floor(seed / 2 ** 32), words);
      this.shift = words[0] % this.rows.length;
    }
  }
}

export interface EvaluationOptions {
  /** B */
  batchSize: number;
  /** Stops after so many batches. Default: all. */
  maxBatches?: number;
}

/**
 * Fills `batch` with one batch after another, in the order of the data, and yields how many of its rows are real; the others of the
 * last batch are padding (loss mask 0).
 * @throws ShapeError for memory of another size.
 */
export function* evaluationBatches(rows: PackedRows, batch: Batch, options: EvaluationOptions): Generator<number, void, undefined> {
  const { batchSize, maxBatches = Number.POSITIVE_INFINITY } = options;
  const writer = new BatchWriter(batch, batchSize, rows.length);
  for (let first = 0; first < rows.numRows && first / batchSize < maxBatches; first += batchSize) {
    const real = Math.min(batchSize, rows.numRows - first);
    for (let slot = 0; slot < real; slot++) rows.fill(first + slot, writer, slot);
    for (let slot = real; slot < batchSize; slot++) writer.pad(slot, 0, rows.padding);
    yield real;
  }
}
