// Events of a recipe ahead of its step loop: stages, warnings, and the progress of one long call as a stream.
import type { Metrics, RunEvent } from "../engine/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { describeMachine } from "../runtime/machine.ts";

/** Lines about one stage come no closer than this. */
const stageMs = 5000;

const before = () => ({ step: 0, total: 0, time: Date.now() });

/** A stage of the preparation, told in one line. */
export const stage = (name: string, message: string, extra: { progress?: number; metrics?: Metrics } = {}): RunEvent => ({
  kind: "stage",
  ...before(),
  name,
  message,
  ...extra,
});

export const warning = (message: string, hint?: string): RunEvent => ({
  kind: "warning",
  ...before(),
  code: "other",
  message,
  ...(hint === undefined ? {} : { hint }),
});

/** What the numbers of a run were measured on. */
export function machineArtifact(backend: Backend): RunEvent {
  const { cpu, memoryBytes, node, platform } = describeMachine();
  return {
    kind: "artifact",
    ...before(),
    name: "machine",
    data: { cpu, threads: backend.threads, memoryBytes, node, onnxruntime: backend.version, platform },
  };
}

/** Tells progress. What comes too soon after the last event is dropped unmade. */
export type Report = (event: () => RunEvent) => void;

/** Runs `work` and yields what it reports, at most every `everyMs`; the result is what the generator returns. */
export async function* follow<T>(work: (report: Report) => Promise<T>, everyMs = stageMs): AsyncGenerator<RunEvent, T> {
  const events: RunEvent[] = [];
  let last = performance.now();
  let wake = (): void => {};
  const promise = work((event) => {
    if (performance.now() - last < everyMs) return;
    last = performance.now();
    events.push(event());
    wake();
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  for (let done = false; !done; ) {
    const reported = new Promise<boolean>((resolve) => {
      wake = () => resolve(false);
    });
    done = await Promise.race([settled, reported]);
    yield* events.splice(0);
  }
  return promise;
}
