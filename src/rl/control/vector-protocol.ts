// How the main thread and the worker threads of a batch talk: numbers in shared memory, woken by Atomics, and a message port for what is not
// numbers (errors, saved states). Both sides look at a changing number for a moment before they sleep, which saves the wake-up of a sleeper.
import { availableParallelism } from "node:os";
import type { MessagePort } from "node:worker_threads";
import type { Space } from "./spaces.ts";
import type { BatchOptions, RowBuffers } from "./vector-slice.ts";
import type { EnvironmentSpec } from "./vector-spec.ts";

/** Words of a worker's block in shared memory: one cache line, so that workers do not disturb each other. */
export const wordsPerWorker = 16;
export const word = {
  /** Counts commands; the worker sleeps on it. */
  command: 0,
  /** The command's number when it is done; the main thread sleeps on it. */
  reply: 1,
  /** What to do: an entry of `commands`. */
  code: 2,
  /** What came of it: an entry of `outcomes`. */
  outcome: 3,
  exitCode: 4,
} as const;

export const commands = { step: 0, reset: 1, resetRows: 2, save: 3, restore: 4, close: 5 } as const;
export const outcomes = { done: 0, failed: 1, ended: 2 } as const;

/** What a worker is started with. */
export interface WorkerInput {
  readonly spec: EnvironmentSpec;
  /** Number of its first environment, and how many it has. */
  readonly offset: number;
  readonly count: number;
  readonly options: BatchOptions;
  readonly port: MessagePort;
}

/** The worker's first message. */
export type WorkerReady =
  | { readonly kind: "ready"; readonly observationSpace: Space; readonly actionSpace: Space; readonly maskSize: number }
  | ({ readonly kind: "failed" } & RemoteError);

/** The answer to it: memory of the whole batch. */
export interface WorkerStart {
  readonly rows: RowBuffers;
  /** [N, A] */
  readonly actions: Float64Array;
  /** [1] NaN for none. */
  readonly seed: Float64Array;
  /** [N] for `resetRows`. */
  readonly wanted: Uint8Array;
  /** This worker's block. */
  readonly control: Int32Array;
}

export interface RemoteError {
  readonly message: string;
  readonly hint?: string;
  readonly stack?: string;
}

/** Looks before sleeping; none where threads must share processors. */
export const spinsFor = (numWorkers: number): number => (availableParallelism() > numWorkers ? 4000 : 100);

/**
 * Waits until `control[at]` is no longer `value`.
 * @param milliseconds longest sleep; Infinity in workers.
 * @returns whether it changed.
 */
export function waitWhile(control: Int32Array, at: number, value: number, spins: number, milliseconds: number): boolean {
  for (let i = 0; i < spins; i++) if (Atomics.load(control, at) !== value) return true;
  Atomics.wait(control, at, value, milliseconds);
  return Atomics.load(control, at) !== value;
}
