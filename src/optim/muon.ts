// Muon (Jordan et al. 2024): momentum, made orthogonal, for the matrices of a model. M ← μ M + g; the step follows M, or g + μ M
// (Nesterov), scaled so that all of its singular values are near 1.
// Matrices that are stored as one (q, k, v) are made orthogonal one by one, since the model uses them as separate maps.
import { ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import type { FlatBuffer, FlatLeaf } from "../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec } from "../runtime/program.ts";
import { add, mul, sub } from "../tensor/elementwise.ts";
import type { Tensor } from "../tensor/graph.ts";
import { type StepSettings, type Update, write } from "./elementwise-update.ts";
import type { GroupSettings } from "./groups.ts";
import type { MuonOptions } from "./muon-options.ts";
import { orthogonalize } from "./newton-schulz.ts";
import { decayingSum } from "./update-rule.ts";

/** A leaf that Muon updates. */
export interface MuonLeaf {
  readonly leaf: FlatLeaf;
  readonly settings: GroupSettings;
  /** Rows of each of the matrices that are stored as one. */
  readonly rows: readonly number[];
}

const matrixSpecs = (dtype: TensorBuffer["dtype"], shape: readonly number[]) => ({
  parameters: spec(dtype, shape),
  gradients: spec(dtype, shape),
  momentum: spec(dtype, shape),
  gradientScale: spec(dtype, []),
  learningRate: spec(dtype, []),
  weightDecay: spec(dtype, []),
});
type MatrixSpecs = ReturnType<typeof matrixSpecs>;
type MatrixProgram = Program<MatrixSpecs, { parameters: Tensor; momentum: Tensor }>;

export class MuonUpdate implements Update {
  /** `momentum`: the matrices one after another, in the order of the leaves. */
  readonly state: Readonly<Record<string, TensorBuffer>>;
  readonly #options: MuonOptions;
  /** One program for each shape. */
  readonly #programs = new Map<string, MatrixProgram>();
  readonly #matrices: BoundProgram<MatrixSpecs, { parameters: Tensor; momentum: Tensor }>[] = [];
  readonly #scalars = new Map<GroupSettings, Record<"gradientScale" | "learningRate" | "weightDecay", TensorBuffer>>();

  constructor(
    backend: Backend,
    options: MuonOptions,
    parameters: FlatBuffer<unknown>,
    gradients: FlatBuffer<unknown>,
    leaves: readonly MuonLeaf[],
  ) {
    this.#options = options;
    const { dtype } = parameters.layout;
    const momentum = allocate(dtype, [leaves.reduce((sum, { leaf }) => sum + leaf.length, 0)]);
    this.state = { momentum };
    let stateOffset = 0;
    for (const { leaf, settings, rows } of leaves) {
      let scalars = this.#scalars.get(settings);
      if (!scalars) {
        scalars = { gradientScale: allocate(dtype, []), learningRate: allocate(dtype, []), weightDecay: allocate(dtype, []) };
        this.#scalars.set(settings, scalars);
      }
      let offset = 0;
      for (const count of rows) {
        const shape = [count, leaf.shape[1]];
        const own = {
          parameters: viewOf(parameters.buffer, shape, leaf.offset + offset),
          momentum: viewOf(momentum, shape, stateOffset + offset),
        };
        const inputs = { ...own, gradients: viewOf(gradients.buffer, shape, leaf.offset + offset), ...scalars };
        this.#matrices.push(this.#program(backend, dtype, shape).bind(inputs, own));
        offset += count * shape[1];
      }
      stateOffset += leaf.length;
    }
  }

  run({ learningRate, gradientScale }: StepSettings): void {
    const sign = this.#options.maximize ? -1 : 1;
    for (const [{ learningRateScale, weightDecay }, scalars] of this.#scalars) {
      const rate = learningRate * learningRateScale;
      write(scalars.gradientScale, sign * gradientScale);
      write(scalars.learningRate, rate);
      write(scalars.weightDecay, 1 - rate * weightDecay);
    }
    for (const matrix of this.#matrices) matrix.run();
  }

  dispose(): void {
    for (const program of this.#programs.values()) program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #program(backend: Backend, dtype: TensorBuffer["dtype"], shape: readonly number[]): MatrixProgram {
    const name = `muon [${shape.join(", ")}]`;
    let program = this.#programs.get(name);
    if (!program) {
      const { momentum: mu, nesterov, iterations, coefficients, epsilon, adjustLearningRate } = this.#options;
      program = compile(
        backend,
        ({ parameters, gradients, momentum, gradientScale, learningRate, weightDecay }) => {
          const gradient = mul(gradients, gradientScale);
          // A sum instead of an average: the factor 1 − μ vanishes with the norm, save for its lower bound.
          const sum = decayingSum(momentum, mu, gradient);
          const direction = nesterov ? add(gradient, mul(sum, mu)) : sum;
          const step = orthogonalize(direction, { iterations, coefficients, epsilon: epsilon / (1 - mu) });
          const rate = mul(learningRate, shapeFactor(adjustLearningRate, shape));
          return { parameters: sub(mul(parameters, weightDecay), mul(step, rate)), momentum: sum };
        },
        matrixSpecs(dtype, shape),
        { name },
      );
      this.#programs.set(name, program);
    }
    return program;
  }
}

/** Factor of the learning rate for a matrix [out, in]. */
export function shapeFactor(mode: MuonOptions["adjustLearningRate"], [rows, columns]: readonly number[]): number {
  return mode === "original" ? Math.sqrt(Math.max(1, rows / columns)) : 0.2 * Math.sqrt(Math.max(rows, columns));
}

/**
 * Rows of the matrices that a leaf consists of.
 * @throws UsageError for a path without a leaf, ShapeError for rows that do not make up the leaf.
 */
export function checkFusedRows(layout: FlatBuffer<unknown>["layout"], fusedRows: Readonly<Record<string, readonly number[]>>): void {
  for (const [path, rows] of Object.entries(fusedRows)) {
    const leaf = layout.leaves.find((candidate) => candidate.path === path);
    if (!leaf) throw new UsageError(`fusedRows: expected the path of a parameter, got "${path}"`);
    const fits = leaf.shape.length === 2 && rows.every((count) => Number.isSafeInteger(count) && count > 0) && sum(rows) === leaf.shape[0];
    if (fits) continue;
    throw new ShapeError(
      `fusedRows: expected counts that add up to the rows of "${path}" [${leaf.shape.join(", ")}], got ${rows.join(" + ")}`,
    );
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
