// A batch is memory that is given once and filled at every step, without allocation. Ids may be i32 or i64 (ONNX wants the latter).
// Letters: B rows of a batch, T positions of a row.
import { ShapeError } from "../base/errors.ts";

export type IdArray = Int32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>;

/** All arrays hold [B, T], row-major. */
export interface Batch {
  readonly inputs: IdArray;
  /** The token that follows each input. */
  readonly targets: IdArray;
  /** 1 where the target counts, 0 at padding (and at document ends, where packing says so). */
  readonly lossMask?: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
  /** Number of the document within its row, from 0; -1 at padding. Positions attend within equal numbers. */
  readonly documentIds?: IdArray;
  /** Position since the document began in this row, from 0: for rotary or learned positions that restart. */
  readonly positions?: IdArray;
}

/** Writes single elements of a batch. Made once; 64-bit ids are written as two 32-bit words, since a bigint each would be garbage. */
export class BatchWriter {
  readonly numRows: number;
  readonly length: number;
  private readonly inputs: Slot;
  private readonly targets: Slot;
  private readonly lossMask: Float32Array | Float64Array | undefined;
  private readonly documentIds: Slot | undefined;
  private readonly positions: Slot | undefined;

  /** @throws ShapeError unless every array holds `numRows` x `length` elements. */
  constructor(batch: Batch, numRows: number, length: number) {
    for (const name of ["inputs", "targets", "lossMask", "documentIds", "positions"] as const) {
      const array = batch[name];
      if (array !== undefined && array.length !== numRows * length) {
        throw new ShapeError(`batch: expected ${name} of ${numRows} x ${length} elements, got ${array.length}`);
      }
    }
    this.numRows = numRows;
    this.length = length;
    this.inputs = slotOf(batch.inputs);
    this.targets = slotOf(batch.targets);
    this.lossMask = batch.lossMask;
    this.documentIds = batch.documentIds && slotOf(batch.documentIds);
    this.positions = batch.positions && slotOf(batch.positions);
  }

  set(row: number, t: number, input: number, target: number, weight: number, documentId: number, position: number): void {
    const at = row * this.length + t;
    put(this.inputs, at, input);
    put(this.targets, at, target);
    if (this.lossMask !== undefined) this.lossMask[at] = weight;
    if (this.documentIds !== undefined) put(this.documentIds, at, documentId);
    if (this.positions !== undefined) put(this.positions, at, position);
  }

  /** Padding from position `t` to the end of the row. */
  pad(row: number, t: number, token: number): void {
    for (let at = t; at < this.length; at++) this.set(row, at, token, token, 0, -1, 0);
  }
}

interface Slot {
  words: Int32Array;
  wide: boolean;
}

function slotOf(array: IdArray): Slot {
  const wide = array instanceof BigInt64Array;
  return { words: wide ? new Int32Array(array.buffer, array.byteOffset, array.length * 2) : array, wide };
}

function put({ words, wide }: Slot, at: number, value: number): void {
  if (wide) {
    words[2 * at] = value;
    words[2 * at + 1] = value >> 31; // sign extension; little-endian
  } else words[at] = value;
}
