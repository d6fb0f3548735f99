// InvertedPendulum and InvertedDoublePendulum: keep poles on a cart upright. Rewards, observations and ends as in Gymnasium 1.4 (v5).
import { z } from "zod";
import type { Random } from "../../../../runtime/rng.ts";
import { doublePendulumModel, pendulumModel } from "./models/pendulums.ts";
import type { Simulation } from "./simulation.ts";
import {
  addNormalNoise,
  addUniformNoise,
  clamp,
  commonOptions,
  defineTask,
  noiseScale,
  type Scene,
  type Task,
  type Verdict,
  weight,
} from "./task.ts";

/** Radians from upright. */
const angleLimit = 0.2;
/** Metres that the tip of two poles of 0.6 each must stay above the cart. */
const tipLimit = 1;
/** What the tip is rewarded for: its height aimed at, above what two poles reach. */
const tipGoal = 2;
const velocityLimit = 10;

const scene: Scene = {
  from: "side",
  size: 3,
  center: [0, 0.6],
  lines: [
    [
      [-1, 0],
      [1, 0],
    ],
  ],
};

class Pendulum implements Task {
  readonly observationSize: number;
  readonly memory = new Float64Array(0);
  readonly info: Record<string, number> = {};
  readonly #simulation: Simulation;
  readonly #noise: number;

  constructor(simulation: Simulation, noise: number) {
    this.#simulation = simulation;
    this.#noise = noise;
    this.observationSize = simulation.numPositions + simulation.numVelocities;
  }

  start(random: Random): void {
    const { qpos, qvel } = this.#simulation.views;
    addUniformNoise(qpos, this.#noise, random);
    addUniformNoise(qvel, this.#noise, random);
  }

  remember(): void {}

  judge(_action: ArrayLike<number>, verdict: Verdict): void {
    verdict.terminated = Math.abs(this.#simulation.views.qpos[1]) > angleLimit;
    verdict.reward = verdict.terminated ? 0 : 1;
    this.info.rewardSurvive = verdict.reward;
  }

  observe(out: Float64Array): void {
    const { qpos, qvel } = this.#simulation.views;
    out.set(qpos);
    out.set(qvel, qpos.length);
  }
}

class DoublePendulum implements Task {
  readonly observationSize: number;
  readonly memory = new Float64Array(0);
  readonly info: Record<string, number> = {};
  readonly #simulation: Simulation;
  readonly #noise: number;
  readonly #healthyReward: number;

  constructor(simulation: Simulation, noise: number, healthyReward: number) {
    this.#simulation = simulation;
    this.#noise = noise;
    this.#healthyReward = healthyReward;
    // The cart's place, sine and cosine of each angle, the velocities, the force that keeps the cart on its rail.
    this.observationSize = 1 + 2 * (simulation.numPositions - 1) + simulation.numVelocities + 1;
  }

  start(random: Random): void {
    const { qpos, qvel } = this.#simulation.views;
    addUniformNoise(qpos, this.#noise, random);
    addNormalNoise(qvel, this.#noise, random);
  }

  remember(): void {}

  judge(_action: ArrayLike<number>, verdict: Verdict): void {
    const { site_xpos, qvel } = this.#simulation.views;
    const info = this.info;
    const height = site_xpos[2];
    verdict.terminated = height <= tipLimit;
    info.rewardSurvive = verdict.terminated ? 0 : this.#healthyReward;
    info.distancePenalty = -(0.01 * site_xpos[0] ** 2 + (height - tipGoal) ** 2);
    info.velocityPenalty = -(1e-3 * qvel[1] ** 2 + 5e-3 * qvel[2] ** 2);
    verdict.reward = info.rewardSurvive + info.distancePenalty + info.velocityPenalty;
  }

  observe(out: Float64Array): void {
    const { qpos, qvel, qfrc_constraint } = this.#simulation.views;
    let at = 0;
    out[at++] = qpos[0];
    for (let i = 1; i < qpos.length; i++) out[at++] = Math.sin(qpos[i]);
    for (let i = 1; i < qpos.length; i++) out[at++] = Math.cos(qpos[i]);
    for (let i = 0; i < qvel.length; i++) out[at++] = clamp(qvel[i], -velocityLimit, velocityLimit);
    out[at] = clamp(qfrc_constraint[0], -velocityLimit, velocityLimit);
  }
}

/** One pole. Reward 1 for each step within 0.2 rad of upright. */
export const invertedPendulum = defineTask({
  model: pendulumModel,
  schema: z.object({ ...commonOptions(2), resetNoiseScale: noiseScale(0.01) }),
  rewardThreshold: 950,
  scene,
  create: (simulation, { resetNoiseScale }) => new Pendulum(simulation, resetNoiseScale),
});

/** Two poles, one on the other, the tip to stay above 1 m. */
export const invertedDoublePendulum = defineTask({
  model: doublePendulumModel,
  schema: z.object({
    ...commonOptions(5),
    healthyReward: weight(10, "Reward of every step with the tip above 1 m"),
    resetNoiseScale: noiseScale(0.1),
  }),
  rewardThreshold: 9100,
  scene,
  create: (simulation, { resetNoiseScale, healthyReward }) => new DoublePendulum(simulation, resetNoiseScale, healthyReward),
});
