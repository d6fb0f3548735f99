// Gradient accumulation: the gradients of several micro-batches, weighted and summed into one flat buffer.
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { add, mul } from "../tensor/elementwise.ts";
import { ChunkedProgram, checkSameLayout } from "./chunks.ts";
import { write } from "./elementwise-update.ts";

/**
 * Adds one flat buffer into another, in place.
 * @param from Gradients of one micro-batch, as a program leaves them.
 * @param into The sum, which the optimiser reads.
 * @throws ShapeError when the layouts differ.
 */
export function createAccumulator(backend: Backend, from: FlatBuffer<unknown>, into: FlatBuffer<unknown>): GradientAccumulator {
  return new GradientAccumulator(backend, from, into);
}

export class GradientAccumulator {
  readonly #into: TensorBuffer;
  readonly #factor: TensorBuffer;
  readonly #program: ChunkedProgram;

  /** Use {@link createAccumulator}. */
  constructor(backend: Backend, from: FlatBuffer<unknown>, into: FlatBuffer<unknown>) {
    checkSameLayout("gradient accumulation", from, into);
    this.#into = into.buffer;
    this.#factor = allocate(into.buffer.dtype, []);
    this.#program = new ChunkedProgram(
      backend,
      "gradient accumulation",
      ({ total, gradients }, { factor }) => ({ total: add(total, mul(gradients, factor)) }),
      [{ buffers: { total: into.buffer, gradients: from.buffer }, scalars: { factor: this.#factor } }],
    );
  }

  /** into ← into + factor · from. Default 1: the sum. For the mean over tokens, pass the share of this micro-batch. */
  add(factor = 1): void {
    write(this.#factor, factor);
    this.#program.run();
  }

  /** into ← 0. */
  zero(): void {
    (this.#into.data as Float64Array).fill(0);
  }

  dispose(): void {
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
