// Some neighbouring environments of a batch: steps them, checks what they return, resets them when episodes end, and writes rows of flat
// buffers. The in-process batch has one slice; each worker thread has one over shared memory. Nothing is allocated in a step.
import { CheckpointError, EnvironmentError, LongwaveError } from "../../base/errors.ts";
import type { JsonRecord } from "../../engine/events.ts";
import type { Autoreset, Environment, Value } from "./environment.ts";
import { contains, describeSpace, featureSize, type Space, valueSize, writeFeatures } from "./spaces.ts";

export interface BatchOptions {
  /** For messages and run folders; default "environment". */
  name?: string;
  /** What happens after the end of an episode; default `same-step`. */
  autoreset?: Autoreset;
  /** Cuts actions in a Box to its bounds, as Stable-Baselines3 does before a step; otherwise such actions are errors. Default true. */
  clipActions?: boolean;
  /** Truncates episodes after this many steps, also where the environment has no limit of its own. */
  maxEpisodeSteps?: number;
}

/** Rows of N environments; F features, M actions of a mask. */
export interface RowBuffers {
  /** [N, F] */
  readonly observations: Float32Array;
  /** [N, F] */
  readonly finalObservations: Float32Array;
  /** [N] */
  readonly rewards: Float64Array;
  /** [N] */
  readonly terminated: Uint8Array;
  /** [N] */
  readonly truncated: Uint8Array;
  /** [N, M]; M is 0 without masks. */
  readonly actionMasks: Uint8Array;
  /** [N] of the episode that ended, in rows that ended one. */
  readonly episodeReturns: Float64Array;
  /** [N] */
  readonly episodeLengths: Float64Array;
}

/** Bytes of an element of each buffer, and its length for one environment. */
export function allocateRows(n: number, features: number, maskSize: number, shared = false): RowBuffers {
  const bytes = (size: number): ArrayBuffer | SharedArrayBuffer => (shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size));
  return {
    observations: new Float32Array(bytes(4 * n * features)),
    finalObservations: new Float32Array(bytes(4 * n * features)),
    rewards: new Float64Array(bytes(8 * n)),
    terminated: new Uint8Array(bytes(n)),
    truncated: new Uint8Array(bytes(n)),
    actionMasks: new Uint8Array(bytes(n * maskSize)),
    episodeReturns: new Float64Array(bytes(8 * n)),
    episodeLengths: new Float64Array(bytes(8 * n)),
  };
}

/** Rows `from` to `from + n` of larger buffers, over the same memory. */
export function rowsOf(buffers: RowBuffers, from: number, n: number): RowBuffers {
  const total = buffers.rewards.length;
  const part = <T extends Float32Array | Float64Array | Uint8Array>(array: T): T => {
    const width = array.length / total;
    return array.subarray(from * width, (from + n) * width) as T;
  };
  return {
    observations: part(buffers.observations),
    finalObservations: part(buffers.finalObservations),
    rewards: part(buffers.rewards),
    terminated: part(buffers.terminated),
    truncated: part(buffers.truncated),
    actionMasks: part(buffers.actionMasks),
    episodeReturns: part(buffers.episodeReturns),
    episodeLengths: part(buffers.episodeLengths),
  };
}

/** How many actions each entry of the space chooses from: the groups of a mask. Empty for a Box. */
export function maskGroups(space: Space): readonly number[] {
  if (space.kind === "discrete") return [space.n];
  if (space.kind === "multi-discrete") return space.dims;
  return space.kind === "multi-binary" ? Array.from({ length: space.n }, () => 2) : [];
}

export class EnvironmentSlice {
  readonly environments: readonly Environment[];
  readonly observationSpace: Space;
  readonly actionSpace: Space;
  readonly #buffers: RowBuffers;
  readonly #name: string;
  readonly #offset: number;
  readonly #autoreset: Autoreset;
  readonly #clipActions: boolean;
  readonly #maxEpisodeSteps: number;
  readonly #features: number;
  readonly #actionSize: number;
  readonly #action: Float64Array;
  /** Bounds of a Box that numbers rounded to float32 are still within. */
  readonly #low: Float64Array | undefined;
  readonly #high: Float64Array | undefined;
  readonly #maskGroups: readonly number[];
  readonly #maskSize: number;
  /** Of the running episodes. */
  readonly #returns: Float64Array;
  readonly #lengths: Float64Array;
  /** Rows whose episode ended and that were not reset yet. */
  readonly #ended: Uint8Array;
  #steps = 0;
  #isStarted = false;

  /** @param offset number of the first environment in the whole batch. */
  constructor(environments: readonly Environment[], buffers: RowBuffers, offset: number, options: BatchOptions) {
    const { name = "environment", autoreset = "same-step", clipActions = true, maxEpisodeSteps = Number.POSITIVE_INFINITY } = options;
    const { observationSpace, actionSpace } = environments[0];
    this.environments = environments;
    this.observationSpace = observationSpace;
    this.actionSpace = actionSpace;
    this.#buffers = buffers;
    this.#name = name;
    this.#offset = offset;
    this.#autoreset = autoreset;
    this.#clipActions = clipActions;
    this.#maxEpisodeSteps = maxEpisodeSteps;
    this.#features = featureSize(observationSpace);
    this.#actionSize = valueSize(actionSpace);
    this.#action = new Float64Array(this.#actionSize);
    if (actionSpace.kind === "box") {
      this.#low = actionSpace.low.map((low) => Math.min(low, Math.fround(low)));
      this.#high = actionSpace.high.map((high) => Math.max(high, Math.fround(high)));
    }
    this.#maskSize = buffers.actionMasks.length / environments.length;
    this.#maskGroups = maskGroups(actionSpace);
    this.#returns = new Float64Array(environments.length);
    this.#lengths = new Float64Array(environments.length);
    this.#ended = new Uint8Array(environments.length);
    for (const [row, environment] of environments.entries()) this.#checkSpaces(row, environment);
  }

  #checkSpaces(row: number, { observationSpace, actionSpace }: Environment): void {
    for (const [what, own, first] of [
      ["observations", observationSpace, this.observationSpace],
      ["actions", actionSpace, this.actionSpace],
    ] as const)
      if (describeSpace(own) !== describeSpace(first))
        throw new EnvironmentError(
          `${this.#name}, environment ${this.#offset + row}: expected ${what} in ${describeSpace(first)} like its neighbours, got ${describeSpace(own)}`,
        );
  }

  /** @param seed of the whole batch; NaN: each environment's randomness goes on. */
  reset(seed: number): void {
    const first = Number.isNaN(seed) && !this.#isStarted ? 0 : seed;
    this.#steps = 0;
    for (let row = 0; row < this.environments.length; row++) this.#resetRow(row, first);
    this.#isStarted = true;
  }

  /** @param wanted [N] 1 for the rows to reset. */
  resetRows(wanted: Uint8Array): void {
    for (let row = 0; row < this.environments.length; row++) if (wanted[row]) this.#resetRow(row, Number.NaN);
  }

  #resetRow(row: number, seed: number): void {
    try {
      this.#startEpisode(row, Number.isNaN(seed) ? undefined : seed + this.#offset + row);
    } catch (error) {
      throw this.#failure(row, "reset", error);
    }
    this.#buffers.rewards[row] = 0;
    this.#buffers.terminated[row] = 0;
    this.#buffers.truncated[row] = 0;
  }

  #startEpisode(row: number, seed?: number): void {
    const observation = this.environments[row].reset(seed === undefined ? undefined : { seed });
    this.#writeObservation(row, observation, this.#buffers.observations);
    this.#writeMask(row);
    this.#returns[row] = 0;
    this.#lengths[row] = 0;
    this.#ended[row] = 0;
  }

  /** @param actions [N, A] of this slice. */
  step(actions: ArrayLike<number>): void {
    this.#steps++;
    let row = 0;
    try {
      for (; row < this.environments.length; row++) this.#stepRow(row, actions);
    } catch (error) {
      throw this.#failure(row, `step ${this.#steps} (${this.#lengths[row] + 1} of its episode)`, error);
    }
  }

  #stepRow(row: number, actions: ArrayLike<number>): void {
    const { rewards, terminated, truncated, observations, finalObservations } = this.#buffers;
    if (this.#ended[row]) {
      if (this.#autoreset === "disabled")
        throw new EnvironmentError("expected a running episode, got one that ended", { hint: "Call resetRows for it first." });
      this.#startEpisode(row);
      rewards[row] = 0;
      terminated[row] = 0;
      truncated[row] = 0;
      return;
    }
    const result = this.environments[row].step(this.#readAction(row, actions));
    if (typeof result !== "object" || result === null || typeof result.terminated !== "boolean" || typeof result.truncated !== "boolean")
      throw new EnvironmentError(`expected { observation, reward, terminated, truncated } from step, got ${describe(result)}`, {
        hint: "step is synchronous, and both flags are booleans.",
      });
    const { reward } = result;
    if (!Number.isFinite(reward)) throw new EnvironmentError(`expected a finite reward, got ${describe(reward)}`);
    this.#returns[row] += reward;
    const length = ++this.#lengths[row];
    const isTerminated = result.terminated;
    const isTruncated = !isTerminated && (result.truncated || length >= this.#maxEpisodeSteps);
    this.#writeObservation(row, result.observation, observations);
    rewards[row] = reward;
    terminated[row] = isTerminated ? 1 : 0;
    truncated[row] = isTruncated ? 1 : 0;
    if (isTerminated || isTruncated) {
      const width = this.#features;
      for (let at = row * width; at < (row + 1) * width; at++) finalObservations[at] = observations[at];
      this.#buffers.episodeReturns[row] = this.#returns[row];
      this.#buffers.episodeLengths[row] = length;
      this.#ended[row] = 1;
      if (this.#autoreset === "same-step") {
        this.#startEpisode(row);
        return;
      }
    }
    this.#writeMask(row);
  }

  #readAction(row: number, actions: ArrayLike<number>): Value {
    const space = this.actionSpace;
    if (space.kind === "discrete") {
      const action = actions[row];
      if (!Number.isInteger(action) || action < space.start || action >= space.start + space.n) throw this.#badAction(action);
      return action;
    }
    const own = this.#action;
    const [low, high] = [this.#low, this.#high];
    for (let i = 0, at = row * this.#actionSize; i < own.length; i++, at++) {
      const value = actions[at];
      if (low && high) {
        if (Number.isNaN(value)) throw this.#badAction(value);
        if (this.#clipActions && space.kind === "box") own[i] = Math.min(Math.max(value, space.low[i]), space.high[i]);
        else if (value < low[i] || value > high[i]) throw this.#badAction(value);
        else own[i] = value;
      } else {
        const count = space.kind === "multi-discrete" ? space.dims[i] : 2;
        if (!Number.isInteger(value) || value < 0 || value >= count) throw this.#badAction(value);
        own[i] = value;
      }
    }
    return own;
  }

  #badAction(value: number): EnvironmentError {
    return new EnvironmentError(`expected an action in ${describeSpace(this.actionSpace)}, got ${value}`, {
      hint: this.#low ? "Clip or rescale actions to the bounds of the space." : "Actions count from the start of their space.",
    });
  }

  #writeObservation(row: number, observation: Value, target: Float32Array): void {
    const space = this.observationSpace;
    const offset = row * this.#features;
    if (space.kind !== "box") {
      if (!contains(space, observation))
        throw new EnvironmentError(`expected an observation in ${describeSpace(space)}, got ${describe(observation)}`);
      writeFeatures(space, observation, target, offset);
      return;
    }
    const values = observation as ArrayLike<number>;
    const size = this.#features;
    if (values?.length !== size)
      throw new EnvironmentError(`expected an observation of ${size} numbers for ${describeSpace(space)}, got ${describe(observation)}`);
    for (let i = 0; i < size; i++) {
      const value = values[i];
      target[offset + i] = value;
      // What does not fit into float32 is infinite there.
      if (typeof value !== "number" || !Number.isFinite(target[offset + i]))
        throw new EnvironmentError(`expected finite numbers in the observation, got ${describe(value)} at entry ${i}`);
    }
  }

  #writeMask(row: number): void {
    if (this.#maskSize === 0) return;
    const mask = (this.environments[row].actionMask as () => ArrayLike<number>)();
    if (mask.length !== this.#maskSize)
      throw new EnvironmentError(`expected an action mask of ${this.#maskSize} entries, got ${mask.length}`);
    let at = 0;
    for (const count of this.#maskGroups) {
      let numAllowed = 0;
      for (const end = at + count; at < end; at++) {
        const isAllowed = mask[at] ? 1 : 0;
        numAllowed += isAllowed;
        this.#buffers.actionMasks[row * this.#maskSize + at] = isAllowed;
      }
      if (numAllowed === 0) throw new EnvironmentError("expected an action mask that allows at least one action, got none");
    }
  }

  #failure(row: number, when: string, error: unknown): EnvironmentError {
    const what = error instanceof Error ? error.message : String(error);
    const isOurs = error instanceof EnvironmentError;
    const detail = isOurs ? what : `expected it to go on, got ${error instanceof Error ? error.name : "an error"}: ${what}`;
    const hint =
      error instanceof LongwaveError
        ? error.hint
        : "The error comes from the environment's own code: see its cause, which LONGWAVE_DEBUG=1 prints on the command line.";
    return new EnvironmentError(`${this.#name}, environment ${this.#offset + row}, ${when}: ${detail}`, { hint, cause: error });
  }

  /** Everything that decides what follows; undefined when an environment cannot tell. */
  saveState(): JsonRecord | undefined {
    const environments: JsonRecord[] = [];
    for (const environment of this.environments) {
      const state = environment.restoreState && environment.saveState?.();
      if (!state) return undefined;
      environments.push(state);
    }
    return {
      environments,
      steps: this.#steps,
      isStarted: this.#isStarted,
      returns: [...this.#returns],
      lengths: [...this.#lengths],
      ended: [...this.#ended],
      observations: [...this.#buffers.observations],
      actionMasks: [...this.#buffers.actionMasks],
    };
  }

  /** @throws CheckpointError for the state of another batch. */
  restoreState(state: JsonRecord): void {
    const { environments, steps, isStarted } = state;
    const count = this.environments.length;
    if (!Array.isArray(environments) || environments.length !== count)
      throw new CheckpointError(`${this.#name}: expected the states of ${count} environments, got another number`);
    const read = (name: string, target: { length: number; set(values: ArrayLike<number>): void }): void => {
      const list = state[name];
      if (!Array.isArray(list) || list.length !== target.length || !list.every((item) => Number.isFinite(item)))
        throw new CheckpointError(`${this.#name}: expected ${target.length} numbers in \`${name}\` of its state, got something else`);
      target.set(list as number[]);
    };
    read("returns", this.#returns);
    read("lengths", this.#lengths);
    read("ended", this.#ended);
    read("observations", this.#buffers.observations);
    read("actionMasks", this.#buffers.actionMasks);
    for (const [row, environment] of this.environments.entries()) {
      if (!environment.restoreState)
        throw new CheckpointError(`${this.#name}: expected environments that restore states, got one that cannot`);
      environment.restoreState(environments[row] as JsonRecord);
    }
    this.#buffers.rewards.fill(0);
    this.#buffers.terminated.fill(0);
    this.#buffers.truncated.fill(0);
    this.#steps = typeof steps === "number" ? steps : 0;
    this.#isStarted = isStarted === true;
  }

  dispose(): void {
    for (const environment of this.environments) environment.dispose?.();
  }
}

function describe(value: unknown): string {
  if (value instanceof Promise) return "a promise";
  if (typeof value !== "object" || value === null) return String(value);
  const { length } = value as { length?: unknown };
  return typeof length === "number" ? `${length} numbers` : JSON.stringify(value).slice(0, 60);
}
