// What makes a simulation an environment: its model, its options, what is observed and rewarded, and when it ends.
import { z } from "zod";
import type { Random } from "../../../../runtime/rng.ts";
import type { Simulation } from "./simulation.ts";

/** What a task says of the step just made. */
export interface Verdict {
  reward: number;
  terminated: boolean;
}

/** A task in one environment. */
export interface Task {
  readonly observationSize: number;
  /** What is remembered from one step to the next; saved with the environment's state. */
  readonly memory: Float64Array;
  /** The parts of the reward and other numbers for people; rewritten by every step. */
  readonly info: Record<string, number>;
  /** Writes the first state of an episode into the simulation. */
  start(random: Random): void;
  /** Fills the memory from the first state, of which everything was computed. */
  remember(): void;
  /** @param action as given: MuJoCo clamps what it applies, while costs are of the whole. */
  judge(action: ArrayLike<number>, verdict: Verdict): void;
  observe(out: Float64Array): void;
}

/** What a drawing shows: a window of the plane, and what stands in it. */
export interface Scene {
  /** From the side (x to the right, z up) or from above (x to the right, y up). */
  readonly from: "side" | "above";
  /** Width and height in metres. */
  readonly size: number;
  /** The window goes with the first geom, across or both ways; else its middle is `center`. */
  readonly follows?: "x" | "xy";
  readonly center: readonly [across: number, up: number];
  /** Lines that belong to the world, in metres. */
  readonly lines?: readonly (readonly [from: readonly [number, number], to: readonly [number, number]])[];
}

export interface TaskKind<Schema extends z.ZodObject = z.ZodObject> {
  /** MJCF. */
  readonly model: string;
  readonly schema: Schema;
  /** As registered in Gymnasium: the average return at which the task counts as solved. */
  readonly rewardThreshold?: number;
  readonly scene: Scene;
  create(simulation: Simulation, settings: z.output<Schema>): Task;
}

/** Gymnasium's name and meaning; what `create` gets is checked and complete. */
export const defineTask = <Schema extends z.ZodObject>(kind: TaskKind<Schema>): TaskKind<Schema> => kind;

/** Options of every task. */
export const commonOptions = (frameSkip: number, maxEpisodeSteps = 1000) => ({
  frameSkip: z.int().positive().default(frameSkip).describe("Simulation steps for each action"),
  maxEpisodeSteps: z.int().nonnegative().default(maxEpisodeSteps).describe("Steps after which an episode is truncated; 0: never"),
  xml: z.string().optional().describe("MJCF text of another model with the same meaning of joints"),
});

export const weight = (value: number, description: string) => z.number().default(value).describe(description);

export const noiseScale = (value: number) => z.number().nonnegative().default(value).describe("Size of the noise in the first state");

/** Bounds as a pair. ±1e10, where MuJoCo calls a state diverged, stands for no bound. */
export const range = (low: number, high: number, description: string) =>
  z.array(z.number()).length(2).default([low, high]).describe(description);
export const unbounded = 1e10;

/** Uniform on ±scale around the model's own first state. */
export function addUniformNoise(target: Float64Array, scale: number, random: Random): void {
  for (let i = 0; i < target.length; i++) target[i] += scale * (2 * random.uniform() - 1);
}

export function addNormalNoise(target: Float64Array, scale: number, random: Random): void {
  for (let i = 0; i < target.length; i++) target[i] += scale * random.normal();
}

export function sumOfSquares(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}

export const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
