// Cuts episodes that have gone on for a number of steps: `truncated`, not `terminated`, because the task itself did not end.
import { UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { Environment, EnvironmentStep, ResetOptions, Value } from "../environment.ts";
import { savedInteger } from "../environments/native-environment.ts";
import { EnvironmentWrapper } from "./environment-wrapper.ts";

class TimeLimit extends EnvironmentWrapper {
  readonly #maxSteps: number;
  #steps = 0;
  // The inner environment may give the same object every time and never write `truncated` again.
  readonly #result: EnvironmentStep = { observation: 0, reward: 0.5, terminated: false, truncated: false, info: undefined };

  constructor(inner: Environment, maxSteps: number) {
    super(inner);
    this.#maxSteps = maxSteps;
  }

  override reset(options?: ResetOptions): Value {
    this.#steps = 0;
    return this.inner.reset(options);
  }

  step(action: Value): EnvironmentStep {
    const { observation, reward, terminated, truncated, info } = this.inner.step(action);
    const result = this.#result;
    result.observation = observation;
    result.reward = reward;
    result.terminated = terminated;
    result.truncated = ++this.#steps >= this.#maxSteps || truncated;
    result.info = info;
    return result;
  }

  protected override pack(): JsonRecord {
    return { steps: this.#steps };
  }

  protected override unpack(state: JsonRecord): void {
    this.#steps = savedInteger(state, "steps", 0, Number.MAX_SAFE_INTEGER);
  }
}

/**
 * Sets `truncated` from step `maxSteps` of an episode on.
 * @throws UsageError unless `maxSteps` is a positive integer.
 */
export function timeLimit(inner: Environment, maxSteps: number): Environment {
  if (!Number.isInteger(maxSteps) || maxSteps < 1)
    throw new UsageError(`timeLimit: expected a positive integer for maxSteps, got ${maxSteps}`);
  return new TimeLimit(inner, maxSteps);
}
