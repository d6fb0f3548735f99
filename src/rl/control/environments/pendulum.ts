// Pendulum: swing up a rod and hold it there with a limited torque, as in Gymnasium's Pendulum-v1. It never terminates.
import { z } from "zod";
import { UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import { circle, type Drawing, line } from "../drawing.ts";
import { Box } from "../spaces.ts";
import { NativeEnvironment, savedNumbers, settingsOf } from "./native-environment.ts";

const maxSpeed = 8;
const maxTorque = 2;
const dt = 0.05;
const mass = 1;
const length = 1;

/** In SI units. */
const pendulumConstants = { maxSpeed, maxTorque, dt, g: 10, m: mass, l: length } as const;

export const pendulumSchema = z.object({
  g: z.number().default(10).describe("Acceleration of gravity, m/s²"),
});

/** State: angle (0 upright) and its velocity. Observation: cosine, sine, velocity. Action: a torque, cut to [−2, 2]. */
export class Pendulum extends NativeEnvironment<Float32Array, ArrayLike<number>> {
  static readonly constants = pendulumConstants;
  readonly actionSpace = Box(-maxTorque, maxTorque, [1]);
  readonly observationSpace = Box([-1, -1, -maxSpeed], [1, 1, maxSpeed]);
  readonly #g: number;
  #angle = 0;
  #velocity = 0;
  #torque = 0;
  readonly #observation = new Float32Array(3);
  readonly #result = { observation: this.#observation, reward: 0.5, terminated: false, truncated: false };

  constructor(options?: z.input<typeof pendulumSchema>) {
    super();
    this.#g = settingsOf(pendulumSchema, options).g;
  }

  /** The options `xInit` (π) and `yInit` (1) are the largest first angle and velocity, both ways. */
  protected start(options: Readonly<Record<string, unknown>>): void {
    for (const key of Object.keys(options))
      if (key !== "xInit" && key !== "yInit") throw new UsageError(`reset: expected the options \`xInit\` and \`yInit\`, got \`${key}\``);
    const { xInit = Math.PI, yInit = 1 } = options as { xInit?: number; yInit?: number };
    if (!Number.isFinite(xInit) || !Number.isFinite(yInit)) throw new UsageError(`reset: expected numbers, got ${xInit} and ${yInit}`);
    this.#angle = xInit * (2 * this.random.uniform() - 1);
    this.#velocity = yInit * (2 * this.random.uniform() - 1);
    this.#torque = 0;
  }

  step(action: ArrayLike<number>): { observation: Float32Array; reward: number; terminated: boolean; truncated: boolean } {
    const torque = Math.min(Math.max(this.scalar(action), -maxTorque), maxTorque);
    const angle = this.#angle;
    const velocity = this.#velocity;
    const fromUpright = positiveModulo(angle + Math.PI, 2 * Math.PI) - Math.PI;
    this.#result.reward = -(fromUpright ** 2 + 0.1 * velocity ** 2 + 0.001 * torque ** 2);
    const faster = velocity + (((3 * this.#g) / (2 * length)) * Math.sin(angle) + (3 / (mass * length ** 2)) * torque) * dt;
    this.#velocity = Math.min(Math.max(faster, -maxSpeed), maxSpeed);
    this.#angle = angle + this.#velocity * dt;
    this.#torque = torque;
    this.observe();
    return this.#result;
  }

  protected observe(): Float32Array {
    this.#observation[0] = Math.cos(this.#angle);
    this.#observation[1] = Math.sin(this.#angle);
    this.#observation[2] = this.#velocity;
    return this.#observation;
  }

  protected pack(): JsonRecord {
    return { state: [this.#angle, this.#velocity] };
  }

  protected unpack(state: JsonRecord): void {
    [this.#angle, this.#velocity] = savedNumbers(state, "state", 2);
    this.#torque = 0;
  }

  drawing(): Drawing {
    const tip = [0.5 - 0.35 * Math.sin(this.#angle), 0.5 + 0.35 * Math.cos(this.#angle)] as const;
    const torqueBar = 0.5 - (0.3 * this.#torque) / maxTorque;
    return {
      shapes: [line([0.5, 0.5], tip, "accent", 0.05), circle([0.5, 0.5], 0.02, "ink"), line([0.5, 0.06], [torqueBar, 0.06], "muted", 0.02)],
    };
  }
}

/** The remainder with the sign of the divisor. */
const positiveModulo = (value: number, divisor: number): number => ((value % divisor) + divisor) % divisor;
