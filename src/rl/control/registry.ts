// Environments by Gymnasium's ids, with the time limits and reward thresholds that are registered there.
import { z } from "zod";
import { nearest, UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import type { Environment, EnvironmentFactory } from "./environment.ts";
import { Acrobot, acrobotSchema } from "./environments/acrobot.ts";
import { Blackjack, blackjackSchema } from "./environments/blackjack.ts";
import { CartPole, cartPoleSchema } from "./environments/cart-pole.ts";
import { CliffWalking, cliffWalkingSchema } from "./environments/cliff-walking.ts";
import { FrozenLake, frozenLakeSchema } from "./environments/frozen-lake.ts";
import { MountainCar, MountainCarContinuous, mountainCarSchema } from "./environments/mountain-car.ts";
import { type MujocoName, mujocoFactory, mujocoTasks } from "./environments/mujoco/mujoco-environment.ts";
import { Pendulum, pendulumSchema } from "./environments/pendulum.ts";
import { Taxi, taxiSchema } from "./environments/taxi.ts";
import { timeLimit } from "./wrappers/time-limit.ts";

export interface EnvironmentInfo {
  readonly id: string;
  /** Mean return from which the task counts as solved; not every task has one. */
  readonly rewardThreshold?: number;
  /** The options that `makeEnvironment` takes; always with `maxEpisodeSteps` (0: no limit). */
  readonly schema: z.ZodObject;
}

interface Entry extends EnvironmentInfo {
  /** Present where the environment exists at once. */
  readonly create?: (settings: Readonly<Record<string, unknown>>) => Environment;
  /** Present where something must be loaded first. */
  readonly prepare?: (settings: Readonly<Record<string, unknown>>) => Promise<EnvironmentFactory>;
}

const entries: ReadonlyMap<string, Entry> = new Map(
  [
    native("CartPole-v0", { steps: 200, threshold: 195, schema: cartPoleSchema, create: (options) => new CartPole(options) }),
    native("CartPole-v1", { steps: 500, threshold: 475, schema: cartPoleSchema, create: (options) => new CartPole(options) }),
    native("MountainCar-v0", { steps: 200, threshold: -110, schema: mountainCarSchema, create: (options) => new MountainCar(options) }),
    native("MountainCarContinuous-v0", {
      steps: 999,
      threshold: 90,
      schema: mountainCarSchema,
      create: (options) => new MountainCarContinuous(options),
    }),
    native("Pendulum-v1", { steps: 200, schema: pendulumSchema, create: (options) => new Pendulum(options) }),
    native("Acrobot-v1", { steps: 500, threshold: -100, schema: acrobotSchema, create: (options) => new Acrobot(options) }),
    native("FrozenLake-v1", { steps: 100, threshold: 0.7, schema: frozenLakeSchema, create: (options) => new FrozenLake(options) }),
    native("FrozenLake8x8-v1", {
      steps: 200,
      threshold: 0.85,
      schema: frozenLakeSchema.extend({
        mapName: frozenLakeSchema.shape.mapName.unwrap().default("8x8").describe("A known map, or a random one"),
      }),
      create: (options) => new FrozenLake(options),
    }),
    native("Taxi-v3", { steps: 200, threshold: 8, schema: z.object({}), create: () => new Taxi() }),
    native("Taxi-v4", { steps: 200, threshold: 8, schema: taxiSchema, create: (options) => new Taxi(options) }),
    native("CliffWalking-v1", { steps: 0, schema: cliffWalkingSchema, create: (options) => new CliffWalking(options) }),
    native("CliffWalkingSlippery-v1", { steps: 0, schema: z.object({}), create: () => new CliffWalking({ isSlippery: true }) }),
    native("Blackjack-v1", {
      steps: 0,
      schema: blackjackSchema.extend({ sab: z.boolean().default(true).describe("Rules of Sutton and Barto") }),
      create: (options) => new Blackjack(options),
    }),
    mujoco("HalfCheetah-v5", 4800),
    mujoco("Hopper-v5", 3800),
    mujoco("Walker2d-v5"),
    mujoco("Swimmer-v5", 360),
    mujoco("Ant-v5", 6000),
    mujoco("InvertedPendulum-v5", 950),
    mujoco("InvertedDoublePendulum-v5", 9100),
    mujoco("Reacher-v5", -3.75),
  ].map((entry) => [entry.id, entry]),
);

interface NativeEntry<S extends z.ZodObject> {
  /** 0: no limit. */
  readonly steps: number;
  readonly threshold?: number;
  readonly schema: S;
  readonly create: (options: z.output<S>) => Environment;
}

function native<S extends z.ZodObject>(id: string, { steps, threshold, schema, create }: NativeEntry<S>): Entry {
  return {
    id,
    rewardThreshold: threshold,
    schema: schema.extend({
      maxEpisodeSteps: z.int().nonnegative().default(steps).describe("Steps after which an episode is truncated; 0: never"),
    }),
    create({ maxEpisodeSteps, ...options }) {
      const environment = create(options as z.output<S>);
      return maxEpisodeSteps === 0 ? environment : timeLimit(environment, maxEpisodeSteps as number);
    },
  };
}

function mujoco(id: MujocoName, rewardThreshold?: number): Entry {
  return { id, rewardThreshold, schema: mujocoTasks[id].schema, prepare: (settings) => mujocoFactory(id, settings) };
}

/** Every id that {@link environmentFactory} knows. */
export const environmentIds: readonly string[] = [...entries.keys()];

/** @throws UsageError for an unknown id, with the nearest known one. */
export function environmentInfo(id: string): EnvironmentInfo {
  return entryOf(id);
}

function entryOf(id: string): Entry {
  const entry = entries.get(id);
  if (entry) return entry;
  // `Cartpole` and `CartPole-v3` mean the version that exists.
  const stem = (name: string): string => name.toLowerCase().replace(/-v\d+$/, "");
  const guess = environmentIds.findLast((known) => stem(known) === stem(id)) ?? nearest(id, environmentIds);
  throw new UsageError(`environment: expected ${guess === undefined ? "a known id" : `\`${guess}\``}, got \`${id}\``, {
    hint: guess === undefined ? `The ids are: ${environmentIds.join(", ")}.` : `Did you mean \`${guess}\`?`,
  });
}

/**
 * One environment by its id, such as `CartPole-v1`, with its time limit.
 * @param options those of the environment and `maxEpisodeSteps`; `environmentInfo(id).schema` lists them.
 * @throws UsageError for an unknown id or option, and for MuJoCo's ids, which need {@link environmentFactory}.
 */
export function makeEnvironment(id: string, options: Readonly<Record<string, unknown>> = {}): Environment {
  const { create, schema } = entryOf(id);
  if (!create)
    throw new UsageError(`makeEnvironment: expected an environment that needs no loading, got \`${id}\``, {
      hint: "Use `const make = await environmentFactory(id, options)`, which loads the simulator.",
    });
  return create(parseOptions(schema, options));
}

/**
 * What makes any number of environments of one id: as {@link makeEnvironment}, after loading what they need (MuJoCo).
 * @throws UsageError for an unknown id or option; BackendError when the simulator cannot be loaded.
 */
export async function environmentFactory(id: string, options: Readonly<Record<string, unknown>> = {}): Promise<EnvironmentFactory> {
  const { create, prepare, schema } = entryOf(id);
  // MuJoCo's factory checks its options itself.
  if (prepare) return prepare(options);
  const settings = parseOptions(schema, options);
  return () => (create as NonNullable<Entry["create"]>)(settings);
}
