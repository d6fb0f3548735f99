// One gradient step on a minibatch: one program for forward pass, loss and gradients, written into one flat buffer; the norm on the host;
// the optimiser in place over the flat parameters. A step whose gradient is not finite, or whose KL is above a limit, changes nothing.
// Letters: M samples, F observation, A action numbers, K action outputs.
import { invariant } from "../../../base/errors.ts";
import { actionSize, headSize, isDiscrete } from "../../../models/policy/config.ts";
import { actorForward, criticForward, policyForward } from "../../../models/policy/network.ts";
import {
  type DenseParameters,
  layoutOfPart,
  type Policy,
  type PolicyParameters,
  type PolicyPart,
  partOf,
} from "../../../models/policy/parameters.ts";
import { createOptimizer, type Optimizer } from "../../../optim/optimizer.ts";
import type { OptimizerOptions } from "../../../optim/optimizer-options.ts";
import type { Backend } from "../../../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../../../runtime/flat.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../../../runtime/program.ts";
import { scalar } from "../../../tensor/core.ts";
import { add, maximum, minimum, mul, neg, square, sub } from "../../../tensor/elementwise.ts";
import { gradients } from "../../../tensor/gradient.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { mean } from "../../../tensor/reduce.ts";
import { mapTree } from "../../../tensor/tree.ts";
import { type ClipOptions, policyLoss } from "../../core/policy-loss.ts";
import type { SampleBatch } from "../buffer.ts";
import { type Distribution, distributionFrom, distributionOf, klOf } from "../distributions/distribution.ts";
import { distributionShapes, gatherRows } from "./rows.ts";

export interface GradientStepOptions {
  /** What is trained: actor, critic or both with one loss and one norm. */
  part: PolicyPart;
  optimizer: OptimizerOptions;
  /** How the ratio is clipped; the range itself comes with each step. */
  clip?: Extract<ClipOptions, { kind: "ppo" | "log-prob" | "none" }>;
  /** none: (V − R)²; clipped: of V within ± range of the old value (Stable-Baselines3); max: the larger of both (PPO2, CleanRL). */
  valueClip?: "none" | "clipped" | "max";
  valueCoefficient?: number;
  /** Whether an entropy bonus is part of the loss. */
  entropy?: boolean;
  /** Whether β KL(π_old ‖ π) is (PPO's penalty); needs the parameters of the old distributions. */
  klPenalty?: boolean;
  /** Global norm that gradients are scaled down to. Default Infinity. */
  maxGradNorm?: number;
  /** Whether batches bring masks of the possible actions. */
  masked?: boolean;
}

/** Numbers of one step. */
export interface StepNumbers {
  learningRate: number;
  clipRange?: number;
  clipRangeValue?: number;
  entropyCoefficient?: number;
  klCoefficient?: number;
  /** Largest approximate KL (k3) for which the step is made. Default Infinity. */
  maxKl?: number;
}

export interface StepOutcome {
  policyLoss: number;
  /** Mean squared error, without coefficient. */
  valueLoss: number;
  entropy: number;
  loss: number;
  /** Mean of (r − 1) − log r, Schulman's k3; 0 without old log-probabilities. */
  approxKl: number;
  /** Mean of −log r. */
  approxKlK1: number;
  clipFraction: number;
  /** Before clipping. */
  gradientNorm: number;
  /** Exact KL(π_old ‖ π), with a penalty only. */
  kl: number;
  /** False when the KL was above the limit or the gradient not finite: nothing has changed. */
  isMade: boolean;
}

type Specs = Record<string, unknown>;
type Outputs = { gradients: unknown; told: Record<string, Tensor> };

interface Traced {
  readonly parameters: Partial<PolicyParameters<Tensor>>;
  readonly scalars: Record<string, Tensor>;
  readonly batch: Record<string, Tensor>;
  readonly trunk?: DenseParameters<Tensor>[];
}

/** One program for a number of rows, and what the host writes and reads. */
interface Compiled {
  readonly program: Program<Specs, Outputs>;
  readonly bound: BoundProgram<Specs, Outputs>;
  readonly batch: Record<string, TensorBuffer>;
  readonly told: Record<string, TensorBuffer>;
}

const scalarNames = ["clipRange", "clipRangeValue", "entropyCoefficient", "klCoefficient"] as const;

export class GradientStep {
  readonly part: PolicyPart;
  readonly #backend: Backend;
  readonly #policy: Policy;
  readonly #options: GradientStepOptions;
  readonly #gradients: FlatBuffer<unknown>;
  readonly #optimizer: Optimizer;
  readonly #scalars: Record<string, TensorBuffer> = {};
  readonly #compiled = new Map<number, Compiled>();
  readonly #outcome: StepOutcome = {
    policyLoss: 0,
    valueLoss: 0,
    entropy: 0,
    loss: 0,
    approxKl: 0,
    approxKlK1: 0,
    clipFraction: 0,
    gradientNorm: 0,
    kl: 0,
    isMade: true,
  };

  constructor(backend: Backend, policy: Policy, options: GradientStepOptions) {
    this.part = options.part;
    this.#backend = backend;
    this.#policy = policy;
    this.#options = options;
    const parts = layoutOfPart(policy.parameters.layout, options.part);
    // One group: one pass of the optimiser.
    const layout = { ...parts, groups: [{ name: "all", start: 0, end: parts.length }] };
    const leaves = new Map(layout.leaves.map(({ path }) => [path, policy.parameters.leaves.get(path) as TensorBuffer]));
    const parameters = { layout, buffer: partOf(policy, options.part), tree: this.#own(policy.parameters.tree), leaves };
    this.#gradients = allocateFlat(this.#own(policy.specs), layout) as FlatBuffer<unknown>;
    this.#optimizer = createOptimizer(backend, options.optimizer, parameters as FlatBuffer<unknown>, this.#gradients);
    for (const name of scalarNames) this.#scalars[name] = allocate(policy.config.dtype, []);
  }

  /** Live moments of the optimiser by name, and `stepCount`. */
  get state(): Readonly<Record<string, TensorBuffer>> {
    return this.#optimizer.state();
  }

  /**
   * One step on rows `order[from … from + count)` of the batch. The result is overwritten by the next call.
   * @param advantages of these rows, [count], as the loss takes them. @param oldParameters of the distributions, [N, …] each, for a penalty.
   */
  run(
    batch: SampleBatch,
    order: ArrayLike<number>,
    from: number,
    count: number,
    advantages: ArrayLike<number> | undefined,
    numbers: StepNumbers,
    oldParameters: readonly TensorBuffer[] = [],
  ): StepOutcome {
    const { bound, batch: inputs, told } = this.#programFor(count);
    const { observationSize, head } = this.#policy.config;
    gatherRows(batch.observations, order, from, count, observationSize, inputs.observations);
    if (inputs.actions) gatherRows(batch.actions, order, from, count, actionSize(head), inputs.actions);
    if (inputs.oldLogProbs) gatherRows(batch.logProbs, order, from, count, 1, inputs.oldLogProbs);
    if (inputs.returns) gatherRows(batch.returns, order, from, count, 1, inputs.returns);
    if (inputs.oldValues) gatherRows(batch.values, order, from, count, 1, inputs.oldValues);
    if (inputs.masks) {
      invariant(batch.masks, "a policy with masks, a batch without");
      gatherRows(batch.masks, order, from, count, headSize(head), inputs.masks);
    }
    if (inputs.advantages) {
      invariant(advantages, "a policy loss without advantages");
      (inputs.advantages.data as Float64Array).set(advantages);
    }
    for (const [i, source] of oldParameters.entries()) {
      const target = inputs[`oldParameters${i}`];
      if (source.shape.length === 1) (target.data as Float64Array).set(source.data as Float64Array);
      else gatherRows(source.data as Float64Array, order, from, count, source.shape[1], target);
    }
    for (const name of scalarNames) (this.#scalars[name].data as Float64Array)[0] = numbers[name] ?? 0;
    bound.run();
    this.#read(told, inputs.oldLogProbs, numbers);
    const outcome = this.#outcome;
    outcome.gradientNorm = normOf(this.#gradients.buffer.data as Float64Array);
    outcome.isMade = Number.isFinite(outcome.gradientNorm) && !(outcome.approxKl > (numbers.maxKl ?? Number.POSITIVE_INFINITY));
    if (outcome.isMade) {
      const { maxGradNorm = Number.POSITIVE_INFINITY } = this.#options;
      // As torch clips.
      const gradientScale = Math.min(1, maxGradNorm / (outcome.gradientNorm + 1e-6));
      this.#optimizer.step({ learningRate: numbers.learningRate, gradientScale });
    }
    return outcome;
  }

  dispose(): void {
    for (const { program } of this.#compiled.values()) program.dispose();
    this.#compiled.clear();
    this.#optimizer.dispose();
  }

  #read(told: Record<string, TensorBuffer>, oldLogProbs: TensorBuffer | undefined, { clipRange = 0.2 }: StepNumbers): void {
    const number = (name: string): number => (told[name] ? (told[name].data as Float64Array)[0] : 0);
    const outcome = this.#outcome;
    outcome.policyLoss = number("policyLoss");
    outcome.valueLoss = number("valueLoss");
    outcome.entropy = number("entropy");
    outcome.loss = number("loss");
    outcome.kl = number("kl");
    outcome.approxKl = 0;
    outcome.approxKlK1 = 0;
    outcome.clipFraction = 0;
    if (oldLogProbs && told.logProbs) {
      const [now, old] = [told.logProbs.data as Float64Array, oldLogProbs.data as Float64Array];
      let [k1, k3, clipped] = [0, 0, 0];
      for (let i = 0; i < old.length; i++) {
        const logRatio = now[i] - old[i];
        const change = Math.exp(logRatio) - 1;
        k1 -= logRatio;
        k3 += change - logRatio;
        if (Math.abs(change) > clipRange) clipped++;
      }
      outcome.approxKl = k3 / old.length;
      outcome.approxKlK1 = k1 / old.length;
      outcome.clipFraction = clipped / old.length;
    }
  }

  #programFor(count: number): Compiled {
    const known = this.#compiled.get(count);
    if (known) return known;
    const specs = this.#specs(count);
    const program = compile(this.#backend, (inputs) => this.#trace(inputs as never, count), specs, {
      name: `${this.part} step on ${count}`,
      threads: 1,
    }) as unknown as Program<Specs, Outputs>;
    const { tree } = this.#policy.parameters;
    const bound = program.bind(
      { parameters: this.#own(tree), scalars: this.#scalars, ...(this.#needsTrunk ? { trunk: tree.actor.trunk } : {}) } as never,
      { gradients: this.#gradients.tree } as never,
    );
    const outputs = bound.outputs as unknown as { told: Record<string, TensorBuffer> };
    const inputs = bound.inputs as unknown as { batch: Record<string, TensorBuffer> };
    const compiled: Compiled = { program, bound, batch: inputs.batch, told: outputs.told };
    this.#compiled.set(count, compiled);
    return compiled;
  }

  /** The part of a tree that is trained. */
  #own<T>({ actor, critic }: PolicyParameters<T>): Partial<PolicyParameters<T>> {
    return { ...(this.#hasPolicy ? { actor } : {}), ...(this.#hasValue ? { critic } : {}) };
  }

  get #needsTrunk(): boolean {
    return this.part === "critic" && this.#policy.config.trunk.length > 0;
  }

  get #hasPolicy(): boolean {
    return this.part !== "critic";
  }

  get #hasValue(): boolean {
    return this.part !== "actor";
  }

  #specs(count: number): Specs {
    const { config } = this.#policy;
    const { dtype, head, observationSize } = config;
    const { clip, valueClip = "none", klPenalty } = this.#options;
    const row = spec(dtype, [count]);
    const batch: Record<string, TensorSpec> = { observations: spec(dtype, [count, observationSize]) };
    if (this.#hasPolicy) {
      batch.actions = spec(isDiscrete(head) ? "i32" : dtype, [count, actionSize(head)]);
      batch.advantages = row;
      if (clip?.kind !== "log-prob") batch.oldLogProbs = row;
      if (this.#options.masked) batch.masks = spec(dtype, [count, headSize(head)]);
      if (klPenalty)
        for (const [i, shape] of distributionShapes(this.#policy, count).entries()) batch[`oldParameters${i}`] = spec(dtype, shape);
    }
    if (this.#hasValue) {
      batch.returns = row;
      if (valueClip !== "none") batch.oldValues = row;
    }
    const leaf = ({ shape }: { shape: readonly (number | string)[] }): TensorSpec => spec(dtype, shape);
    const { specs } = this.#policy;
    return {
      parameters: mapTree(this.#own(specs), leaf),
      scalars: Object.fromEntries(scalarNames.map((name) => [name, spec(dtype, [])])),
      batch,
      ...(this.#needsTrunk ? { trunk: mapTree(specs.actor.trunk, leaf) } : {}),
    };
  }

  #trace({ parameters, scalars, batch, trunk = [] }: Traced, count: number): Outputs {
    const { config } = this.#policy;
    const told: Record<string, Tensor> = {};
    let loss: Tensor | undefined;
    const include = (term: Tensor): void => {
      loss = loss ? add(loss, term) : term;
    };
    const { observations } = batch;
    const { actor, critic } = parameters;
    const forward = actor && critic ? policyForward(config, { actor, critic }, observations) : undefined;
    if (actor) {
      const distribution = distributionOf(config.head, forward ?? actorForward(config, actor, observations), batch.masks);
      this.#policyTerms(distribution, batch, scalars, count, told, include);
    }
    if (critic) {
      const values = forward?.values ?? criticForward(config, { trunk, critic }, observations);
      const valueLoss = this.#valueLoss(values, batch, scalars.clipRangeValue);
      told.valueLoss = valueLoss;
      include(mul(valueLoss, this.#options.valueCoefficient ?? 1));
    }
    invariant(loss, "a step without a loss");
    told.loss = loss;
    return { gradients: gradients(loss, parameters), told };
  }

  #policyTerms(
    distribution: Distribution,
    batch: Record<string, Tensor>,
    scalars: Record<string, Tensor>,
    count: number,
    told: Record<string, Tensor>,
    include: (term: Tensor) => void,
  ): void {
    const { clip = { kind: "ppo", low: 0.2, high: 0.2 }, entropy, klPenalty } = this.#options;
    const { head } = this.#policy.config;
    const logProbs = distribution.logProb(batch.actions);
    const { policyLoss: policy } = policyLoss(
      {
        logProbs,
        ...(batch.oldLogProbs ? { oldLogProbs: batch.oldLogProbs } : {}),
        advantages: batch.advantages,
        weights: scalar(logProbs.graph, logProbs.dtype, 1 / count),
        ...(clip.kind === "ppo" ? { clipRange: scalars.clipRange } : {}),
      },
      { clip, maxLogRatio: Number.POSITIVE_INFINITY },
    );
    // Where the entropy has no closed form, −log π of the actions estimates it, as in Stable-Baselines3.
    const meanEntropy = mean(distribution.entropy() ?? neg(logProbs));
    told.policyLoss = policy;
    told.entropy = meanEntropy;
    told.logProbs = logProbs;
    include(policy);
    if (entropy) include(neg(mul(meanEntropy, scalars.entropyCoefficient)));
    if (klPenalty) {
      const old = distributionFrom(
        head,
        distribution.parameters.map((_, i) => batch[`oldParameters${i}`]),
        batch.masks,
      );
      told.kl = mean(klOf(old, distribution));
      include(mul(told.kl, scalars.klCoefficient));
    }
  }

  #valueLoss(values: Tensor, { returns, oldValues }: Record<string, Tensor>, range: Tensor): Tensor {
    const { valueClip = "none" } = this.#options;
    const plain = square(sub(values, returns));
    if (valueClip === "none") return mean(plain);
    const near = add(oldValues, minimum(maximum(sub(values, oldValues), neg(range)), range));
    const clipped = square(sub(near, returns));
    return mean(valueClip === "clipped" ? clipped : maximum(plain, clipped));
  }
}

/** In four sums, which a processor takes side by side. */
function normOf(values: ArrayLike<number>): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  // Flat buffers are padded to whole cache lines.
  for (let i = 0; i < values.length; i += 4) {
    a += values[i] * values[i];
    b += values[i + 1] * values[i + 1];
    c += values[i + 2] * values[i + 2];
    d += values[i + 3] * values[i + 3];
  }
  return Math.sqrt(a + b + (c + d));
}
