// Collects rollouts: in each step one program run for all environments, actions drawn on the host, one step of the batch. What the next
// rollout depends on is the environments' state and the number of steps so far; random numbers are keyed by the latter.
import { setImmediate as nextTurn } from "node:timers/promises";
import { invariant, UsageError } from "../../base/errors.ts";
import { actionSize, headSize } from "../../models/policy/config.ts";
import type { Policy } from "../../models/policy/parameters.ts";
import type { Backend } from "../../runtime/backend.ts";
import { type ActionTransform, actionTransform } from "./actions.ts";
import { Actor } from "./actor.ts";
import { RolloutBuffer } from "./buffer.ts";
import type { NoiseKey } from "./distributions/host.ts";
import type { FinishedEpisode, VectorEnvironment } from "./environment.ts";

/** The event loop gets a turn when this long has passed. */
const turnMs = 25;

export interface RolloutSettings {
  numSteps: number;
  /** gSDE: new noise every so many steps; −1: at the start of a rollout only. */
  sdeSampleFreq: number;
  bootstrapTruncation: boolean;
}

export class Rollouts {
  readonly buffer: RolloutBuffer;
  readonly #environments: VectorEnvironment;
  readonly #actor: Actor;
  readonly #settings: RolloutSettings;
  readonly #transform: ActionTransform;
  /** [E, A] as the environments take them. */
  readonly #actions: Float32Array | Float64Array;
  readonly #actionSize: number;
  readonly #onEpisode: (episode: FinishedEpisode) => void;
  /** Final observations of this rollout that were cut off, and the rows they belong to. */
  #cut: { row: number; observation: Float32Array }[] = [];

  constructor(
    backend: Backend,
    policy: Policy,
    environments: VectorEnvironment,
    settings: RolloutSettings,
    key: NoiseKey,
    onEpisode: (episode: FinishedEpisode) => void,
  ) {
    const { numEnvironments, featureSize, actionMasks, actionSpace } = environments;
    if (environments.autoreset !== undefined && environments.autoreset !== "same-step")
      throw new UsageError(`rollouts: expected environments that reset in the same step, got autoreset ${environments.autoreset}`);
    const { head, dtype } = policy.config;
    const maskSize = actionMasks ? headSize(head) : 0;
    this.#environments = environments;
    this.#settings = settings;
    this.#onEpisode = onEpisode;
    this.#actionSize = actionSize(head);
    this.#actor = new Actor(backend, policy, numEnvironments, key, maskSize);
    this.#transform = actionTransform(actionSpace, head);
    this.#actions =
      dtype === "f64" ? new Float64Array(numEnvironments * this.#actionSize) : new Float32Array(numEnvironments * this.#actionSize);
    this.buffer = new RolloutBuffer({
      numSteps: settings.numSteps,
      numEnvironments,
      observationSize: featureSize,
      actionSize: this.#actionSize,
      maskSize,
      dtype,
    });
  }

  /**
   * Fills the buffer, estimates left out.
   * @param firstStep steps of each environment before this rollout: the key of its random numbers.
   */
  async collect(firstStep: number): Promise<void> {
    const { numSteps, sdeSampleFreq } = this.#settings;
    const { distribution } = this.#actor;
    const numRows = this.#environments.numEnvironments;
    this.buffer.clear();
    this.#cut = [];
    distribution.refresh();
    distribution.resetNoise(numRows, firstStep);
    let lastTurn = performance.now();
    for (let t = 0; t < numSteps; t++) {
      if (sdeSampleFreq > 0 && t > 0 && t % sdeSampleFreq === 0) distribution.resetNoise(numRows, firstStep + t);
      this.#act(firstStep + t);
      const pending = this.#environments.step(this.#actions);
      // Awaiting nothing would cost a turn of the queue in every step.
      if (pending) await pending;
      this.#record();
      if ((t & 15) === 15 && performance.now() - lastTurn > turnMs) {
        await nextTurn();
        lastTurn = performance.now();
      }
    }
    this.#valueEnds();
  }

  #act(step: number): void {
    const { buffer } = this;
    const { observations, actionMasks, numEnvironments: E } = this.#environments;
    const actor = this.#actor;
    actor.observations.set(observations);
    if (actor.masks && actionMasks) actor.masks.set(actionMasks);
    actor.run();
    const { row } = buffer;
    buffer.observations.set(observations, row * (observations.length / E));
    if (buffer.masks && actionMasks) buffer.masks.set(actionMasks, row * (actionMasks.length / E));
    const A = this.#actionSize;
    for (let e = 0; e < E; e++) {
      const offset = (row + e) * A;
      buffer.logProbs[row + e] = actor.distribution.sample(e, step, buffer.actions, offset);
      buffer.values[row + e] = actor.values[e];
      this.#transform(buffer.actions, offset, this.#actions, e * A);
    }
  }

  #record(): void {
    const { buffer } = this;
    const { rewards, terminated, truncated, finishedEpisodes, finalObservations, numEnvironments: E } = this.#environments;
    const { row } = buffer;
    const F = finalObservations.length / E;
    for (let e = 0; e < E; e++) {
      buffer.rewards[row + e] = rewards[e];
      buffer.terminated[row + e] = terminated[e];
      buffer.truncated[row + e] = truncated[e];
      if (truncated[e] && this.#settings.bootstrapTruncation)
        this.#cut.push({ row: row + e, observation: finalObservations.slice(e * F, (e + 1) * F) });
    }
    for (const episode of finishedEpisodes) this.#onEpisode(episode);
    buffer.advance();
  }

  /** Values of what comes after the last step, and of what time limits cut off. */
  #valueEnds(): void {
    const actor = this.#actor;
    actor.observations.set(this.#environments.observations);
    actor.run();
    this.buffer.lastValues.set(actor.values);
    const F = actor.observations.length / actor.numRows;
    for (let from = 0; from < this.#cut.length; from += actor.numRows) {
      const some = this.#cut.slice(from, from + actor.numRows);
      for (const [i, { observation }] of some.entries()) actor.observations.set(observation, i * F);
      actor.run();
      for (const [i, { row }] of some.entries()) this.buffer.terminalValues[row] = actor.values[i];
    }
    invariant(this.buffer.length === this.#settings.numSteps, "a rollout of another length");
  }

  dispose(): void {
    this.#actor.dispose();
  }
}
