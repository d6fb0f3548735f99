// Plays whole episodes with a policy, without learning from them. Every environment plays its share of the episodes, decided beforehand:
// taking the first ones to end would favour short ones.
import { setImmediate as nextTurn } from "node:timers/promises";
import { actionSize, headSize } from "../../models/policy/config.ts";
import type { Policy } from "../../models/policy/parameters.ts";
import type { Backend } from "../../runtime/backend.ts";
import { streamId } from "../../runtime/rng.ts";
import { type ActionTransform, actionTransform } from "./actions.ts";
import { Actor } from "./actor.ts";
import type { VectorEnvironment } from "./environment.ts";

export interface EpisodeResult {
  readonly return: number;
  readonly length: number;
}

export interface EvaluationOptions {
  episodes: number;
  /** The most probable action, or a drawn one. Default true. */
  deterministic?: boolean;
  /** Of the environments and the drawn actions. */
  seed: number;
  /** gSDE with drawn actions: new noise every so many steps. Default −1: never after the start. */
  sdeSampleFreq?: number;
  signal?: AbortSignal;
  /** Called before each step of the batch. */
  onStep?(): void;
}

const turnMs = 25;

export class Evaluator {
  readonly #environments: VectorEnvironment;
  readonly #policy: Policy;
  readonly #backend: Backend;
  readonly #transform: ActionTransform;
  readonly #actions: Float64Array;
  readonly #width: number;
  #actor: { actor: Actor; seed: number } | undefined;

  /** The environments are this evaluator's to reset and step; their observations are normalised as the policy wants them. */
  constructor(backend: Backend, policy: Policy, environments: VectorEnvironment) {
    this.#environments = environments;
    this.#policy = policy;
    this.#backend = backend;
    this.#transform = actionTransform(environments.actionSpace, policy.config.head);
    this.#width = actionSize(policy.config.head);
    this.#actions = new Float64Array(environments.numEnvironments * this.#width);
  }

  /** Plays; results in the order in which episodes ended. @throws what the environments throw. */
  async run({ episodes, deterministic = true, seed, sdeSampleFreq = -1, signal, onStep }: EvaluationOptions): Promise<EpisodeResult[]> {
    const environments = this.#environments;
    const { numEnvironments: E } = environments;
    const actor = this.#actorFor(seed);
    const left = Array.from({ length: E }, (_, e) => Math.floor((episodes + e) / E));
    const results: EpisodeResult[] = [];
    await environments.reset(seed);
    actor.distribution.refresh();
    actor.distribution.resetNoise(E, 0);
    let lastTurn = performance.now();
    for (let step = 0; results.length < episodes; step++) {
      if (sdeSampleFreq > 0 && step > 0 && step % sdeSampleFreq === 0) actor.distribution.resetNoise(E, step);
      actor.observations.set(environments.observations);
      if (actor.masks && environments.actionMasks) actor.masks.set(environments.actionMasks);
      actor.run();
      for (let e = 0; e < E; e++) {
        if (deterministic) actor.distribution.mode(e, this.#actions, e * this.#width);
        else actor.distribution.sample(e, step, this.#actions, e * this.#width);
        this.#transform(this.#actions, e * this.#width, this.#actions, e * this.#width);
      }
      onStep?.();
      const pending = environments.step(this.#actions);
      if (pending) await pending;
      for (const { row, return: sum, length } of environments.finishedEpisodes) if (left[row]-- > 0) results.push({ return: sum, length });
      if ((step & 15) === 15 && performance.now() - lastTurn > turnMs) {
        await nextTurn();
        lastTurn = performance.now();
        signal?.throwIfAborted();
      }
    }
    return results;
  }

  dispose(): void {
    this.#actor?.actor.dispose();
  }

  #actorFor(seed: number): Actor {
    if (this.#actor?.seed !== seed) {
      this.#actor?.actor.dispose();
      const { numEnvironments, actionMasks } = this.#environments;
      const key = { seed, stream: streamId("evaluation actions") };
      const maskSize = actionMasks ? headSize(this.#policy.config.head) : 0;
      this.#actor = { actor: new Actor(this.#backend, this.#policy, numEnvironments, key, maskSize), seed };
    }
    return this.#actor.actor;
  }
}
