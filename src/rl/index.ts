// Learning from reward: environments (control), estimators and the policy loss (core), and language models (text).

export {
  Agent,
  type AgentOptions,
  a2c,
  type EnvironmentSource,
  evaluatePolicy,
  type LearnOptions,
  loadAgentPolicy,
  npg,
  ppo,
  reinforce,
  trpo,
  type UsablePolicy,
} from "./control/agent.ts";
export { RolloutBuffer, type SampleBatch } from "./control/buffer.ts";
export {
  type Distribution,
  distributionFrom,
  distributionOf,
  type KlReduction,
  klOf,
} from "./control/distributions/distribution.ts";
export { unsquash } from "./control/distributions/gaussian.ts";
export type { Drawing, Point, Shape, Tone } from "./control/drawing.ts";
export * as shapes from "./control/drawing.ts";
export type {
  Autoreset,
  Environment,
  EnvironmentFactory,
  EnvironmentStep,
  FinishedEpisode,
  ResetOptions,
  Value,
  VectorEnvironment,
} from "./control/environment.ts";
export { Acrobot } from "./control/environments/acrobot.ts";
export { Blackjack } from "./control/environments/blackjack.ts";
export { CartPole } from "./control/environments/cart-pole.ts";
export { CliffWalking } from "./control/environments/cliff-walking.ts";
export { FrozenLake, randomFrozenLakeMap } from "./control/environments/frozen-lake.ts";
export { MountainCar, MountainCarContinuous } from "./control/environments/mountain-car.ts";
export { Pendulum } from "./control/environments/pendulum.ts";
export { decodeTaxi, encodeTaxi, Taxi } from "./control/environments/taxi.ts";
export type { Outcome, TabularEnvironment, TransitionTable } from "./control/environments/transition-table.ts";
export {
  type Advantages,
  discountedReturns,
  explainedVariance,
  type GaeOptions,
  gae,
  normaliseAdvantages,
  nStepReturns,
  type RolloutView,
  rewardsWithBootstrap,
  spinningUpGae,
} from "./control/estimators.ts";
export type { EpisodeResult } from "./control/evaluation.ts";
export { exportPolicy, policyToOnnx } from "./control/export.ts";
export {
  algorithmDefaults,
  type ControlAlgorithm,
  type ControlOptions,
  type ControlSettings,
  controlAlgorithms,
  controlSchema,
  controlSettings,
} from "./control/options.ts";
export { type ControlPolicy, loadControlPolicy, saveControlPolicy } from "./control/policy-file.ts";
export { type Prediction, type PredictOptions, Predictor } from "./control/predict.ts";
export { type EnvironmentInfo, environmentFactory, environmentIds, environmentInfo, makeEnvironment } from "./control/registry.ts";
export {
  Box,
  type BoxSpace,
  contains,
  Discrete,
  type DiscreteSpace,
  featureSize,
  MultiBinary,
  type MultiBinarySpace,
  MultiDiscrete,
  type MultiDiscreteSpace,
  type Space,
} from "./control/spaces.ts";
export { ControlTrainer, type ControlTrainerOptions } from "./control/trainer.ts";
export { batchEnvironments } from "./control/vector.ts";
export type { BatchOptions } from "./control/vector-slice.ts";
export type { EnvironmentSpec } from "./control/vector-spec.ts";
export { openEnvironments, type WorkerOptions, workerEnvironments } from "./control/vector-workers.ts";
export { clipAction, rescaleAction } from "./control/wrappers/actions.ts";
export { EnvironmentWrapper } from "./control/wrappers/environment-wrapper.ts";
export { EpisodeMonitor } from "./control/wrappers/episode-monitor.ts";
export { frameStack } from "./control/wrappers/frame-stack.ts";
export { type NormalisedReward, type NormaliseRewardOptions, normaliseReward } from "./control/wrappers/normalise-reward.ts";
export {
  type NormalisedEnvironments,
  type NormaliseOptions,
  normalise as normaliseEnvironments,
} from "./control/wrappers/normalised-environments.ts";
export { Normaliser, type NormaliserOptions } from "./control/wrappers/normaliser.ts";
export { timeLimit } from "./control/wrappers/time-limit.ts";
export { type ControlStyle, controlStyles, presetOptions, type ZooEntry, zoo, zooEntry } from "./control/zoo.ts";
export {
  type GroupAdvantageOptions,
  type GroupEstimator,
  groupAdvantages,
  groupEstimators,
  type ProcessRewards,
  processAdvantages,
  tokenReturns,
} from "./core/advantages.ts";
export { type AggregateScore, aggregateScores, interquartileMean } from "./core/aggregate-scores.ts";
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
export { RunningMoments, type RunningMomentsState } from "./core/running-moments.ts";
export { remaxAdvantages, type TokenAdvantages, tokenGae } from "./core/token-advantages.ts";
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
