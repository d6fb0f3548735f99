// Averages of the weights over the course of training, for evaluation: exponential (Polyak & Juditsky 1992, as used since
// Tarvainen & Valpola 2017) or the plain mean (SWA, Izmailov et al. 2018). Both are A ← A + w (p − A); the first update copies.
import { CheckpointError, LongwaveError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { add, mul, sub } from "../tensor/elementwise.ts";
import { ChunkedProgram } from "./chunks.ts";
import { write } from "./elementwise-update.ts";

export interface EmaOptions {
  /** Weight of the old average in an update, in [0, 1); "mean" weighs all updates alike. Default 0.999. */
  decay?: number | "mean";
}

/**
 * Average of a flat buffer of parameters, and the means to evaluate with it.
 * @throws UsageError for a decay outside [0, 1).
 */
export function createEma(backend: Backend, parameters: FlatBuffer<unknown>, options: EmaOptions = {}): WeightAverage {
  return new WeightAverage(backend, parameters, options);
}

export class WeightAverage {
  readonly decay: number | "mean";
  /** All averaged elements, rank 1: the live buffer, in the layout of the parameters. */
  readonly average: TensorBuffer;
  readonly #parameters: TensorBuffer;
  readonly #updateCount = allocate("i64", []);
  readonly #weight: TensorBuffer;
  readonly #program: ChunkedProgram;
  #swapped = false;

  /** Use {@link createEma}. */
  constructor(backend: Backend, parameters: FlatBuffer<unknown>, { decay = 0.999 }: EmaOptions) {
    if (decay !== "mean" && !(decay >= 0 && decay < 1))
      throw new UsageError(`weight average: expected a decay of at least 0 and below 1, or "mean", got ${decay}`);
    this.decay = decay;
    this.#parameters = parameters.buffer;
    this.average = allocate(parameters.buffer.dtype, [parameters.buffer.data.length]);
    this.#weight = allocate(parameters.buffer.dtype, []);
    this.#program = new ChunkedProgram(
      backend,
      "weight average",
      ({ average, parameters }, { weight }) => ({ average: add(average, mul(sub(parameters, average), weight)) }),
      [{ buffers: { average: this.average, parameters: parameters.buffer }, scalars: { weight: this.#weight } }],
    );
  }

  /** Updates so far. Set it when `average` was read back by hand. */
  get updateCount(): number {
    return Number(this.#updateCount.data[0]);
  }

  set updateCount(count: number) {
    this.#updateCount.data[0] = BigInt(count);
  }

  /** Whether the parameters hold the average at present. */
  get swapped(): boolean {
    return this.#swapped;
  }

  /** Takes the parameters into the average; after a step. @throws LongwaveError while the average is swapped in. */
  update(): void {
    this.#refuseSwapped("update");
    const count = this.updateCount;
    // The average starts from 0: a weight of 1 makes it the parameters exactly.
    write(this.#weight, count === 0 ? 1 : this.decay === "mean" ? 1 / (count + 1) : 1 - this.decay);
    this.#program.run();
    this.updateCount = count + 1;
  }

  /**
   * Exchanges parameters and average, bit for bit; a second call brings the parameters back.
   * @throws LongwaveError before the first update.
   */
  swap(): void {
    if (this.updateCount === 0) throw new LongwaveError("weight average: expected an update before it is used, got none");
    const parameters = this.#parameters.data as Float64Array;
    const average = this.average.data as Float64Array;
    const size = 65_536;
    const scratch = parameters.slice(0, size);
    for (let start = 0; start < parameters.length; start += size) {
      const chunk = parameters.subarray(start, start + size);
      scratch.set(chunk);
      chunk.set(average.subarray(start, start + size));
      average.set(scratch.subarray(0, chunk.length), start);
    }
    this.#swapped = !this.#swapped;
  }

  /** The live state: `average` and `updateCount`. Written and read in place. @throws LongwaveError while the average is swapped in. */
  state(): Readonly<Record<"average" | "updateCount", TensorBuffer>> {
    this.#refuseSwapped("state");
    return { average: this.average, updateCount: this.#updateCount };
  }

  /** Copies a saved state over the present one. @throws CheckpointError when it is not a state of as many parameters. */
  restore(state: Readonly<Record<string, TensorBuffer>>): void {
    for (const [name, own] of Object.entries(this.state())) {
      const saved = state[name];
      if (saved?.dtype === own.dtype && saved.data.length === own.data.length) continue;
      throw new CheckpointError(
        `weight average: expected ${name} ${own.dtype}[${own.shape.join(", ")}], got ${saved ? `${saved.dtype}[${saved.shape.join(", ")}]` : "none"}`,
        { hint: "Resume with the model that the run was started with." },
      );
    }
    for (const [name, { data }] of Object.entries(this.state())) (data as Float64Array).set(state[name].data as Float64Array);
  }

  dispose(): void {
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #refuseSwapped(what: string): void {
    if (!this.#swapped) return;
    throw new LongwaveError(`weight average: expected the parameters to be swapped back before ${what}, got the average in their place`, {
      hint: "Call swap() once more after evaluation.",
    });
  }
}
