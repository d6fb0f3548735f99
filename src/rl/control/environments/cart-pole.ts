// CartPole (Barto, Sutton and Anderson 1983): push a cart left or right so that the pole on it stays upright. The dynamics are those of
// Gymnasium's CartPole-v1 (Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction).
import { z } from "zod";
import type { JsonRecord } from "../../../engine/events.ts";
import { circle, type Drawing, line, rectangle } from "../drawing.ts";
import { Box, Discrete } from "../spaces.ts";
import { NativeEnvironment, resetBounds, savedNumbers, settingsOf } from "./native-environment.ts";

const gravity = 9.8;
const massCart = 1;
const massPole = 0.1;
const totalMass = massPole + massCart;
/** Half of the pole. */
const length = 0.5;
const poleMassLength = massPole * length;
const force = 10;
const tau = 0.02;
const angleLimit = (12 * 2 * Math.PI) / 360;
const positionLimit = 2.4;

/** In SI units; `length` is half of the pole. */
const cartPoleConstants = {
  gravity,
  massCart,
  massPole,
  length,
  forceMag: force,
  tau,
  thetaThreshold: angleLimit,
  xThreshold: positionLimit,
} as const;

export const cartPoleSchema = z.object({
  suttonBartoReward: z.boolean().default(false).describe("Reward 0 for each step and -1 for the fall, instead of 1 for each step"),
  integrator: z.enum(["euler", "semi-implicit-euler"]).default("euler").describe("How the equations of motion are stepped"),
});

/** State and observation: position, velocity, angle (radians, 0 upright), angular velocity. Actions: 0 left, 1 right. */
export class CartPole extends NativeEnvironment<Float32Array, number> {
  static readonly constants = cartPoleConstants;
  readonly actionSpace = Discrete(2);
  readonly observationSpace = Box(
    [-2 * positionLimit, Number.NEGATIVE_INFINITY, -2 * angleLimit, Number.NEGATIVE_INFINITY],
    [2 * positionLimit, Number.POSITIVE_INFINITY, 2 * angleLimit, Number.POSITIVE_INFINITY],
  );
  readonly #suttonBartoReward: boolean;
  readonly #semiImplicit: boolean;
  readonly #state = new Float64Array(4);
  readonly #observation = new Float32Array(4);
  readonly #result = { observation: this.#observation, reward: 0.5, terminated: false, truncated: false };
  #hasFallen = false;

  constructor(options?: z.input<typeof cartPoleSchema>) {
    super();
    const { suttonBartoReward, integrator } = settingsOf(cartPoleSchema, options);
    this.#suttonBartoReward = suttonBartoReward;
    this.#semiImplicit = integrator === "semi-implicit-euler";
  }

  protected start(options: Readonly<Record<string, unknown>>): void {
    const [low, high] = resetBounds(options, -0.05, 0.05);
    for (let i = 0; i < 4; i++) this.#state[i] = low + (high - low) * this.random.uniform();
    this.#hasFallen = false;
  }

  step(action: number): { observation: Float32Array; reward: number; terminated: boolean; truncated: boolean } {
    const push = this.choice(action, 2) === 1 ? force : -force;
    const state = this.#state;
    let x = state[0];
    let velocity = state[1];
    let angle = state[2];
    let angularVelocity = state[3];
    const cos = Math.cos(angle);
    const sin = Math.sin(angle);
    const common = (push + poleMassLength * (angularVelocity * angularVelocity) * sin) / totalMass;
    const angularAcceleration = (gravity * sin - cos * common) / (length * (4 / 3 - (massPole * (cos * cos)) / totalMass));
    const acceleration = common - (poleMassLength * angularAcceleration * cos) / totalMass;
    if (this.#semiImplicit) {
      velocity += tau * acceleration;
      x += tau * velocity;
      angularVelocity += tau * angularAcceleration;
      angle += tau * angularVelocity;
    } else {
      x += tau * velocity;
      velocity += tau * acceleration;
      angle += tau * angularVelocity;
      angularVelocity += tau * angularAcceleration;
    }
    state[0] = x;
    state[1] = velocity;
    state[2] = angle;
    state[3] = angularVelocity;
    const fallen = x < -positionLimit || x > positionLimit || angle < -angleLimit || angle > angleLimit;
    const result = this.#result;
    if (this.#suttonBartoReward) result.reward = fallen ? -1 : 0;
    else result.reward = fallen && this.#hasFallen ? 0 : 1;
    if (fallen) this.#hasFallen = true;
    result.terminated = fallen;
    this.observe();
    return result;
  }

  protected observe(): Float32Array {
    const observation = this.#observation;
    for (let i = 0; i < 4; i++) observation[i] = this.#state[i];
    return observation;
  }

  protected pack(): JsonRecord {
    return { state: [...this.#state], hasFallen: this.#hasFallen };
  }

  protected unpack(state: JsonRecord): void {
    this.#state.set(savedNumbers(state, "state", 4));
    this.#hasFallen = state.hasFallen === true;
  }

  drawing(): Drawing {
    const [x, , angle] = this.#state;
    const scale = 1 / (2 * positionLimit);
    const [cartX, axle] = [0.5 + x * scale, 0.32];
    const reach = 2 * length * scale;
    return {
      shapes: [
        line([0, 0.27], [1, 0.27], "muted", 0.005),
        rectangle([cartX - 0.06, 0.27], 0.12, 0.06),
        line([cartX, axle], [cartX + reach * Math.sin(angle), axle + reach * Math.cos(angle)], "accent", 0.03),
        circle([cartX, axle], 0.012, "muted"),
      ],
    };
  }
}
