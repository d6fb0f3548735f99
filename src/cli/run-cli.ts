// The command line as a function of its arguments and the outside world: finds the command, parses, runs, reports.
import { z } from "zod";
import { BackendError, nearest, UsageError } from "../base/errors.ts";
import { listOptions, resolveLayers } from "../base/schema.ts";
import type { Backend } from "../runtime/backend.ts";
import type { OpenedBackend, OpenOptions } from "../runtime/open.ts";
import { type Command, type CommandContext, commonSchema } from "./command.ts";
import { helpHint, parseLine } from "./flags.ts";
import { commandHelp, overview } from "./help.ts";
import type { CliIo, Phrase } from "./io.ts";
import { createPhrase } from "./phrase.ts";
import { type CommandEntry, commands } from "./registry.ts";
import { reportError } from "./report-error.ts";
import { packageVersion } from "./version.ts";

/**
 * Runs one command line; never throws and never exits.
 * @param argv arguments after the program's name
 * @param entries the commands; tests bring their own
 * @returns the exit code: 0, 1 failure, 2 wrong usage, 130 interrupted
 */
export async function runCli(argv: readonly string[], io: CliIo, entries: readonly CommandEntry[] = commands): Promise<number> {
  const { program, cwd } = io;
  let phrase = createPhrase({ program, cwd });
  const onCommand = ({ options }: Command): Phrase => {
    phrase = createPhrase({ options: [...options, ...listOptions(commonSchema), ...listOptions(presetSchema)], program, cwd });
    return phrase;
  };
  try {
    await dispatch(argv, io, entries, onCommand);
    return 0;
  } catch (error) {
    return reportError(error, io, phrase);
  }
}

const presetSchema = z.object({ preset: z.string() });

/** Told which command was chosen; answers with its words. */
type OnCommand = (command: Command) => Phrase;

async function dispatch(argv: readonly string[], io: CliIo, entries: readonly CommandEntry[], onCommand: OnCommand): Promise<void> {
  const [first, second] = argv;
  if (first === "--version" || first === "-V") return io.stdout.write(`${packageVersion()}\n`);
  if (first === undefined || first === "--help" || first === "-h") return io.stdout.write(overview(entries, io.stdout));
  if (first === "help") return dispatch(second === undefined ? [] : [...argv.slice(1), "--help"], io, entries, onCommand);
  if (first.startsWith("-")) {
    throw new UsageError(`longwave: expected a command first, got "${first}"`, {
      hint: "Options follow the command: longwave <command> [options].",
    });
  }
  const isGroup = entries.some(({ name }) => name.startsWith(`${first} `));
  // A group may be a command as well (`rl`): options behind its name are that command's.
  const isOwn = entries.some(({ name }) => name === first) && (second === undefined || second.startsWith("-"));
  const group = isGroup && !isOwn ? first : undefined;
  if (group !== undefined && (second === undefined || second === "--help" || second === "-h")) {
    return io.stdout.write(overview(entries, io.stdout, group));
  }
  const name = group === undefined ? first : `${group} ${second}`;
  const entry = entries.find((candidate) => candidate.name === name);
  if (!entry) throw unknownCommand(name, group, entries);
  const command = await entry.load();
  await runCommand(command, argv.slice(group === undefined ? 1 : 2), { ...io, phrase: onCommand(command) }, entries);
}

function unknownCommand(name: string, group: string | undefined, entries: readonly CommandEntry[]): UsageError {
  const names = entries.map((entry) => entry.name);
  // A group's own name is a good guess too: `tokeniser` → `tokenizer`.
  const words = group === undefined ? [...names, ...names.map((candidate) => candidate.split(" ")[0])] : names;
  const guess = nearest(name, words);
  const list = group === undefined ? "`longwave --help` lists the commands." : `\`longwave ${group} --help\` lists what it takes.`;
  return new UsageError(`longwave: expected a command, got "${name}"`, {
    hint: guess === undefined ? list : `Did you mean \`longwave ${guess}\`?`,
  });
}

async function runCommand(
  command: Command,
  argv: readonly string[],
  io: CliIo & { phrase: Phrase },
  entries: readonly CommandEntry[],
): Promise<void> {
  const opened: Backend[] = [];
  try {
    const line = await parseLine(command, argv);
    if (line.help) return io.stdout.write(commandHelp(command, io.stdout, io.program, entries));
    const { threads } = resolveLayers(commonSchema, [{ values: { threads: line.threads } }]);
    const context: CommandContext = {
      ...io,
      program: io.program ?? "longwave",
      threads,
      commands: entries,
      json: line.json,
      print: (text = "") => io.stdout.write(`${text}\n`),
      printJson: (value) => io.stdout.write(`${JSON.stringify(value, null, 2)}\n`),
      openRuntime: async (options = {}) => {
        const runtime = await openRuntime({ threads, ...options });
        opened.push(runtime.backend);
        return runtime;
      },
    };
    await command.execute(line.layers, context);
  } catch (error) {
    if (error instanceof UsageError && error.hint === undefined)
      throw new UsageError(error.message, { hint: helpHint(command), cause: error });
    throw error;
  } finally {
    for (const backend of opened) backend.dispose();
  }
}

/** Imported only now: the native library and its loader cost more than a whole `--help`. */
async function openRuntime(options: OpenOptions): Promise<OpenedBackend> {
  let open: typeof import("../runtime/open.ts");
  try {
    open = await import("../runtime/open.ts");
  } catch (cause) {
    throw new BackendError(`longwave: expected its dependencies to be installed, got "${(cause as Error).message.split("\n")[0]}"`, {
      cause,
      hint: "Run `ONNXRUNTIME_NODE_INSTALL=skip npm install longwave`.",
    });
  }
  return open.openBackend(options);
}
