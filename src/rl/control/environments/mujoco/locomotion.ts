// Moving forward: HalfCheetah, Hopper, Walker2d, Swimmer and Ant are one task with different bodies, weights and ideas of health.
// Rewards, observations and ends as in Gymnasium 1.4 (v5).
import { z } from "zod";
import { UsageError } from "../../../../base/errors.ts";
import type { Random } from "../../../../runtime/rng.ts";
import { antModel } from "./models/ant.ts";
import { halfCheetahModel } from "./models/half-cheetah.ts";
import { hopperModel, walkerModel } from "./models/hopper-walker.ts";
import { swimmerModel } from "./models/swimmer.ts";
import type { Simulation } from "./simulation.ts";
import {
  addNormalNoise,
  addUniformNoise,
  clamp,
  commonOptions,
  defineTask,
  noiseScale,
  range,
  sumOfSquares,
  type Task,
  unbounded,
  type Verdict,
  weight,
} from "./task.ts";

interface Settings {
  readonly frameSkip: number;
  readonly forwardRewardWeight: number;
  readonly ctrlCostWeight: number;
  readonly resetNoiseScale: number;
  readonly excludeCurrentPositionsFromObservation: boolean;
}

interface HealthSettings {
  readonly healthyReward: number;
  readonly terminateWhenUnhealthy: boolean;
}

/** How one figure differs from the others. */
interface Gait {
  /** Leading positions that say where the figure is in the world, which the observation leaves out: x, or x and y. */
  readonly numPlaces: 1 | 2;
  /** Velocities are observed within ± this. */
  readonly velocityLimit?: number;
  readonly velocityNoise: "uniform" | "normal";
  /** The body whose place counts for the speed; absent: the first positions. */
  readonly trackedBody?: number;
  readonly health?: HealthSettings & { isHealthy(): boolean };
  /** How `info` gives the height above that of the model's first state. */
  readonly reportsHeight?: boolean;
  readonly contacts?: { readonly costWeight: number; readonly low: number; readonly high: number; readonly isObserved: boolean };
}

class Locomotion implements Task {
  readonly observationSize: number;
  /** x and y of what is tracked. After a step MuJoCo's places of bodies are those of its last stage, so they cannot be had from the state. */
  readonly memory = new Float64Array(2);
  readonly info: Record<string, number> = {};
  readonly #simulation: Simulation;
  readonly #settings: Settings;
  readonly #gait: Gait;
  readonly #numHidden: number;
  readonly #seconds: number;
  readonly #height: number;

  constructor(simulation: Simulation, settings: Settings, gait: Gait) {
    this.#simulation = simulation;
    this.#settings = settings;
    this.#gait = gait;
    this.#numHidden = settings.excludeCurrentPositionsFromObservation ? gait.numPlaces : 0;
    this.#seconds = settings.frameSkip * simulation.timestep;
    this.#height = simulation.model.qpos0[1];
    // The world itself, body 0, feels nothing.
    const numForces = gait.contacts?.isObserved ? 6 * (simulation.numBodies - 1) : 0;
    this.observationSize = simulation.numPositions - this.#numHidden + simulation.numVelocities + numForces;
  }

  start(random: Random): void {
    const { qpos, qvel } = this.#simulation.views;
    const { resetNoiseScale } = this.#settings;
    addUniformNoise(qpos, resetNoiseScale, random);
    const addNoise = this.#gait.velocityNoise === "normal" ? addNormalNoise : addUniformNoise;
    addNoise(qvel, resetNoiseScale, random);
  }

  remember(): void {
    const { trackedBody } = this.#gait;
    const { qpos, xpos } = this.#simulation.views;
    this.memory[0] = trackedBody === undefined ? qpos[0] : xpos[3 * trackedBody];
    this.memory[1] = trackedBody === undefined ? qpos[1] : xpos[3 * trackedBody + 1];
  }

  judge(action: ArrayLike<number>, verdict: Verdict): void {
    const [simulation, settings, gait, info] = [this.#simulation, this.#settings, this.#gait, this.info];
    const { qpos } = simulation.views;
    const [x, y] = [this.memory[0], this.memory[1]];
    this.remember();
    info.xPosition = qpos[0];
    info.xVelocity = (this.memory[0] - x) / this.#seconds;
    if (gait.numPlaces === 2) {
      info.yPosition = qpos[1];
      info.yVelocity = (this.memory[1] - y) / this.#seconds;
      info.distanceFromOrigin = Math.hypot(qpos[0], qpos[1]);
    }
    if (gait.reportsHeight) info.zDistanceFromOrigin = qpos[1] - this.#height;
    info.rewardForward = settings.forwardRewardWeight * info.xVelocity;
    info.rewardCtrl = -settings.ctrlCostWeight * sumOfSquares(action);
    let reward = info.rewardForward + info.rewardCtrl;
    if (gait.health) {
      const isHealthy = gait.health.isHealthy();
      info.rewardSurvive = isHealthy ? gait.health.healthyReward : 0;
      reward += info.rewardSurvive;
      verdict.terminated = !isHealthy && gait.health.terminateWhenUnhealthy;
    } else verdict.terminated = false;
    if (gait.contacts) {
      simulation.computeContactForces();
      info.rewardContact = -this.#contactCost(gait.contacts);
      reward += info.rewardContact;
    }
    verdict.reward = reward;
  }

  #contactCost({ costWeight, low, high }: NonNullable<Gait["contacts"]>): number {
    const { cfrc_ext } = this.#simulation.views;
    let sum = 0;
    for (let i = 0; i < cfrc_ext.length; i++) sum += clamp(cfrc_ext[i], low, high) ** 2;
    return costWeight * sum;
  }

  observe(out: Float64Array): void {
    const { qpos, qvel, cfrc_ext } = this.#simulation.views;
    const { velocityLimit, contacts } = this.#gait;
    let at = 0;
    for (let i = this.#numHidden; i < qpos.length; i++) out[at++] = qpos[i];
    for (let i = 0; i < qvel.length; i++) out[at++] = velocityLimit === undefined ? qvel[i] : clamp(qvel[i], -velocityLimit, velocityLimit);
    if (contacts?.isObserved) for (let i = 6; i < cfrc_ext.length; i++) out[at++] = clamp(cfrc_ext[i], contacts.low, contacts.high);
  }
}

const locomotionOptions = (ctrlCostWeight: number, resetNoiseScale: number) => ({
  forwardRewardWeight: weight(1, "Weight of the speed forward, in m/s"),
  ctrlCostWeight: weight(ctrlCostWeight, "Weight of the sum of squared actions, which is taken off"),
  resetNoiseScale: noiseScale(resetNoiseScale),
  excludeCurrentPositionsFromObservation: z.boolean().default(true).describe("Leave out where in the world the figure is"),
});

const healthOptions = {
  healthyReward: weight(1, "Reward of every step in good health"),
  terminateWhenUnhealthy: z.boolean().default(true).describe("End the episode when health is lost"),
};

/** Strictly between. */
const between = (value: number, [low, high]: readonly number[]): boolean => low < value && value < high;

/** Run with a two-legged cheetah; episodes do not end by themselves. */
export const halfCheetah = defineTask({
  model: halfCheetahModel,
  schema: z.object({ ...commonOptions(5), ...locomotionOptions(0.1, 0.1) }),
  rewardThreshold: 4800,
  scene: { from: "side", size: 3, follows: "x", center: [0, 1] },
  create: (simulation, settings) => new Locomotion(simulation, settings, { numPlaces: 1, velocityNoise: "normal" }),
});

/** Hop on one leg. Healthy: all of the state but x within `healthyStateRange`, height and pitch within theirs. */
export const hopper = defineTask({
  model: hopperModel,
  schema: z.object({
    ...commonOptions(4),
    ...locomotionOptions(1e-3, 5e-3),
    ...healthOptions,
    healthyStateRange: range(-100, 100, "Bounds of every position and velocity but x and the height"),
    healthyZRange: range(0.7, unbounded, "Bounds of the height of the torso, in metres"),
    healthyAngleRange: range(-0.2, 0.2, "Bounds of the torso's pitch, in radians"),
  }),
  rewardThreshold: 3800,
  scene: { from: "side", size: 3, follows: "x", center: [0, 1.2] },
  create(simulation, settings) {
    const { healthyStateRange, healthyZRange, healthyAngleRange } = settings;
    const isHealthy = (): boolean => {
      const { qpos, qvel } = simulation.views;
      if (!between(qpos[1], healthyZRange) || !between(qpos[2], healthyAngleRange)) return false;
      for (let i = 2; i < qpos.length; i++) if (!between(qpos[i], healthyStateRange)) return false;
      for (let i = 0; i < qvel.length; i++) if (!between(qvel[i], healthyStateRange)) return false;
      return true;
    };
    return new Locomotion(simulation, settings, {
      ...{ numPlaces: 1, velocityLimit: 10, velocityNoise: "uniform", reportsHeight: true },
      health: { ...settings, isHealthy },
    });
  },
});

/** Walk on two legs. */
export const walker2d = defineTask({
  model: walkerModel,
  schema: z.object({
    ...commonOptions(4),
    ...locomotionOptions(1e-3, 5e-3),
    ...healthOptions,
    healthyZRange: range(0.8, 2, "Bounds of the height of the torso, in metres"),
    healthyAngleRange: range(-1, 1, "Bounds of the torso's pitch, in radians"),
  }),
  scene: { from: "side", size: 3, follows: "x", center: [0, 1.2] },
  create(simulation, settings) {
    const isHealthy = (): boolean => {
      const { qpos } = simulation.views;
      return between(qpos[1], settings.healthyZRange) && between(qpos[2], settings.healthyAngleRange);
    };
    return new Locomotion(simulation, settings, {
      ...{ numPlaces: 1, velocityLimit: 10, velocityNoise: "uniform", reportsHeight: true },
      health: { ...settings, isHealthy },
    });
  },
});

/** Swim with three links; episodes do not end by themselves. */
export const swimmer = defineTask({
  model: swimmerModel,
  schema: z.object({ ...commonOptions(4), ...locomotionOptions(1e-4, 0.1) }),
  rewardThreshold: 360,
  scene: { from: "above", size: 6, follows: "xy", center: [0, 0] },
  create: (simulation, settings) => new Locomotion(simulation, settings, { numPlaces: 2, velocityNoise: "uniform" }),
});

/** Walk on four legs. The observation ends in the clamped contact force and torque of every body but the world. */
export const ant = defineTask({
  model: antModel,
  schema: z.object({
    ...commonOptions(5),
    ...locomotionOptions(0.5, 0.1),
    ...healthOptions,
    contactCostWeight: weight(5e-4, "Weight of the sum of squared contact forces, which is taken off"),
    contactForceRange: range(-1, 1, "Bounds that contact forces are clamped to"),
    healthyZRange: range(0.2, 1, "Bounds of the height of the torso, in metres"),
    mainBody: z.union([z.int().nonnegative(), z.string()]).default(1).describe("Number or name of the body whose speed counts"),
    includeCfrcExtInObservation: z.boolean().default(true).describe("Observe the contact forces"),
  }),
  rewardThreshold: 6000,
  scene: { from: "above", size: 4, follows: "xy", center: [0, 0] },
  create(simulation, settings) {
    const { mainBody, healthyZRange, contactForceRange, contactCostWeight, includeCfrcExtInObservation } = settings;
    const trackedBody = typeof mainBody === "string" ? simulation.bodyNumber(mainBody) : mainBody;
    if (trackedBody >= simulation.numBodies)
      throw new UsageError(`option \`mainBody\`: expected a body below ${simulation.numBodies}, got ${trackedBody}`);
    const isHealthy = (): boolean => {
      const height = simulation.views.qpos[2];
      return healthyZRange[0] <= height && height <= healthyZRange[1];
    };
    return new Locomotion(simulation, settings, {
      ...{ numPlaces: 2, velocityNoise: "normal", trackedBody },
      health: { ...settings, isHealthy },
      contacts: {
        ...{ costWeight: contactCostWeight, low: contactForceRange[0], high: contactForceRange[1] },
        isObserved: includeCfrcExtInObservation,
      },
    });
  },
});
