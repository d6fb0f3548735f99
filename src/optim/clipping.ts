// Gradient clipping over a flat gradient buffer: the norm of all gradients together (Pascanu et al. 2013), and clipping by value.
// Clipping by norm needs no pass of its own: the optimiser takes the factor as its gradient scale.
import { UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec } from "../runtime/program.ts";
import { reshape, sum } from "../tensor/core.ts";
import { abs, isNan, maximum, minimum, neg, pow, where } from "../tensor/elementwise.ts";
import type { Tensor } from "../tensor/graph.ts";
import { matmul } from "../tensor/matmul.ts";
import { max } from "../tensor/reduce.ts";
import { ChunkedProgram } from "./chunks.ts";
import { write } from "./elementwise-update.ts";

/** One partial result for each row: short enough for float32 sums, long enough to run fast. */
const rowLength = 1024;
const rowsPerRun = 4096;

const rowSpecs = (dtype: TensorBuffer["dtype"]) => ({ rows: spec(dtype, ["rows", "columns"]) });
type RowSpecs = ReturnType<typeof rowSpecs>;

export interface NormOptions {
  /** p of the p-norm; Infinity is the largest absolute value. Default 2. */
  normType?: number;
}

/**
 * The norm of a whole gradient buffer: rows are reduced in its own dtype, then combined in float64, always in the same order.
 * @throws UsageError unless normType > 0.
 */
export function createNorm(backend: Backend, gradients: FlatBuffer<unknown>, options: NormOptions = {}): GradientNorm {
  return new GradientNorm(backend, gradients, options);
}

export class GradientNorm {
  readonly normType: number;
  readonly #program: Program<RowSpecs, Tensor>;
  readonly #runs: BoundProgram<RowSpecs, Tensor>[] = [];

  /** Use {@link createNorm}. */
  constructor(backend: Backend, gradients: FlatBuffer<unknown>, { normType = 2 }: NormOptions) {
    if (!(normType > 0)) throw new UsageError(`gradient norm: expected a normType above 0, got ${normType}`);
    this.normType = normType;
    const { buffer } = gradients;
    const total = buffer.data.length;
    this.#program = compile(backend, ({ rows }) => reduceRows(rows, normType), rowSpecs(buffer.dtype), { name: "gradient norm" });
    const bind = (start: number, rows: number, columns: number): void => {
      const partial = allocate(buffer.dtype, [rows]);
      this.#runs.push(this.#program.bind({ rows: viewOf(buffer, [rows, columns], start) }, partial as never));
    };
    const wholeRows = Math.floor(total / rowLength);
    for (let row = 0; row < wholeRows; row += rowsPerRun) bind(row * rowLength, Math.min(rowsPerRun, wholeRows - row), rowLength);
    if (total % rowLength > 0) bind(wholeRows * rowLength, 1, total % rowLength);
  }

  /** The norm now. Infinite or NaN when a gradient is, or when the sum of a row overflows: what to do then is the caller's choice. */
  compute(): number {
    const infinite = this.normType === Number.POSITIVE_INFINITY;
    let result = 0;
    for (const run of this.#runs) {
      run.run();
      const partial = (run.outputs as TensorBuffer).data as Float64Array;
      for (let i = 0; i < partial.length; i++) result = infinite ? Math.max(result, partial[i]) : result + partial[i];
    }
    if (infinite || this.normType === 1) return result;
    return this.normType === 2 ? Math.sqrt(result) : result ** (1 / this.normType);
  }

  dispose(): void {
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function reduceRows(rows: Tensor, normType: number): Tensor {
  // ONNX Runtime's maximum passes over a NaN: it counts as infinite here.
  if (normType === Number.POSITIVE_INFINITY) return max(where(isNan(rows), normType, abs(rows)), { axes: 1 });
  if (normType !== 2) return sum(pow(abs(rows), normType), { axes: 1 });
  // A row times itself is one pass without intermediate results, twice as fast as squares and a sum.
  const [count, length] = rows.shape;
  return reshape(matmul(reshape(rows, [count, 1, length]), reshape(rows, [count, 1, length]), { transposeB: true }), [count]);
}

/**
 * The factor that brings gradients of norm `norm` down to `maxNorm`: min(1, maxNorm / (norm + 1e-6)). Never above 1.
 * 0 for an infinite norm, NaN for NaN: ask {@link Number.isFinite} before.
 * @throws UsageError for a negative or NaN maxNorm.
 */
export function clipFactor(norm: number, maxNorm: number): number {
  if (!(maxNorm >= 0)) throw new UsageError(`gradient clipping: expected a maxNorm of at least 0, got ${maxNorm}`);
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/**
 * Limits every gradient to [−limit, limit], in place, at each `run`.
 * @throws UsageError for a negative or NaN limit.
 */
export function createValueClipping(backend: Backend, gradients: FlatBuffer<unknown>, limit: number): ValueClipping {
  return new ValueClipping(backend, gradients, limit);
}

export class ValueClipping {
  readonly #program: ChunkedProgram;

  /** Use {@link createValueClipping}. */
  constructor(backend: Backend, gradients: FlatBuffer<unknown>, limit: number) {
    if (!(limit >= 0)) throw new UsageError(`gradient clipping: expected a limit of at least 0, got ${limit}`);
    const { buffer } = gradients;
    const scalars = { limit: allocate(buffer.dtype, []) };
    write(scalars.limit, limit);
    this.#program = new ChunkedProgram(
      backend,
      "gradient clipping by value",
      ({ gradients }, { limit }) => ({ gradients: minimum(maximum(gradients, neg(limit)), limit) }),
      [{ buffers: { gradients: buffer }, scalars }],
    );
  }

  run(): void {
    this.#program.run();
  }

  dispose(): void {
    this.#program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
