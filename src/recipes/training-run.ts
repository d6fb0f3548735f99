// What recipes that train share: the part of their settings that is the loop's or a trainer's, what a run records of them, and the run that
// is gone on with.
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { z } from "zod";
import { CheckpointError, FormatError } from "../base/errors.ts";
import {
  type Checkpoint,
  expectWritable,
  type JsonRecord,
  type LoopSettings,
  leftPrefix,
  loopSchema,
  openRunDirectory,
  type RunDirectory,
  type RunEvent,
  readCheckpoint,
} from "../engine/index.ts";

/** Of the place and the start of a run, not of what it computes: not recorded, and free to differ at resume. */
const notRecorded = ["resume", "runs", "name"];

/** The settings that a schema has names for; undefined ones are left out. */
export function settingsOf<S extends z.ZodObject>(schema: S, settings: Readonly<Record<string, unknown>>): z.input<S> {
  const given = Object.keys(schema.shape).filter((key) => settings[key] !== undefined);
  return Object.fromEntries(given.map((key) => [key, settings[key]])) as z.input<S>;
}

/** The loop's part of a recipe's settings, as they are; what means something else in a recipe (`keepBest: true`) is left to it. */
export const loopSettingsOf = (settings: Readonly<Record<string, unknown>> & { steps: number }): LoopSettings =>
  settingsOf(loopSchema.omit({ keepBest: true }), settings);

/** What config.json of a run holds: the settings but those of its place and start, and what else belongs to it, as plain JSON. */
export function recordOf(
  settings: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>>,
  omit: readonly string[] = [],
) {
  const recorded = Object.entries(settings).filter(([key]) => ![...notRecorded, ...omit].includes(key));
  return JSON.parse(JSON.stringify({ ...Object.fromEntries(recorded), ...more })) as JsonRecord;
}

/**
 * The settings that a run goes on with: those of its newest checkpoint (or the one that is named), which has what an earlier resume changed;
 * before the first one those that it was started with.
 * @throws CheckpointError when there is no run of this kind at `path`.
 */
export function savedSettingsOf<S extends z.ZodObject>(schema: S, path: string, kind: RunKind): Partial<z.input<S>> {
  const located = locateRun(path);
  const run = openRunOfKind(located.run, kind);
  const checkpoint = located.checkpoint === "auto" ? newestReadable(run) : readCheckpoint(path);
  return settingsOf(schema, { ...run.config, ...checkpoint?.config }) as Partial<z.input<S>>;
}

/** The run that `resume` names, and the checkpoint in it: its latest one unless the path is of another. */
export function locateRun(path: string): { run: string; checkpoint: string } {
  const folder = resolve(path);
  if (basename(folder).startsWith(leftPrefix) && existsSync(join(folder, "trainer.json")))
    throw new CheckpointError(`resume ${path}: expected a checkpoint of the run, got one that the run left when it went back`, {
      hint: "Its weights are a model like any other: give the folder as a model (to pretrain as --init).",
    });
  const isCheckpoint = basename(dirname(folder)) === "checkpoints" && existsSync(join(folder, "trainer.json"));
  return isCheckpoint ? { run: dirname(dirname(path)), checkpoint: basename(folder) } : { run: path, checkpoint: "auto" };
}

/** The checkpoint that a resume will take, as far as its manifest tells. */
function newestReadable({ checkpoints }: RunDirectory): Checkpoint | undefined {
  for (const step of checkpoints.steps().reverse()) {
    try {
      return readCheckpoint(checkpoints.pathOf(step));
    } catch (error) {
      // The resume passes over it too, with a warning.
      if (!(error instanceof CheckpointError || error instanceof FormatError)) throw error;
    }
  }
  return undefined;
}

/** Which settings only runs of a kind record, and which commands make them. */
const runKinds = {
  pretraining: { mark: "corpus", kind: "a pretraining run", commands: ["pretrain", "quickstart"] },
  alignment: { mark: "promptsFingerprint", kind: "a grpo run", commands: ["grpo"] },
  control: { mark: "algo", kind: "a run in an environment", commands: ["rl"] },
  drafter: { mark: "kind", kind: "a drafter's training", commands: ["train-drafter"] },
} as const;

export type RunKind = keyof typeof runKinds;

/**
 * The run to go on with. Its settings are compared by the loop, against its latest checkpoint.
 * @throws CheckpointError for a folder that is no run, one of another kind, and one that cannot be written.
 */
export function openFormer(path: string, kind: RunKind): RunDirectory {
  const run = openRunOfKind(path, kind);
  expectWritable(run);
  return run;
}

/** A run to read from. @throws CheckpointError for a folder that is no run, or one of another kind. */
export function openRunOfKind(path: string, kind: RunKind): RunDirectory {
  const run = openRunDirectory(path);
  const isOf = ({ mark }: { mark: string }): boolean => run.config[mark] !== undefined;
  const expected = runKinds[kind];
  if (isOf(expected)) return run;
  const other = Object.values(runKinds).find(isOf);
  throw new CheckpointError(
    `resume ${path}: expected the folder of ${expected.kind}, got ${other ? `that of ${other.kind}` : "one of another kind"}`,
    {
      hint: other
        ? `Go on with it: longwave ${other.commands[0]} --resume ${path}`
        : `Give a folder that longwave ${expected.commands.join(" or ")} made.`,
    },
  );
}

/** Whether a run came to its own end: neither interrupted nor broken. */
export const isComplete = (event: RunEvent): boolean =>
  event.kind === "run-end" && ["finished", "done", "early-stopping"].includes(event.reason);
