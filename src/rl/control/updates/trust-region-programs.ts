// The programs behind TRPO and the natural gradient, over a whole batch: surrogate and its gradient, KL to the old policy, products with
// the Fisher matrix. That product is Jᵀ M J v (one forward, one reverse derivative): at the old policy it equals the Hessian of the KL,
// which `kl-hessian` differentiates twice instead; the tests compare the two. Letters: N samples, P parameters of the actor.
import { invariant } from "../../../base/errors.ts";
import { actionSize, headSize, isDiscrete } from "../../../models/policy/config.ts";
import { joinLeaves, leavesOf } from "../../../models/policy/flat-tensor.ts";
import { actorForward } from "../../../models/policy/network.ts";
import { type ActorParameters, layoutOfPart, type Policy, partOf } from "../../../models/policy/parameters.ts";
import type { Backend } from "../../../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../../../runtime/buffer.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../../../runtime/program.ts";
import { sum } from "../../../tensor/core.ts";
import { exp, mul, sub } from "../../../tensor/elementwise.ts";
import { gradients, jvp, vjp } from "../../../tensor/gradient.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { mean } from "../../../tensor/reduce.ts";
import type { SampleBatch } from "../buffer.ts";
import {
  type Distribution,
  distributionFrom,
  distributionOf,
  type KlReduction,
  klDimensions,
  klOf,
} from "../distributions/distribution.ts";
import { distributionShapes, gatherRows } from "./rows.ts";

/** new-old: KL(π ‖ π_old), as sb3-contrib; old-new: KL(π_old ‖ π), as in the paper. Equal to second order. */
export type KlDirection = "new-old" | "old-new";

export interface TrustRegionProgramOptions {
  /** N: rows of the surrogate and the KL. */
  rows: number;
  /** Rows of the Fisher products. Default N. */
  fisherRows?: number;
  direction: KlDirection;
  reduction: KlReduction;
  fisher: "gauss-newton" | "kl-hessian";
  masked: boolean;
}

type Record2<T> = Record<string, Record<string, T>>;

export class TrustRegionPrograms {
  readonly #policy: Policy;
  readonly #options: TrustRegionProgramOptions;
  readonly #programs: Program<Record2<TensorSpec>, Record<string, Tensor>>[] = [];
  readonly #gradient: BoundProgram<Record2<TensorSpec>, Record<string, Tensor>>;
  readonly #trial: BoundProgram<Record2<TensorSpec>, Record<string, Tensor>>;
  /** Made when it is first asked for: PPO's penalty needs none. */
  #fisher: BoundProgram<Record2<TensorSpec>, Record<string, Tensor>> | undefined;
  readonly #backend: Backend;
  /** Batch inputs of the first two, and of the Fisher products. */
  readonly #batch: Record<string, TensorBuffer>;
  readonly #fisherBatch: Record<string, TensorBuffer>;
  /** Parameters of the distributions of the batch under the old policy, as `prepare` left them. */
  readonly oldParameters: readonly TensorBuffer[];
  readonly #fisherOld: readonly TensorBuffer[];
  /** [P] live parameters of the actor. */
  readonly #actor: TensorBuffer;
  /** [P] parameters that a trial is made with. */
  readonly #candidate: TensorBuffer;
  readonly #vector: TensorBuffer;

  constructor(backend: Backend, policy: Policy, options: TrustRegionProgramOptions) {
    this.#backend = backend;
    this.#policy = policy;
    this.#options = options;
    const { rows, fisherRows = rows } = options;
    const { dtype } = policy.config;
    this.#actor = partOf(policy, "actor");
    this.#candidate = allocate(dtype, this.#actor.shape);
    this.#vector = allocate(dtype, this.#actor.shape);
    this.#batch = this.#allocateBatch(rows);
    const { observations, masks } = this.#allocateBatch(fisherRows);
    this.#fisherBatch = { observations, ...(masks ? { masks } : {}) };
    this.oldParameters = distributionShapes(policy, rows).map((shape) => allocate(dtype, shape));
    this.#fisherOld = distributionShapes(policy, fisherRows).map((shape) => allocate(dtype, shape));
    const old = named(this.oldParameters);
    this.#gradient = this.#make("surrogate gradient", { own: { actor: this.#actor }, batch: this.#batch }, old, (inputs) =>
      this.#traceGradient(inputs),
    );
    this.#trial = this.#make("trial of a step", { own: { actor: this.#candidate }, batch: this.#batch, old }, {}, (inputs) =>
      this.#traceTrial(inputs),
    );
  }

  /** P */
  get numParameters(): number {
    return this.#actor.data.length;
  }

  /**
   * Takes in a batch, and computes the surrogate E[r Â] with its gradient at the present parameters, and the old distributions.
   * @param order rows of the batch, N of them. @param advantages as the surrogate takes them, in that order.
   */
  prepare(batch: SampleBatch, order: ArrayLike<number>, advantages: ArrayLike<number>): { surrogate: number; gradient: Float64Array } {
    const { observationSize, head } = this.#policy.config;
    const { rows, fisherRows = rows } = this.#options;
    const take = (source: ArrayLike<number>, from: ArrayLike<number>, count: number, width: number, target: TensorBuffer): void =>
      gatherRows(source, from, 0, count, width, target);
    take(batch.observations, order, rows, observationSize, this.#batch.observations);
    take(batch.actions, order, rows, actionSize(head), this.#batch.actions);
    take(batch.logProbs, order, rows, 1, this.#batch.oldLogProbs);
    (this.#batch.advantages.data as Float64Array).set(advantages);
    // Evenly spread over the rows.
    const fisherOrder = Float64Array.from({ length: fisherRows }, (_, i) => order[Math.floor((i * rows) / fisherRows)]);
    take(batch.observations, fisherOrder, fisherRows, observationSize, this.#fisherBatch.observations);
    if (this.#options.masked) {
      invariant(batch.masks, "a policy with masks, a batch without");
      take(batch.masks, order, rows, headSize(head), this.#batch.masks);
      take(batch.masks, fisherOrder, fisherRows, headSize(head), this.#fisherBatch.masks);
    }
    this.#gradient.run();
    const outputs = this.#gradient.outputs as unknown as Record<string, TensorBuffer>;
    if (this.#options.fisher === "kl-hessian") {
      for (const [i, { data, shape }] of this.#fisherOld.entries()) {
        const source = this.oldParameters[i].data as Float64Array;
        if (shape.length === 1) (data as Float64Array).set(source);
        else
          for (let row = 0; row < fisherRows; row++) {
            const from = Math.floor((row * rows) / fisherRows) * shape[1];
            for (let j = 0; j < shape[1]; j++) (data as Float64Array)[row * shape[1] + j] = source[from + j];
          }
      }
    }
    return { surrogate: scalarOf(outputs.surrogate), gradient: Float64Array.from(outputs.gradient.data as Float64Array) };
  }

  /** F v, undamped. */
  fisherProduct(v: ArrayLike<number>, out: Float64Array): void {
    this.#fisher ??= this.#makeFisher();
    (this.#vector.data as Float64Array).set(v);
    this.#fisher.run();
    out.set((this.#fisher.outputs as unknown as Record<string, TensorBuffer>).product.data as Float64Array);
  }

  /** Surrogate and KL at the present parameters + `step`; they stay as they are. */
  try(step: ArrayLike<number>): { surrogate: number; kl: number } {
    const [old, next] = [this.#actor.data as Float64Array, this.#candidate.data as Float64Array];
    for (let i = 0; i < next.length; i++) next[i] = old[i] + step[i];
    this.#trial.run();
    const { surrogate, kl } = this.#trial.outputs as unknown as Record<string, TensorBuffer>;
    return { surrogate: scalarOf(surrogate), kl: scalarOf(kl) };
  }

  /** The gradient of the KL at the parameters that were tried last. */
  get trialKlGradient(): Float64Array {
    return Float64Array.from((this.#trial.outputs as unknown as Record<string, TensorBuffer>).klGradient.data as Float64Array);
  }

  /** Makes the parameters of the last trial the present ones. */
  accept(): void {
    (this.#actor.data as Float64Array).set(this.#candidate.data as Float64Array);
  }

  dispose(): void {
    for (const program of this.#programs) program.dispose();
  }

  #make(
    name: string,
    inputs: Record2<TensorBuffer>,
    outputs: Record<string, TensorBuffer>,
    trace: (inputs: Record2<Tensor>) => Record<string, Tensor>,
  ): BoundProgram<Record2<TensorSpec>, Record<string, Tensor>> {
    const specs = Object.fromEntries(
      Object.entries(inputs).map(([group, buffers]) => [
        group,
        Object.fromEntries(Object.entries(buffers).map(([key, buffer]) => [key, spec(buffer.dtype, buffer.shape)])),
      ]),
    );
    const program = compile(this.#backend, trace as never, specs, { name, threads: 1 }) as unknown as Program<
      Record2<TensorSpec>,
      Record<string, Tensor>
    >;
    this.#programs.push(program);
    return program.bind(inputs as never, outputs as never);
  }

  #makeFisher(): BoundProgram<Record2<TensorSpec>, Record<string, Tensor>> {
    const inputs = {
      own: { actor: this.#actor, vector: this.#vector },
      batch: this.#fisherBatch,
      ...(this.#options.fisher === "kl-hessian" ? { old: named(this.#fisherOld) } : {}),
    };
    return this.#make("Fisher product", inputs, {}, (traced) => this.#traceFisher(traced));
  }

  #allocateBatch(count: number): Record<string, TensorBuffer> {
    const { dtype, head, observationSize } = this.#policy.config;
    return {
      observations: allocate(dtype, [count, observationSize]),
      actions: allocate(isDiscrete(head) ? "i32" : dtype, [count, actionSize(head)]),
      oldLogProbs: allocate(dtype, [count]),
      advantages: allocate(dtype, [count]),
      ...(this.#options.masked ? { masks: allocate(dtype, [count, headSize(head)]) } : {}),
    };
  }

  #leaves(flat: Tensor): { actor: ActorParameters<Tensor> } {
    const { specs, parameters } = this.#policy;
    return leavesOf(layoutOfPart(parameters.layout, "actor"), flat, { actor: specs.actor }) as never;
  }

  #distribution({ actor }: { actor: ActorParameters<Tensor> }, { observations, masks }: Record<string, Tensor>): Distribution {
    const { config } = this.#policy;
    return distributionOf(config.head, actorForward(config, actor, observations), masks);
  }

  #join(tree: unknown): Tensor {
    return joinLeaves(layoutOfPart(this.#policy.parameters.layout, "actor"), tree);
  }

  #traceGradient({ own, batch }: Record2<Tensor>): Record<string, Tensor> {
    const leaves = this.#leaves(own.actor);
    const distribution = this.#distribution(leaves, batch);
    const surrogate = surrogateOf(distribution, batch);
    return { surrogate, gradient: this.#join(gradients(surrogate, leaves)), ...named(distribution.parameters) };
  }

  #traceTrial({ own, batch, old }: Record2<Tensor>): Record<string, Tensor> {
    const leaves = this.#leaves(own.actor);
    const distribution = this.#distribution(leaves, batch);
    const kl = this.#kl(distribution, old, batch.masks);
    return {
      surrogate: surrogateOf(distribution, batch),
      kl,
      ...(this.#policy.config.dtype === "f64" ? { klGradient: this.#join(gradients(kl, leaves)) } : {}),
    };
  }

  #kl(distribution: Distribution, old: Record<string, Tensor>, masks: Tensor | undefined): Tensor {
    const { direction, reduction } = this.#options;
    const before = distributionFrom(
      this.#policy.config.head,
      distribution.parameters.map((_, i) => old[`oldParameters${i}`]),
      masks,
    );
    return mean(direction === "new-old" ? klOf(distribution, before, reduction) : klOf(before, distribution, reduction));
  }

  #traceFisher({ own, batch, old }: Record2<Tensor>): Record<string, Tensor> {
    const { fisher, reduction } = this.#options;
    const leaves = this.#leaves(own.actor);
    const vector = this.#leaves(own.vector);
    const distribution = this.#distribution(leaves, batch);
    if (fisher === "kl-hessian") {
      const slope = this.#join(gradients(this.#kl(distribution, old, batch.masks), leaves));
      return { product: this.#join(gradients(sum(mul(slope, own.vector)), leaves)) };
    }
    const tangents = jvp(distribution.parameters, leaves, vector as never);
    const count = batch.observations.shape[0] as number;
    const scale = 1 / (count * (reduction === "mean" ? klDimensions(this.#policy.config.head) : 1));
    const cotangents = distribution.fisher(tangents).map((cotangent) => mul(cotangent, scale));
    return { product: this.#join(vjp(distribution.parameters, cotangents, leaves)) };
  }
}

const named = <T>(parameters: readonly T[]): Record<string, T> =>
  Object.fromEntries(parameters.map((value, i) => [`oldParameters${i}`, value]));

const scalarOf = ({ data }: TensorBuffer): number => (data as Float64Array)[0];

/** E[π / π_old · Â] */
const surrogateOf = (distribution: Distribution, { actions, oldLogProbs, advantages }: Record<string, Tensor>): Tensor =>
  mean(mul(exp(sub(distribution.logProb(actions), oldLogProbs)), advantages));
