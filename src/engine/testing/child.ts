// A real training process for the tests that kill it: `node child.ts <run folder> <steps> <milliseconds a step> <checkpointEvery> [<first step that hangs>]`.
import { writeSync } from "node:fs";
import { LongwaveError } from "../../base/errors.ts";
import { runLoop } from "../loop.ts";
import { openRunDirectory } from "../run-directory.ts";
import { installSignalHandlers } from "../signals.ts";
import { withSinks } from "../sinks/sink.ts";
import { ToyTrainable } from "./toy-trainable.ts";

const [folder, steps, busyMs, checkpointEvery, hangs] = process.argv.slice(2);
const run = openRunDirectory(folder);
const { signal } = installSignalHandlers();
const hang = hangs === undefined ? {} : { hang: { from: Number(hangs), signal } };
const trainable = new ToyTrainable({ busyMs: Number(busyMs), ballast: 200_000, ...hang });
const loop = runLoop(
  trainable,
  {
    steps: Number(steps),
    checkpointEvery: Number(checkpointEvery),
    evaluateEvery: 7,
    sampleEvery: 11,
    keepBest: { metric: "loss" },
    checkpoints: run.checkpoints,
    config: run.config,
    resume: "auto",
  },
  signal,
);
try {
  // Written at once: a buffered line would be lost with the process.
  for await (const event of withSinks(loop, run.sinks())) writeSync(1, `${event.kind} ${event.step}\n`);
} catch (error) {
  if (!(error instanceof LongwaveError)) throw error;
  writeSync(2, `${error.message}\n`);
  process.exitCode = error.exitCode;
}
