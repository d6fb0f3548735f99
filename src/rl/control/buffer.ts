// One rollout: flat arrays [T, E, …], allocated once and written step by step. T steps, E environments, F features, A action numbers,
// K action outputs (for masks). Rows of all steps and environments, in this order, are the samples of an update.
import { invariant, UsageError } from "../../base/errors.ts";
import type { Advantages, RolloutView } from "./estimators.ts";

type Floats = Float32Array | Float64Array;

export interface BufferSizes {
  numSteps: number;
  numEnvironments: number;
  observationSize: number;
  actionSize: number;
  /** K where actions may be forbidden, else 0. */
  maskSize?: number;
  dtype?: "f32" | "f64";
}

/** Samples of an update, one row each; what the gradient programs gather from. */
export interface SampleBatch {
  /** N */
  readonly size: number;
  /** [N, F] */
  readonly observations: ArrayLike<number>;
  /** [N, A]; squashed ones before tanh. */
  readonly actions: ArrayLike<number>;
  /** [N] under the policy that acted. */
  readonly logProbs: ArrayLike<number>;
  /** [N] */
  readonly values: ArrayLike<number>;
  /** [N] */
  readonly advantages: ArrayLike<number>;
  /** [N] targets of the value network. */
  readonly returns: ArrayLike<number>;
  /** [N, K] 1 where an action was possible. */
  readonly masks?: ArrayLike<number>;
}

export class RolloutBuffer implements RolloutView, SampleBatch, Advantages {
  readonly numSteps: number;
  readonly numEnvironments: number;
  readonly size: number;
  readonly observations: Floats;
  readonly actions: Floats;
  readonly logProbs: Float64Array;
  readonly values: Float64Array;
  readonly rewards: Float64Array;
  readonly terminated: Uint8Array;
  readonly truncated: Uint8Array;
  readonly terminalValues: Float64Array;
  readonly lastValues: Float64Array;
  readonly advantages: Float64Array;
  readonly returns: Float64Array;
  readonly masks?: Uint8Array;
  /** Steps written so far. */
  #length = 0;

  /** @throws UsageError for a rollout of no steps or environments. */
  constructor({ numSteps, numEnvironments, observationSize, actionSize, maskSize = 0, dtype = "f32" }: BufferSizes) {
    if (!(Number.isInteger(numSteps) && numSteps > 0 && Number.isInteger(numEnvironments) && numEnvironments > 0))
      throw new UsageError(`rollout: expected at least one step and one environment, got ${numSteps} and ${numEnvironments}`, {
        hint: "Set nSteps and nEnvs to 1 or more.",
      });
    const Floats = dtype === "f32" ? Float32Array : Float64Array;
    this.numSteps = numSteps;
    this.numEnvironments = numEnvironments;
    this.size = numSteps * numEnvironments;
    this.observations = new Floats(this.size * observationSize);
    this.actions = new Floats(this.size * actionSize);
    this.logProbs = new Float64Array(this.size);
    this.values = new Float64Array(this.size);
    this.rewards = new Float64Array(this.size);
    this.terminated = new Uint8Array(this.size);
    this.truncated = new Uint8Array(this.size);
    this.terminalValues = new Float64Array(this.size);
    this.lastValues = new Float64Array(numEnvironments);
    this.advantages = new Float64Array(this.size);
    this.returns = new Float64Array(this.size);
    if (maskSize > 0) this.masks = new Uint8Array(this.size * maskSize).fill(1);
  }

  get length(): number {
    return this.#length;
  }

  /** Starts a new rollout over the old one. */
  clear(): void {
    this.#length = 0;
    this.terminalValues.fill(0);
  }

  /** Row of the first environment in the present step. */
  get row(): number {
    invariant(this.#length < this.numSteps, "a rollout that is longer than its buffer");
    return this.#length * this.numEnvironments;
  }

  /** Ends the present step. */
  advance(): void {
    this.#length++;
  }
}
