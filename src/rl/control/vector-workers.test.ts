// Worker threads: the results of one thread, states that pass between both, errors and ends of threads.
import { afterEach, describe, expect, test } from "vitest";
import { EnvironmentError, UsageError } from "../../base/errors.ts";
import { Random } from "../../runtime/rng.ts";
import type { VectorEnvironment } from "./environment.ts";
import { makeEnvironment } from "./registry.ts";
import { type CounterOptions, counter } from "./testing/worker-environments.ts";
import { batchEnvironments } from "./vector.ts";
import { openEnvironments, type WorkerOptions, workerEnvironments } from "./vector-workers.ts";

// Threads of Node 20 read TypeScript with the loader that child processes of tests use.
const execArgv = ["--import", new URL("../../runtime/testing/register-typescript.mjs", import.meta.url).href];
const module = new URL("./testing/worker-environments.ts", import.meta.url);

const open: VectorEnvironment[] = [];
afterEach(() => {
  for (const batch of open.splice(0)) batch.dispose();
});

async function counters(n: number, options: CounterOptions, workerOptions: WorkerOptions = {}): Promise<VectorEnvironment> {
  const batch = await workerEnvironments({ module, export: "counter", options }, n, { workers: 2, execArgv, ...workerOptions });
  open.push(batch);
  return batch;
}

const shown = (batch: VectorEnvironment): unknown => ({
  observations: [...batch.observations],
  rewards: [...batch.rewards],
  terminated: [...batch.terminated],
  truncated: [...batch.truncated],
  final: [...batch.finalObservations].filter((_, i) => {
    const row = Math.floor(i / batch.featureSize);
    return batch.terminated[row] || batch.truncated[row];
  }),
  masks: batch.actionMasks && [...batch.actionMasks],
  episodes: [...batch.finishedEpisodes],
});

test("give what one thread gives, and take its states", async () => {
  const n = 5;
  const id = "Taxi-v4";
  const options = { isRainy: true, ficklePassenger: true, maxEpisodeSteps: 9 };
  const threads = await workerEnvironments({ id, options }, n, { workers: 2, execArgv });
  open.push(threads);
  const alone = batchEnvironments(() => makeEnvironment(id, options), n, { name: id });
  expect(threads).toMatchObject({ name: id, numEnvironments: n, featureSize: 500, autoreset: "same-step" });
  await threads.reset(3);
  alone.reset(3);
  expect(shown(threads)).toEqual(shown(alone));
  const random = new Random(1);
  const actions = new Int32Array(n);
  for (let step = 0; step < 60; step++) {
    for (let row = 0; row < n; row++) actions[row] = random.integer(6);
    await threads.step(actions);
    alone.step(actions);
    expect(shown(threads)).toEqual(shown(alone));
  }
  const state = alone.saveState();
  expect(threads.saveState()).toEqual(state);

  await threads.reset(77);
  threads.restoreState(JSON.parse(JSON.stringify(state)));
  expect([...threads.observations]).toEqual([...alone.observations]);
  await threads.step(actions);
  alone.step(actions);
  expect(shown(threads)).toEqual(shown(alone));
  expect(() => threads.restoreState({ ...state, environments: [] as never[], returns: [1, 2, 3] })).toThrow(/5 environments/);
});

test("an error in a step names the environment; the last good step stays; a reset mends it", async () => {
  const batch = await counters(4, { length: 9, fault: { kind: "throw", step: 2, index: 3 } });
  await batch.reset(10);
  expect([...batch.observations]).toEqual([0, 10, 0, 1, 11, 0, 2, 12, 0, 3, 13, 0]);
  await batch.step(Int32Array.of(1, 2, 3, 0));
  const good = shown(batch);
  const failing = async (): Promise<void> => batch.step(Int32Array.of(1, 1, 1, 1));
  await expect(failing()).rejects.toThrow(/^counter, environment 3, step 2 \(2 of its episode\): .*RangeError: the wheel came off/);
  expect(shown(batch)).toEqual(good);
  await expect(failing()).rejects.toThrow(/failed before/);
  await batch.reset();
  expect([...batch.observations]).toEqual([0, 10, 0, 1, 11, 0, 2, 12, 0, 3, 13, 0]);
  await batch.step(Int32Array.of(1, 2, 3, 0));
  expect(shown(batch)).toEqual(good);
  await batch.resetRows?.([1, 3]);
  expect([...batch.observations]).toEqual([0, 10, 1, 1, 11, 0, 2, 12, 1, 3, 13, 0]);
});

describe("a thread that does not answer", () => {
  test("because its environment ended it", async () => {
    const batch = await counters(4, { fault: { kind: "exit", step: 2, index: 2 } });
    await batch.reset(0);
    await batch.step(Int32Array.of(0, 0, 0, 0));
    const step = async (): Promise<void> => batch.step(Int32Array.of(0, 0, 0, 0));
    await expect(step()).rejects.toThrow(
      /counter, worker 2 of 2 \(environments 2 to 3\): expected it to go on, got its end with exit code 7/,
    );
    await expect(step()).rejects.toThrow(EnvironmentError);
    await expect((async () => batch.reset())()).rejects.toThrow(/worker 2 of 2/);
  });

  test("within the time limit; slow steps let the event loop turn", async () => {
    const batch = await counters(2, { length: 9, delay: 120, fault: { kind: "sleep", step: 2, index: 1 } }, { timeout: 1 });
    await batch.reset(0);
    let hasTurned = false;
    setTimeout(() => {
      hasTurned = true;
    }, 1);
    const slow = batch.step(Int32Array.of(2, 3));
    expect(slow).toBeInstanceOf(Promise);
    await slow;
    expect(hasTurned).toBe(true);
    expect([...batch.rewards]).toEqual([2, 3]);
    await expect((async () => batch.step(Int32Array.of(0, 0)))()).rejects.toThrow(/worker 2 of 2 .*expected an answer within 1 s/);
  });
});

test("refuses what cannot be made", async () => {
  const open = (spec: Parameters<typeof openEnvironments>[0], options: WorkerOptions): Promise<VectorEnvironment> =>
    openEnvironments(spec, 2, { execArgv, ...options });
  await expect(open({ module, export: "missing" }, { workers: 1 })).rejects.toThrow(/worker 1 of 1 .*expected a function `missing`/);
  await expect(open({ module, export: "missing" }, {})).rejects.toThrow(UsageError);
  await expect(open({ id: "CartPole-v1" }, { workers: 1.5 })).rejects.toThrow(/workers: expected a positive integer/);
  const inProcess = await open({ module, export: "counter" }, {});
  inProcess.reset(4);
  expect([...inProcess.observations]).toEqual([0, 4, 0, 1, 5, 0]);
  expect(counter(0).actionSpace).toEqual(inProcess.actionSpace);
});
