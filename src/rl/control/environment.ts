// What an environment is (Gymnasium's meaning), and the batch of environments that the rollout loop sees.
import type { JsonRecord } from "../../engine/events.ts";
import type { Drawing } from "./drawing.ts";
import type { Space } from "./spaces.ts";

/** A number for a discrete space, else numbers. */
export type Value = number | ArrayLike<number>;

export interface EnvironmentStep<Observation extends Value = Value> {
  /** After the step. An array may be the environment's own and be overwritten by the next call. */
  observation: Observation;
  reward: number;
  /** The task ended: what follows has value 0. */
  terminated: boolean;
  /** The episode was cut (a time limit): what would follow still has a value. */
  truncated: boolean;
  /** Anything else, for people to read. */
  info?: Readonly<Record<string, unknown>>;
}

export interface ResetOptions {
  /** Seeds the environment's own randomness; without it that goes on where it was. */
  seed?: number;
  /** Whatever this environment understands. */
  options?: Readonly<Record<string, unknown>>;
}

/** One world. `step` may return the same object every time, changed. */
export interface Environment<Observation extends Value = Value, Action extends Value = Value> {
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  /** Starts an episode and returns its first observation. */
  reset(options?: ResetOptions): Observation;
  step(action: Action): EnvironmentStep<Observation>;
  /** Which actions are possible now, one 0 or 1 for each action (each dimension's actions behind each other); absent: all. */
  actionMask?(): ArrayLike<number>;
  /** Everything that decides what follows. Without it a resumed run starts this environment anew. */
  saveState?(): JsonRecord;
  restoreState?(state: JsonRecord): void;
  /** What to draw of the present state. */
  drawing?(): Drawing;
  dispose?(): void;
}

/** Makes one environment. In a batch each has its own; `index` is its row there. */
export type EnvironmentFactory = (index: number) => Environment;

/** An episode that ended in the last step. */
export interface FinishedEpisode {
  readonly row: number;
  /** Sum of the rewards that the environment itself gave, before any normalisation. */
  readonly return: number;
  readonly length: number;
}

/**
 * What happens to an environment whose episode ended, by Gymnasium's names.
 * - `same-step`: it is reset in that step (as Stable-Baselines3 does; what rollouts here expect).
 * - `next-step`: `observations` keeps the final one; the next step ignores its action, resets it, and gives reward 0 and no end.
 * - `disabled`: it must be reset by `resetRows` before the next step.
 */
export type Autoreset = "same-step" | "next-step" | "disabled";

/**
 * A batch of N environments with one step call and flat buffers, which stay the same objects: read them before the next call.
 * Unless `autoreset` says otherwise, an environment that ends an episode is reset in the same step: `observations` is then the first of
 * the next episode, and `finalObservations` holds the last of the ended one.
 */
export interface VectorEnvironment {
  /** For messages and run folders: `CartPole-v1`. */
  readonly name: string;
  /** Absent: `same-step`. */
  readonly autoreset?: Autoreset;
  readonly numEnvironments: number;
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  /** F in the shapes below: `featureSize(observationSpace)`. */
  readonly featureSize: number;
  /** [N, F] what the policy acts on next. */
  readonly observations: Float32Array;
  /** [N, F] valid in rows where `terminated` or `truncated` is 1. */
  readonly finalObservations: Float32Array;
  /** [N] */
  readonly rewards: Float64Array;
  /** [N] 0 or 1. */
  readonly terminated: Uint8Array;
  /** [N] 0 or 1; 0 where `terminated`. */
  readonly truncated: Uint8Array;
  /** [N, M] 0 or 1 of the present observations, where the environments mask actions. */
  readonly actionMasks?: Uint8Array;
  /** Episodes that ended in the last step. */
  readonly finishedEpisodes: readonly FinishedEpisode[];
  /** Starts all anew. Environment i is seeded with `seed + i`. */
  reset(seed?: number): void | Promise<void>;
  /** Starts new episodes in these rows alone, by their numbers from 0; how `disabled` goes on after an end. */
  resetRows?(rows: readonly number[]): void | Promise<void>;
  /**
   * @param actions [N, A] with A = `valueSize(actionSpace)`: as the environments take them, discrete ones with their `start`.
   * @throws EnvironmentError naming the environment and its step for NaN, a wrong shape or an error in `step`; buffers keep the last good step.
   */
  step(actions: Float32Array | Float64Array | Int32Array): void | Promise<void>;
  /** Everything that decides what follows; undefined when an environment cannot tell. */
  saveState(): JsonRecord | undefined;
  restoreState(state: JsonRecord): void;
  dispose(): void;
}
