// What recipes that train share: the part of their settings that is the loop's or a trainer's, what a run records of them, and the run that
// is gone on with.
import type { z } from "zod";
import { CheckpointError } from "../base/errors.ts";
import { type JsonRecord, type LoopSettings, loopSchema, openRunDirectory, type RunDirectory, type RunEvent } from "../engine/index.ts";

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

/** The settings that a run was started with. @throws CheckpointError when there is no run at `path`. */
export const savedSettingsOf = <S extends z.ZodObject>(schema: S, path: string): Partial<z.input<S>> =>
  settingsOf(schema, openRunDirectory(path).config) as Partial<z.input<S>>;

/**
 * The run to go on with. Its settings are compared by the loop, against its latest checkpoint.
 * @param mark a setting that only runs of this kind record. @param kind "a pretraining run". @param commands that make such runs.
 * @throws CheckpointError for a folder that is no run, or one of another kind.
 */
export function openFormer(path: string, { mark, kind, commands }: { mark: string; kind: string; commands: string }): RunDirectory {
  const run = openRunDirectory(path);
  if (run.config[mark] !== undefined) return run;
  throw new CheckpointError(`resume ${path}: expected the folder of ${kind}, got one of another kind`, {
    hint: `Give a folder that longwave ${commands} made.`,
  });
}

/** Whether a run came to its own end: neither interrupted nor broken. */
export const isComplete = (event: RunEvent): boolean =>
  event.kind === "run-end" && ["finished", "done", "early-stopping"].includes(event.reason);
