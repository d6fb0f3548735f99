// rl/policy_extras_verl.json and rl/preference.json: estimators of the KL, rules of aggregation, losses from logits with entropy and KL,
// token rewards with the KL inside, and the adaptive coefficient.
import { type Aggregation, aggregationWeights } from "../../../src/rl/core/aggregation.ts";
import { adaptKlCoefficient, type KlEstimator, type KlOptions, klDivergence, klDivergenceOf } from "../../../src/rl/core/kl.ts";
import { policyLoss } from "../../../src/rl/core/policy-loss.ts";
import { bufferFrom, type TensorBuffer } from "../../../src/runtime/buffer.ts";
import { compile, spec } from "../../../src/runtime/program.ts";
import { sum } from "../../../src/tensor/core.ts";
import { mul } from "../../../src/tensor/elementwise.ts";
import { gradients } from "../../../src/tensor/gradient.ts";
import type { Tensor } from "../../../src/tensor/graph.ts";
import { labelLogProbs } from "../../../src/tensor/loss.ts";
import { entropyFromLogits } from "../../../src/tensor/norm.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { asNumber, asNumbers, asObject, asObjects, asText, type Fields, type Numbers, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind, Session } from "../kind.ts";
import { batchesOf, batchOf, nonEmptyRows } from "./policy-losses.ts";

const [verlFile, trlFile] = ["policy_extras_verl.json", "preference.json"];
const exact: Tolerance = { relative: 1e-10, absolute: 1e-13 };
const lengthEpsilon = 1e-8;

export const kind: GoldenKind = {
  recognise(folder) {
    const [verl, trl] = [folder.peek(verlFile), folder.peek(trlFile)];
    return [
      ...(verl && "batches" in verl ? [{ name: verlFile, files: [verlFile], shared: true, cases: () => verlCases(verl) }] : []),
      ...(trl && "klEstimators" in trl ? [{ name: trlFile, files: [trlFile], shared: true, cases: () => trlCases(trl) }] : []),
    ];
  },
};

type Run = (fields: Fields, comparison: Comparison, session: Session) => void;

function* section(content: Fields, file: string, name: string, run: Run): Generator<GoldenCase> {
  if (!(name in content)) return;
  for (const [index, fields] of asObjects(content[name], name).entries()) {
    const told = ["batch", "estimator", "aggregation", "options", "temperature"].map((key) => JSON.stringify(fields[key]) ?? "").join(" ");
    yield { kind: `rl/${file}/${name}`, name: shorten(`${name} ${index} ${told}`), run: (...parts) => run(fields, ...parts) };
  }
}

function* verlCases(content: Fields): Generator<GoldenCase> {
  const batches = batchesOf(content);
  const of = (fields: Fields) => batchOf(batches, fields);
  const file = "policy_extras_verl";
  yield* section(content, file, "klEstimators", (fields, comparison, session) => {
    const { newLogProb, refLogProb, mask } = of(fields);
    const aggregation = asText(fields.aggregation, "aggregation") as Aggregation;
    const weights = aggregationWeights(aggregation, mask.data, mask.shape[1], { numSequences: nonEmptyRows({ mask }), lengthEpsilon });
    const estimator = asText(fields.estimator, "estimator").replace("low_var_kl", "k3") as KlEstimator;
    const own = estimate(session, { newLogProb, refLogProb, weights, estimator, options: { maxValue: 10 } });
    comparison.numbers("perToken", own.perToken, asNumbers(fields.perToken, "perToken"), exact);
    comparison.numbers("perToken on the host", own.onHost, asNumbers(fields.perToken, "perToken"), exact);
    comparison.numbers("aggregated", own.aggregated, asNumbers([fields.aggregated], "aggregated"), exact);
    comparison.numbers("gradNewLogProb", own.gradient, asNumbers(fields.gradNewLogProb, "gradNewLogProb"), exact);
  });
  yield* section(content, file, "aggregation", runAggregation);
  yield* section(content, file, "policyKlEntropyFromLogits", runFromLogits);
  yield* section(content, file, "tokenRewards", (fields, comparison) => {
    const { oldLogProb, refLogProb } = of(fields);
    const scores = asNumbers(fields.scores, "scores").data;
    const coefficient = asNumber(fields.klCoefficient, "klCoefficient");
    const rewards = Array.from(scores, (score, i) => score - coefficient * klDivergenceOf(oldLogProb.data[i], refLogProb.data[i], "k1"));
    comparison.numbers("tokenRewards", rewards, asNumbers(fields.tokenRewards, "tokenRewards"), exact);
  });
  yield* section(content, file, "adaptiveKl", (fields, comparison) => {
    let coefficient = asNumber(fields.initial, "initial");
    const [target, horizon] = [asNumber(fields.target, "target"), asNumber(fields.horizon, "horizon")];
    for (const [index, update] of asObjects(fields.updates, "updates").entries()) {
      const [kl, numSamples] = [asNumber(update.kl, "kl"), asNumber(update.steps, "steps")];
      coefficient = adaptKlCoefficient(coefficient, { kl, target, horizon, numSamples });
      comparison.numbers(`updates[${index}]`, [coefficient], asNumbers([update.coefficient], "coefficient"), exact);
    }
  });
}

function* trlCases(content: Fields): Generator<GoldenCase> {
  const batches = batchesOf(content);
  yield* section(content, "preference", "klEstimators", (fields, comparison, session) => {
    const { newLogProb, refLogProb, mask } = batchOf(batches, fields);
    const weights = aggregationWeights("token-mean", mask.data, mask.shape[1]);
    for (const estimator of ["k1", "k2", "k3"] as const) {
      const stored = asObject(fields[estimator], estimator);
      const options = { maxLogRatio: Number.POSITIVE_INFINITY };
      const own = estimate(session, { newLogProb, refLogProb, weights, estimator, options });
      comparison.numbers(`${estimator}.perToken`, own.perToken, asNumbers(stored.perToken, `${estimator}.perToken`), exact);
      comparison.numbers(`${estimator}.perToken on the host`, own.onHost, asNumbers(stored.perToken, `${estimator}.perToken`), exact);
      comparison.numbers(`${estimator}.maskedMean`, own.aggregated, asNumbers([stored.maskedMean], `${estimator}.maskedMean`), exact);
      comparison.numbers(`${estimator}.grad`, own.gradient, asNumbers(stored.grad, `${estimator}.grad`), exact);
    }
  });
}

interface EstimateInputs {
  newLogProb: Numbers;
  refLogProb: Numbers;
  weights: Float64Array;
  estimator: KlEstimator;
  options: KlOptions;
}

function estimate({ backend }: Session, { newLogProb, refLogProb, weights, estimator, options }: EstimateInputs) {
  const leaf = spec("f64", newLogProb.shape);
  using program = compile(
    backend,
    ({ logProbs, refLogProbs, weights }) => {
      const perToken = klDivergence(logProbs, refLogProbs, estimator, options);
      const aggregated = sum(mul(perToken, weights));
      return { perToken, aggregated, gradient: gradients(aggregated, logProbs) };
    },
    { logProbs: leaf, refLogProbs: leaf, weights: leaf },
    { threads: 1 },
  );
  const buffer = (values: ArrayLike<number>) => bufferFrom("f64", newLogProb.shape, values);
  const outputs = program.run({ logProbs: buffer(newLogProb.data), refLogProbs: buffer(refLogProb.data), weights: buffer(weights) });
  const [perToken, aggregated, gradient] = [outputs.perToken, outputs.aggregated, outputs.gradient].map(
    (output) => (output as unknown as TensorBuffer<"f64">).data,
  );
  const onHost = Array.from(newLogProb.data, (logProb, i) => klDivergenceOf(logProb, refLogProb.data[i], estimator, options));
  return { perToken, aggregated, gradient, onHost };
}

function runAggregation(fields: Fields, comparison: Comparison): void {
  const [values, mask] = [asNumbers(fields.values, "values"), asNumbers(fields.mask, "mask")];
  const options = asObject(fields.options, "options");
  const number = (name: string): number | undefined => (options[name] === undefined ? undefined : asNumber(options[name], name));
  const weights = aggregationWeights(asText(fields.aggregation, "aggregation") as Aggregation, mask.data, mask.shape[1], {
    numTokens: number("batch_num_tokens"),
    numSequences: number("global_batch_size") ?? nonEmptyRows({ mask }),
    normalizer: number("loss_scale_factor"),
    lengthEpsilon,
  });
  // Data parallelism averages gradients over its processes: each multiplies its share.
  const processes = number("dp_size") ?? 1;
  const result = weights.reduce((total, weight, i) => total + weight * values.data[i], 0) * processes;
  comparison.numbers("result", [result], asNumbers([fields.result], "result"), exact);
}

function runFromLogits(fields: Fields, comparison: Comparison, { backend }: Session): void {
  const numbers = (name: string): Numbers => asNumbers(fields[name], name);
  const number = (name: string): number => asNumber(fields[name], name);
  const [logits, mask] = [numbers("logits"), numbers("mask")];
  const weights = aggregationWeights(asText(fields.aggregation, "aggregation") as Aggregation, mask.data, mask.shape[1], {
    numSequences: nonEmptyRows({ mask }),
    lengthEpsilon,
  });
  const grid = spec("f64", mask.shape);
  const options = {
    clip: { kind: "ppo", low: number("clipLow"), high: number("clipHigh"), dual: number("dualClip") } as const,
    beta: number("klCoefficient"),
    klEstimator: asText(fields.klEstimator, "klEstimator") as KlEstimator,
    entropyCoefficient: number("entropyCoefficient"),
  };
  using program = compile(
    backend,
    ({ logits, tokens, ...inputs }) => {
      const scaled = mul(logits as Tensor, 1 / number("temperature"));
      const [logProbs, entropies] = [labelLogProbs(scaled, tokens), entropyFromLogits(scaled)];
      const { loss, policyLoss: policy, kl } = policyLoss({ ...inputs, logProbs, entropies } as never, options);
      const weighted = (values: Tensor): Tensor => sum(mul(values, inputs.weights));
      const outputs = { loss, policy, logProbs, entropies, kl: weighted(kl as Tensor), entropy: weighted(entropies) };
      return { ...outputs, gradient: gradients(loss, logits) };
    },
    {
      logits: spec("f64", logits.shape),
      tokens: spec("i32", mask.shape),
      oldLogProbs: grid,
      refLogProbs: grid,
      advantages: grid,
      weights: grid,
    },
    { threads: 1 },
  );
  const given = { oldLogProbs: "oldLogProb", refLogProbs: "refLogProb", advantages: "advantages" };
  const outputs = program.run({
    logits: bufferFrom("f64", logits.shape, logits.data),
    tokens: bufferFrom("i32", mask.shape, numbers("tokens").data),
    weights: bufferFrom("f64", mask.shape, weights),
    ...Object.fromEntries(Object.entries(given).map(([name, field]) => [name, bufferFrom("f64", mask.shape, numbers(field).data)])),
  } as never) as unknown as Record<string, TensorBuffer<"f64">>;
  const check = (place: string, name: string, expected: Numbers): void => comparison.numbers(place, outputs[name].data, expected, exact);
  check("logProb", "logProbs", numbers("logProb"));
  check("entropy", "entropies", numbers("entropy"));
  for (const [place, name] of Object.entries({ policyLoss: "policy", entropyLoss: "entropy", klLoss: "kl", totalLoss: "loss" }))
    check(place, name, asNumbers([fields[place]], place));
  check("gradLogits", "gradient", numbers("gradLogits"));
}
