// rl/policy_losses_verl.json and rl/preference.json (groupPolicyLosses): loss and gradient of verl and TRL on given log-probabilities.
import { type Aggregation, aggregations, aggregationWeights } from "../../../src/rl/core/aggregation.ts";
import { highEntropyMask } from "../../../src/rl/core/masks.ts";
import { type ClipOptions, type PolicyLossOptions, policyLoss } from "../../../src/rl/core/policy-loss.ts";
import type { Backend } from "../../../src/runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../../src/runtime/buffer.ts";
import { compile, spec } from "../../../src/runtime/program.ts";
import { gradients } from "../../../src/tensor/gradient.ts";
import type { Tensor } from "../../../src/tensor/graph.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { asNumber, asNumbers, asObject, asObjects, asText, type Fields, Malformed, type Numbers, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind, Session } from "../kind.ts";

const [verlFile, trlFile] = ["policy_losses_verl.json", "preference.json"];
/** 1e-10 of the largest entry; the absolute part is for sums that have nearly cancelled. */
const exact: Tolerance = { relative: 1e-10, absolute: 1e-13 };
/** verl divides the length of a sequence, and counts of its metrics, with this added. */
const lengthEpsilon = 1e-8;

export const kind: GoldenKind = {
  recognise(folder) {
    const read = (file: string): Fields => asObject(folder.json(file), file);
    return [
      ...(folder.has(verlFile) ? [{ name: verlFile, files: [verlFile], cases: () => verlCases(read(verlFile)) }] : []),
      ...(folder.has(trlFile) ? [{ name: trlFile, files: [trlFile], shared: true, cases: () => trlCases(read(trlFile)) }] : []),
    ].filter(({ shared, files: [file] }) => !shared || "groupPolicyLosses" in (folder.peek(file) ?? {}));
  },
};

function* verlCases(content: Fields): Generator<GoldenCase> {
  const batches = batchesOf(content);
  for (const [index, fields] of asObjects(content.cases, "cases").entries()) {
    const name = asText(fields.loss_fn, `cases[${index}].loss_fn`);
    yield {
      kind: `rl/policy_losses_verl/${name}`,
      name: shorten(`${index} ${name} ${fields.aggregation} ${fields.batch} ${JSON.stringify(fields.parameters)}`),
      run: (comparison, session) => runVerl(fields, name, batchOf(batches, fields), comparison, session),
    };
  }
}

function* trlCases(content: Fields): Generator<GoldenCase> {
  const batches = batchesOf(content);
  for (const [index, fields] of asObjects(content.groupPolicyLosses, "groupPolicyLosses").entries()) {
    const options = asObject(fields.options, `groupPolicyLosses[${index}].options`);
    const isOther = options.loss_type === "vespo";
    yield {
      kind: `rl/preference/groupPolicyLosses${isOther ? "/vespo" : ""}`,
      name: shorten(`${index} ${fields.batch} ${JSON.stringify(options)}`),
      run: (comparison, session) => runTrl(fields, options, batchOf(batches, fields), comparison, session),
    };
  }
}

type Batch = Readonly<Record<(typeof batchFields)[number], Numbers>>;
const batchFields = ["oldLogProb", "newLogProb", "refLogProb", "rolloutLogProb", "mask", "advantages", "entropy"] as const;

export function batchesOf(content: Fields): ReadonlyMap<string, Batch> {
  return new Map(
    asObjects(content.batches, "batches").map((fields, index) => {
      const place = `batches[${index}]`;
      const entries = batchFields.map((name) => [name, asNumbers(fields[name], `${place}.${name}`)] as const);
      return [asText(fields.id, `${place}.id`), Object.fromEntries(entries) as unknown as Batch];
    }),
  );
}

export function batchOf(batches: ReadonlyMap<string, Batch>, fields: Fields): Batch {
  const batch = batches.get(asText(fields.batch, "batch"));
  if (!batch) throw new Malformed(`batch: expected ${[...batches.keys()].join(", ")}, got ${JSON.stringify(fields.batch)}`);
  return batch;
}

interface Computed {
  loss: number;
  policyLoss: number;
  gradient: Float64Array;
  kl: Float64Array | undefined;
  clippedLow: Float64Array;
  clippedHigh: Float64Array;
  ratio: Float64Array;
}

/** Loss and gradient with respect to the new log-probabilities, in float64. */
function compute(
  backend: Backend,
  batch: Batch,
  options: PolicyLossOptions,
  given: { weights: Float64Array; entropyWeights?: Float64Array; advantages?: Numbers; factors?: ArrayLike<number> },
): Computed {
  const [rows, length] = batch.mask.shape;
  const advantages = given.advantages ?? batch.advantages;
  const perRow = advantages.shape.length === 1;
  const values: Record<string, ArrayLike<number>> = {
    logProbs: batch.newLogProb.data,
    oldLogProbs: batch.oldLogProb.data,
    weights: given.weights,
    mask: batch.mask.data,
    advantages: advantages.data,
    entropies: batch.entropy.data,
    ...(options.beta ? { refLogProbs: batch.refLogProb.data } : {}),
    ...(given.factors ? { factors: given.factors } : {}),
    ...(given.entropyWeights ? { entropyWeights: given.entropyWeights } : {}),
  };
  const shapeOf = (name: string): number[] => (name === "advantages" && perRow ? [rows, 1] : [rows, length]);
  const specs = Object.fromEntries(Object.keys(values).map((name) => [name, spec("f64", shapeOf(name))]));
  using program = compile(
    backend,
    (inputs) => {
      const result = policyLoss(inputs as never, options);
      return { ...result, gradient: gradients(result.loss, (inputs as { logProbs: Tensor }).logProbs) };
    },
    specs,
    { threads: 1 },
  );
  const buffers = Object.fromEntries(Object.entries(values).map(([name, data]) => [name, bufferFrom("f64", shapeOf(name), data)]));
  const outputs = program.run(buffers as never) as unknown as Record<keyof Computed, TensorBuffer<"f64"> | undefined>;
  const array = (name: keyof Computed): Float64Array => outputs[name]?.data ?? new Float64Array();
  return {
    loss: array("loss")[0],
    policyLoss: array("policyLoss")[0],
    gradient: array("gradient"),
    kl: outputs.kl?.data,
    clippedLow: array("clippedLow"),
    clippedHigh: array("clippedHigh"),
    ratio: array("ratio"),
  };
}

function compare(comparison: Comparison, fields: Fields, { loss, gradient }: Computed): void {
  comparison.numbers("loss", [loss], asNumbers([fields.loss], "loss"), exact);
  comparison.numbers("gradNewLogProb", gradient, asNumbers(fields.gradNewLogProb, "gradNewLogProb"), exact);
}

function runVerl(fields: Fields, name: string, batch: Batch, comparison: Comparison, { backend }: Session): void {
  const parameters = asObject(fields.parameters, "parameters");
  const number = (key: string): number => asNumber(parameters[key], `parameters.${key}`);
  const length = batch.mask.shape[1];
  const aggregation = asText(fields.aggregation, "aggregation") as Aggregation;
  if (!aggregations.includes(aggregation)) throw new Malformed(`aggregation: got "${aggregation}"`);
  const numSequences = nonEmptyRows(batch);
  const weights = aggregationWeights(aggregation, batch.mask.data, length, { numSequences, lengthEpsilon });
  const clips: Record<string, () => PolicyLossOptions> = {
    vanilla: () => ({
      clip: { kind: "ppo", low: number("clip_ratio_low"), high: number("clip_ratio_high"), dual: number("clip_ratio_c") },
    }),
    gspo: () => ({
      ratio: "sequence-token",
      maxLogRatio: 10,
      clip: { kind: "ppo", low: number("clip_ratio_low"), high: number("clip_ratio_high") },
    }),
    cispo: () => ({ clip: { kind: "cispo", min: 1 - number("clip_ratio_low"), max: 1 + number("clip_ratio_high") } }),
    sapo: () => ({ clip: { kind: "soft", positive: number("tau_pos"), negative: number("tau_neg") } }),
    gpg: () => ({ clip: { kind: "log-prob" } }),
    reinforce: () => ({ clip: { kind: "log-prob" } }),
  };
  const correction = fields.importanceWeights ?? asObject(fields.rolloutCorrection ?? {}, "rolloutCorrection").weights;
  const factors = correction === undefined || correction === null ? undefined : asNumbers(correction, "importance weights").data;
  const computed = compute(backend, batch, clips[name](), { weights, factors });
  compare(comparison, fields, computed);
  const metrics = asObject(fields.metrics, "metrics");
  if (name !== "vanilla" || metrics["actor/pg_clipfrac"] === undefined) return;
  const masked = (values: ArrayLike<number>): number => maskedMean(values, batch.mask.data, lengthEpsilon);
  const clipped = computed.clippedLow.map((flag, i) => flag + computed.clippedHigh[i]);
  const kl = Float64Array.from(batch.oldLogProb.data, (old, i) => Math.min(Math.max(old - batch.newLogProb.data[i], -20), 20));
  comparison.numbers("metrics.actor/pg_clipfrac", [masked(clipped)], asNumbers([metrics["actor/pg_clipfrac"]], "metrics"), exact);
  comparison.numbers("metrics.actor/ppo_kl", [masked(kl)], asNumbers([metrics["actor/ppo_kl"]], "metrics"), exact);
}

function maskedMean(values: ArrayLike<number>, mask: ArrayLike<number>, epsilon = 0): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < mask.length; i++) {
    sum += values[i] * mask[i];
    count += mask[i];
  }
  return sum / (count + epsilon);
}

export function nonEmptyRows({ mask }: Pick<Batch, "mask">): number {
  const [rows, length] = mask.shape;
  return Array.from({ length: rows }, (_, row) => row).filter((row) =>
    Array.from({ length }, (_, t) => mask.data[row * length + t]).some((value) => value !== 0),
  ).length;
}

function runTrl(fields: Fields, options: Fields, batch: Batch, comparison: Comparison, { backend }: Session): void {
  const number = (key: string): number => asNumber(options[key], `options.${key}`);
  const lossType = asText(options.loss_type, "options.loss_type");
  const [low, high] = [number("epsilon_low"), number("epsilon_high")];
  const clip: ClipOptions =
    lossType === "cispo"
      ? { kind: "cispo", max: high }
      : lossType === "sapo"
        ? { kind: "soft", positive: number("sapo_temperature_pos"), negative: number("sapo_temperature_neg") }
        : { kind: "ppo", low, high, ...(options.delta === null ? {} : { dual: number("delta") }) };
  const { data: mask, shape } = batch.mask;
  const accumulation = number("accumulation");
  const numTokens = Array.from(mask).reduce((sum, value) => sum + value, 0);
  const rules: Record<string, [Aggregation, number?]> = {
    grpo: ["seq-mean-token-mean"],
    sapo: ["seq-mean-token-mean"],
    bnpo: ["token-mean", numTokens],
    dapo: ["token-mean", numTokens * accumulation],
    cispo: ["token-mean", numTokens * accumulation],
    dr_grpo: ["seq-mean-token-sum-norm"],
    luspo: ["seq-mean-token-sum"],
  };
  const [aggregation, count] = rules[lossType];
  const isSequence = options.importance_sampling_level === "sequence";
  const weights = aggregationWeights(aggregation, mask, shape[1], { numTokens: count, normalizer: number("max_completion_length") });
  const quantile = number("top_entropy_quantile");
  const entropyCoefficient = number("entropy_coef");
  const computed = compute(
    backend,
    batch,
    {
      ratio: isSequence ? "sequence" : "token",
      clip,
      beta: number("beta"),
      biasCorrectedKl: options.use_bias_correction_kl === true,
      offPolicyThreshold: options.off_policy_mask_threshold === null ? undefined : number("off_policy_mask_threshold"),
      entropyCoefficient,
      maxLogRatio: Number.POSITIVE_INFINITY,
    } as PolicyLossOptions,
    {
      weights,
      entropyWeights: aggregationWeights("token-mean", mask, shape[1]),
      advantages: asNumbers(fields.advantages, "advantages"),
      ...(quantile < 1 ? { factors: highEntropyMask(batch.entropy.data, mask, 1 - quantile) } : {}),
    },
  );
  compare(comparison, fields, computed);
  const metrics = asObject(fields.metrics, "metrics");
  const check = (name: string, value: number): void =>
    comparison.numbers(`metrics.${name}`, [value], asNumbers([metrics[name]], `metrics.${name}`), exact);
  // Ratios of sequences are counted once a sequence, those of tokens once a token.
  const mean = (values: Float64Array): number =>
    isSequence && values.length === shape[0] ? values.reduce((sum, value) => sum + value, 0) / values.length : maskedMean(values, mask);
  if (computed.kl && metrics.kl !== undefined) check("kl", maskedMean(computed.kl, mask));
  if (metrics.policy_loss !== undefined) check("policy_loss", computed.policyLoss);
  if (metrics["clip_ratio/low_mean"] === undefined) return;
  check("clip_ratio/low_mean", mean(computed.clippedLow));
  check("clip_ratio/high_mean", mean(computed.clippedHigh));
}
