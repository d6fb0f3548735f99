// A policy for use: one observation in, one action out, as the environment gives and takes them.
import { EnvironmentError, UsageError } from "../../base/errors.ts";
import { deriveSeed } from "../../engine/seeds.ts";
import { actionSize, headSize } from "../../models/policy/config.ts";
import type { Backend } from "../../runtime/backend.ts";
import { streamId } from "../../runtime/rng.ts";
import { actionTransform } from "./actions.ts";
import { Actor } from "./actor.ts";
import type { Value } from "./environment.ts";
import type { ControlPolicy } from "./policy-file.ts";
import { contains, describeSpace, writeFeatures } from "./spaces.ts";

export interface PredictOptions {
  /** The most probable action (default), or a drawn one. */
  deterministic?: boolean;
  /** 0 or 1 for each action, where the environment forbids some. */
  mask?: ArrayLike<number>;
}

export interface Prediction {
  /** A number for discrete actions, else an array of its own. */
  action: Value;
  /** Log-probability of what was drawn, before clipping; with `deterministic` of the most probable action. */
  logProb: number;
  /** What the value network expects from here on. */
  value: number;
}

/** Acts in single environments with the live parameters of a policy. */
export class Predictor {
  readonly #control: ControlPolicy;
  readonly #actor: Actor;
  readonly #transform: ReturnType<typeof actionTransform>;
  readonly #raw: Float64Array;
  #numDraws = 0;

  /** @param seed of drawn actions. */
  constructor(backend: Backend, control: ControlPolicy, seed = 0) {
    const { policy, actionSpace } = control;
    const { head } = policy.config;
    this.#control = control;
    const isMasked = actionSpace.kind === "discrete" || actionSpace.kind === "multi-discrete";
    const key = { seed: deriveSeed(seed, "predictions"), stream: streamId("predictions") };
    this.#actor = new Actor(backend, policy, 1, key, isMasked ? headSize(head) : 0);
    this.#transform = actionTransform(actionSpace, head);
    this.#raw = new Float64Array(actionSize(head));
  }

  /** @throws UsageError for an observation outside the observation space's shape, EnvironmentError for one that is not finite. */
  predict(observation: Value, options: PredictOptions = {}): Prediction {
    const { deterministic = true, mask } = options;
    const { observationSpace, actionSpace, normaliser } = this.#control;
    const actor = this.#actor;
    checkObservation(this.#control, observation);
    writeFeatures(observationSpace, observation, actor.observations, 0);
    if (normaliser) normaliser.normaliseObservations(actor.observations, actor.observations, 0, 1);
    if (actor.masks) {
      if (mask && mask.length !== actor.masks.length)
        throw new UsageError(`predict: expected a mask of ${actor.masks.length} entries, got ${mask.length}`);
      if (mask) actor.masks.set(mask);
      else actor.masks.fill(1);
    } else if (mask) throw new UsageError(`predict: expected no mask for actions in ${describeSpace(actionSpace)}`);
    actor.run();
    const { distribution } = actor;
    distribution.refresh();
    if (deterministic) distribution.mode(0, this.#raw, 0);
    else {
      distribution.resetNoise(1, this.#numDraws);
      distribution.sample(0, this.#numDraws++, this.#raw, 0);
    }
    const logProb = distribution.logProb(0, this.#raw, 0);
    const action = new Float64Array(this.#raw.length);
    this.#transform(this.#raw, 0, action, 0);
    return { action: actionSpace.kind === "discrete" ? action[0] : action, logProb, value: actor.values[0] };
  }

  dispose(): void {
    this.#actor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function checkObservation({ observationSpace, environment }: ControlPolicy, observation: Value): void {
  if (observationSpace.kind === "box") {
    const { length } = observationSpace.low;
    if (typeof observation === "number" || observation.length !== length)
      throw new UsageError(
        `predict: expected an observation of ${length} numbers, as in ${environment}, got ${typeof observation === "number" ? "a number" : observation.length}`,
      );
    for (let i = 0; i < length; i++)
      if (!Number.isFinite(observation[i]))
        throw new EnvironmentError(`predict: expected finite observations, got ${observation[i]} at entry ${i}`);
  } else if (!contains(observationSpace, observation))
    throw new UsageError(`predict: expected an observation in ${describeSpace(observationSpace)}, got ${String(observation)}`);
}
