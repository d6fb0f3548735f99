// Keys and values of tokens already seen, for every layer of a decoder: memory only, in one flat buffer. What to keep is decided in decode/.
// Layout of a layer: [B, G, capacity, D], so that a sequence (row of the batch) is a contiguous slice.
import { invariant, ShapeError } from "../base/errors.ts";
import { allocate, type TensorBuffer, viewOf } from "./buffer.ts";

export interface KVCacheShape {
  layers: number;
  /** Rows: sequences that are decoded together, B. */
  batch: number;
  /** Key/value heads, G. */
  kvHeads: number;
  /** Positions a row can hold. */
  capacity: number;
  /** D. */
  headWidth: number;
}

export interface LayerCache {
  readonly key: TensorBuffer<"f32">;
  readonly value: TensorBuffer<"f32">;
}

/** The rows of one sequence, copied out. */
export interface KVSnapshot {
  readonly length: number;
  /** The tokens that the rows are of. Default: not known. */
  readonly tokens?: Int32Array;
  /** See {@link KVCache.stages}. Default 0: not known. */
  readonly stage?: number;
  readonly data: Float32Array<ArrayBuffer>;
}

export class KVCache {
  readonly shape: KVCacheShape;
  readonly layers: readonly LayerCache[];
  /** Tokens held, by row. */
  readonly lengths: Int32Array<ArrayBuffer>;
  /** By row, which of several ways of encoding positions its keys have, as whoever computes them counts; 0: not known. */
  readonly stages: Int32Array;
  readonly #tokens: Int32Array;
  readonly #buffer: TensorBuffer<"f32">;

  constructor(shape: KVCacheShape) {
    this.shape = shape;
    const { layers, batch, kvHeads, capacity, headWidth } = shape;
    const size = batch * kvHeads * capacity * headWidth;
    this.#buffer = allocate("f32", [layers * 2, size]);
    const view = (index: number) => viewOf(this.#buffer, [batch, kvHeads, capacity, headWidth], index * size);
    this.layers = Array.from({ length: layers }, (_, layer) => ({ key: view(2 * layer), value: view(2 * layer + 1) }));
    this.stages = new Int32Array(batch);
    this.#tokens = new Int32Array(batch * capacity).fill(-1);
    this.lengths = new Int32Array(new ArrayBuffer(Math.max(64, batch * 4)), 0, batch);
  }

  get bytes(): number {
    return this.#buffer.data.byteLength;
  }

  /** One sequence as a cache of batch 1 over the same memory, layer by layer. */
  row(row: number): LayerCache[] {
    const { batch, kvHeads, capacity, headWidth } = this.shape;
    invariant(row >= 0 && row < batch, `row ${row} of ${batch}`);
    const size = kvHeads * capacity * headWidth;
    const view = (buffer: TensorBuffer<"f32">) => viewOf(buffer, [1, kvHeads, capacity, headWidth], row * size);
    return this.layers.map(({ key, value }) => ({ key: view(key), value: view(value) }));
  }

  /** The token of each position of a row, where whoever writes rows notes them; −1: not known. A view. */
  tokensOf(row: number): Int32Array {
    const { capacity } = this.shape;
    return this.#tokens.subarray(row * capacity, (row + 1) * capacity);
  }

  /** Forgets what lies beyond `length` tokens of a row: no bytes move. */
  truncate(row: number, length: number): void {
    if (!(length >= 0 && length <= this.lengths[row])) {
      throw new ShapeError(`KVCache.truncate: expected a length between 0 and ${this.lengths[row]}, got ${length}`);
    }
    this.lengths[row] = length;
  }

  /**
   * Keeps, of the positions from `start` on, those at `start + offsets[i]`, in this order (the accepted path of a tree). Offsets rise strictly.
   * Costs the rows moved; the length becomes start + offsets.length.
   */
  gatherRows(row: number, start: number, offsets: ArrayLike<number>): void {
    const { kvHeads, capacity, headWidth } = this.shape;
    let previous = -1;
    for (let i = 0; i < offsets.length; i++) {
      if (offsets[i] <= previous || start + offsets[i] >= capacity) {
        throw new ShapeError(`KVCache.gatherRows: expected rising offsets below ${capacity - start}, got ${Array.from(offsets)}`);
      }
      previous = offsets[i];
    }
    let first = 0;
    while (first < offsets.length && offsets[first] === first) first++;
    for (const { key, value } of this.layers) {
      for (const { data } of [key, value]) {
        for (let head = 0; head < kvHeads; head++) {
          const base = ((row * kvHeads + head) * capacity + start) * headWidth;
          for (let i = first; i < offsets.length; i++) {
            const from = base + offsets[i] * headWidth;
            data.copyWithin(base + i * headWidth, from, from + headWidth);
          }
        }
      }
    }
    const tokens = this.tokensOf(row);
    for (let i = first; i < offsets.length; i++) tokens[start + i] = tokens[start + offsets[i]];
    this.lengths[row] = start + offsets.length;
  }

  /** A copy of the first `length` positions of a row (default: all that it holds). */
  snapshot(row: number, length = this.lengths[row]): KVSnapshot {
    const { layers, kvHeads, headWidth } = this.shape;
    const data = new Float32Array(layers * 2 * kvHeads * length * headWidth);
    this.#eachHead(row, length, (memory, base, offset) => data.set(memory.subarray(base, base + length * headWidth), offset));
    return { length, data, tokens: this.tokensOf(row).slice(0, length), stage: this.stages[row] };
  }

  /** Puts a snapshot of an equally shaped cache into a row. */
  restore(row: number, { length, data, tokens, stage = 0 }: KVSnapshot): void {
    const { layers, kvHeads, headWidth, capacity } = this.shape;
    if (length > capacity || data.length !== layers * 2 * kvHeads * length * headWidth) {
      throw new ShapeError(
        `KVCache.restore: expected a snapshot of at most ${capacity} positions of this shape, got ${length} positions in ${data.length} numbers`,
      );
    }
    this.#eachHead(row, length, (memory, base, offset) => memory.set(data.subarray(offset, offset + length * headWidth), base));
    if (tokens) this.tokensOf(row).set(tokens.subarray(0, length));
    else this.tokensOf(row).fill(-1, 0, length);
    this.stages[row] = stage;
    this.lengths[row] = length;
  }

  #eachHead(row: number, length: number, visit: (memory: Float32Array, base: number, offset: number) => void): void {
    const { kvHeads, capacity, headWidth } = this.shape;
    let offset = 0;
    for (const { key, value } of this.layers) {
      for (const { data } of [key, value]) {
        for (let head = 0; head < kvHeads; head++) {
          visit(data, (row * kvHeads + head) * capacity * headWidth, offset);
          offset += length * headWidth;
        }
      }
    }
  }
}
