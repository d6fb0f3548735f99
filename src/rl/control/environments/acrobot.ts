// Acrobot (Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse coding"): swing the tip of two
// links above the line with a torque at the elbow. Dynamics and Runge-Kutta step as in Gymnasium's Acrobot-v1.
import { z } from "zod";
import type { JsonRecord } from "../../../engine/events.ts";
import { circle, type Drawing, line } from "../drawing.ts";
import { Box, Discrete } from "../spaces.ts";
import { NativeEnvironment, resetBounds, savedNumbers, settingsOf } from "./native-environment.ts";

const dt = 0.2;
const gravity = 9.8;
const mass1 = 1;
const mass2 = 1;
const length1 = 1;
/** From each link's upper end to its centre of mass. */
const center1 = 0.5;
const center2 = 0.5;
const inertia1 = 1;
const inertia2 = 1;
const maxVelocity1 = 4 * Math.PI;
const maxVelocity2 = 9 * Math.PI;

/** In SI units; `linkComPos` is the place of a link's centre of mass. */
const acrobotConstants = {
  dt,
  linkLength1: length1,
  linkLength2: 1,
  linkMass1: mass1,
  linkMass2: mass2,
  linkComPos1: center1,
  linkComPos2: center2,
  linkMoi: inertia1,
  maxVel1: maxVelocity1,
  maxVel2: maxVelocity2,
  availableTorque: [-1, 0, 1],
} as const;

export const acrobotSchema = z.object({
  dynamics: z.enum(["book", "nips"]).default("book").describe("Equations of Sutton and Barto's book, or of the 1996 paper"),
  torqueNoise: z.number().min(0).default(0).describe("Half width of uniform noise on the torque"),
});

/**
 * State: both angles (0 down; the second relative to the first) and their velocities. Observation: cosine and sine of each angle, then the
 * velocities. Actions: torque −1, 0, 1. Reward −1 for each step, 0 for the last.
 */
export class Acrobot extends NativeEnvironment<Float32Array, number> {
  static readonly constants = acrobotConstants;
  readonly actionSpace = Discrete(3);
  readonly observationSpace = Box([-1, -1, -1, -1, -maxVelocity1, -maxVelocity2], [1, 1, 1, 1, maxVelocity1, maxVelocity2]);
  readonly #nips: boolean;
  readonly #torqueNoise: number;
  readonly #state = new Float64Array(4);
  readonly #slopes = Array.from({ length: 4 }, () => new Float64Array(4));
  readonly #middle = new Float64Array(4);
  readonly #observation = new Float32Array(6);
  readonly #result = { observation: this.#observation, reward: 0.5, terminated: false, truncated: false };

  constructor(options?: z.input<typeof acrobotSchema>) {
    super();
    const { dynamics, torqueNoise } = settingsOf(acrobotSchema, options);
    this.#nips = dynamics === "nips";
    this.#torqueNoise = torqueNoise;
  }

  protected start(options: Readonly<Record<string, unknown>>): void {
    const [low, high] = resetBounds(options, -0.1, 0.1);
    // The first state has float32's precision in Gymnasium; the following ones do not.
    for (let i = 0; i < 4; i++) this.#state[i] = Math.fround(low + (high - low) * this.random.uniform());
  }

  step(action: number): { observation: Float32Array; reward: number; terminated: boolean; truncated: boolean } {
    let torque = this.choice(action, 3) - 1;
    if (this.#torqueNoise > 0) torque += this.#torqueNoise * (2 * this.random.uniform() - 1);
    const state = this.#state;
    this.#integrate(torque);
    state[0] = wrap(state[0]);
    state[1] = wrap(state[1]);
    state[2] = Math.min(Math.max(state[2], -maxVelocity1), maxVelocity1);
    state[3] = Math.min(Math.max(state[3], -maxVelocity2), maxVelocity2);
    const result = this.#result;
    result.terminated = -Math.cos(state[0]) - Math.cos(state[1] + state[0]) > 1;
    result.reward = result.terminated ? 0 : -1;
    this.observe();
    return result;
  }

  /** One step of the classic fourth-order Runge-Kutta method. */
  #integrate(torque: number): void {
    const [state, middle] = [this.#state, this.#middle];
    const [k1, k2, k3, k4] = this.#slopes;
    this.#derivative(state, torque, k1);
    for (let i = 0; i < 4; i++) middle[i] = state[i] + (dt / 2) * k1[i];
    this.#derivative(middle, torque, k2);
    for (let i = 0; i < 4; i++) middle[i] = state[i] + (dt / 2) * k2[i];
    this.#derivative(middle, torque, k3);
    for (let i = 0; i < 4; i++) middle[i] = state[i] + dt * k3[i];
    this.#derivative(middle, torque, k4);
    for (let i = 0; i < 4; i++) state[i] += (dt / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
  }

  #derivative(state: Float64Array, torque: number, out: Float64Array): void {
    const theta1 = state[0];
    const theta2 = state[1];
    const velocity1 = state[2];
    const velocity2 = state[3];
    const cos2 = Math.cos(theta2);
    const sin2 = Math.sin(theta2);
    const coupling = mass2 * length1 * center2;
    const d1 = mass1 * center1 ** 2 + mass2 * (length1 ** 2 + center2 ** 2 + 2 * length1 * center2 * cos2) + inertia1 + inertia2;
    const d2 = mass2 * (center2 ** 2 + length1 * center2 * cos2) + inertia2;
    const phi2 = mass2 * center2 * gravity * Math.cos(theta1 + theta2 - Math.PI / 2);
    const phi1 =
      -coupling * velocity2 ** 2 * sin2 -
      2 * coupling * velocity2 * velocity1 * sin2 +
      (mass1 * center1 + mass2 * length1) * gravity * Math.cos(theta1 - Math.PI / 2) +
      phi2;
    // The paper leaves out the term of the first velocity.
    const extra = this.#nips ? 0 : coupling * velocity1 ** 2 * sin2;
    const acceleration2 = (torque + (d2 / d1) * phi1 - extra - phi2) / (mass2 * center2 ** 2 + inertia2 - d2 ** 2 / d1);
    out[0] = velocity1;
    out[1] = velocity2;
    out[2] = -(d2 * acceleration2 + phi1) / d1;
    out[3] = acceleration2;
  }

  protected observe(): Float32Array {
    const [observation, state] = [this.#observation, this.#state];
    observation[0] = Math.cos(state[0]);
    observation[1] = Math.sin(state[0]);
    observation[2] = Math.cos(state[1]);
    observation[3] = Math.sin(state[1]);
    observation[4] = state[2];
    observation[5] = state[3];
    return observation;
  }

  protected pack(): JsonRecord {
    return { state: [...this.#state] };
  }

  protected unpack(state: JsonRecord): void {
    this.#state.set(savedNumbers(state, "state", 4));
  }

  drawing(): Drawing {
    const [theta1, theta2] = this.#state;
    const unit = 0.22;
    const elbow = [0.5 + unit * Math.sin(theta1), 0.5 - unit * Math.cos(theta1)] as const;
    const tip = [elbow[0] + unit * Math.sin(theta1 + theta2), elbow[1] - unit * Math.cos(theta1 + theta2)] as const;
    return {
      shapes: [
        line([0, 0.5 + unit], [1, 0.5 + unit], "good", 0.005),
        line([0.5, 0.5], elbow, "ink", 0.03),
        line(elbow, tip, "accent", 0.03),
        circle([0.5, 0.5], 0.02, "muted"),
        circle(elbow, 0.02, "muted"),
      ],
    };
  }
}

/** Into [−π, π]. */
function wrap(angle: number): number {
  let wrapped = angle;
  while (wrapped > Math.PI) wrapped -= 2 * Math.PI;
  while (wrapped < -Math.PI) wrapped += 2 * Math.PI;
  return wrapped;
}
