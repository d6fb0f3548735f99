// Actions on their way to an environment: cut to its bounds, or scaled to them.
import { UsageError } from "../../../base/errors.ts";
import type { Environment, EnvironmentStep, Value } from "../environment.ts";
import { Box, type BoxSpace, describeSpace } from "../spaces.ts";
import { EnvironmentWrapper } from "./environment-wrapper.ts";

class ClippedAction extends EnvironmentWrapper {
  readonly #space: BoxSpace;
  readonly #action: Float64Array;

  constructor(inner: Environment, space: BoxSpace) {
    super(inner, { actionSpace: Box(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, space.shape) });
    this.#space = space;
    this.#action = new Float64Array(space.low.length);
  }

  step(action: Value): EnvironmentStep {
    const { low, high } = this.#space;
    const values = action as ArrayLike<number>;
    for (let i = 0; i < low.length; i++) this.#action[i] = Math.min(Math.max(values[i], low[i]), high[i]);
    return this.inner.step(this.#action);
  }
}

class RescaledAction extends EnvironmentWrapper {
  readonly #space: BoxSpace;
  readonly #min: number;
  readonly #scale: Float64Array;
  readonly #action: Float64Array;

  constructor(inner: Environment, space: BoxSpace, min: number, max: number) {
    super(inner, { actionSpace: Box(min, max, space.shape) });
    this.#space = space;
    this.#min = min;
    this.#scale = space.low.map((low, i) => (space.high[i] - low) / (max - min));
    this.#action = new Float64Array(space.low.length);
  }

  step(action: Value): EnvironmentStep {
    const { low, high } = this.#space;
    const values = action as ArrayLike<number>;
    for (let i = 0; i < low.length; i++) {
      const scaled = low[i] + (values[i] - this.#min) * this.#scale[i];
      this.#action[i] = Math.min(Math.max(scaled, low[i]), high[i]);
    }
    return this.inner.step(this.#action);
  }
}

/** Accepts any real numbers and cuts them to the bounds of the environment's actions. @throws UsageError unless these are a box. */
export function clipAction(inner: Environment): Environment {
  return new ClippedAction(inner, boxOf("clipAction", inner));
}

/**
 * Maps [min, max] (default [−1, 1]) onto the bounds of the environment's actions; what lies beyond is cut.
 * @throws UsageError unless these are a box with finite bounds, and min < max.
 */
export function rescaleAction(inner: Environment, min = -1, max = 1): Environment {
  const space = boxOf("rescaleAction", inner);
  if (!Number.isFinite(min) || !Number.isFinite(max) || !(min < max))
    throw new UsageError(`rescaleAction: expected min < max, got ${min} and ${max}`);
  if (![...space.low, ...space.high].every(Number.isFinite))
    throw new UsageError("rescaleAction: expected finite bounds of the actions, got infinite ones");
  return new RescaledAction(inner, space, min, max);
}

function boxOf(name: string, { actionSpace }: Environment): BoxSpace {
  if (actionSpace.kind !== "box") throw new UsageError(`${name}: expected actions in a Box, got ${describeSpace(actionSpace)}`);
  return actionSpace;
}
