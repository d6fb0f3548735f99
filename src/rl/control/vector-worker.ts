// A worker thread of a batch: makes its environments, then does what the main thread asks, one command after another.
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { invariant, LongwaveError } from "../../base/errors.ts";
import type { JsonRecord } from "../../engine/events.ts";
import type { Environment } from "./environment.ts";
import { maskSizeOf } from "./vector.ts";
import {
  commands,
  outcomes,
  type RemoteError,
  spinsFor,
  type WorkerInput,
  type WorkerReady,
  type WorkerStart,
  waitWhile,
  word,
} from "./vector-protocol.ts";
import { EnvironmentSlice, rowsOf } from "./vector-slice.ts";
import { makerOf } from "./vector-spec.ts";

const portable = (error: unknown): RemoteError => ({
  message: error instanceof Error ? error.message : String(error),
  hint: error instanceof LongwaveError ? error.hint : undefined,
  stack: error instanceof Error ? error.stack : undefined,
});

async function main({ spec, offset, count, options, port }: WorkerInput): Promise<void> {
  invariant(parentPort, "vector-worker: started outside of a worker thread");
  const main = parentPort;
  const environments: Environment[] = [];
  try {
    const make = await makerOf(spec);
    for (let i = 0; i < count; i++) environments.push(await make(offset + i));
  } catch (error) {
    main.postMessage({ kind: "failed", ...portable(error) } satisfies WorkerReady);
    port.close();
    return;
  }
  const { observationSpace, actionSpace } = environments[0];
  const started = new Promise<WorkerStart>((resolve) => main.once("message", resolve));
  main.postMessage({ kind: "ready", observationSpace, actionSpace, maskSize: maskSizeOf(environments[0]) } satisfies WorkerReady);
  const shared = await started;
  serve(environments, shared, { offset, count, options, port });
  port.close();
}

function serve(environments: Environment[], shared: WorkerStart, { offset, count, options, port }: Omit<WorkerInput, "spec">): void {
  const { control, actions, seed, wanted, rows } = shared;
  const reply = (command: number, outcome: number): void => {
    Atomics.store(control, word.outcome, outcome);
    Atomics.store(control, word.reply, command);
    Atomics.notify(control, word.reply);
  };
  // Also when an environment ends the thread: whoever waits in the main thread must not wait for ever.
  process.on("exit", (code) => {
    Atomics.store(control, word.exitCode, code);
    reply(Atomics.load(control, word.command), outcomes.ended);
  });
  const numEnvironments = rows.rewards.length;
  const slice = new EnvironmentSlice(environments, rowsOf(rows, offset, count), offset, options);
  const actionSize = actions.length / numEnvironments;
  const ownActions = actions.subarray(offset * actionSize, (offset + count) * actionSize);
  const ownWanted = wanted.subarray(offset, offset + count);
  const spins = spinsFor(Math.ceil(numEnvironments / count));
  let command = 0;
  for (;;) {
    while (!waitWhile(control, word.command, command, spins, Number.POSITIVE_INFINITY));
    command = Atomics.load(control, word.command);
    const code = Atomics.load(control, word.code);
    if (code === commands.close) break;
    try {
      if (code === commands.step) slice.step(ownActions);
      else if (code === commands.reset) slice.reset(seed[0]);
      else if (code === commands.resetRows) slice.resetRows(ownWanted);
      else if (code === commands.save) port.postMessage(slice.saveState());
      else slice.restoreState(receiveMessageOnPort(port)?.message as JsonRecord);
    } catch (error) {
      port.postMessage(portable(error));
      reply(command, outcomes.failed);
      continue;
    }
    reply(command, outcomes.done);
  }
  slice.dispose();
}

await main(workerData as WorkerInput);
