// Learning from reward: estimators and the policy loss (core), and language models (text).
export {
  type GroupAdvantageOptions,
  type GroupEstimator,
  groupAdvantages,
  groupEstimators,
  type ProcessRewards,
  processAdvantages,
  tokenReturns,
} from "./core/advantages.ts";
export { type Aggregation, type AggregationOptions, aggregations, aggregationWeights } from "./core/aggregation.ts";
export { adaptKlCoefficient, type KlEstimator, type KlOptions, klDivergence, klDivergenceOf, klEstimators } from "./core/kl.ts";
export { highEntropyMask } from "./core/masks.ts";
export {
  type ClipOptions,
  type PolicyLoss,
  type PolicyLossInputs,
  type PolicyLossOptions,
  policyLoss,
  type RatioLevel,
  ratioLevels,
} from "./core/policy-loss.ts";
export { type PolicyPreset, type PolicyPresetName, policyPresets } from "./core/presets.ts";
export {
  leaveOneOutAdvantages,
  type RewardAdvantageOptions,
  type RewardAdvantages,
  rewardAdvantages,
} from "./core/reward-advantages.ts";
export { maskedMoments, type WhitenOptions, whiten } from "./core/whitening.ts";
export { drawPolicy, drawValues, type GridWorld, type GridWorldOptions, gridActions, gridWorld } from "./tabular/grid-world.ts";
export {
  actionValues,
  averageReward,
  averageValue,
  discountedVisits,
  type MdpDescription,
  softmaxPolicy,
  startValue,
  stateValues,
  stationaryDistribution,
  type TabularMdp,
  type TabularPolicy,
  tabularMdp,
  valueIteration,
} from "./tabular/mdp.ts";
export {
  averageRewardGradient,
  averageValueGradient,
  discountedApproximation,
  gradientOf,
  optimalBaseline,
  startValueGradient,
} from "./tabular/policy-gradient.ts";
export {
  type ActorCriticOptions,
  actorCritic,
  addReinforceGradient,
  type ReinforceOptions,
  sampleEpisode,
  type TabularEpisode,
} from "./tabular/sampled.ts";
export { type GroupPolicyData, type GroupPolicyHooks, GroupPolicyTrainer } from "./text/group-policy.ts";
export { namedReward, namedRewardUsages } from "./text/named-rewards.ts";
export { type GroupPolicyOptions, type GroupPolicySettings, groupPolicySchema, ignoredSettings } from "./text/options.ts";
export { type GroupPolicyPresetName, groupPolicyPresets, type TextPreset } from "./text/presets.ts";
export type { Prompt } from "./text/prompts.ts";
export {
  type Reward,
  RewardError,
  type RewardInput,
  type RewardOptions,
  type RewardSample,
  type RewardTable,
  type RewardValue,
  scoreSamples,
} from "./text/rewards.ts";
export type { PolicyDecoder, RolloutWeights } from "./text/rollout-programs.ts";
export { type Completion, type RolloutOptions, Rollouts } from "./text/rollouts.ts";
