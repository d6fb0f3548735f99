// What the native environments share: randomness that can be seeded and saved, a check of actions, a state of plain numbers.

import type { z } from "zod";
import { CheckpointError, EnvironmentError, UsageError } from "../../../base/errors.ts";
import { defaultsOf, parseOptions } from "../../../base/schema.ts";
import type { Json, JsonRecord } from "../../../engine/events.ts";
import { Random, type RandomState } from "../../../runtime/rng.ts";
import type { Environment, EnvironmentStep, ResetOptions, Value } from "../environment.ts";
import { describeSpace, type Space } from "../spaces.ts";

const stream = "environment";

/** Subclasses start an episode, observe, and keep their state in numbers. Until a seed is given, the seed is 0. */
export abstract class NativeEnvironment<Observation extends Value, Action extends Value> implements Environment<Observation, Action> {
  abstract readonly observationSpace: Space;
  abstract readonly actionSpace: Space;
  protected random = new Random(0, { stream });
  #isStarted = false;

  reset({ seed, options = {} }: ResetOptions = {}): Observation {
    if (seed !== undefined) this.random = new Random(seed, { stream });
    this.start(options);
    this.#isStarted = true;
    return this.observe();
  }

  abstract step(action: Action): EnvironmentStep<Observation>;

  /** Draws the first state of an episode. @param options of `reset`. */
  protected abstract start(options: Readonly<Record<string, unknown>>): void;

  /** The observation of the present state; may be the same array every time. */
  protected abstract observe(): Observation;

  /** Everything but the randomness. */
  protected abstract pack(): JsonRecord;

  protected abstract unpack(state: JsonRecord): void;

  /** @returns the action, an integer of a discrete space. @throws EnvironmentError for any other value, or before the first `reset`. */
  protected choice(action: number, count: number): number {
    if (!this.#isStarted) throw notStarted();
    if (!(action >= 0 && action < count && Number.isInteger(action)))
      throw new EnvironmentError(`action: expected an integer of ${describeSpace(this.actionSpace)}, got ${action}`);
    return action;
  }

  /** @returns the one number of a Box(1). @throws EnvironmentError for NaN or another shape, or before the first `reset`. */
  protected scalar(action: ArrayLike<number>): number {
    if (!this.#isStarted) throw notStarted();
    const value = action?.[0];
    if (action?.length !== 1 || typeof value !== "number" || Number.isNaN(value))
      throw new EnvironmentError(`action: expected one number, got ${JSON.stringify(action)}`);
    return value;
  }

  saveState(): JsonRecord {
    return { random: { ...this.random.state }, isStarted: this.#isStarted, ...this.pack() };
  }

  /** @throws CheckpointError for a state of another environment. */
  restoreState(state: JsonRecord): void {
    const random = state.random as unknown as RandomState | undefined;
    if (
      typeof random !== "object" ||
      random === null ||
      ![random.seed, random.stream, random.request, random.index].every(Number.isSafeInteger)
    )
      throw new CheckpointError("environment: expected the state of its randomness, got none");
    this.unpack(state);
    this.random = Random.fromState(random);
    this.#isStarted = state.isStarted !== false;
  }
}

const notStarted = (): EnvironmentError =>
  new EnvironmentError("step: expected an environment that was reset, got one before its first episode", { hint: "Call reset() first." });

/** `state[name]` as that many finite numbers. @throws CheckpointError */
export function savedNumbers(state: JsonRecord, name: string, length: number): readonly number[] {
  const list: Json | undefined = state[name];
  if (!Array.isArray(list) || list.length !== length || !list.every((item) => Number.isFinite(item)))
    throw new CheckpointError(
      `environment: expected ${length} numbers in \`${name}\` of its state, got ${JSON.stringify(list) ?? "nothing"}`,
    );
  return list as readonly number[];
}

/** `state[name]` as a whole number from `low` to below `end`. @throws CheckpointError */
export function savedInteger(state: JsonRecord, name: string, low: number, end: number): number {
  const value = state[name];
  if (!Number.isInteger(value) || !((value as number) >= low && (value as number) < end))
    throw new CheckpointError(
      `environment: expected \`${name}\` from ${low} to ${end - 1} in its state, got ${JSON.stringify(value) ?? "nothing"}`,
    );
  return value as number;
}

/**
 * The range that a first state is drawn from: `low` and `high` of the options of `reset`, as Gymnasium has them.
 * @throws UsageError for anything but two numbers in order.
 */
export function resetBounds(options: Readonly<Record<string, unknown>>, low: number, high: number): readonly [low: number, high: number] {
  for (const key of Object.keys(options))
    if (key !== "low" && key !== "high") throw new UsageError(`reset: expected the options \`low\` and \`high\`, got \`${key}\``);
  const [from, to] = [options.low ?? low, options.high ?? high];
  if (!Number.isFinite(from) || !Number.isFinite(to) || (from as number) > (to as number))
    throw new UsageError(`reset: expected numbers with low <= high, got ${from} and ${to}`);
  return [from as number, to as number];
}

/** The options of an environment, checked and completed. @throws UsageError */
export const settingsOf = <S extends z.ZodObject>(schema: S, options: object | undefined): z.output<S> =>
  options === undefined ? defaultsOf(schema) : parseOptions(schema, options);
