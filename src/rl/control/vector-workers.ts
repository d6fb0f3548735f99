// A batch whose environments run in worker threads over shared memory: for environments that are slow to step, such as simulators.
// Same results as in one thread for the same seeds.
import { once } from "node:events";
import { availableParallelism } from "node:os";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { EnvironmentError, UsageError } from "../../base/errors.ts";
import type { JsonRecord } from "../../engine/events.ts";
import type { Environment, VectorEnvironment } from "./environment.ts";
import { featureSize, type Space, valueSize } from "./spaces.ts";
import { batchEnvironments } from "./vector.ts";
import { Batch, checkBatchOptions } from "./vector-batch.ts";
import { Connection, errorOf } from "./vector-connection.ts";
import { commands, spinsFor, type WorkerInput, type WorkerReady, type WorkerStart, wordsPerWorker } from "./vector-protocol.ts";
import { allocateRows, type BatchOptions } from "./vector-slice.ts";
import { type EnvironmentSpec, makerOf, nameOf } from "./vector-spec.ts";

export interface WorkerOptions extends BatchOptions {
  /** Threads; default: one for each processor but one, at most one for each environment. */
  workers?: number;
  /** Longest time for one command in seconds; then the workers are ended and it is an error. Default: no limit. */
  timeout?: number;
  /** Node's flags for the workers, such as `["--import", "tsx"]` for modules in TypeScript. Default: those of this process. */
  execArgv?: readonly string[];
}

/** What a step may wait for without letting the event loop turn: signals are seen at least so often. */
const longestSleep = 50;
/** For commands that answer at once, such as saving. */
const longestQuickCommand = 60_000;

class WorkerBatch extends Batch {
  readonly #connections: readonly Connection[];
  readonly #shared: Omit<WorkerStart, "control">;
  readonly #counts: readonly number[];
  readonly #spins: number;
  readonly #timeout: number;

  constructor(
    spaces: { observationSpace: Space; actionSpace: Space },
    connections: readonly Connection[],
    shared: Omit<WorkerStart, "control">,
    counts: readonly number[],
    options: WorkerOptions,
  ) {
    super(spaces.observationSpace, spaces.actionSpace, shared.rows, options);
    this.#connections = connections;
    this.#shared = shared;
    this.#counts = counts;
    this.#spins = spinsFor(connections.length);
    this.#timeout = options.timeout === undefined ? Number.POSITIVE_INFINITY : options.timeout * 1000;
  }

  reset(seed?: number): void | Promise<void> {
    this.checkSeed(seed);
    this.begin();
    this.#shared.seed[0] = seed ?? Number.NaN;
    return this.#command(commands.reset);
  }

  resetRows(rows: readonly number[]): void | Promise<void> {
    this.#shared.wanted.set(this.rowMask(rows));
    this.begin();
    return this.#command(commands.resetRows);
  }

  step(actions: Float32Array | Float64Array | Int32Array): void | Promise<void> {
    this.checkActions(actions);
    this.begin();
    this.#shared.actions.set(actions);
    return this.#command(commands.step);
  }

  /** A promise only where the environments take long. */
  #command(code: number): void | Promise<void> {
    this.#refuseEnded();
    for (const connection of this.#connections) connection.send(code);
    let rest = longestSleep;
    for (const connection of this.#connections) {
      const before = performance.now();
      if (!connection.wait(this.#spins, rest)) return this.#finishLater(code);
      // One worker's wait is also the others'.
      rest = Math.max(0, rest - (performance.now() - before));
    }
    this.#finish(code);
  }

  async #finishLater(code: number): Promise<void> {
    for (const connection of this.#connections) await connection.waitTurning(this.#timeout);
    this.#finish(code);
  }

  #finish(code: number): void {
    let error: EnvironmentError | undefined;
    // Every failed worker has sent a message that must be taken.
    for (const connection of this.#connections) error = connection.takeError() ?? error;
    if (error) throw error;
    this.commit(code === commands.step);
  }

  #refuseEnded(): void {
    for (const { ended } of this.#connections) if (ended) throw ended;
  }

  #quickCommand(code: number): void {
    this.#refuseEnded();
    for (const connection of this.#connections) connection.send(code);
    for (const connection of this.#connections)
      if (!connection.wait(this.#spins, longestQuickCommand)) connection.end("expected its state, got no answer");
    let error: EnvironmentError | undefined;
    for (const connection of this.#connections) error = connection.takeError() ?? error;
    if (error) throw error;
  }

  saveState(): JsonRecord | undefined {
    this.checkRunning();
    this.#quickCommand(commands.save);
    const states = this.#connections.map(({ port }) => receiveMessageOnPort(port)?.message as JsonRecord | undefined);
    return mergeStates(states);
  }

  restoreState(state: JsonRecord): void {
    this.begin();
    const parts = splitState(state, this.#counts, this.name);
    this.#refuseEnded();
    for (const [i, { port }] of this.#connections.entries()) port.postMessage(parts[i]);
    this.#quickCommand(commands.restore);
    this.commit(false);
  }

  override dispose(): void {
    if (this.isDisposed) return;
    super.dispose();
    for (const connection of this.#connections) {
      // One that is still busy would not see the command.
      if (connection.isDone && !connection.ended) connection.send(commands.close);
      else connection.terminate();
      connection.port.close();
    }
  }
}

/** States of slices as the state of one slice, so that a batch can be resumed with another number of workers, or none. */
function mergeStates(states: readonly (JsonRecord | undefined)[]): JsonRecord | undefined {
  const [first] = states;
  if (!first || states.some((state) => state === undefined)) return undefined;
  return Object.fromEntries(
    Object.entries(first).map(([key, value]) => [key, Array.isArray(value) ? states.flatMap((state) => state?.[key] ?? []) : value]),
  );
}

function splitState(state: JsonRecord, counts: readonly number[], name: string): JsonRecord[] {
  const total = counts.reduce((sum, count) => sum + count, 0);
  for (const [key, value] of Object.entries(state))
    if (Array.isArray(value) && value.length % total !== 0)
      throw new EnvironmentError(
        `${name}: expected the state of ${total} environments, got one with ${value.length} entries in \`${key}\``,
      );
  let from = 0;
  return counts.map((count) => {
    const [start, end] = [from, (from += count)];
    const part = (list: readonly unknown[]): unknown => list.slice((start * list.length) / total, (end * list.length) / total);
    return Object.fromEntries(Object.entries(state).map(([key, value]) => [key, Array.isArray(value) ? part(value) : value])) as JsonRecord;
  });
}

/**
 * Runs `n` environments in worker threads; as `batchEnvironments` otherwise. Steps return a promise only where they take long; always
 * await them. A thread that ends is an EnvironmentError. Idle workers do not keep the process alive.
 * @throws UsageError for wrong options, EnvironmentError when a worker cannot make its environments.
 */
export async function workerEnvironments(spec: EnvironmentSpec, n: number, options: WorkerOptions = {}): Promise<VectorEnvironment> {
  checkBatchOptions(n, options);
  const { workers = Math.max(1, availableParallelism() - 1), timeout } = options;
  if (!Number.isInteger(workers) || workers < 1) throw new UsageError(`workers: expected a positive integer, got ${workers}`);
  if (timeout !== undefined && !(timeout > 0)) throw new UsageError(`timeout: expected seconds above 0, got ${timeout}`);
  const named = { name: nameOf(spec), ...options };
  const numWorkers = Math.min(workers, n);
  const counts = Array.from({ length: numWorkers }, (_, i) => Math.floor(((i + 1) * n) / numWorkers) - Math.floor((i * n) / numWorkers));
  const started: { worker: Worker; port: MessagePort }[] = [];
  let offset = 0;
  for (const count of counts) {
    started.push(startWorker(spec, offset, count, named));
    offset += count;
  }
  try {
    const ready = await Promise.all(started.map(({ worker }, i) => firstMessage(worker, placeOf(named.name, i, counts))));
    const [{ observationSpace, actionSpace, maskSize }] = ready;
    const rows = allocateRows(n, featureSize(observationSpace), maskSize, true);
    const shared = { rows, ...sharedArguments(n, valueSize(actionSpace)) };
    const connections = started.map(({ worker, port }, i) => {
      const control = new Int32Array(new SharedArrayBuffer(4 * wordsPerWorker));
      worker.postMessage({ ...shared, control } satisfies WorkerStart);
      return new Connection(worker, port, control, placeOf(named.name, i, counts));
    });
    return new WorkerBatch({ observationSpace, actionSpace }, connections, shared, counts, named);
  } catch (error) {
    for (const { worker } of started) void worker.terminate();
    throw error;
  }
}

const sharedArguments = (n: number, actionSize: number): { actions: Float64Array; seed: Float64Array; wanted: Uint8Array } => ({
  actions: new Float64Array(new SharedArrayBuffer(8 * n * actionSize)),
  seed: new Float64Array(new SharedArrayBuffer(8)),
  wanted: new Uint8Array(new SharedArrayBuffer(n)),
});

function placeOf(name: string, i: number, counts: readonly number[]): string {
  const from = counts.slice(0, i).reduce((sum, count) => sum + count, 0);
  return `${name}, worker ${i + 1} of ${counts.length} (environments ${from} to ${from + counts[i] - 1})`;
}

function startWorker(spec: EnvironmentSpec, offset: number, count: number, options: WorkerOptions): { worker: Worker; port: MessagePort } {
  const { port1, port2 } = new MessageChannel();
  const { name, autoreset, clipActions, maxEpisodeSteps, execArgv } = options;
  const plain = "module" in spec ? { ...spec, module: String(spec.module) } : spec;
  const input: WorkerInput = { spec: plain, offset, count, options: { name, autoreset, clipActions, maxEpisodeSteps }, port: port2 };
  // Beside this file: compiled, or as source under a loader of TypeScript.
  const file = new URL(import.meta.url.endsWith(".ts") ? "./vector-worker.ts" : "./vector-worker.js", import.meta.url);
  const worker = new Worker(file, { workerData: input, transferList: [port2], ...(execArgv && { execArgv: [...execArgv] }) });
  return { worker, port: port1 };
}

/** @throws EnvironmentError when it says that it failed, or ends without a word. */
async function firstMessage(worker: Worker, place: string): Promise<Extract<WorkerReady, { kind: "ready" }>> {
  const ends = new AbortController();
  const ended = once(worker, "exit", { signal: ends.signal }).then(([code]) => {
    throw new EnvironmentError(`${place}: expected environments, got the end of its thread with exit code ${code}`);
  });
  ended.catch(() => {});
  try {
    // Rejects with what the worker did not catch.
    const [message] = (await Promise.race([once(worker, "message", { signal: ends.signal }), ended])) as [WorkerReady];
    if (message.kind === "failed") throw errorOf(message, `${place}: `);
    return message;
  } finally {
    ends.abort();
  }
}

/**
 * `n` environments of a description: in this thread (`workers: 0`, the default), or in threads.
 * @throws as {@link workerEnvironments} and `batchEnvironments`.
 */
export async function openEnvironments(spec: EnvironmentSpec, n: number, options: WorkerOptions = {}): Promise<VectorEnvironment> {
  const { workers = 0, timeout, execArgv, ...rest } = options;
  if (workers !== 0) return workerEnvironments(spec, n, { ...options, workers });
  checkBatchOptions(n, rest);
  const make = await makerOf(spec);
  const environments: Environment[] = [];
  for (let i = 0; i < n; i++) environments.push(await make(i));
  return batchEnvironments((index) => environments[index], n, { name: nameOf(spec), ...rest });
}
