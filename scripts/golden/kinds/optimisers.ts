// rl/optimisers.json: updates of torch.optim (and RMSprop by Stable-Baselines3, Lion by its paper), clipping and weight averages.

import { clipFactor, GradientNorm, ValueClipping } from "../../../src/optim/clipping.ts";
import { WeightAverage } from "../../../src/optim/ema.ts";
import { orthogonalize } from "../../../src/optim/newton-schulz.ts";
import { createOptimizer, type Optimizer } from "../../../src/optim/optimizer.ts";
import type { OptimizerOptions } from "../../../src/optim/optimizer-options.ts";
import { bufferFrom, type TensorBuffer, viewOf } from "../../../src/runtime/buffer.ts";
import { allocateFlat, type FlatBuffer } from "../../../src/runtime/flat.ts";
import { compile, spec } from "../../../src/runtime/program.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import {
  asList,
  asNamedNumbers,
  asNumber,
  asNumbers,
  asObject,
  asObjects,
  asText,
  type Fields,
  Malformed,
  type Numbers,
  shorten,
} from "../fields.ts";
import type { GoldenCase, GoldenKind, Session } from "../kind.ts";

const file = "optimisers.json";
/** 1e-10 of the largest entry; the absolute part is for arrays whose entries have nearly cancelled. */
const exact: Tolerance = { relative: 1e-10, absolute: 1e-14 };

export const kind: GoldenKind = {
  recognise: (folder) => (folder.has(file) ? [{ name: file, files: [file], cases: () => casesOf(asObject(folder.json(file), file)) }] : []),
};

type NamedNumbers = ReadonlyMap<string, Numbers>;

function* casesOf(content: Fields): Generator<GoldenCase> {
  for (const [index, fields] of asObjects(content.cases, "cases").entries()) {
    const name = asText(fields.optimiser, `cases[${index}].optimiser`);
    const run = name === "muon" ? runMuon : runCase;
    yield {
      kind: `rl/optimisers/${name}`,
      name: shorten(`${index} ${name} ${JSON.stringify(fields.options)}`),
      run: (comparison, session) => run(fields, comparison, session),
    };
  }
  for (const [section, run] of Object.entries({ gradientClipping: runClipping, movingAverages: runAverages })) {
    for (const [index, fields] of asObjects(content[section] ?? [], section).entries())
      yield {
        kind: `rl/optimisers/${section}`,
        name: `${section} ${index}`,
        run: (comparison, session) => run(fields, comparison, session),
      };
  }
}

/** Options of torch.optim in longwave's names. */
const optionOf: Readonly<Record<string, string>> = {
  lr: "learningRate",
  eps: "epsilon",
  weight_decay: "weightDecay",
  lr_decay: "learningRateDecay",
  initial_accumulator_value: "initialAccumulatorValue",
  momentum_decay: "momentumDecay",
  decoupled_weight_decay: "decoupledWeightDecay",
  adjust_lr_fn: "adjustLearningRate",
  ns_steps: "iterations",
  ns_coefficients: "coefficients",
};

function optionsOf(fields: Fields): OptimizerOptions {
  const name = asText(fields.optimiser, "optimiser");
  const options: Record<string, unknown> = { kind: name === "rmspropTfLike" ? "rmsprop-tf-like" : name };
  for (const [key, value] of Object.entries(asObject(fields.options, "options"))) {
    if (key === "betas") [options.beta1, options.beta2] = asNumbers(value, "options.betas").data as number[];
    else options[optionOf[key] ?? key] = key === "adjust_lr_fn" && typeof value === "string" ? value.replaceAll("_", "-") : value;
  }
  return options as OptimizerOptions;
}

/** Named arrays in one flat buffer of float64. */
function flatOf(arrays: NamedNumbers): FlatBuffer<unknown> {
  const tree = Object.fromEntries(Array.from(arrays, ([name, { shape }]) => [name, { dtype: "f64" as const, shape }]));
  const flat = allocateFlat(tree);
  fill(flat, arrays, "parameters");
  return flat;
}

function fill(flat: FlatBuffer<unknown>, arrays: NamedNumbers, place: string): void {
  for (const [name, { data }] of flat.leaves) {
    const values = arrays.get(name);
    if (values?.data.length !== data.length)
      throw new Malformed(`${place}.${name}: expected ${data.length} numbers, got ${values?.data.length ?? 0}`);
    (data as Float64Array).set(values.data);
  }
}

/** Every array of `expected` against the flat buffer, or against another buffer with its layout. */
function compareLeaves(
  comparison: Comparison,
  place: string,
  flat: FlatBuffer<unknown>,
  expected: NamedNumbers,
  tolerance: Tolerance,
  buffer: TensorBuffer = flat.buffer,
): void {
  for (const { path, shape, offset } of flat.layout.leaves) {
    const stored = expected.get(path);
    if (!stored) throw new Malformed(`${place}.${path}: expected numbers, got nothing`);
    comparison.numbers(`${place}.${path}`, viewOf(buffer, shape, offset).data as Float64Array, stored, tolerance);
  }
}

interface Run {
  parameters: FlatBuffer<unknown>;
  optimizer: Optimizer;
}

/** Takes all steps; `afterStep` sees the parameters after each. */
function takeSteps(fields: Fields, { backend }: Session, afterStep: (parameters: FlatBuffer<unknown>, step: number) => void): Run {
  const parameters = flatOf(asNamedNumbers(fields.parameters, "parameters"));
  const gradients = allocateFlat(parameters.tree as Record<string, TensorBuffer>, parameters.layout) as FlatBuffer<unknown>;
  const optimizer = createOptimizer(backend, optionsOf(fields), parameters, gradients);
  const rates = fields.learningRates === undefined ? undefined : asNumbers(fields.learningRates, "learningRates").data;
  for (const [step, stored] of asObjects(fields.gradients, "gradients").entries()) {
    fill(gradients, asNamedNumbers(stored, `gradients[${step}]`), `gradients[${step}]`);
    optimizer.step(rates ? { learningRate: rates[step] } : {});
    afterStep(parameters, step);
  }
  return { parameters, optimizer };
}

const stepsOf = (value: unknown, place: string): NamedNumbers[] =>
  asObjects(value, place).map((item, step) => asNamedNumbers(item, `${place}[${step}]`));

function runCase(fields: Fields, comparison: Comparison, session: Session): void {
  const after = stepsOf(fields.parametersAfter, "parametersAfter");
  const { parameters, optimizer } = takeSteps(fields, session, (own, step) =>
    compareLeaves(comparison, `parametersAfter[${step}]`, own, after[step] ?? new Map(), exact),
  );
  using _ = optimizer;
  comparison.exact("steps", optimizer.stepCount, after.length);
  compareState(fields, comparison, parameters, optimizer, exact);
}

/**
 * Where torch's state is found in longwave's, which keeps decaying sums instead of averages: name of the buffer, and the factor that
 * turns it into torch's.
 */
function stateOf({ options }: Optimizer): Readonly<Record<string, [buffer: string, factor: number]>> {
  switch (options.kind) {
    case "lion":
      return { exp_avg: ["momentum", (1 - options.beta1) / options.beta1] };
    case "sgd":
      return { momentum_buffer: ["velocity", 1] };
    case "muon":
      return { momentum_buffer: ["momentum", 1 - options.momentum] };
    case "adagrad":
      return { sum: ["squareSum", 1] };
    case "rmsprop":
    case "rmsprop-tf-like":
      return {
        square_avg: ["secondMoment", 1 - options.alpha],
        grad_avg: ["firstMoment", 1 - options.alpha],
        momentum_buffer: ["velocity", 1 / Math.sqrt(1 - options.alpha)],
      };
    default:
      return {
        exp_avg: ["firstMoment", 1 - options.beta1],
        exp_avg_sq: ["secondMoment", 1 - options.beta2],
        max_exp_avg_sq: ["maxSecondMoment", 1 - options.beta2],
        exp_inf: ["infinityNorm", 1],
      };
  }
}

function compareState(fields: Fields, comparison: Comparison, flat: FlatBuffer<unknown>, optimizer: Optimizer, tolerance: Tolerance): void {
  if (fields.finalState === undefined) return;
  const own = optimizer.state();
  const places = stateOf(optimizer);
  const finalState = asObject(fields.finalState, "finalState");
  for (const { path, shape, offset } of flat.layout.leaves) {
    for (const [name, stored] of Object.entries(asObject(finalState[path], `finalState.${path}`))) {
      const place = `finalState.${path}.${name}`;
      if (name === "step") comparison.exact(place, optimizer.stepCount, asNumber(stored, place));
      if (!(name in places)) continue;
      const [bufferName, factor] = places[name];
      const buffer = own[bufferName];
      if (!buffer) throw new Error(`${place}: expected a state "${bufferName}" of ${optimizer.options.kind}, got none`);
      const values = Float64Array.from(viewOf(buffer, shape, offset).data as Float64Array, (x) => x * factor);
      comparison.numbers(place, values, asNumbers(stored, place), tolerance);
    }
  }
}

/** Steps of a case of one parameter, which may be stored without its name. */
function stepsOfOne(value: unknown, place: string, names: Iterable<string>): NamedNumbers[] {
  const [name] = names;
  return asList(value, place).map((item, step) =>
    Array.isArray(item) ? new Map([[name, asNumbers(item, `${place}[${step}]`)]]) : asNamedNumbers(item, `${place}[${step}]`),
  );
}

/** `parametersAfter` is torch in float32 with a bfloat16 orthogonalisation; `float64` is the same method without rounding. */
function runMuon(fields: Fields, comparison: Comparison, session: Session): void {
  const float64 = asObject(fields.float64, "float64");
  const names = Object.keys(asObject(fields.parameters, "parameters"));
  const after = stepsOf(fields.parametersAfter, "parametersAfter");
  const precise = stepsOfOne(float64.parametersAfter, "float64.parametersAfter", names);
  const rounded: Tolerance = { absolute: 2 * asNumber(fields.maxDifferenceToFloat64, "maxDifferenceToFloat64") + 1e-6 };
  const { parameters, optimizer } = takeSteps(fields, session, (own, step) => {
    compareLeaves(comparison, `float64.parametersAfter[${step}]`, own, precise[step] ?? new Map(), exact);
    compareLeaves(comparison, `parametersAfter[${step}]`, own, after[step] ?? new Map(), rounded);
  });
  using _ = optimizer;
  compareState(fields, comparison, parameters, optimizer, { relative: 1e-6 });
  if (float64.orthogonalised === undefined) return;
  compareDirections(fields, stepsOfOne(float64.orthogonalised, "float64.orthogonalised", names), comparison, session, optimizer);
}

/** The orthogonal directions of all steps, from the gradients. */
function compareDirections(
  fields: Fields,
  expected: readonly NamedNumbers[],
  comparison: Comparison,
  { backend }: Session,
  { options }: Optimizer,
): void {
  if (options.kind !== "muon") return;
  const { momentum, nesterov, iterations, coefficients, epsilon } = options;
  const gradients = stepsOf(fields.gradients, "gradients");
  for (const [name, { shape }] of gradients[0]) {
    using program = compile(backend, ({ matrix }) => orthogonalize(matrix, { iterations, coefficients, epsilon }), {
      matrix: spec("f64", shape),
    });
    const average = new Float64Array(gradients[0].get(name)?.data.length ?? 0);
    for (const [step, stored] of expected.entries()) {
      const gradient = Float64Array.from(gradients[step].get(name)?.data ?? []);
      for (const [i, g] of gradient.entries()) average[i] += (1 - momentum) * (g - average[i]);
      const direction = nesterov ? average.map((m, i) => m + (1 - momentum) * (gradient[i] - m)) : average;
      const bound = program.bind({ matrix: bufferFrom("f64", shape, direction) });
      bound.run();
      const values = stored.get(name);
      if (!values) throw new Malformed(`float64.orthogonalised[${step}].${name}: expected numbers, got nothing`);
      const own = (bound.outputs as unknown as TensorBuffer).data as Float64Array;
      comparison.numbers(`float64.orthogonalised[${step}].${name}`, own, values, exact);
    }
  }
}

function runClipping(fields: Fields, comparison: Comparison, { backend }: Session): void {
  const stored = asNamedNumbers(fields.gradients, "gradients");
  const maxNorm = asNumber(fields.maxNorm, "maxNorm");
  const gradients = flatOf(stored);
  using norm = new GradientNorm(backend, gradients, { normType: asNumber(fields.normType ?? 2, "normType") });
  const total = norm.compute();
  comparison.numbers("totalNorm", [total], asNumbers([fields.totalNorm], "totalNorm"), exact);
  const factor = clipFactor(total, maxNorm);
  const scaled = flatOf(
    new Map(Array.from(stored, ([name, { data, shape }]) => [name, { data: Array.from(data, (x) => x * factor), shape }])),
  );
  compareLeaves(comparison, "clipped", scaled, asNamedNumbers(fields.clipped, "clipped"), exact);
  if (fields.clippedByValue === undefined) return;
  using clipping = new ValueClipping(backend, gradients, maxNorm);
  clipping.run();
  compareLeaves(comparison, "clippedByValue", gradients, asNamedNumbers(fields.clippedByValue, "clippedByValue"), exact);
}

function runAverages(fields: Fields, comparison: Comparison, { backend }: Session): void {
  const steps = stepsOf(fields.parameters, "parameters");
  const decays = { ema: asNumber(fields.decay, "decay"), mean: "mean" } as const;
  for (const [name, decay] of Object.entries(decays)) {
    const parameters = flatOf(steps[0]);
    using average = new WeightAverage(backend, parameters, { decay });
    for (const [step, expected] of stepsOf(fields[name], name).entries()) {
      fill(parameters, steps[step] ?? new Map(), `parameters[${step}]`);
      average.update();
      compareLeaves(comparison, `${name}[${step}]`, parameters, expected, exact, average.state().average);
    }
  }
}
