// Connects runCli to this process: signals, closed pipes, exit code. main.ts is the executable; tests start other commands with it.
import { installSignalHandlers } from "../engine/signals.ts";
import { outputOf } from "./io.ts";
import { programName } from "./phrase.ts";
import { type CommandEntry, commands } from "./registry.ts";
import { runCli } from "./run-cli.ts";

/** Runs the process's command line and sets its exit code. */
export async function runProcess(entries: readonly CommandEntry[] = commands): Promise<void> {
  // The first signal asks the command to finish its step and save; a second one ends the process at once.
  const { signal } = installSignalHandlers({
    onSecond: () => {
      process.stderr.write("stopped at once: what was not saved is lost\n");
    },
  });
  // Behind the terminal's own ^C, and before what a command has to say of it.
  signal.addEventListener("abort", () => {
    if (process.stderr.isTTY) process.stderr.write("\n");
  });
  // The reader went away (`longwave … | head`): nothing is left to say.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(0);
      throw error;
    });
  }
  const { env, stdin } = process;
  const cwd = process.cwd();
  process.exitCode = await runCli(
    process.argv.slice(2),
    {
      stdout: outputOf(process.stdout, env),
      stderr: outputOf(process.stderr, env),
      ...{ stdin, env, signal, cwd },
      program: programName({ env, cwd, script: process.argv[1] }),
    },
    entries,
  );
}
