// Presets are data. The zoo: hyper-parameters that rl-baselines3-zoo tuned for an environment (hyperparams/{a2c,ppo,trpo}.yml, 2026-04;
// its -v3 and -v4 MuJoCo entries, and Pendulum-v0 of A2C, stand for the present versions), with the length of the run that they belong to
// and the return that its benchmark.md reports for one run. Styles: the usual settings of other libraries.
import type { ControlAlgorithm, ControlOptions } from "./options.ts";

export interface ZooEntry {
  readonly algo: ControlAlgorithm;
  readonly env: string;
  /** Environment steps of the tuned run. */
  readonly steps: number;
  readonly options: Omit<ControlOptions, "algo">;
  /** Mean and standard deviation over evaluation episodes of one trained agent, where the zoo reports one. */
  readonly reported?: readonly [mean: number, std?: number];
}

const normalize = { normalizeObservations: true, normalizeRewards: true } as const;
const sde = { useSde: true } as const;
const wideRelu = { logStdInit: -2, orthogonal: false, activation: "relu", hidden: [256, 256] } as const satisfies ControlOptions;
const trpoMujoco = {
  ...normalize,
  numEnvs: 2,
  batchSize: 128,
  numSteps: 1024,
  gamma: 0.99,
  gaeLambda: 0.95,
  cgMaxSteps: 25,
  cgDamping: 0.1,
  numCriticUpdates: 20,
  learningRate: 1e-3,
  // sb3-contrib bounds the mean over action dimensions.
  klReduction: "mean",
} as const satisfies ControlOptions;
const mujocoPpo = { ...normalize, numEnvs: 1, numSteps: 512, ...wideRelu } as const satisfies ControlOptions;

const ppo: readonly Omit<ZooEntry, "algo">[] = [
  {
    env: "CartPole-v1",
    steps: 1e5,
    options: {
      numEnvs: 8,
      numSteps: 32,
      batchSize: 256,
      gaeLambda: 0.8,
      gamma: 0.98,
      numEpochs: 20,
      learningRate: 1e-3,
      learningRateSchedule: "linear",
      clipRange: 0.2,
      clipRangeSchedule: "linear",
    },
    reported: [500, 0],
  },
  {
    env: "Pendulum-v1",
    steps: 1e5,
    options: {
      numEnvs: 4,
      numSteps: 1024,
      gaeLambda: 0.95,
      gamma: 0.9,
      numEpochs: 10,
      learningRate: 1e-3,
      clipRange: 0.2,
      ...sde,
      sdeSampleFreq: 4,
    },
    reported: [-172.2, 104],
  },
  {
    env: "MountainCar-v0",
    steps: 1e6,
    options: { ...normalize, numEnvs: 16, numSteps: 16, gaeLambda: 0.98, gamma: 0.99, numEpochs: 4 },
    reported: [-110.4],
  },
  {
    env: "MountainCarContinuous-v0",
    steps: 20_000,
    options: {
      ...normalize,
      numEnvs: 1,
      batchSize: 256,
      numSteps: 8,
      gamma: 0.9999,
      learningRate: 7.77e-5,
      entropyCoefficient: 0.00429,
      clipRange: 0.1,
      numEpochs: 10,
      gaeLambda: 0.9,
      maxGradNorm: 5,
      valueCoefficient: 0.19,
      ...sde,
      logStdInit: -3.29,
      orthogonal: false,
    },
    reported: [88.3],
  },
  {
    env: "Acrobot-v1",
    steps: 1e6,
    options: { ...normalize, numEnvs: 16, numSteps: 256, gaeLambda: 0.94, gamma: 0.99, numEpochs: 4 },
    reported: [-73.5, 18.2],
  },
  { env: "Ant-v5", steps: 1e6, options: { ...normalize }, reported: [1327, 452] },
  {
    env: "HalfCheetah-v5",
    steps: 1e6,
    options: {
      ...mujocoPpo,
      batchSize: 64,
      gamma: 0.98,
      learningRate: 2.0633e-5,
      entropyCoefficient: 0.000401762,
      clipRange: 0.1,
      numEpochs: 20,
      gaeLambda: 0.92,
      maxGradNorm: 0.8,
      valueCoefficient: 0.58096,
    },
    reported: [5819, 664],
  },
  {
    env: "Hopper-v5",
    steps: 1e6,
    options: {
      ...mujocoPpo,
      batchSize: 32,
      gamma: 0.999,
      learningRate: 9.80828e-5,
      entropyCoefficient: 0.00229519,
      clipRange: 0.2,
      numEpochs: 5,
      gaeLambda: 0.99,
      maxGradNorm: 0.7,
      valueCoefficient: 0.835671,
    },
    reported: [2410, 10],
  },
  {
    env: "Walker2d-v5",
    steps: 1e6,
    options: {
      ...normalize,
      numEnvs: 1,
      numSteps: 512,
      batchSize: 32,
      gamma: 0.99,
      learningRate: 5.05041e-5,
      entropyCoefficient: 0.000585045,
      clipRange: 0.1,
      numEpochs: 20,
      gaeLambda: 0.95,
      maxGradNorm: 1,
      valueCoefficient: 0.871923,
    },
    reported: [3479, 822],
  },
  {
    env: "Swimmer-v5",
    steps: 1e6,
    options: { ...normalize, gamma: 0.9999, numEnvs: 4, numSteps: 1024, batchSize: 256, learningRate: 6e-4, gaeLambda: 0.98 },
    reported: [281.6, 9.7],
  },
  {
    env: "InvertedPendulum-v5",
    steps: 1e6,
    options: {
      ...normalize,
      numEnvs: 1,
      batchSize: 64,
      numSteps: 32,
      gamma: 0.999,
      learningRate: 0.000222425,
      entropyCoefficient: 1.37976e-7,
      clipRange: 0.4,
      numEpochs: 5,
      gaeLambda: 0.9,
      maxGradNorm: 0.3,
      valueCoefficient: 0.19816,
    },
  },
  {
    env: "InvertedDoublePendulum-v5",
    steps: 1e6,
    options: {
      ...normalize,
      numEnvs: 1,
      batchSize: 512,
      numSteps: 128,
      gamma: 0.98,
      learningRate: 0.000155454,
      entropyCoefficient: 1.05057e-6,
      clipRange: 0.4,
      numEpochs: 10,
      gaeLambda: 0.8,
      maxGradNorm: 0.5,
      valueCoefficient: 0.695929,
    },
  },
  {
    env: "Reacher-v5",
    steps: 1e6,
    options: {
      ...normalize,
      numEnvs: 1,
      batchSize: 32,
      numSteps: 512,
      gamma: 0.9,
      learningRate: 0.000104019,
      entropyCoefficient: 7.52585e-8,
      clipRange: 0.3,
      numEpochs: 5,
      gaeLambda: 1,
      maxGradNorm: 0.9,
      valueCoefficient: 0.950368,
    },
  },
];

const a2cPendulum = {
  ...normalize,
  maxGradNorm: 0.5,
  numSteps: 8,
  gaeLambda: 0.9,
  valueCoefficient: 0.4,
  gamma: 0.99,
  learningRateSchedule: "linear",
  ...sde,
  logStdInit: -2,
  orthogonal: false,
} as const satisfies ControlOptions;

const a2c: readonly Omit<ZooEntry, "algo">[] = [
  { env: "CartPole-v1", steps: 5e5, options: { numEnvs: 8 }, reported: [500, 0] },
  { env: "MountainCar-v0", steps: 1e6, options: { ...normalize, numEnvs: 16 }, reported: [-111.3] },
  { env: "Acrobot-v1", steps: 5e5, options: { ...normalize, numEnvs: 16 }, reported: [-83.4, 17.2] },
  { env: "Pendulum-v1", steps: 1e6, options: { ...a2cPendulum, numEnvs: 8, learningRate: 7e-4 }, reported: [-163, 103] },
  {
    env: "MountainCarContinuous-v0",
    steps: 1e5,
    options: { ...normalize, numEnvs: 4, numSteps: 100, ...sde, sdeSampleFreq: 16, logStdInit: 0, orthogonal: false },
  },
  // The zoo's settings for the Bullet versions of these tasks, without its time feature.
  ...(["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Swimmer-v5"] as const).map((env) => ({
    env,
    steps: 1e6,
    options: { ...a2cPendulum, numEnvs: 4, learningRate: 9.6e-4 },
  })),
];

const trpo: readonly Omit<ZooEntry, "algo">[] = [
  {
    env: "CartPole-v1",
    steps: 1e5,
    options: {
      numEnvs: 2,
      numSteps: 512,
      batchSize: 512,
      cgDamping: 1e-3,
      gaeLambda: 0.98,
      gamma: 0.99,
      learningRate: 1e-3,
      numCriticUpdates: 20,
    },
    reported: [500, 0],
  },
  {
    env: "Pendulum-v1",
    steps: 1e5,
    options: { numEnvs: 2, numSteps: 1024, gamma: 0.9, numCriticUpdates: 15, ...sde, sdeSampleFreq: 4 },
    reported: [-174.6, 128],
  },
  { env: "Acrobot-v1", steps: 1e5, options: { ...normalize, numEnvs: 2, numSteps: 1024 }, reported: [-83.1, 18.6] },
  {
    env: "MountainCar-v0",
    steps: 1e5,
    options: { ...normalize, numEnvs: 2, numSteps: 1024, numCriticUpdates: 20 },
    reported: [-107.3],
  },
  {
    env: "MountainCarContinuous-v0",
    steps: 50_000,
    options: { ...normalize, numEnvs: 2, ...sde, sdeSampleFreq: 4 },
    reported: [92.5],
  },
  { env: "Ant-v5", steps: 1e6, options: trpoMujoco, reported: [4982, 664] },
  { env: "HalfCheetah-v5", steps: 1e6, options: { ...trpoMujoco, targetKl: 0.04 }, reported: [1785, 69] },
  { env: "Hopper-v5", steps: 1e6, options: trpoMujoco, reported: [3618, 357] },
  { env: "Walker2d-v5", steps: 1e6, options: trpoMujoco, reported: [4933, 1453] },
  { env: "Swimmer-v5", steps: 1e6, options: { ...trpoMujoco, gamma: 0.9999 }, reported: [365.7, 2.1] },
];

const withAlgo = (algo: ControlAlgorithm, entries: readonly Omit<ZooEntry, "algo">[]): ZooEntry[] =>
  entries.map((entry) => ({ algo, ...entry }));

export const zoo: readonly ZooEntry[] = [...withAlgo("ppo", ppo), ...withAlgo("a2c", a2c), ...withAlgo("trpo", trpo)];

/** The tuned entry for an algorithm and an environment, if there is one. */
export const zooEntry = (algo: string, env: string): ZooEntry | undefined => zoo.find((entry) => entry.algo === algo && entry.env === env);

/** Usual settings of libraries, over the algorithm's own. */
export const controlStyles = {
  sb3: {},
  "spinning-up": {
    ppo: {
      numSteps: 4000,
      batchSize: 4000,
      numEpochs: 80,
      gaeLambda: 0.97,
      estimator: "spinning-up",
      learningRate: 3e-4,
      valueLearningRate: 1e-3,
      valueEpochs: 80,
      targetKl: 0.01,
      normalizeAdvantage: "spinning-up",
      maxGradNorm: Number.MAX_VALUE,
      optimizerEpsilon: 1e-8,
      orthogonal: false,
      logStdInit: -0.5,
    },
    trpo: {
      numSteps: 4000,
      batchSize: 4000,
      numCriticUpdates: 80,
      gaeLambda: 0.97,
      estimator: "spinning-up",
      cgMaxSteps: 10,
      normalizeAdvantage: "spinning-up",
      optimizerEpsilon: 1e-8,
      orthogonal: false,
      logStdInit: -0.5,
    },
  },
  cleanrl: {
    ppo: {
      numEnvs: 4,
      numSteps: 128,
      batchSize: 128,
      numEpochs: 4,
      learningRate: 2.5e-4,
      learningRateSchedule: "linear",
      entropyCoefficient: 0.01,
      valueClip: "max",
      // Half a mean square there.
      valueCoefficient: 0.25,
      bootstrapTruncation: false,
    },
  },
  "cleanrl-continuous": {
    ppo: {
      numEnvs: 1,
      numSteps: 2048,
      batchSize: 64,
      numEpochs: 10,
      learningRate: 3e-4,
      learningRateSchedule: "linear",
      valueClip: "max",
      valueCoefficient: 0.25,
      bootstrapTruncation: false,
      ...normalize,
    },
  },
} as const satisfies Readonly<Record<string, Partial<Record<ControlAlgorithm, ControlOptions>>>>;

export type ControlStyle = keyof typeof controlStyles;

/**
 * Options of a library's style for an algorithm; `zoo` are the tuned ones for an environment, `auto` these where there are any.
 * @returns undefined where the style has nothing to say: the algorithm's own defaults then apply.
 */
export function presetOptions(style: ControlStyle | "zoo" | "auto", algo: ControlAlgorithm, env: string): ControlOptions | undefined {
  if (style === "zoo" || style === "auto") return zooEntry(algo, env)?.options;
  return (controlStyles[style] as Partial<Record<ControlAlgorithm, ControlOptions>>)[algo];
}
