// trainer.json: what makes a directory of model files a checkpoint that can be resumed, and the proof that all of it is there.
// It holds the format and its version, the step, the run's configuration, the state of the trainable and of the loop, and the size of
// every other file.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/errors.ts";
import type { JsonRecord } from "./events.ts";

export const manifestName = "trainer.json";
const format = "longwave-checkpoint";
/** Raised when a checkpoint of the new kind cannot be read by the old code. */
const version = 1;
/** trainer.json holds settings and counters; anything larger is not ours. */
const maxManifestBytes = 64 * 1024 * 1024;

const jsonRecord = z.record(z.string(), z.json()) as z.ZodType<JsonRecord>;
const count = z.number().int().nonnegative();

/** What the loop itself carries from one start of a run to the next. */
const progressSchema = z.object({
  totalTokens: z.number().nonnegative(),
  /** Tokens up to the last step event. */
  loggedTokens: z.number().nonnegative(),
  elapsedSeconds: z.number().nonnegative(),
  best: z.object({ step: count, metric: z.string(), value: z.number() }).optional(),
  /** Early stopping: the value to beat, and evaluations since it was reached. */
  toBeat: z.number().optional(),
  stalledEvaluations: count,
  /** Steps in a row whose update was skipped because a number was not finite. */
  consecutiveSkips: count,
  /** Step of the last evaluation and sample; absent before the first one. */
  evaluatedAt: count.optional(),
  sampledAt: count.optional(),
  /** Counted steps of one step of the loop, where that is not 1. */
  stepSize: count.positive().optional(),
  /** The trainable said that there is nothing left to learn. */
  done: z.boolean(),
});
export type Progress = z.infer<typeof progressSchema>;

const manifestSchema = z.object({
  format: z.literal(format),
  version: z.literal(version),
  step: count,
  savedAt: z.string(),
  config: jsonRecord,
  state: jsonRecord,
  progress: progressSchema,
  /** Bytes of every file but trainer.json, by path relative to the checkpoint. */
  files: z.record(z.string(), count),
});
type Manifest = z.infer<typeof manifestSchema>;

/** A complete checkpoint on disk. */
export interface Checkpoint extends Omit<Manifest, "format" | "version"> {
  readonly path: string;
}

export const newProgress = (): Progress => ({
  totalTokens: 0,
  loggedTokens: 0,
  elapsedSeconds: 0,
  stalledEvaluations: 0,
  consecutiveSkips: 0,
  done: false,
});

/** The text of trainer.json for the files that are in `directory` now. */
export function describeCheckpoint(directory: string, content: Omit<Manifest, "format" | "version" | "files" | "savedAt">): string {
  const files = Object.fromEntries(filesBelow(directory));
  if (files[manifestName] !== undefined)
    throw new CheckpointError(`save: expected files other than ${manifestName}, got one of that name from the trainable`, {
      hint: "Return such values from state().",
    });
  const manifest: Manifest = { format, version, savedAt: new Date().toISOString(), ...content, files };
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/**
 * Reads and checks a checkpoint directory: format, version, and that every file is there with the size it was saved with.
 * @throws CheckpointError naming the file at fault.
 */
export function readCheckpoint(directory: string): Checkpoint {
  const { format: _format, version: _version, ...manifest } = parseManifest(join(directory, manifestName));
  for (const [name, bytes] of Object.entries(manifest.files)) {
    const path = join(directory, name);
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.size !== bytes)
      throw new CheckpointError(`checkpoint file ${path}: expected ${bytes} bytes, got ${found ? found.size : "no file"}`, {
        hint: "The checkpoint is incomplete; resume from an earlier one.",
      });
  }
  return { path: directory, ...manifest };
}

/** Bytes of all its files, trainer.json included. */
export const checkpointBytes = (directory: string): number => [...filesBelow(directory)].reduce((sum, [, bytes]) => sum + bytes, 0);

function parseManifest(path: string): Manifest {
  const foreign = (got: string, cause?: unknown): CheckpointError =>
    new CheckpointError(`checkpoint file ${path}: expected the ${manifestName} of a longwave checkpoint, got ${got}`, {
      cause,
      hint: "Give the folder of a checkpoint that a run wrote (runs/<id>/checkpoints/step-...). Plain model folders cannot be resumed.",
    });
  let value: unknown;
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found) throw foreign("no file");
    if (found.size > maxManifestBytes) throw foreign(`${found.size} bytes`);
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    throw foreign(cause instanceof SyntaxError ? "text that is not JSON" : (cause as Error).message, cause);
  }
  const header = z.object({ format: z.literal(format), version: z.number() }).safeParse(value);
  if (!header.success) throw foreign("another kind of JSON", header.error);
  if (header.data.version !== version)
    throw new CheckpointError(`checkpoint file ${path}: expected format version ${version}, got ${header.data.version}`, {
      hint: header.data.version > version ? "It was written by a newer longwave: update." : undefined,
    });
  const parsed = manifestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw foreign(`a wrong "${issue.path.join(".")}" (${issue.message})`, parsed.error);
}

/** Files of a directory tree with their sizes, by relative path with forward slashes. */
function* filesBelow(directory: string, prefix = ""): Generator<[string, number]> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path, `${prefix}${entry.name}/`);
    else yield [`${prefix}${entry.name}`, statSync(path).size];
  }
}
