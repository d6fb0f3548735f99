// What the commands that train share: the run's events on the terminal, how to go on after an interrupt, and --resume.
import { AbortedError, UsageError } from "../base/errors.ts";
import type { SettingsLayer } from "../base/schema.ts";
import { compareConfigs, describeDifferences, isCovered, type Json, type RunDirectory, type RunEvent } from "../engine/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { Command, CommandContext } from "./command.ts";
import { createProgress, type ProgressOptions } from "./render/progress.ts";

export interface TrainingHooks {
  backend: Backend;
  signal: AbortSignal;
  onRun(run: Pick<RunDirectory, "path">): void;
}

export interface TrainingView {
  /** Of the command, for `--resume`. */
  name: string;
  progress: ProgressOptions;
  /** An event as the terminal shows it. Default: as it is. */
  shown?: (event: RunEvent) => RunEvent;
  /** Sees every event. */
  onEvent: (event: RunEvent) => void;
}

/**
 * Runs a training to its end. An interrupted one says how to go on with it.
 * @returns the run folder.
 */
export async function followTraining(
  context: CommandContext,
  start: (hooks: TrainingHooks) => AsyncIterable<RunEvent>,
  { name, progress: progressOptions, shown = (event) => event, onEvent }: TrainingView,
): Promise<string> {
  const { backend, fallbackReason } = await context.openRuntime();
  if (fallbackReason) context.stderr.write(`warning: the slower binding backend is used: ${fallbackReason}\n`);
  const progress = createProgress(context.stdout, { phrase: context.phrase, ...progressOptions });
  let folder = "";
  let step: number | undefined;
  const ignoreInterrupt = acknowledgeInterrupt(context, () => step);
  const onRun = ({ path }: Pick<RunDirectory, "path">): void => {
    folder = context.phrase(path);
    context.print(`run folder: ${folder}`);
  };
  try {
    for await (const event of start({ backend, signal: context.signal, onRun })) {
      if (folder !== "") step = event.step;
      progress.handle(shown(event));
      onEvent(event);
    }
  } catch (error) {
    throw folder === "" ? error : resumableError(error, context, name, folder);
  } finally {
    ignoreInterrupt();
    progress.close();
  }
  return folder;
}

/**
 * Says at the first Ctrl-C what happens now, and what a second one does.
 * @param stepOf the step that a run is at; undefined before it begins.
 * @returns a function that takes this back.
 */
export function acknowledgeInterrupt({ signal, stderr }: Pick<CommandContext, "signal" | "stderr">, stepOf: () => number | undefined) {
  const say = (): void => {
    const step = stepOf();
    stderr.write(
      step === undefined
        ? "interrupted: stopping before the run has begun; press Ctrl-C again to stop at once\n"
        : `interrupted after step ${step}: finishing what is under way and saving; press Ctrl-C again to stop at once without saving, which loses what came after the last checkpoint\n`,
    );
  };
  signal.addEventListener("abort", say);
  return (): void => signal.removeEventListener("abort", say);
}

/** An interrupt with the command that goes on with the run; other errors as they are. */
export function resumableError(error: unknown, { program }: Pick<CommandContext, "program">, command: string, folder: string): unknown {
  if (!(error instanceof AbortedError)) return error;
  return new AbortedError(error.message, { hint: `Go on with it: ${program} ${command} --resume ${folder}`, cause: error });
}

type Saved = Readonly<Record<string, unknown>>;

/**
 * With --resume, the settings of that run lie under the flags (and over a preset that nobody asked for), so that they need not be repeated.
 * @param changeable settings that may differ from the run's. What else is given and differs is refused before anything is done; without
 *   this list the recipe refuses it later.
 */
export function resumable(command: Command, savedSettings: (path: string) => Saved, changeable?: readonly string[]): Command {
  return {
    ...command,
    execute: async (layers, context) => {
      const given = layers.map(({ values }: SettingsLayer) => (values as { resume?: string }).resume);
      const resume = given.findLast((path) => path !== undefined);
      if (resume === undefined) return command.execute(layers, context);
      const saved = { values: savedSettings(resume), locate: () => `settings of ${resume}` };
      const usual = command.presets[command.defaultPreset ?? ""]?.values;
      const numUsual = usual !== undefined && layers[0].values === usual ? 1 : 0;
      // What is wrong in itself is said first.
      command.resolve([...layers.slice(0, numUsual), saved, ...layers.slice(numUsual)]);
      if (changeable) refuseChanges(command, resume, saved.values, layers.slice(numUsual), changeable);
      return command.execute([...layers.slice(0, numUsual), saved, ...layers.slice(numUsual)], context);
    },
  };
}

/** @throws UsageError naming what was given and is not as the run has it. */
function refuseChanges(command: Command, run: string, saved: Saved, given: readonly SettingsLayer[], changeable: readonly string[]): void {
  const differences = [...command.positionals, ...command.options].flatMap(({ name, path, defaultValue }) => {
    // Flags come by their dotted names, files may nest.
    const asked = given.map(({ values }) => (values as Saved)[name] ?? valueAt(values, path)).findLast((value) => value !== undefined);
    if (asked === undefined || isCovered(name, ["resume", ...changeable])) return [];
    return compareConfigs({ [name]: (valueAt(saved, path) ?? defaultValue) as Json }, { [name]: asked as Json });
  });
  if (differences.length === 0) return;
  throw new UsageError(
    `resume ${run}: expected the settings that the run was started with, got other ones: ${describeDifferences(differences)}`,
    {
      hint: command.options.some(({ name }) => name === "init")
        ? `Leave them out, or start a new run; --init ${run} takes the weights of this one.`
        : "Leave them out, or start a new run.",
    },
  );
}

/** What a record holds at a path. */
export function valueAt(record: unknown, path: readonly string[]): unknown {
  let value = record;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}
