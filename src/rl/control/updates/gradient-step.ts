// One gradient step on a minibatch as one program: forward, loss, gradient, clipping by the global norm and the optimiser's formula, in
// place over the flat parameters and moments. A step whose gradient is not finite, or whose KL is above a limit, changes nothing.
// Letters: M samples, F observation, A action numbers, K action outputs, L parameters of the part that is trained.

import { invariant, UsageError } from "../../../base/errors.ts";
import { actionSize, headSize, isDiscrete } from "../../../models/policy/config.ts";
import { joinLeaves, leavesOf } from "../../../models/policy/flat-tensor.ts";
import { actorForward, criticForward, policyForward } from "../../../models/policy/network.ts";
import { layoutOfPart, type Policy, type PolicyParameters, type PolicyPart, partOf } from "../../../models/policy/parameters.ts";
import type { OptimizerOptions } from "../../../optim/optimizer-options.ts";
import { type ElementwiseOptions, parseOptimizerOptions, updateRule } from "../../../optim/optimizer-options.ts";
import type { UpdateRule } from "../../../optim/update-rule.ts";
import type { Backend } from "../../../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../../../runtime/buffer.ts";
import { type BoundProgram, compile, type Program, spec, type TensorSpec } from "../../../runtime/program.ts";
import { scalar, stopGradient, sum } from "../../../tensor/core.ts";
import {
  add,
  clamp,
  div,
  exp,
  less,
  lessEqual,
  logicalAnd,
  maximum,
  minimum,
  mul,
  neg,
  sqrt,
  square,
  sub,
  where,
} from "../../../tensor/elementwise.ts";
import { gradients } from "../../../tensor/gradient.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { mean } from "../../../tensor/reduce.ts";
import { type ClipOptions, policyLoss } from "../../core/policy-loss.ts";
import type { SampleBatch } from "../buffer.ts";
import { type Distribution, distributionFrom, distributionOf, klOf } from "../distributions/distribution.ts";

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
  /** Whether a step above the KL limit is left out. */
  limitKl?: boolean;
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

type Specs = Record<string, Record<string, TensorSpec>>;
type Outputs = { next: Record<string, Tensor>; told: Record<string, Tensor> };

/** One program for a number of rows, and what the host writes and reads. */
interface Compiled {
  readonly program: Program<Specs, Outputs>;
  readonly bound: BoundProgram<Specs, Outputs>;
  readonly batch: Record<string, TensorBuffer>;
  readonly told: Record<string, TensorBuffer>;
}

const scalarNames = ["clipRange", "clipRangeValue", "entropyCoefficient", "klCoefficient", "maxKl"] as const;

export class GradientStep {
  readonly part: PolicyPart;
  /** Moments of the optimiser by name, rank 1, and `stepCount`. */
  readonly state: Readonly<Record<string, TensorBuffer>>;
  readonly #backend: Backend;
  readonly #policy: Policy;
  readonly #options: GradientStepOptions;
  readonly #optimizer: ElementwiseOptions;
  readonly #rule: UpdateRule;
  readonly #trained: TensorBuffer;
  readonly #scalars: Record<string, TensorBuffer> = {};
  readonly #stepCount = allocate("i64", []);
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

  /** @throws UsageError for an optimiser that is not elementwise. */
  constructor(backend: Backend, policy: Policy, options: GradientStepOptions) {
    const optimizer = parseOptimizerOptions(options.optimizer);
    if (optimizer.kind === "muon")
      throw new UsageError("optimizer: expected an elementwise one for a policy, got muon", { hint: "Choose adam, rmsprop or sgd." });
    this.part = options.part;
    this.#backend = backend;
    this.#policy = policy;
    this.#options = options;
    this.#optimizer = optimizer;
    this.#rule = updateRule(optimizer);
    this.#trained = partOf(policy, options.part);
    const { dtype } = policy.config;
    const moments = Object.entries(this.#rule.state).map(([name, initial]) => {
      const buffer = allocate(dtype, this.#trained.shape);
      (buffer.data as Float64Array).fill(initial);
      return [name, buffer] as const;
    });
    this.state = { ...Object.fromEntries(moments), stepCount: this.#stepCount };
    for (const name of [...scalarNames, ...Object.keys(this.#rule.scalars(1, 0)), "decay"]) this.#scalars[name] = allocate(dtype, []);
  }

  /** Steps made so far. */
  get stepCount(): number {
    return Number(this.#stepCount.data[0]);
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
    this.#writeScalars(numbers);
    bound.run();
    return this.#read(told, inputs.oldLogProbs, numbers);
  }

  dispose(): void {
    for (const { program } of this.#compiled.values()) program.dispose();
    this.#compiled.clear();
  }

  #writeScalars(numbers: StepNumbers): void {
    const write = (name: string, value: number): void => {
      (this.#scalars[name].data as Float64Array)[0] = value;
    };
    write("clipRange", numbers.clipRange ?? 0.2);
    write("clipRangeValue", numbers.clipRangeValue ?? 0);
    write("entropyCoefficient", numbers.entropyCoefficient ?? 0);
    write("klCoefficient", numbers.klCoefficient ?? 0);
    write("maxKl", numbers.maxKl ?? Number.POSITIVE_INFINITY);
    const decay = this.#optimizer.weightDecay;
    write("decay", this.#rule.weightDecay === "parameter" ? 1 - numbers.learningRate * decay : decay);
    const scalars = this.#rule.scalars(this.stepCount + 1, numbers.learningRate);
    for (const name in scalars) write(name, scalars[name]);
  }

  #read(told: Record<string, TensorBuffer>, oldLogProbs: TensorBuffer | undefined, { clipRange = 0.2 }: StepNumbers): StepOutcome {
    const number = (name: string): number => (told[name] ? (told[name].data as Float64Array)[0] : 0);
    const outcome = this.#outcome;
    outcome.policyLoss = number("policyLoss");
    outcome.valueLoss = number("valueLoss");
    outcome.entropy = number("entropy");
    outcome.loss = number("loss");
    outcome.gradientNorm = number("gradientNorm");
    outcome.kl = number("kl");
    outcome.isMade = number("isMade") !== 0;
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
    if (outcome.isMade) this.#stepCount.data[0] += 1n;
    return outcome;
  }

  #programFor(count: number): Compiled {
    const known = this.#compiled.get(count);
    if (known) return known;
    const specs = this.#specs(count);
    const program = compile(this.#backend, (inputs) => this.#trace(inputs as Record<string, Record<string, Tensor>>, count), specs, {
      name: `${this.part} step on ${count}`,
      threads: 1,
    });
    const { stepCount: _, ...moments } = this.state;
    const trunk = this.#needsTrunk ? { fixed: { actor: partOf(this.#policy, "actor") } } : {};
    const bound = program.bind(
      { parameters: { trained: this.#trained }, moments, scalars: this.#scalars, ...trunk } as never,
      {
        next: {
          parameters: this.#trained,
          ...Object.fromEntries(Object.entries(moments).map(([name, buffer]) => [`moment_${name}`, buffer])),
        },
      } as never,
    );
    const outputs = bound.outputs as unknown as { told: Record<string, TensorBuffer> };
    const inputs = bound.inputs as unknown as { batch: Record<string, TensorBuffer> };
    const compiled: Compiled = { program, bound: bound as never, batch: inputs.batch, told: outputs.told };
    this.#compiled.set(count, compiled);
    return compiled;
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
    const { stepCount: _, ...moments } = this.state;
    const leaf = ({ dtype: kind, shape }: TensorBuffer): TensorSpec => spec(kind, shape);
    return {
      parameters: { trained: leaf(this.#trained) },
      moments: Object.fromEntries(Object.entries(moments).map(([name, buffer]) => [name, leaf(buffer)])),
      scalars: Object.fromEntries(Object.keys(this.#scalars).map((name) => [name, spec(dtype, [])])),
      batch,
      ...(this.#needsTrunk ? { fixed: { actor: leaf(partOf(this.#policy, "actor")) } } : {}),
    };
  }

  #trace({ parameters: { trained }, moments, scalars, batch, fixed }: Record<string, Record<string, Tensor>>, count: number): Outputs {
    const { config, specs, parameters } = this.#policy;
    const layout = layoutOfPart(parameters.layout, this.part);
    const own = this.part === "both" ? specs : { [this.part]: specs[this.part] };
    const leaves = leavesOf(layout, trained, own) as unknown as PolicyParameters<Tensor>;
    const tree = fixed ? { ...leaves, ...leavesOf(layoutOfPart(parameters.layout, "actor"), fixed.actor, { actor: specs.actor }) } : leaves;
    const told: Record<string, Tensor> = {};
    let loss: Tensor | undefined;
    const include = (term: Tensor): void => {
      loss = loss ? add(loss, term) : term;
    };
    let kl: Tensor | undefined;
    const { observations } = batch;
    const trunkless = { ...tree, actor: tree.actor ?? { trunk: [], layers: [], output: undefined } } as PolicyParameters<Tensor>;
    const forward = this.part === "both" ? policyForward(config, tree, observations) : undefined;
    if (this.#hasPolicy) {
      const distribution = distributionOf(config.head, forward ?? actorForward(config, tree.actor, observations), batch.masks);
      kl = this.#policyTerms(distribution, batch, scalars, count, told, include);
    }
    if (this.#hasValue) {
      const values = forward?.values ?? criticForward(config, trunkless, observations);
      const valueLoss = this.#valueLoss(values, batch, scalars.clipRangeValue);
      told.valueLoss = valueLoss;
      include(mul(valueLoss, this.#options.valueCoefficient ?? 1));
    }
    invariant(loss, "a step without a loss");
    told.loss = loss;
    const gradient = joinLeaves(layout, gradients(loss, leaves));
    const norm = sqrt(sum(square(gradient)));
    told.gradientNorm = norm;
    // NaN and infinities are not below the largest float.
    let isMade = less(norm, 3e38);
    if (this.#options.limitKl && kl) isMade = logicalAnd(isMade, lessEqual(kl, scalars.maxKl));
    const one = scalar(norm.graph, norm.dtype, 1);
    told.isMade = where(isMade, one, 0);
    return { next: this.#update(trained, gradient, norm, isMade, moments, scalars), told };
  }

  /** @returns the approximate KL where steps are limited by it. */
  #policyTerms(
    distribution: Distribution,
    batch: Record<string, Tensor>,
    scalars: Record<string, Tensor>,
    count: number,
    told: Record<string, Tensor>,
    include: (term: Tensor) => void,
  ): Tensor | undefined {
    const { clip = { kind: "ppo", low: 0.2, high: 0.2 }, entropy, klPenalty, limitKl } = this.#options;
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
    if (!limitKl || !batch.oldLogProbs) return undefined;
    const logRatio = stopGradient(sub(logProbs, batch.oldLogProbs));
    return mean(sub(sub(exp(logRatio), 1), logRatio));
  }

  #valueLoss(values: Tensor, { returns, oldValues }: Record<string, Tensor>, range: Tensor): Tensor {
    const { valueClip = "none" } = this.#options;
    const plain = square(sub(values, returns));
    if (valueClip === "none") return mean(plain);
    const near = add(oldValues, minimum(maximum(sub(values, oldValues), neg(range)), range));
    const clipped = square(sub(near, returns));
    return mean(valueClip === "clipped" ? clipped : maximum(plain, clipped));
  }

  #update(
    trained: Tensor,
    gradient: Tensor,
    norm: Tensor,
    isMade: Tensor,
    moments: Record<string, Tensor>,
    scalars: Record<string, Tensor>,
  ): Record<string, Tensor> {
    const { maxGradNorm = Number.POSITIVE_INFINITY } = this.#options;
    const { weightDecay } = this.#optimizer;
    let direction = Number.isFinite(maxGradNorm) ? mul(gradient, clampFactor(norm, maxGradNorm)) : gradient;
    if (weightDecay !== 0 && this.#rule.weightDecay === "gradient") direction = add(direction, mul(trained, scalars.decay));
    const { delta, state } = this.#rule.update(direction, moments, scalars);
    const kept = weightDecay !== 0 && this.#rule.weightDecay === "parameter" ? mul(trained, scalars.decay) : trained;
    return {
      parameters: where(isMade, sub(kept, delta), trained),
      ...Object.fromEntries(Object.entries(state).map(([name, value]) => [`moment_${name}`, where(isMade, value, moments[name])])),
    };
  }
}

/** min(1, max / (norm + 1e-6)), as torch clips. */
const clampFactor = (norm: Tensor, max: number): Tensor => clamp(div(max, add(norm, 1e-6)), 0, 1);

/** Shapes of the parameters of the distributions of `count` states. */
export function distributionShapes({ config: { head } }: Pick<Policy, "config">, count: number): number[][] {
  const rows = [count, headSize(head)];
  return head.kind === "gaussian" ? [rows, [head.size]] : head.kind === "gsde" ? [rows, rows] : [rows];
}

/** Rows of a source into the beginning of a bound buffer. */
export function gatherRows(
  source: ArrayLike<number>,
  order: ArrayLike<number>,
  from: number,
  count: number,
  width: number,
  { data }: TensorBuffer,
): void {
  const target = data as Float64Array;
  if (width === 1) {
    for (let i = 0; i < count; i++) target[i] = source[order[from + i]];
    return;
  }
  for (let i = 0, at = 0; i < count; i++) for (let j = 0, row = order[from + i] * width; j < width; j++) target[at++] = source[row + j];
}
