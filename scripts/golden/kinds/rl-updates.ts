// ppo.json, a2c.json and trpo.json: whole updates of Stable-Baselines3 and sb3-contrib on given batches, in float64.
import { type PolicyActivation, type PolicyConfig, type PolicyHead, policyConfig } from "../../../src/models/policy/config.ts";
import { checkpointNames } from "../../../src/models/policy/names.ts";
import { allocatePolicy, layoutOfPart, type Policy } from "../../../src/models/policy/parameters.ts";
import { conjugateGradient, dot } from "../../../src/optim/conjugate-gradient.ts";
import type { SampleBatch } from "../../../src/rl/control/buffer.ts";
import { explainedVariance, normaliseAdvantages } from "../../../src/rl/control/estimators.ts";
import { inOrder, runEpochs } from "../../../src/rl/control/updates/epochs.ts";
import { GradientStep, type StepOutcome } from "../../../src/rl/control/updates/gradient-step.ts";
import { trustRegionStep } from "../../../src/rl/control/updates/trust-region.ts";
import { TrustRegionPrograms } from "../../../src/rl/control/updates/trust-region-programs.ts";
import type { TensorBuffer } from "../../../src/runtime/buffer.ts";
import type { FlatLayout } from "../../../src/runtime/flat.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import {
  asIntegers,
  asList,
  asNamedNumbers,
  asNumber,
  asNumbers,
  asObject,
  asObjects,
  asText,
  asTexts,
  type Fields,
  Malformed,
  type Numbers,
} from "../fields.ts";
import type { GoldenCase, GoldenKind, Session } from "../kind.ts";

/** After several optimiser steps. */
const steps: Tolerance = { relative: 1e-9, absolute: 1e-13 };
/** The library takes the mean of the clipped ones in float32. */
const float32: Tolerance = { relative: 1e-7 };
const exact: Tolerance = { relative: 1e-10, absolute: 1e-14 };

const runs = { ppo: runPpo, a2c: runA2c, trpo: runTrpo } as const;

export const kind: GoldenKind = {
  recognise: (folder) =>
    Object.entries(runs).flatMap(([name, run]) => {
      const file = `${name}.json`;
      const content = folder.peek(file);
      if (!content || !Array.isArray(content.cases)) return [];
      return [{ name: file, files: [file], cases: () => casesOf(name, run, content) }];
    }),
};

function* casesOf(name: string, run: (typeof runs)[keyof typeof runs], content: Fields): Generator<GoldenCase> {
  for (const [index, fields] of asObjects(content.cases, "cases").entries())
    yield {
      kind: `rl/${name}/cases`,
      name: typeof fields.id === "string" ? fields.id : String(index),
      run: (comparison, session) => run(fields, comparison, session),
    };
}

function headOf(fields: Fields): PolicyHead {
  const policy = asText(fields.policy, "policy");
  const sizes = asNumbers([fields.actionSize].flat(), "actionSize").data;
  switch (policy) {
    case "categorical":
      return { kind: "categorical", n: sizes[0] };
    case "multiCategorical":
      return { kind: "multi-categorical", dims: Array.from(sizes) };
    case "bernoulli":
      return { kind: "bernoulli", n: sizes[0] };
    case "gaussian":
      return { kind: "gaussian", size: sizes[0], squash: false };
    default:
      throw new Malformed(`policy: expected categorical, multiCategorical, bernoulli or gaussian, got ${policy}`);
  }
}

function policyOf(fields: Fields): Policy {
  const config: PolicyConfig = policyConfig(
    asNumber(fields.observationSize, "observationSize"),
    headOf(fields),
    {
      hidden: [...asIntegers(fields.hiddenPolicy, "hiddenPolicy")],
      hiddenValue: [...asIntegers(fields.hiddenValue, "hiddenValue")],
      activation: asText(fields.activation, "activation") as PolicyActivation,
    },
    "f64",
  );
  const policy = allocatePolicy(config);
  const given = asNamedNumbers(fields.parameters, "parameters");
  for (const [name, path] of checkpointNames(config)) {
    const values = given.get(name);
    if (!values) throw new Malformed(`parameters: expected ${name}, got none`);
    const leaf = policy.parameters.leaves.get(path) as TensorBuffer<"f64">;
    leaf.data.set(values.data);
  }
  return policy;
}

function compareParameters(policy: Policy, comparison: Comparison, place: string, stored: unknown, tolerance: Tolerance): void {
  const names = checkpointNames(policy.config);
  for (const [name, expected] of asNamedNumbers(stored, place)) {
    const path = names.get(name);
    const leaf = path === undefined ? undefined : policy.parameters.leaves.get(path);
    comparison.numbers(`${place}.${name}`, (leaf?.data as Float64Array) ?? [], expected, tolerance);
  }
}

function batchOf(fields: Fields, logProbs?: ArrayLike<number>): SampleBatch {
  const of = (name: string): ArrayLike<number> => asNumbers(fields[name], name).data;
  const returns = of("returns");
  return {
    size: returns.length,
    observations: of("observations"),
    actions: of("actions"),
    logProbs: logProbs ?? of("oldLogProb"),
    values: of("oldValues"),
    advantages: of("advantages"),
    returns,
  };
}

/** A hook to the gradient is not part of the product; plain gradient descent at rate 1 shows it. */
function gradientOf(
  session: Session,
  fields: Fields,
  options: Partial<ConstructorParameters<typeof GradientStep>[2]>,
  take: (step: GradientStep) => void,
  start: Policy,
): Policy {
  const policy = policyOf(fields);
  (policy.parameters.buffer.data as Float64Array).set(start.parameters.buffer.data as Float64Array);
  const before = Float64Array.from(policy.parameters.buffer.data as Float64Array);
  const step = new GradientStep(session.backend, policy, {
    part: "both",
    ...options,
    optimizer: { kind: "sgd", learningRate: 1 },
    maxGradNorm: Number.POSITIVE_INFINITY,
  });
  try {
    take(step);
  } finally {
    step.dispose();
  }
  const data = policy.parameters.buffer.data as Float64Array;
  for (let i = 0; i < data.length; i++) data[i] = before[i] - data[i];
  return policy;
}

function runPpo(fields: Fields, comparison: Comparison, session: Session): void {
  const policy = policyOf(fields);
  const start = policyOf(fields);
  const options = asObject(fields.options, "options");
  const number = (name: string): number => asNumber(options[name], name);
  const batch = batchOf(asObject(fields.batch, "batch"));
  const orders = asList(fields.minibatchOrders, "minibatchOrders").map((order) => asIntegers(order, "minibatchOrders"));
  const hasValueClip = options.clipRangeValue !== null;
  const targetKl = options.targetKl === null ? undefined : number("targetKl");
  const [beta1, beta2] = asNumbers(options.adamBetas, "adamBetas").data as number[];
  const shape = {
    part: "both",
    valueClip: hasValueClip ? "clipped" : "none",
    valueCoefficient: number("valueCoefficient"),
    entropy: true,
  } as const;
  const numbers = {
    learningRate: number("learningRate"),
    clipRange: number("clipRange"),
    clipRangeValue: hasValueClip ? number("clipRangeValue") : 0,
    entropyCoefficient: number("entropyCoefficient"),
  };
  const epochs = {
    batchSize: number("batchSize"),
    normaliseAdvantage: options.normaliseAdvantage ? "minibatch" : "none",
    orderOf: (epoch: number) => orders[epoch],
  } as const;

  const first = gradientOf(
    session,
    fields,
    shape,
    (step) => {
      const order = orders[0].slice(0, epochs.batchSize);
      runEpochs(step, batch, { ...epochs, epochs: 1, numbers: { ...numbers, learningRate: 1 }, orderOf: () => order });
    },
    start,
  );
  compareParameters(first, comparison, "gradientFirst", fields.gradientFirst, exact);

  const step = new GradientStep(session.backend, policy, {
    ...shape,
    maxGradNorm: number("maxGradNorm"),
    optimizer: { kind: "adam", learningRate: numbers.learningRate, epsilon: number("adamEpsilon"), beta1, beta2 },
  });
  const told: StepOutcome[] = [];
  const stored = asObjects(fields.minibatches, "minibatches");
  try {
    const means = runEpochs(step, batch, {
      ...epochs,
      epochs: number("epochs"),
      numbers,
      ...(targetKl === undefined ? {} : { maxKl: 1.5 * targetKl }),
      onStep: (outcome) => told.push({ ...outcome }),
    });
    comparison.exact("minibatches.length", told.length, stored.length);
    for (const [index, expected] of stored.entries()) compareMinibatch(comparison, `minibatches[${index}]`, told[index], expected);
    compareParameters(policy, comparison, "parametersAfter", fields.parametersAfter, steps);
    const metrics: Record<string, number> = {
      learning_rate: numbers.learningRate,
      clip_range: numbers.clipRange,
      clip_range_vf: numbers.clipRangeValue,
      entropy_loss: -means.entropy,
      policy_gradient_loss: means.policyLoss,
      value_loss: means.valueLoss,
      approx_kl: means.approxKl,
      clip_fraction: means.clipFraction,
      loss: means.loss,
      explained_variance: explainedVariance(batch.values, batch.returns),
      std: meanStd(policy),
    };
    for (const [name, expected] of asNamedNumbers(fields.metrics, "metrics"))
      comparison.numbers(`metrics.${name}`, [metrics[name]], expected, name === "clip_fraction" ? float32 : steps);
  } finally {
    step.dispose();
  }
}

function compareMinibatch(comparison: Comparison, place: string, actual: StepOutcome | undefined, expected: Fields): void {
  if (!actual) return;
  const values: Record<string, number> = {
    policyLoss: actual.policyLoss,
    valueLoss: actual.valueLoss,
    entropyLoss: -actual.entropy,
    loss: actual.loss,
    approxKl: actual.approxKl,
    approxKlK1: actual.approxKlK1,
    clipFraction: actual.clipFraction,
    gradNorm: actual.gradientNorm,
  };
  comparison.exact(`${place}.stopped`, !actual.isMade, Boolean(expected.stopped));
  for (const [name, value] of Object.entries(expected))
    if (name !== "stopped")
      comparison.numbers(`${place}.${name}`, [values[name]], asNumbers([value], name), name === "clipFraction" ? float32 : steps);
}

function meanStd({ parameters }: Policy): number {
  const logStd = parameters.leaves.get("actor.logStd")?.data as Float64Array | undefined;
  return logStd ? logStd.reduce((sum, value) => sum + Math.exp(value), 0) / logStd.length : Number.NaN;
}

function runA2c(fields: Fields, comparison: Comparison, session: Session): void {
  const policy = policyOf(fields);
  const options = asObject(fields.options, "options");
  const number = (name: string): number => asNumber(options[name], name);
  const learningRate = number("learningRate");
  const shape = { part: "both", clip: { kind: "log-prob" }, valueCoefficient: number("valueCoefficient"), entropy: true } as const;
  const optimiser = asText(options.optimiser, "optimiser");
  const { alpha, epsilon } = { alpha: number("alpha"), epsilon: number("epsilon") };
  const step = new GradientStep(session.backend, policy, {
    ...shape,
    maxGradNorm: number("maxGradNorm"),
    optimizer:
      optimiser === "adam"
        ? { kind: "adam", epsilon }
        : { kind: optimiser === "rmspropTfLike" ? "rmsprop-tf-like" : "rmsprop", alpha, epsilon },
  });
  try {
    for (const [index, update] of asObjects(fields.updates, "updates").entries()) {
      const place = `updates[${index}]`;
      // The loss does not use old log-probabilities; those stored are of the parameters that the update starts from.
      const batch = batchOf(asObject(update.batch, `${place}.batch`), asNumbers(update.logProb, "logProb").data);
      const epochs = {
        epochs: 1,
        batchSize: batch.size,
        normaliseAdvantage: options.normaliseAdvantage ? "minibatch" : "none",
        orderOf: () => inOrder(batch.size),
      } as const;
      const numbers = { learningRate, entropyCoefficient: number("entropyCoefficient") };
      const gradient = gradientOf(
        session,
        fields,
        shape,
        (plain) => void runEpochs(plain, batch, { ...epochs, numbers: { ...numbers, learningRate: 1 } }),
        policy,
      );
      compareParameters(gradient, comparison, `${place}.gradient`, update.gradient, steps);
      const means = runEpochs(step, batch, { ...epochs, numbers });
      const values = {
        policyLoss: means.policyLoss,
        valueLoss: means.valueLoss,
        entropyLoss: -means.entropy,
        loss: means.loss,
        gradNorm: means.gradientNorm,
        explainedVariance: explainedVariance(batch.values, batch.returns),
      };
      for (const [name, value] of Object.entries(values))
        comparison.numbers(`${place}.${name}`, [value], asNumbers([update[name]], name), steps);
      compareParameters(policy, comparison, `${place}.parametersAfter`, update.parametersAfter, steps);
    }
  } finally {
    step.dispose();
  }
}

/** Vectors over the actor's parameters, between the order of the file and ours. */
class ActorVectors {
  readonly #places: { from: number; to: number; length: number }[] = [];
  readonly #layout: FlatLayout;

  constructor(policy: Policy, order: readonly string[]) {
    this.#layout = layoutOfPart(policy.parameters.layout, "actor");
    const names = checkpointNames(policy.config);
    let from = 0;
    for (const name of order) {
      const leaf = this.#layout.leaves.find(({ path }) => path === names.get(name));
      if (!leaf) throw new Malformed(`actorParameterOrder: got ${name}`);
      this.#places.push({ from, to: leaf.offset, length: leaf.length });
      from += leaf.length;
    }
  }

  inward(stored: Numbers): Float64Array {
    const own = new Float64Array(this.#layout.length);
    for (const { from, to, length } of this.#places) for (let i = 0; i < length; i++) own[to + i] = stored.data[from + i];
    return own;
  }

  outward(own: ArrayLike<number>): number[] {
    return this.#places.flatMap(({ to, length }) => Array.from({ length }, (_, i) => own[to + i]));
  }
}

function runTrpo(fields: Fields, comparison: Comparison, session: Session): void {
  const policy = policyOf(fields);
  const options = asObject(fields.options, "options");
  const number = (name: string): number => asNumber(options[name], name);
  const batch = batchOf(asObject(fields.batch, "batch"));
  const sensitivity = asNumber(fields.searchDirectionRoundingSensitivity, "searchDirectionRoundingSensitivity");
  const rounded: Tolerance = { relative: Math.max(1e-9, 10 * sensitivity), absolute: 1e-13 };
  const vectors = new ActorVectors(policy, asTexts(fields.actorParameterOrder, "actorParameterOrder"));
  const one = (place: string, value: number, tolerance: Tolerance): void =>
    comparison.numbers(place, [value], asNumbers([fields[place]], place), tolerance);
  const vector = (place: string, own: ArrayLike<number>, stored: unknown, tolerance: Tolerance): void =>
    comparison.numbers(place, vectors.outward(own), asNumbers(stored, place), tolerance);

  const every = number("subSamplingFactor");
  const order = Array.from({ length: Math.ceil(batch.size / every) }, (_, i) => i * every);
  const chosen = order.map((row) => batch.advantages[row]);
  const advantages = options.normaliseAdvantage ? normaliseAdvantages(chosen) : chosen;
  comparison.numbers("normalisedAdvantages", advantages, asNumbers(fields.normalisedAdvantages, "normalisedAdvantages"), exact);
  const make = (direction: "new-old" | "old-new", fisher: "gauss-newton" | "kl-hessian"): TrustRegionPrograms =>
    new TrustRegionPrograms(session.backend, policy, { rows: order.length, direction, reduction: "mean", fisher, masked: false });
  const programs = make("new-old", "gauss-newton");
  const others = [make("old-new", "kl-hessian"), make("new-old", "kl-hessian")];
  const damping = number("cgDamping");
  try {
    const prepared = programs.prepare(batch, order, advantages);
    for (const other of others) other.prepare(batch, order, advantages);
    // 0 up to rounding: compared in absolute terms.
    one("surrogate", prepared.surrogate, { absolute: 1e-10 });
    vector("surrogateGradient", prepared.gradient, fields.surrogateGradient, exact);
    const atOld = programs.try(new Float64Array(programs.numParameters));
    one("klAtOld", atOld.kl, { absolute: 1e-12 });
    vector("klGradientAtOld", programs.trialKlGradient, fields.klGradientAtOld, { absolute: 1e-12 });
    const offset = vectors.inward(asNumbers(fields.parameterOffset, "parameterOffset"));
    one("klNewOld", programs.try(offset).kl, exact);
    vector("gradKlNewOld", programs.trialKlGradient, fields.gradKlNewOld, exact);
    one("klOldNew", others[0].try(offset).kl, exact);
    vector("gradKlOldNew", others[0].trialKlGradient, fields.gradKlOldNew, exact);
    for (const [index, item] of asObjects(fields.fisherVectorProducts, "fisherVectorProducts").entries()) {
      const v = vectors.inward(asNumbers(item.vector, "vector"));
      for (const [name, own] of Object.entries({ "Gauss-Newton": programs, "Hessian old-new": others[0], "Hessian new-old": others[1] })) {
        const product = new Float64Array(v.length);
        own.fisherProduct(v, product);
        vector(`fisherVectorProducts[${index}].productUndamped (${name})`, product, item.productUndamped, exact);
        for (let i = 0; i < v.length; i++) product[i] += damping * v[i];
        vector(`fisherVectorProducts[${index}].product (${name})`, product, item.product, exact);
      }
    }
    const iterates: { x: Float64Array; residual: number }[] = [];
    const outcome = trustRegionStep(
      programs,
      prepared,
      {
        targetKl: number("targetKl"),
        cgMaxSteps: number("cgMaxSteps"),
        cgDamping: damping,
        cgResidualTolerance: number("cgResidualTolerance"),
        lineSearch: true,
        lineSearchMaxIterations: number("lineSearchMaxIterations"),
        lineSearchShrinkingFactor: number("lineSearchShrinkingFactor"),
        minImprovementRatio: 0,
      },
      {
        cgStart: vectors.inward(asNumbers(fields.cgStart, "cgStart")),
        onIterate: (x, residual) => iterates.push({ x: x.slice(), residual }),
      },
    );
    const stored = asObjects(fields.cgIterates, "cgIterates");
    comparison.exact("cgIterates.length", iterates.length, stored.length);
    const again = iteratesOnMatrix(programs, prepared.gradient, damping, fields, vectors);
    for (const [index, item] of stored.entries()) {
      const own = iterates[index];
      if (!own) continue;
      // Iterates between the first ones and the last may depend on rounding more than the last does: measured as the file does for that.
      const relative = Math.max(rounded.relative ?? 0, 10 * differenceOf(own.x, again[index]?.x ?? own.x));
      vector(`cgIterates[${index}].x`, own.x, item.x, { relative, absolute: 1e-13 });
      if (item.residualNormSquared === undefined || Number.isNaN(own.residual)) continue;
      const noise = 10 * Math.abs(own.residual - (again[index]?.residual ?? own.residual));
      comparison.numbers(
        `cgIterates[${index}].residualNormSquared`,
        [own.residual],
        asNumbers([item.residualNormSquared], "residualNormSquared"),
        {
          relative: rounded.relative,
          absolute: noise + 1e-10 * iterates[0].residual,
        },
      );
    }
    vector("searchDirection", outcome.searchDirection, fields.searchDirection, rounded);
    vector("directionFisherProduct", outcome.directionProduct, fields.directionFisherProduct, rounded);
    one("xHx", outcome.xHx, rounded);
    one("stepScale", outcome.stepScale, rounded);
    one("expectedImprovement", outcome.expectedImprovement, rounded);
    const tries = asObjects(fields.lineSearch, "lineSearch");
    comparison.exact("lineSearch.length", outcome.tries.length, tries.length);
    for (const name of ["coefficient", "kl", "surrogate"] as const)
      comparison.numbers(
        `lineSearch.${name}`,
        outcome.tries.map((own) => own[name]),
        asNumbers(
          tries.map((item) => item[name]),
          name,
        ),
        rounded,
      );
    for (const [index, item] of tries.entries()) {
      const own = outcome.tries[index];
      if (!own) continue;
      comparison.exact(`lineSearch[${index}].klBelow`, own.klBelow, Boolean(item.klBelow));
      comparison.exact(`lineSearch[${index}].improves`, own.improves, Boolean(item.improves));
    }
    comparison.exact("accepted", outcome.accepted, Boolean(fields.accepted));
    comparison.exact("acceptedAt", outcome.accepted ? outcome.tries.length - 1 : null, fields.acceptedAt ?? null);
    runCritic(fields, policy, batch, comparison, session, rounded);
    const metrics = asObject(fields.metrics, "metrics");
    const values: Record<string, number> = {
      policyObjective: outcome.surrogate,
      klDivergenceLoss: outcome.kl,
      explainedVariance: explainedVariance(batch.values, batch.returns),
    };
    for (const [name, value] of Object.entries(values))
      if (metrics[name] !== undefined && metrics[name] !== null)
        comparison.numbers(`metrics.${name}`, [value], asNumbers([metrics[name]], name), { ...rounded, absolute: 1e-10 });
  } finally {
    for (const each of [programs, ...others]) each.dispose();
  }
}

/** Conjugate gradients on the Fisher matrix written out: the same numbers but for rounding. */
function iteratesOnMatrix(
  programs: TrustRegionPrograms,
  gradient: Float64Array,
  damping: number,
  fields: Fields,
  vectors: ActorVectors,
): { x: Float64Array; residual: number }[] {
  const n = programs.numParameters;
  const rows = Array.from({ length: n }, (_, i) => {
    const row = new Float64Array(n);
    const unit = new Float64Array(n);
    unit[i] = 1;
    programs.fisherProduct(unit, row);
    row[i] += damping;
    return row;
  });
  const options = asObject(fields.options, "options");
  const iterates: { x: Float64Array; residual: number }[] = [];
  conjugateGradient((v, out) => out.set(rows.map((row) => dot(row, v))), gradient, {
    maxSteps: asNumber(options.cgMaxSteps, "cgMaxSteps"),
    residualTolerance: asNumber(options.cgResidualTolerance, "cgResidualTolerance"),
    start: vectors.inward(asNumbers(fields.cgStart, "cgStart")),
    onIterate: (x, residual) => iterates.push({ x: x.slice(), residual }),
  });
  return iterates;
}

/** Largest difference, relative to the largest entry. */
function differenceOf(a: Float64Array, b: Float64Array): number {
  const largest = a.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  return a.reduce((max, x, i) => Math.max(max, Math.abs(x - b[i])), 0) / (largest || 1);
}

/** The value network's epochs, which come after the policy's step. */
function runCritic(fields: Fields, policy: Policy, batch: SampleBatch, comparison: Comparison, session: Session, rounded: Tolerance): void {
  const options = asObject(fields.options, "options");
  const number = (name: string): number => asNumber(options[name], name);
  const orders = asList(fields.criticOrders, "criticOrders").map((order) => asIntegers(order, "criticOrders"));
  const batchSize = number("criticBatchSize");
  const epochs = { epochs: number("criticUpdates"), batchSize, normaliseAdvantage: "none" } as const;
  const first = gradientOf(
    session,
    fields,
    { part: "critic" },
    (step) => {
      const order = orders[0].slice(0, batchSize);
      runEpochs(step, batch, { ...epochs, epochs: 1, numbers: { learningRate: 1 }, orderOf: () => order });
    },
    policy,
  );
  compareParameters(first, comparison, "criticGradientFirst", fields.criticGradientFirst, exact);
  const step = new GradientStep(session.backend, policy, {
    part: "critic",
    optimizer: { kind: "adam", epsilon: number("adamEpsilon") },
  });
  const losses: number[] = [];
  try {
    runEpochs(step, batch, {
      ...epochs,
      numbers: { learningRate: number("learningRate") },
      orderOf: (epoch) => orders[epoch],
      onStep: ({ valueLoss }) => losses.push(valueLoss),
    });
  } finally {
    step.dispose();
  }
  comparison.numbers("valueLosses", losses, asNumbers(fields.valueLosses, "valueLosses"), steps);
  compareParameters(policy, comparison, "parametersAfter", fields.parametersAfter, rounded);
}
