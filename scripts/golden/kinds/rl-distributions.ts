// distributions.json: action distributions, over tensors in float64 with their derivatives, and on the host.
import type { PolicyHead } from "../../../src/models/policy/config.ts";
import { distributionFrom, distributionOf, klOf } from "../../../src/rl/control/distributions/distribution.ts";
import { gsdeStd, unsquash } from "../../../src/rl/control/distributions/gaussian.ts";
import { type HeadOutputs, type HostDistribution, hostDistribution } from "../../../src/rl/control/distributions/host.ts";
import { bufferFrom, type TensorBuffer } from "../../../src/runtime/buffer.ts";
import { compile, spec } from "../../../src/runtime/program.ts";
import { reshape as reshapeTo, sum } from "../../../src/tensor/core.ts";
import { add, exp, mul, sqrt as sqrtOf, tanh } from "../../../src/tensor/elementwise.ts";
import { gradients } from "../../../src/tensor/gradient.ts";
import type { Tensor } from "../../../src/tensor/graph.ts";
import { einsum } from "../../../src/tensor/matmul.ts";
import { softmax } from "../../../src/tensor/norm.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { asInteger, asNumber, asNumbers, asObjects, type Fields, type Numbers } from "../fields.ts";
import type { GoldenCase, GoldenKind, Session } from "../kind.ts";

const file = "distributions.json";
/** Near-certain distributions have entropies of 1e-9, of which the reference itself knows 1e-15. */
const exact: Tolerance = { relative: 1e-10, absolute: 1e-14 };
const sections = {
  categorical: runDiscrete,
  maskedCategorical: runDiscrete,
  multiCategorical: runDiscrete,
  bernoulli: runBernoulli,
  diagonalGaussian: runGaussian,
  squashedGaussian: runSquashed,
  gsde: runGsde,
} as const;

export const kind: GoldenKind = {
  recognise(folder) {
    const content = folder.peek(file);
    if (!content || !Object.keys(sections).some((name) => name in content)) return [];
    return [{ name: file, files: [file], cases: () => cases(content) }];
  },
};

function* cases(content: Fields): Generator<GoldenCase> {
  for (const [name, run] of Object.entries(sections)) {
    if (!(name in content)) continue;
    for (const [index, fields] of asObjects(content[name], name).entries())
      yield {
        kind: `rl/distributions/${name}`,
        name: `${name} ${index}`,
        run: (comparison, session) => run(fields, comparison, session),
      };
  }
}

const numbers = (fields: Fields, name: string): Numbers => asNumbers(fields[name], name);
const buffer = ({ data, shape }: Numbers): TensorBuffer<"f64"> => bufferFrom("f64", shape, data);

/** Runs a function of tensors in float64 and compares what it gives, name by name, with the fields of the case. */
function compareTraced(
  { backend }: Session,
  comparison: Comparison,
  fields: Fields,
  inputs: Record<string, TensorBuffer>,
  trace: (inputs: Record<string, Tensor>) => Record<string, Tensor | undefined>,
): void {
  using program = compile(
    backend,
    (traced: Record<string, Tensor>) =>
      Object.fromEntries(Object.entries(trace(traced)).filter(([, value]) => value)) as Record<string, Tensor>,
    Object.fromEntries(Object.entries(inputs).map(([name, { dtype, shape }]) => [name, spec(dtype, shape)])) as Record<
      string,
      ReturnType<typeof spec>
    >,
    { threads: 1 },
  );
  const outputs = program.run(inputs as never) as unknown as Record<string, TensorBuffer>;
  for (const [name, { data }] of Object.entries(outputs)) comparison.numbers(name, data as Float64Array, numbers(fields, name), exact);
}

/** Row by row what the host computes. */
function compareHost(comparison: Comparison, fields: Fields, head: PolicyHead, data: HeadOutputs, actions: Numbers, rows: number): void {
  const host = hostDistribution(head, data, { seed: 0, stream: 0 });
  host.refresh();
  const width = actions.data.length / rows;
  const at = (compute: (row: number) => number): number[] => Array.from({ length: rows }, (_, row) => compute(row));
  comparison.numbers(
    "logProb on the host",
    at((row) => host.logProb(row, actions.data, row * width)),
    numbers(fields, "logProb"),
    exact,
  );
  if (fields.entropy !== null && fields.entropy !== undefined)
    comparison.numbers(
      "entropy on the host",
      at((row) => host.entropy(row)),
      numbers(fields, "entropy"),
      exact,
    );
  comparison.numbers("mode on the host", modesOf(host, head, rows, width), numbers(fields, "mode"), exact);
}

function modesOf(host: HostDistribution, head: PolicyHead, rows: number, width: number): Float64Array {
  const modes = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) host.mode(row, modes, row * width);
  return "squash" in head && head.squash ? modes.map(Math.tanh) : modes;
}

function runDiscrete(fields: Fields, comparison: Comparison, session: Session): void {
  const logits = numbers(fields, "logits");
  const [rows, total] = logits.shape;
  const dims = fields.dims === undefined ? [total] : asNumbers(fields.dims, "dims").data;
  const head: PolicyHead =
    fields.dims === undefined ? { kind: "categorical", n: total } : { kind: "multi-categorical", dims: Array.from(dims) };
  const actions = numbers(fields, "actions");
  const mask = fields.mask === undefined ? undefined : numbers(fields, "mask");
  const inputs: Record<string, TensorBuffer> = {
    logits: buffer(logits),
    actions: bufferFrom("i32", [rows, actions.data.length / rows], actions.data),
    ...(fields.otherLogits === undefined ? {} : { other: buffer(numbers(fields, "otherLogits")) }),
    ...(mask ? { mask: buffer(mask) } : {}),
  };
  compareTraced(session, comparison, fields, inputs, ({ logits, actions, other, mask }) => {
    const distribution = distributionFrom(head, [logits], mask);
    const [logProb, entropy] = [distribution.logProb(actions), distribution.entropy() as Tensor];
    const kl = other ? klOf(distribution, distributionFrom(head, [other], mask)) : undefined;
    return {
      logProb,
      entropy,
      mode: distribution.mode(),
      ...(head.kind === "categorical" ? { probabilities: mask ? undefined : softmax(logits), kl } : { klSum: kl, klSb3: kl && add(kl, 0) }),
      gradLogProb: gradients(sum(logProb), logits),
      // A derivative that was not stored is not compared.
      ...("gradEntropy" in fields ? { gradEntropy: gradients(sum(entropy), logits) } : {}),
      ...(kl && "gradKl" in fields ? { gradKl: gradients(sum(kl), logits), gradKlOther: gradients(sum(kl), other) } : {}),
    };
  });
  compareHost(
    comparison,
    fields,
    head,
    { outputs: buffer(logits).data, ...(mask ? { masks: Uint8Array.from(mask.data) } : {}) },
    actions,
    rows,
  );
}

function runBernoulli(fields: Fields, comparison: Comparison, session: Session): void {
  const logits = numbers(fields, "logits");
  const [rows, n] = logits.shape;
  const head: PolicyHead = { kind: "bernoulli", n };
  const actions = numbers(fields, "actions");
  const inputs = { logits: buffer(logits), other: buffer(numbers(fields, "otherLogits")), actions: buffer(actions) };
  compareTraced(session, comparison, fields, inputs, ({ logits, other, actions }) => {
    const distribution = distributionFrom(head, [logits]);
    const [logProb, entropy] = [distribution.logProb(actions), distribution.entropy() as Tensor];
    return {
      logProb,
      entropy,
      mode: distribution.mode(),
      klPerBit: distribution.klPerDimension(distributionFrom(head, [other])),
      gradLogProb: gradients(sum(logProb), logits),
      gradEntropy: gradients(sum(entropy), logits),
    };
  });
  compareHost(comparison, fields, head, { outputs: buffer(logits).data }, actions, rows);
}

function runGaussian(fields: Fields, comparison: Comparison, session: Session): void {
  const mean = numbers(fields, "mean");
  const [rows, size] = mean.shape;
  const head: PolicyHead = { kind: "gaussian", size, squash: false };
  const actions = numbers(fields, "actions");
  const inputs = {
    mean: buffer(mean),
    logStd: buffer(numbers(fields, "logStd")),
    otherMean: buffer(numbers(fields, "otherMean")),
    otherLogStd: buffer(numbers(fields, "otherLogStd")),
    actions: buffer(actions),
  };
  compareTraced(session, comparison, fields, inputs, ({ mean, logStd, otherMean, otherLogStd, actions }) => {
    const distribution = distributionFrom(head, [mean, logStd]);
    const other = distributionFrom(head, [otherMean, otherLogStd]);
    const [logProb, entropy] = [distribution.logProb(actions), distribution.entropy() as Tensor];
    const kl = klOf(distribution, other);
    const total = sum(kl);
    return {
      logProb,
      entropy,
      mode: add(distribution.mode(), 0),
      kl,
      klPerDimension: distribution.klPerDimension(other),
      gradLogProbMean: gradients(sum(logProb), mean),
      gradLogProbLogStd: gradients(sum(logProb), logStd),
      gradEntropyLogStd: gradients(sum(entropy), logStd),
      gradKlMean: gradients(total, mean),
      gradKlLogStd: gradients(total, logStd),
      gradKlOtherMean: gradients(total, otherMean),
      gradKlOtherLogStd: gradients(total, otherLogStd),
    };
  });
  compareHost(comparison, fields, head, { outputs: inputs.mean.data, logStd: inputs.logStd.data }, actions, rows);
}

function runSquashed(fields: Fields, comparison: Comparison, session: Session): void {
  const mean = numbers(fields, "mean");
  const [rows, size] = mean.shape;
  const head: PolicyHead = { kind: "gaussian", size, squash: true, epsilon: asNumber(fields.epsilon, "epsilon") };
  const preSquash = numbers(fields, "preSquash");
  const inputs = {
    mean: buffer(mean),
    logStd: buffer(numbers(fields, "logStd")),
    preSquash: buffer(preSquash),
    actions: buffer(numbers(fields, "actions")),
    edgeActions: buffer(numbers(fields, "edgeActions")),
    sampleNoise: buffer(numbers(fields, "sampleNoise")),
  };
  compareTraced(session, comparison, fields, inputs, ({ mean, logStd, preSquash, actions, edgeActions, sampleNoise }) => {
    const distribution = distributionFrom(head, [mean, logStd]);
    const logProb = distribution.logProb(preSquash);
    return {
      logProb,
      logProbFromActions: distribution.logProb(unsquash(actions)),
      logProbEdge: distribution.logProb(unsquash(edgeActions)),
      mode: distribution.mode(),
      sample: tanh(add(mean, mul(exp(logStd), sampleNoise))),
      gradLogProbMean: gradients(sum(logProb), mean),
      gradLogProbLogStd: gradients(sum(logProb), logStd),
    };
  });
  comparison.exact("entropy", distributionEntropy(session, head, mean, numbers(fields, "logStd")), undefined);
  compareHost(comparison, { ...fields, entropy: null }, head, { outputs: inputs.mean.data, logStd: inputs.logStd.data }, preSquash, rows);
}

/** Whether a squashed Gaussian claims an entropy: undefined is right. */
function distributionEntropy({ backend }: Session, head: PolicyHead, mean: Numbers, logStd: Numbers): unknown {
  let entropy: unknown = "not traced";
  using program = compile(
    backend,
    ({ mean, logStd }) => {
      const distribution = distributionFrom(head, [mean, logStd]);
      entropy = distribution.entropy();
      return { mode: distribution.mode() };
    },
    { mean: spec("f64", mean.shape), logStd: spec("f64", logStd.shape) },
  );
  void program;
  return entropy;
}

function runGsde(fields: Fields, comparison: Comparison, session: Session): void {
  const mean = numbers(fields, "mean");
  const [rows, size] = mean.shape;
  const flag = (name: string): boolean => asInteger(Number(fields[name]), name) !== 0;
  const head = {
    kind: "gsde",
    size,
    squash: flag("squash"),
    fullStd: flag("fullStd"),
    useExpln: flag("useExpln"),
    learnFeatures: flag("learnFeatures"),
    epsilon: asNumber(fields.epsilon, "epsilon"),
  } as const;
  const actions = numbers(fields, "actions");
  const inputs = {
    mean: buffer(mean),
    logStd: buffer(numbers(fields, "logStd")),
    latent: buffer(numbers(fields, "latent")),
    actions: buffer(actions),
    matrix: buffer(numbers(fields, "explorationMatrix")),
    matrices: buffer(numbers(fields, "explorationMatrices")),
  };
  const squashed = (x: Tensor): Tensor => (head.squash ? tanh(x) : add(x, 0));
  let preSquash = actions;
  compareTraced(session, comparison, fields, inputs, ({ mean, logStd, latent, actions, matrix, matrices }) => {
    const distribution = distributionOf(head, { outputs: mean, latent, logStd });
    const logProb = distribution.logProb(head.squash ? unsquash(actions) : actions);
    const total = sum(logProb);
    const std = gsdeStd(head, logStd);
    return {
      logProb,
      entropy: distribution.entropy(),
      mode: squashed(distribution.parameters[0]),
      ...(head.fullStd ? { std } : {}),
      actionStd: sqrtOf(distribution.parameters[1]),
      sampleOneMatrix: squashed(add(mean, einsum("bl,la->ba", latent, matrix))),
      samplePerState: squashed(add(mean, sum(mul(reshapeTo(latent, [rows, latent.shape[1] as number, 1]), matrices), { axes: 1 }))),
      gradLogProbMean: gradients(total, mean),
      gradLogProbLogStd: gradients(total, logStd),
      gradLogProbLatent: gradients(total, latent),
    };
  });
  if (head.squash) {
    const bound = 1 - 2 ** -52;
    preSquash = { shape: actions.shape, data: Array.from(actions.data, (a) => Math.atanh(Math.min(Math.max(a, -bound), bound))) };
  }
  const data = { outputs: inputs.mean.data, logStd: inputs.logStd.data, latent: inputs.latent.data };
  compareHost(comparison, fields, head, data, preSquash, rows);
  const host = hostDistribution(head, data, { seed: 0, stream: 0 }) as HostDistribution & { setNoise(noise: ArrayLike<number>): void };
  host.refresh();
  host.setNoise(inputs.matrices.data);
  const sample = new Float64Array(rows * size);
  for (let row = 0; row < rows; row++) host.sample(row, 0, sample, row * size);
  comparison.numbers("samplePerState on the host", head.squash ? sample.map(Math.tanh) : sample, numbers(fields, "samplePerState"), exact);
}
