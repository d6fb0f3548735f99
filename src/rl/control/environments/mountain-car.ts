// Mountain car (Moore 1990): an engine too weak for the hill must first swing back. Both versions of Gymnasium: three actions, or a force.
// Deliberately different: Gymnasium keeps the state of the continuous version in float32, here it is float64.
import { z } from "zod";
import type { JsonRecord } from "../../../engine/events.ts";
import { circle, curve, type Drawing, line, type Point, polygon } from "../drawing.ts";
import { Box, Discrete } from "../spaces.ts";
import { NativeEnvironment, resetBounds, savedNumbers, settingsOf } from "./native-environment.ts";

const minPosition = -1.2;
const maxPosition = 0.6;
const maxSpeed = 0.07;
const gravity = 0.0025;

const force = 0.001;
const goalPosition = 0.5;
const power = 0.0015;
const continuousGoalPosition = 0.45;

const shared = { minPosition, maxPosition, maxSpeed, goalVelocity: 0 };
const mountainCarConstants = { ...shared, goalPosition, force, gravity } as const;
const mountainCarContinuousConstants = {
  ...shared,
  goalPosition: continuousGoalPosition,
  power,
  minAction: -1,
  maxAction: 1,
} as const;

export const mountainCarSchema = z.object({
  goalVelocity: z.number().default(0).describe("Least velocity at the goal for it to count"),
});

/** What both versions share: the hill. */
abstract class HillCar<Action extends number | ArrayLike<number>> extends NativeEnvironment<Float32Array, Action> {
  readonly observationSpace = Box([minPosition, -maxSpeed], [maxPosition, maxSpeed]);
  protected position = 0;
  protected velocity = 0;
  protected readonly goalVelocity: number;
  protected abstract readonly goalPosition: number;
  protected readonly observation = new Float32Array(2);
  protected readonly result = { observation: this.observation, reward: 0.5, terminated: false, truncated: false };

  constructor(options?: z.input<typeof mountainCarSchema>) {
    super();
    this.goalVelocity = settingsOf(mountainCarSchema, options).goalVelocity;
  }

  protected start(options: Readonly<Record<string, unknown>>): void {
    const [low, high] = resetBounds(options, -0.6, -0.4);
    this.position = low + (high - low) * this.random.uniform();
    this.velocity = 0;
  }

  /** The hill's slope and its left wall, where the car stops dead. */
  protected roll(push: number): void {
    const faster = this.velocity + push - gravity * Math.cos(3 * this.position);
    this.velocity = Math.min(Math.max(faster, -maxSpeed), maxSpeed);
    this.position = Math.min(Math.max(this.position + this.velocity, minPosition), maxPosition);
    if (this.position === minPosition && this.velocity < 0) this.velocity = 0;
    this.result.terminated = this.position >= this.goalPosition && this.velocity >= this.goalVelocity;
    this.observe();
  }

  protected observe(): Float32Array {
    this.observation[0] = this.position;
    this.observation[1] = this.velocity;
    return this.observation;
  }

  protected pack(): JsonRecord {
    return { state: [this.position, this.velocity] };
  }

  protected unpack(state: JsonRecord): void {
    [this.position, this.velocity] = savedNumbers(state, "state", 2);
  }

  drawing(): Drawing {
    const hill = (position: number): Point => [
      (position - minPosition) / (maxPosition - minPosition),
      0.25 + (Math.sin(3 * position) * 0.45 + 0.55) / (maxPosition - minPosition),
    ];
    const path = Array.from({ length: 41 }, (_, i) => hill(minPosition + ((maxPosition - minPosition) * i) / 40));
    const [flagX, flagY] = hill(this.goalPosition);
    const [carX, carY] = hill(this.position);
    return {
      shapes: [
        ...curve(path, "muted", 0.006),
        line([flagX, flagY], [flagX, flagY + 0.1], "ink", 0.006),
        polygon(
          [
            [flagX, flagY + 0.1],
            [flagX, flagY + 0.06],
            [flagX + 0.05, flagY + 0.08],
          ],
          "good",
        ),
        circle([carX, carY + 0.025], 0.025, "accent"),
      ],
    };
  }
}

/** State and observation: position and velocity. Actions: 0 left, 1 none, 2 right. Reward −1 for each step. */
export class MountainCar extends HillCar<number> {
  static readonly constants = mountainCarConstants;
  readonly actionSpace = Discrete(3);
  protected readonly goalPosition = goalPosition;

  step(action: number): { observation: Float32Array; reward: number; terminated: boolean; truncated: boolean } {
    this.roll((this.choice(action, 3) - 1) * force);
    this.result.reward = -1;
    return this.result;
  }
}

/** As {@link MountainCar} with a force, cut to [−1, 1]. Reward 100 at the goal, minus a tenth of the square of the action as it was given. */
export class MountainCarContinuous extends HillCar<ArrayLike<number>> {
  static readonly constants = mountainCarContinuousConstants;
  readonly actionSpace = Box(-1, 1, [1]);
  protected readonly goalPosition = continuousGoalPosition;

  step(action: ArrayLike<number>): { observation: Float32Array; reward: number; terminated: boolean; truncated: boolean } {
    const push = this.scalar(action);
    this.roll(Math.min(Math.max(push, -1), 1) * power);
    this.result.reward = (this.result.terminated ? 100 : 0) - push * push * 0.1;
    return this.result;
  }
}
