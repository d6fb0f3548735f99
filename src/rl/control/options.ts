// Settings of learning from reward in environments: one schema for every algorithm, with the names of Stable-Baselines3 spelt out. What
// tells algorithms apart is data: algorithmDefaults. Tuned values for known environments are in zoo.ts.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { policySchema } from "../../models/policy/config.ts";
import { advantageNormalisations } from "./updates/epochs.ts";

export const controlAlgorithms = ["ppo", "a2c", "trpo", "npg", "reinforce"] as const;
/** npg: natural policy gradient, TRPO without line search. reinforce: one policy-gradient step a rollout, with a value baseline (VPG). */
export type ControlAlgorithm = (typeof controlAlgorithms)[number];

const positive = z.int().positive();
const share = z.number().min(0).max(1);

export const controlSchema = z.strictObject({
  algo: z.enum(controlAlgorithms).default("ppo").describe("Algorithm; its usual settings are the defaults of the rest"),
  // Rollouts
  numEnvs: positive.max(65_536).default(1).describe("Environments that are stepped side by side"),
  numSteps: positive.default(2048).describe("Steps of each environment between two updates"),
  gamma: share.default(0.99).describe("Discount factor"),
  gaeLambda: share.default(0.95).describe("λ of generalised advantage estimation"),
  estimator: z
    .enum(["gae", "monte-carlo", "n-step", "spinning-up"])
    .default("gae")
    .describe("Advantages: GAE; returns to the episode's end; n rewards and a value; GAE with rewards-to-go as value targets"),
  nStep: positive.default(5).describe("Rewards of the n-step estimator"),
  bootstrapTruncation: z.boolean().default(true).describe("Add the value of the final observation where a time limit cut an episode"),
  sdeSampleFreq: z.int().min(-1).default(-1).describe("gSDE: new exploration noise every so many steps; -1: once a rollout"),
  normalizeObservations: z.boolean().default(false).describe("Normalise observations by their running mean and deviation"),
  normalizeRewards: z.boolean().default(false).describe("Divide rewards by the running deviation of their discounted sum"),
  clipObservation: z.number().positive().default(10).describe("Normalised observations are cut to ± this"),
  clipReward: z.number().positive().default(10).describe("Normalised rewards are cut to ± this"),
  // Updates
  learningRate: z.number().nonnegative().default(3e-4).describe("Learning rate (of the value network alone for trpo and npg)"),
  learningRateSchedule: z.enum(["constant", "linear"]).default("constant").describe("linear: falls to 0 over the run"),
  valueLearningRate: z.number().nonnegative().optional().describe("Train the value network by itself at this rate, after the policy"),
  valueEpochs: positive.default(80).describe("Passes of a value network that is trained by itself"),
  batchSize: positive.default(64).describe("Samples of a minibatch (of the value network alone for trpo and npg)"),
  numEpochs: positive.default(10).describe("Passes over a rollout"),
  normalizeAdvantage: z
    .enum(advantageNormalisations)
    .default("minibatch")
    .describe("Where advantages are normalised; spinning-up: over the rollout, by the population's deviation"),
  entropyCoefficient: z.number().default(0).describe("Coefficient of the entropy bonus"),
  valueCoefficient: z.number().nonnegative().default(0.5).describe("Coefficient of the value loss"),
  maxGradNorm: z.number().positive().default(0.5).describe("Gradients are scaled down to this global norm"),
  optimizer: z.enum(["adam", "rmsprop", "rmsprop-tf-like", "sgd"]).default("adam").describe("Optimiser"),
  optimizerEpsilon: z.number().positive().default(1e-5).describe("Epsilon of the optimiser"),
  weightDecay: z.number().nonnegative().default(0).describe("L2 weight decay"),
  // PPO
  clipRange: z.number().positive().default(0.2).describe("ppo: ratios count up to 1 ± this"),
  clipRangeSchedule: z.enum(["constant", "linear"]).default("constant").describe("linear: falls to 0 over the run"),
  clip: z.boolean().default(true).describe("ppo: clip ratios; without, a KL penalty should hold the policy back"),
  dualClip: z.number().gt(1).optional().describe("ppo: ratios of negative advantages count up to this (Ye et al. 2020)"),
  valueClip: z
    .enum(["none", "clipped", "max"])
    .default("none")
    .describe("Value loss of predictions kept near the old ones: alone (Stable-Baselines3), or the larger of both (PPO2)"),
  clipRangeValue: z.number().positive().default(0.2).describe("How near, in units of the value"),
  klPenalty: z.enum(["none", "fixed", "adaptive"]).default("none").describe("ppo: add β KL(old policy, policy) to the loss"),
  klCoefficient: z.number().nonnegative().default(1).describe("β, where adaptive at the start"),
  targetKl: z
    .number()
    .positive()
    .optional()
    .describe("trpo, npg: bound of the KL (0.01). ppo: stop an update above 1.5 times this; aim of the adaptive β"),
  // TRPO and natural gradient
  cgMaxSteps: positive.default(15).describe("Steps of conjugate gradients"),
  cgDamping: z.number().nonnegative().default(0.1).describe("Added to the diagonal of the Fisher matrix"),
  lineSearchMaxIterations: positive.default(10).describe("Step sizes that are tried"),
  lineSearchShrinkingFactor: z.number().gt(0).lt(1).default(0.8).describe("From one step size to the next"),
  minImprovementRatio: z.number().nonnegative().default(0).describe("Least share of the promised improvement; 0: any improvement will do"),
  numCriticUpdates: positive.default(10).describe("Passes of the value network"),
  subSamplingFactor: positive.default(1).describe("The policy's step uses every so many-th sample"),
  fisherSubSampling: positive.default(1).describe("Fisher products use every so many-th of these (paper: 10)"),
  klDirection: z.enum(["new-old", "old-new"]).default("new-old").describe("KL(new, old) as sb3-contrib, or KL(old, new) as the paper"),
  klReduction: z
    .enum(["sum", "mean"])
    .default("sum")
    .describe("KL of several action dimensions; mean: sb3-contrib, a bound that many times wider"),
  fisher: z
    .enum(["gauss-newton", "kl-hessian"])
    .default("gauss-newton")
    .describe("How Fisher products are computed; the results are equal"),
  // Policy
  ...policySchema.shape,
  precision: z.enum(["float32", "float64"]).default("float32").describe("Arithmetic of the networks"),
  // Watching
  statsWindow: positive.default(100).describe("Episodes that the rollout statistics are means over"),
  evaluationEpisodes: positive.default(10).describe("Episodes of an evaluation"),
  evaluationEnvs: positive.max(1024).default(1).describe("Environments of an evaluation"),
  deterministicEvaluation: z.boolean().default(true).describe("Evaluate with the most probable actions"),
  rewardThreshold: z.number().optional().describe("End the run when an evaluation's mean return reaches this"),
});

export type ControlOptions = z.input<typeof controlSchema>;
export type ControlSettings = z.output<typeof controlSchema>;

/** What differs from the schema's defaults, which are Stable-Baselines3's PPO. */
export const algorithmDefaults: Readonly<Record<ControlAlgorithm, ControlOptions>> = {
  ppo: {},
  a2c: {
    numSteps: 5,
    gaeLambda: 1,
    learningRate: 7e-4,
    numEpochs: 1,
    optimizer: "rmsprop",
    normalizeAdvantage: "none",
  },
  trpo: { gaeLambda: 0.95, learningRate: 1e-3, batchSize: 128, normalizeAdvantage: "batch", targetKl: 0.01 },
  npg: { gaeLambda: 0.95, learningRate: 1e-3, batchSize: 128, normalizeAdvantage: "batch", targetKl: 0.01 },
  reinforce: {
    numSteps: 4000,
    gaeLambda: 0.97,
    estimator: "spinning-up",
    learningRate: 3e-4,
    valueLearningRate: 1e-3,
    valueEpochs: 80,
    numEpochs: 1,
    normalizeAdvantage: "spinning-up",
    optimizerEpsilon: 1e-8,
    logStdInit: -0.5,
    orthogonal: false,
  },
};

const gradient = ["ppo", "a2c", "reinforce"] as const;
const trustRegion = ["trpo", "npg"] as const;

/** Which algorithms read an option; all of them read the others. */
const readers: Partial<Record<keyof ControlSettings, readonly ControlAlgorithm[]>> = {
  clipRange: ["ppo"],
  clipRangeSchedule: ["ppo"],
  clip: ["ppo"],
  dualClip: ["ppo"],
  batchSize: ["ppo", ...trustRegion],
  numEpochs: gradient,
  valueClip: gradient,
  clipRangeValue: gradient,
  klCoefficient: gradient,
  targetKl: ["ppo", ...trustRegion],
  valueCoefficient: gradient,
  entropyCoefficient: gradient,
  maxGradNorm: gradient,
  valueLearningRate: gradient,
  valueEpochs: gradient,
  cgMaxSteps: trustRegion,
  cgDamping: trustRegion,
  numCriticUpdates: trustRegion,
  subSamplingFactor: trustRegion,
  fisherSubSampling: trustRegion,
  klDirection: trustRegion,
  klReduction: trustRegion,
  fisher: trustRegion,
  lineSearchMaxIterations: ["trpo"],
  lineSearchShrinkingFactor: ["trpo"],
  minImprovementRatio: ["trpo"],
};

/**
 * What to say of options that were changed and that this algorithm does not read.
 * @param usual values that do not count as changed, over the schema's.
 */
export function ignoredControlOptions(settings: ControlSettings, usual: ControlOptions = {}): string[] {
  return (Object.entries(readers) as [keyof ControlSettings, readonly ControlAlgorithm[]][])
    .filter(([name, algorithms]) => {
      // The adaptive penalty of any algorithm aims at it.
      if (name === "targetKl" && settings.klPenalty === "adaptive") return false;
      const expected = usual[name] ?? controlSchema.shape[name].parse(undefined);
      return !algorithms.includes(settings.algo) && settings[name] !== expected;
    })
    .map(([name, algorithms]) => `${name} has no effect: ${settings.algo} does not read it, ${algorithms.join(", ")} would`);
}

/**
 * Settings with the algorithm's usual values below those given.
 * @throws UsageError for an option that is unknown, out of range, or at odds with another.
 */
export function controlSettings(options: ControlOptions): ControlSettings {
  const { algo } = parseOptions(controlSchema, options);
  const settings = parseOptions(controlSchema, { ...algorithmDefaults[algo], ...options });
  const total = settings.numEnvs * settings.numSteps;
  if (settings.algo === "ppo" && total === 1 && settings.normalizeAdvantage !== "none")
    throw new UsageError("numSteps, numEnvs: expected at least two samples a rollout to normalise advantages, got 1");
  if ((settings.algo === "trpo" || settings.algo === "npg") && settings.klPenalty !== "none")
    throw new UsageError(`klPenalty: expected none for ${settings.algo}, which bounds the KL, got ${settings.klPenalty}`);
  if (settings.klPenalty === "adaptive" && settings.targetKl === undefined)
    throw new UsageError("targetKl: expected a KL for the adaptive penalty to aim at, got none", { hint: "For example 0.01." });
  return settings;
}
