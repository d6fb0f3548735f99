// Reacher: bring the fingertip of an arm of two links to a target. Rewards and observations as in Gymnasium 1.4 (v5).
import { z } from "zod";
import type { Random } from "../../../../runtime/rng.ts";
import { reacherModel } from "./models/reacher.ts";
import type { Simulation } from "./simulation.ts";
import { addUniformNoise, commonOptions, defineTask, sumOfSquares, type Task, type Verdict, weight } from "./task.ts";

/** Targets lie within this of the shoulder, in metres. */
const reach = 0.2;

class Reach implements Task {
  // Cosine and sine of two angles, the target, two velocities, and the way from the target to the fingertip.
  readonly observationSize = 10;
  readonly memory = new Float64Array(0);
  readonly info: Record<string, number> = {};
  readonly #simulation: Simulation;
  readonly #distanceWeight: number;
  readonly #controlWeight: number;
  readonly #fingertip: number;
  readonly #target: number;

  constructor(simulation: Simulation, distanceWeight: number, controlWeight: number) {
    this.#simulation = simulation;
    this.#distanceWeight = distanceWeight;
    this.#controlWeight = controlWeight;
    this.#fingertip = 3 * simulation.bodyNumber("fingertip");
    this.#target = 3 * simulation.bodyNumber("target");
  }

  start(random: Random): void {
    const { qpos, qvel } = this.#simulation.views;
    addUniformNoise(qpos, 0.1, random);
    let [x, y] = [0, 0];
    do {
      x = reach * (2 * random.uniform() - 1);
      y = reach * (2 * random.uniform() - 1);
    } while (Math.hypot(x, y) >= reach);
    const last = qpos.length - 1;
    qpos[last - 1] = x;
    qpos[last] = y;
    addUniformNoise(qvel, 0.005, random);
    qvel.fill(0, qvel.length - 2);
  }

  remember(): void {}

  judge(action: ArrayLike<number>, verdict: Verdict): void {
    const { xpos } = this.#simulation.views;
    const [finger, target, info] = [this.#fingertip, this.#target, this.info];
    const distance = Math.hypot(xpos[finger] - xpos[target], xpos[finger + 1] - xpos[target + 1], xpos[finger + 2] - xpos[target + 2]);
    info.rewardDist = -distance * this.#distanceWeight;
    info.rewardCtrl = -sumOfSquares(action) * this.#controlWeight;
    verdict.reward = info.rewardDist + info.rewardCtrl;
    verdict.terminated = false;
  }

  observe(out: Float64Array): void {
    const { qpos, qvel, xpos } = this.#simulation.views;
    const [finger, target] = [this.#fingertip, this.#target];
    out[0] = Math.cos(qpos[0]);
    out[1] = Math.cos(qpos[1]);
    out[2] = Math.sin(qpos[0]);
    out[3] = Math.sin(qpos[1]);
    out[4] = qpos[2];
    out[5] = qpos[3];
    out[6] = qvel[0];
    out[7] = qvel[1];
    out[8] = xpos[finger] - xpos[target];
    out[9] = xpos[finger + 1] - xpos[target + 1];
  }
}

export const reacher = defineTask({
  model: reacherModel,
  schema: z.object({
    ...commonOptions(2, 50),
    rewardDistWeight: weight(1, "Weight of the distance from the target, which is taken off"),
    rewardControlWeight: weight(1, "Weight of the sum of squared actions, which is taken off"),
  }),
  rewardThreshold: -3.75,
  scene: {
    ...{ from: "above", size: 0.7, center: [0, 0] },
    lines: [
      [
        [-0.3, -0.3],
        [0.3, -0.3],
      ],
      [
        [0.3, -0.3],
        [0.3, 0.3],
      ],
      [
        [0.3, 0.3],
        [-0.3, 0.3],
      ],
      [
        [-0.3, 0.3],
        [-0.3, -0.3],
      ],
    ],
  },
  create: (simulation, { rewardDistWeight, rewardControlWeight }) => new Reach(simulation, rewardDistWeight, rewardControlWeight),
});
