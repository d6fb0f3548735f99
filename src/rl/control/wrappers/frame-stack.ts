// The last k observations as one, oldest first, so that a policy without memory sees motion (Mnih et al. 2015).
import { UsageError } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import type { Environment, EnvironmentStep, ResetOptions, Value } from "../environment.ts";
import { savedNumbers } from "../environments/native-environment.ts";
import { Box, type BoxSpace, describeSpace } from "../spaces.ts";
import { EnvironmentWrapper } from "./environment-wrapper.ts";

class FrameStack extends EnvironmentWrapper {
  readonly #size: number;
  readonly #padding: "repeat" | "zero";
  readonly #frames: Float32Array;
  readonly #result: EnvironmentStep<Float32Array>;

  constructor(inner: Environment, space: BoxSpace, count: number, padding: "repeat" | "zero") {
    const size = space.low.length;
    const repeated = (bound: Float64Array): Float64Array => Float64Array.from({ length: count * size }, (_, i) => bound[i % size]);
    super(inner, { observationSpace: Box(repeated(space.low), repeated(space.high), [count, ...space.shape]) });
    this.#size = size;
    this.#padding = padding;
    this.#frames = new Float32Array(count * size);
    this.#result = { observation: this.#frames, reward: 0.5, terminated: false, truncated: false, info: undefined };
  }

  override reset(options?: ResetOptions): Value {
    const first = this.inner.reset(options) as ArrayLike<number>;
    this.#frames.fill(0);
    const from = this.#padding === "repeat" ? 0 : this.#frames.length - this.#size;
    for (let at = from; at < this.#frames.length; at += this.#size) this.#frames.set(first, at);
    return this.#frames;
  }

  step(action: Value): EnvironmentStep {
    const { observation, reward, terminated, truncated, info } = this.inner.step(action);
    this.#frames.copyWithin(0, this.#size);
    this.#frames.set(observation as ArrayLike<number>, this.#frames.length - this.#size);
    const result = this.#result;
    result.reward = reward;
    result.terminated = terminated;
    result.truncated = truncated;
    result.info = info;
    return result;
  }

  protected override pack(): JsonRecord {
    return { frames: [...this.#frames] };
  }

  protected override unpack(state: JsonRecord): void {
    this.#frames.set(savedNumbers(state, "frames", this.#frames.length));
  }
}

/**
 * Observations of shape [count, …], the newest last.
 * @param options.padding what stands for the time before an episode: its first observation (as Gymnasium does; default), or zeros (as
 * Stable-Baselines3 does).
 * @throws UsageError unless observations are a box and `count` is a positive integer.
 */
export function frameStack(inner: Environment, count: number, { padding = "repeat" }: { padding?: "repeat" | "zero" } = {}): Environment {
  const { observationSpace } = inner;
  if (observationSpace.kind !== "box")
    throw new UsageError(`frameStack: expected observations in a Box, got ${describeSpace(observationSpace)}`);
  if (!Number.isInteger(count) || count < 1) throw new UsageError(`frameStack: expected a positive integer for count, got ${count}`);
  return new FrameStack(inner, observationSpace, count, padding);
}
