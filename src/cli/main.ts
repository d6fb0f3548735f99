#!/usr/bin/env node
// The executable: connects runCli to this process (signals, closed pipes, exit code).
import { installSignalHandlers } from "../engine/signals.ts";
import { outputOf } from "./io.ts";
import { runCli } from "./run-cli.ts";

const { signal } = installSignalHandlers({
  onFirst: () => {
    if (process.stderr.isTTY) process.stderr.write("\nFinishing the step; once more to quit at once.\n");
  },
});

// The reader went away (`longwave … | head`): nothing is left to say.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

const { env, stdin } = process;
process.exitCode = await runCli(process.argv.slice(2), {
  stdout: outputOf(process.stdout, env),
  stderr: outputOf(process.stderr, env),
  stdin,
  env,
  signal,
});
