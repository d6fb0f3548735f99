// The MuJoCo environments of Gymnasium 1.4, v5: the same physics (MuJoCo as WebAssembly), rewards, observations, ends and options.
import type { z } from "zod";
import { EnvironmentError, nearest, UsageError } from "../../../../base/errors.ts";
import type { JsonRecord } from "../../../../engine/events.ts";
import type { Drawing } from "../../drawing.ts";
import type { EnvironmentStep } from "../../environment.ts";
import { Box, type BoxSpace } from "../../spaces.ts";
import { NativeEnvironment, savedInteger, savedNumbers, settingsOf } from "../native-environment.ts";
import { invertedDoublePendulum, invertedPendulum } from "./balance.ts";
import { loadMujoco } from "./load.ts";
import { ant, halfCheetah, hopper, swimmer, walker2d } from "./locomotion.ts";
import { reacher } from "./reach.ts";
import { SharedModel } from "./shared-model.ts";
import { Simulation } from "./simulation.ts";
import { drawFigure } from "./stick-figure.ts";
import { type Task, type TaskKind, unbounded } from "./task.ts";

/** All tasks by Gymnasium's names. Their schemas say which options they take. */
export const mujocoTasks = {
  "HalfCheetah-v5": halfCheetah,
  "Hopper-v5": hopper,
  "Walker2d-v5": walker2d,
  "Swimmer-v5": swimmer,
  "Ant-v5": ant,
  "InvertedPendulum-v5": invertedPendulum,
  "InvertedDoublePendulum-v5": invertedDoublePendulum,
  "Reacher-v5": reacher,
} as const;

export type MujocoName = keyof typeof mujocoTasks;
export type MujocoOptions<Name extends MujocoName> = z.input<(typeof mujocoTasks)[Name]["schema"]>;

/** The step that an environment returns is the same object every time, and so are its observation and `info`. */
type Step = EnvironmentStep<Float64Array>;

/**
 * One MuJoCo environment. Actions are clamped by MuJoCo, while costs are of the action as given. `reset` takes `qpos` and `qvel` as
 * options: a first state of one's own. Unlike Gymnasium's, a diverged simulation is an error instead of a silent return to the start.
 */
export class MujocoEnvironment extends NativeEnvironment<Float64Array, ArrayLike<number>> {
  readonly name: string;
  readonly observationSpace: BoxSpace;
  readonly actionSpace: BoxSpace;
  readonly simulation: Simulation;
  readonly #task: Task;
  readonly #kind: TaskKind;
  readonly #frameSkip: number;
  readonly #maxEpisodeSteps: number;
  readonly #observation: Float64Array;
  readonly #result: Step;
  /** Steps of the episode; −1 before the first. */
  #numSteps = -1;

  /** Use {@link mujocoEnvironment}, which loads MuJoCo. Takes the simulation into its ownership. */
  constructor(name: string, kind: TaskKind, simulation: Simulation, settings: { frameSkip: number; maxEpisodeSteps: number }) {
    super();
    this.name = name;
    this.simulation = simulation;
    this.#kind = kind;
    this.#task = kind.create(simulation, settings as z.output<TaskKind["schema"]>);
    this.#frameSkip = settings.frameSkip;
    this.#maxEpisodeSteps = settings.maxEpisodeSteps;
    this.observationSpace = Box(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, [this.#task.observationSize]);
    const limits = simulation.model.actuator_ctrlrange;
    this.actionSpace = Box(
      limits.filter((_, i) => i % 2 === 0),
      limits.filter((_, i) => i % 2 === 1),
    );
    this.#observation = new Float64Array(this.#task.observationSize);
    this.#result = { observation: this.#observation, reward: 0, terminated: false, truncated: false, info: this.#task.info };
  }

  protected start(options: Readonly<Record<string, unknown>>): void {
    const { simulation } = this;
    simulation.clear();
    if (Object.keys(options).length === 0) this.#task.start(this.random);
    else this.#place(options);
    simulation.forward();
    this.#task.remember();
    this.#numSteps = 0;
  }

  #place(options: Readonly<Record<string, unknown>>): void {
    for (const key of Object.keys(options))
      if (key !== "qpos" && key !== "qvel") throw new UsageError(`reset: expected the options \`qpos\` and \`qvel\`, got \`${key}\``);
    for (const key of ["qpos", "qvel"] as const) {
      const target = this.simulation.views[key];
      const values = options[key] as ArrayLike<unknown> | undefined;
      if (values === undefined) continue;
      const list = Array.from(values);
      if (list.length !== target.length || !list.every(Number.isFinite))
        throw new UsageError(`reset: expected ${target.length} finite numbers in \`${key}\`, got ${JSON.stringify(list)}`);
      target.set(list as number[]);
    }
  }

  /** @throws EnvironmentError for an action of another shape or with NaN, and when the simulation diverges. */
  step(action: ArrayLike<number>): Step {
    const { simulation } = this;
    const { ctrl } = simulation.views;
    if (this.#numSteps < 0)
      throw this.#error("expected an environment that was reset, got one before its first episode", "Call reset() first.");
    if (action?.length !== ctrl.length) throw this.#error(`expected ${ctrl.length} numbers as the action, got ${action?.length ?? action}`);
    for (let i = 0; i < ctrl.length; i++) {
      const value = action[i];
      if (!Number.isFinite(value)) throw this.#error(`expected finite numbers as the action, got ${value} in entry ${i}`);
      ctrl[i] = value;
    }
    simulation.advance(this.#frameSkip);
    const trouble = simulation.broken();
    if (trouble !== undefined)
      throw this.#error(
        `expected a finite state, got one that diverged: ${trouble}`,
        "Use smaller actions, a smaller `frameSkip`, or check the model in `xml`.",
      );
    this.#numSteps++;
    const result = this.#result as Step & { terminated: boolean };
    this.#task.judge(action, result);
    this.#task.observe(this.#observation);
    result.truncated = this.#maxEpisodeSteps > 0 && this.#numSteps >= this.#maxEpisodeSteps;
    return result;
  }

  #error(problem: string, hint?: string): EnvironmentError {
    return new EnvironmentError(`${this.name}, step ${this.#numSteps + 1}: ${problem}`, { hint });
  }

  protected observe(): Float64Array {
    this.#task.observe(this.#observation);
    return this.#observation;
  }

  protected pack(): JsonRecord {
    return { ...this.simulation.save(), memory: [...this.#task.memory], numSteps: this.#numSteps };
  }

  protected unpack(state: JsonRecord): void {
    const memory = savedNumbers(state, "memory", this.#task.memory.length);
    const numSteps = savedInteger(state, "numSteps", -1, Number.MAX_SAFE_INTEGER);
    this.simulation.restore(state);
    this.#task.memory.set(memory);
    this.#numSteps = numSteps;
  }

  drawing(): Drawing {
    return drawFigure(this.simulation, this.#kind.scene);
  }

  /** Frees the simulation's memory. */
  dispose(): void {
    this.simulation.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Makes any number of environments of one kind, when MuJoCo is there already. */
export type MujocoFactory = () => MujocoEnvironment;

/**
 * Loads MuJoCo and returns what makes environments of one kind.
 * @param options as Gymnasium's, in camel case (`ctrlCostWeight`); see the task's schema.
 * @throws UsageError for an unknown name or option; BackendError when MuJoCo cannot be loaded.
 */
export async function mujocoFactory<Name extends MujocoName>(name: Name, options?: MujocoOptions<Name>): Promise<MujocoFactory> {
  if (!Object.hasOwn(mujocoTasks, name)) {
    const guess = nearest(name, Object.keys(mujocoTasks));
    throw new UsageError(`environment: expected one of ${Object.keys(mujocoTasks).join(", ")}, got "${name}"`, {
      hint: guess === undefined ? undefined : `Did you mean ${guess}?`,
    });
  }
  const kind: TaskKind = mujocoTasks[name];
  const settings = settingsOf(kind.schema, finite(options ?? {})) as { frameSkip: number; maxEpisodeSteps: number; xml?: string };
  const model = new SharedModel(await loadMujoco(), settings.xml ?? kind.model);
  return () => {
    const simulation = new Simulation(model);
    try {
      return new MujocoEnvironment(name, kind, simulation, settings);
    } catch (error) {
      simulation.dispose();
      throw error;
    }
  };
}

/** One environment: {@link mujocoFactory}, called once. */
export async function mujocoEnvironment<Name extends MujocoName>(name: Name, options?: MujocoOptions<Name>): Promise<MujocoEnvironment> {
  return (await mujocoFactory(name, options))();
}

/** Infinite bounds, which Gymnasium uses, as the largest that JSON and the schemas can hold. */
function finite(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const replace = (value: unknown): unknown =>
    Array.isArray(value) ? value.map(replace) : value === Infinity ? unbounded : value === -Infinity ? -unbounded : value;
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [key, Array.isArray(value) ? replace(value) : value]));
}
