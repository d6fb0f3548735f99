// Settings of group policy optimisation (GRPO and its relatives): one schema, with the names of TRL's GRPOConfig in camel case and its
// defaults, except where a line says otherwise. A preset is a partial value of it.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { scheduleSchema, trainingOptimizerSchema } from "../../optim/index.ts";
import type { Aggregation } from "../core/aggregation.ts";
import { klEstimators } from "../core/kl.ts";
import { type ClipOptions, type PolicyLossOptions, ratioLevels } from "../core/policy-loss.ts";

export const lossTypes = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "reinforce"] as const;
export const advantageKinds = ["group", "leave-one-out", "batch", "reward"] as const;

const positive = z.int().positive();
const fraction = z.number().min(0).max(1);

export const groupPolicySchema = z.strictObject({
  // Rollouts
  promptsPerStep: positive.default(8).describe("Prompts of a step"),
  numGenerations: z.int().min(1).default(8).describe("Completions of each prompt: the group, G"),
  maxCompletionLength: positive.default(256).describe("Tokens of a completion at most; the model's context may end it earlier"),
  temperature: z.number().positive().default(1).describe("Divides the logits, in rollouts and in every log-probability"),
  topK: z.int().min(0).default(0).describe("Truncated sampling, 0: off; needs importanceCorrection"),
  topP: z.number().gt(0).max(1).default(1).describe("Truncated sampling, 1: off; needs importanceCorrection"),
  minP: z.number().min(0).lt(1).default(0).describe("Truncated sampling, 0: off; needs importanceCorrection"),
  importanceCorrection: z
    .enum(["none", "token", "sequence"])
    .default("none")
    .describe("Weigh tokens or sequences by the ratio of the policy to what was sampled from, truncated at importanceCap"),
  importanceCap: z.number().positive().default(3).describe("Largest weight of the importance correction"),
  rolloutRows: positive.default(64).describe("Completions that are sampled side by side"),
  // Rewards and advantages
  rewardWeights: z.array(z.number()).optional().describe("Factors of the reward functions, in their order. Default: each one's own"),
  rewardTimeout: z.number().positive().default(60).describe("Seconds that a reward function may take for a batch"),
  rewardErrors: z
    .enum(["stop", "ignore"])
    .default("stop")
    .describe("A reward function that fails ends the run, or counts as not applicable to the sample"),
  multiObjectiveAggregation: z
    .enum(["sum_then_normalize", "normalize_then_sum"])
    .default("sum_then_normalize")
    .describe("Rewards are summed before or after normalisation in the group (GDPO)"),
  advantage: z
    .enum(advantageKinds)
    .default("group")
    .describe("Reward against the group's mean, against the others of the group, whitened over the batch, or as it is"),
  scaleRewards: z
    .enum(["group", "batch", "none"])
    .default("group")
    .describe("Group advantages are divided by the std of the group, of the batch, or not (Dr. GRPO)"),
  dynamicSampling: z
    .int()
    .min(0)
    .max(63)
    .default(0)
    .describe("Replace groups whose rewards are all equal by new prompts, up to so many times a step (DAPO); 0: keep them"),
  maskTruncatedCompletions: z.boolean().default(false).describe("Completions that did not end by themselves do not count in the loss"),
  // Loss
  lossType: z.enum(lossTypes).default("dapo").describe("Clip and aggregation by TRL's name; reinforce: no ratio, summed over tokens"),
  importanceSamplingLevel: z.enum(ratioLevels).default("token").describe("What the ratio is of; sequence: GSPO"),
  epsilon: z.number().min(0).default(0.2).describe("Clip range below 1"),
  epsilonHigh: z.number().min(0).optional().describe("Clip range above 1. Default: epsilon. For cispo the bound of the ratio itself"),
  delta: z.number().positive().optional().describe("Bound of the ratio where the advantage is negative (dual clip); above 1 + epsilonHigh"),
  sapoTemperaturePos: z.number().positive().default(1).describe("Temperature of the soft gate for positive advantages (sapo)"),
  sapoTemperatureNeg: z.number().positive().default(1.05).describe("Temperature of the soft gate for other advantages (sapo)"),
  offPolicyMaskThreshold: z.number().min(0).optional().describe("Leave out sequences of negative advantage that drifted further than this"),
  topEntropyQuantile: fraction.gt(0).default(1).describe("Share of the tokens, those with the highest entropy, that the policy term keeps"),
  entropyCoef: z.number().default(0).describe("Coefficient of the entropy bonus"),
  // Reference
  beta: z.number().min(0).default(0).describe("Coefficient of the KL to the reference; 0: no reference in training"),
  klEstimator: z.enum(klEstimators).default("k3").describe("Estimator of that KL"),
  klPlace: z
    .enum(["loss", "reward"])
    .default("loss")
    .describe("The KL is a term of the loss, or subtracted (k1, summed over tokens) from the reward"),
  useBiasCorrectionKl: z.boolean().default(false).describe("Weigh the KL by the ratio, which makes its gradient unbiased off-policy"),
  syncReferenceEvery: z.int().min(0).default(0).describe("Move the reference towards the policy every so many steps; 0: never"),
  syncReferenceMixup: fraction.default(0.6).describe("How far it moves: reference = mixup * policy + (1 - mixup) * reference"),
  // Updates
  numIterations: positive.default(1).describe("Passes over the completions of a step"),
  minibatches: positive.default(1).describe("Updates of one pass; the completions are shuffled and shared out among them"),
  microBatchSize: positive.optional().describe("Completions of one forward and backward pass. Default: as many as fit 256 MB of logits"),
  oldLogProbs: z
    .enum(["auto", "recorded", "recomputed"])
    .default("auto")
    .describe(
      "Denominator of the ratio: recorded while sampling, or recomputed before the first update; auto: itself when there is only one",
    ),
  learningRate: z.number().positive().default(1e-6).describe("Peak learning rate, with whatever optimizer; the schedule multiplies it"),
  maxGradientNorm: z.number().nonnegative().default(1).describe("Clip gradients to this global norm; 0: no clipping"),
  schedule: scheduleSchema.prefault({ kind: "linear" }).describe("Learning-rate schedule"),
  optimizer: trainingOptimizerSchema.prefault({ kind: "adamw", weightDecay: 0 }).describe("Optimiser"),
  // Evaluation
  evaluationGenerations: positive.default(4).describe("Completions of each held-out prompt in an evaluation"),
  sampleRows: positive.default(16).describe("Rows of the table of completions in a sample event"),
});

export type GroupPolicyOptions = z.input<typeof groupPolicySchema>;
export type GroupPolicySettings = z.output<typeof groupPolicySchema>;

/** @throws UsageError for settings that exclude each other. */
export function checkSettings(settings: GroupPolicySettings): void {
  const { topK, topP, minP, importanceCorrection, numGenerations, advantage, epsilon, epsilonHigh = epsilon, delta } = settings;
  if (importanceCorrection === "none" && (topK > 0 || topP < 1 || minP > 0)) {
    const name = topK > 0 ? "topK" : topP < 1 ? "topP" : "minP";
    throw new UsageError(`${name}: expected no truncation during rollouts, got ${name} ${settings[name]}`, {
      hint: "Truncated sampling makes the recorded log-probabilities those of another distribution: set importanceCorrection, or leave it out.",
    });
  }
  if ((advantage === "group" || advantage === "leave-one-out") && numGenerations < 2)
    throw new UsageError(`numGenerations: expected at least 2 to compare with each other, got ${numGenerations}`, {
      hint: "Or set advantage to batch or reward.",
    });
  if (delta !== undefined && delta <= 1 + epsilonHigh)
    throw new UsageError(`delta: expected more than 1 + epsilonHigh (${1 + epsilonHigh}), got ${delta}`);
  const completions = settings.promptsPerStep * numGenerations;
  if (settings.minibatches > completions)
    throw new UsageError(`minibatches: expected at most the ${completions} completions of a step, got ${settings.minibatches}`);
  if (settings.klPlace === "reward" && settings.klEstimator !== "k1" && settings.klEstimator !== "k3")
    throw new UsageError(`klEstimator: expected k1 for a KL in the reward, got ${settings.klEstimator}`);
}

/** Options that were set but have no effect beside others, each with the reason. */
export function ignoredSettings(settings: GroupPolicySettings): string[] {
  const { beta, lossType, advantage, importanceCorrection } = settings;
  const changed = (name: keyof GroupPolicySettings): boolean => {
    const fallback = groupPolicySchema.shape[name].safeParse(undefined);
    return settings[name] !== (fallback.success ? fallback.data : undefined);
  };
  const cases: [boolean, keyof GroupPolicySettings, string][] = [
    [beta === 0, "klPlace", "beta is 0"],
    [beta === 0, "klEstimator", "beta is 0"],
    [beta === 0, "useBiasCorrectionKl", "beta is 0"],
    [beta === 0, "syncReferenceEvery", "beta is 0"],
    [advantage !== "group", "scaleRewards", `advantage is ${advantage}`],
    [advantage !== "group", "multiObjectiveAggregation", `advantage is ${advantage}`],
    [importanceCorrection === "none", "importanceCap", "importanceCorrection is none"],
    [lossType !== "sapo", "sapoTemperaturePos", `lossType is ${lossType}`],
    [lossType !== "sapo", "sapoTemperatureNeg", `lossType is ${lossType}`],
    [lossType === "sapo" || lossType === "cispo" || lossType === "reinforce", "epsilon", `lossType is ${lossType}`],
    [lossType === "sapo" || lossType === "cispo" || lossType === "reinforce", "delta", `lossType is ${lossType}`],
  ];
  return cases.filter(([idle, name]) => idle && changed(name)).map(([, name, reason]) => `${name} has no effect: ${reason}`);
}

/** The switches of the policy loss, and how its tokens are summed. */
export function lossOf(settings: GroupPolicySettings): { loss: PolicyLossOptions; aggregation: Aggregation } {
  const { lossType, epsilon, delta, beta, klPlace } = settings;
  const high = settings.epsilonHigh ?? epsilon;
  const clips: Partial<Record<typeof lossType, ClipOptions>> = {
    cispo: { kind: "cispo", max: settings.epsilonHigh ?? 5 },
    sapo: { kind: "soft", positive: settings.sapoTemperaturePos, negative: settings.sapoTemperatureNeg },
    reinforce: { kind: "log-prob" },
  };
  const loss: PolicyLossOptions = {
    ratio: settings.importanceSamplingLevel,
    clip: clips[lossType] ?? { kind: "ppo", low: epsilon, high, ...(delta === undefined ? {} : { dual: delta }) },
    beta: klPlace === "loss" ? beta : 0,
    klEstimator: settings.klEstimator,
    biasCorrectedKl: settings.useBiasCorrectionKl,
    entropyCoefficient: settings.entropyCoef,
    ...(settings.offPolicyMaskThreshold === undefined ? {} : { offPolicyThreshold: settings.offPolicyMaskThreshold }),
  };
  const rules: Record<typeof lossType, Aggregation> = {
    grpo: "seq-mean-token-mean",
    sapo: "seq-mean-token-mean",
    bnpo: "token-mean",
    dapo: "token-mean",
    cispo: "token-mean",
    dr_grpo: "seq-mean-token-sum-norm",
    luspo: "seq-mean-token-sum",
    reinforce: "seq-mean-token-sum",
  };
  return { loss, aggregation: rules[lossType] };
}
