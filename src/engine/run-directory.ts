// runs/<id>/: config.json, metrics.jsonl, events.out.tfevents.*, checkpoints/. The id is the time of the start and the run's name.
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { storageError, writeFileAtomic } from "../base/atomic.ts";
import { CheckpointError } from "../base/errors.ts";
import { makeDirectories } from "../base/make-directories.ts";
import { CheckpointStore } from "./checkpoints.ts";
import type { JsonRecord } from "./events.ts";
import { createJsonlSink } from "./sinks/jsonl.ts";
import type { Sink } from "./sinks/sink.ts";
import { createTensorBoardSink } from "./sinks/tensorboard.ts";

const maxConfigBytes = 16 * 1024 * 1024;

export interface RunDirectory {
  readonly id: string;
  readonly path: string;
  /** As the run was first started. */
  readonly config: JsonRecord;
  readonly checkpoints: CheckpointStore;
  /** `<path>/metrics.jsonl`. */
  readonly metricsPath: string;
  /** The sinks that write into this folder. Default: both. */
  sinks(options?: { jsonl?: boolean; tensorBoard?: boolean }): Sink[];
}

export interface NewRun {
  /** Folder of all runs. Default `runs`. */
  root?: string;
  /** Part of the id; anything but letters, digits, dot, dash and underscore becomes a dash. Default `run`. */
  name?: string;
  /** Written to config.json. */
  config: JsonRecord;
  /** Time of the start. Default now. */
  now?: Date;
}

/** Makes a new folder; two runs that start in the same second get different ones. @throws CheckpointError when it cannot be written. */
export function createRunDirectory({ root = "runs", name = "run", config, now = new Date() }: NewRun): RunDirectory {
  const stem = `${timestamp(now)}-${fileName(name)}`;
  let path = join(root, stem);
  try {
    makeDirectories(root);
    for (let n = 2; !makeDirectory(path); n++) path = join(root, `${stem}-${n}`);
    // Fails here, before hours of work, when nothing can be written.
    writeFileAtomic(join(path, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
  } catch (cause) {
    throw storageError(cause, path);
  }
  return describe(path, config);
}

/** The folder of a run that was started before. @throws CheckpointError when it is not one. */
export function openRunDirectory(path: string): RunDirectory {
  const file = join(path, "config.json");
  // A model file has no entries: asking for one inside it is an error of its own on some systems.
  const found = existsSync(file) ? statSync(file) : undefined;
  const wrong = (got: string, cause?: unknown): CheckpointError =>
    new CheckpointError(`run folder ${path}: expected a config.json that a run wrote, got ${got}`, {
      cause,
      hint: runsNear(path) ?? "Give the folder of a run, such as runs/20260131-120000-name.",
    });
  if (!found) throw wrong(!existsSync(path) ? "no such folder" : statSync(path).isDirectory() ? "a folder without it" : "a file");
  if (found.size > maxConfigBytes) throw wrong(`${found.size} bytes`);
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw wrong((cause as Error).message, cause);
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) throw wrong("JSON that is not an object");
  return describe(path, config as JsonRecord);
}

/** Fails before hours of work when a resume could not save into the folder. @throws CheckpointError. */
export function expectWritable({ path, metricsPath, checkpoints }: RunDirectory): void {
  for (const part of [path, checkpoints.directory, metricsPath]) {
    try {
      if (existsSync(part)) accessSync(part, constants.W_OK);
    } catch (cause) {
      throw storageError(cause, part);
    }
  }
}

/** Paths of the runs below `root`, oldest first. Empty when there is no such folder. */
export function listRuns(root = "runs"): string[] {
  if (!existsSync(root)) return [];
  return readdirSync(root)
    .map((name) => join(root, name))
    .filter((path) => existsSync(join(path, "config.json")))
    .sort();
}

/** How many runs a message names. */
const maxNamed = 6;

/** For somebody who named something else as a run: the runs in `path`, or beside it where it is not there. Undefined: there are none. */
export function runsNear(path: string): string | undefined {
  const isThere = existsSync(path);
  if (isThere && !statSync(path).isDirectory()) return undefined;
  const root = isThere ? path : dirname(path);
  const found = foldersOfRuns(root).toReversed();
  if (found.length === 0) return undefined;
  const names = found.slice(0, maxNamed).join(", ");
  const more = found.length > maxNamed ? ` and ${found.length - maxNamed} more` : "";
  return `${isThere ? "Name one in it" : `Check the path; in ${root} there ${found.length === 1 ? "is" : "are"}`}: ${names}${more}.`;
}

/** By their names: folders of models have a config.json as well. */
function foldersOfRuns(root: string): string[] {
  try {
    return listRuns(root).filter((path) => /^\d{8}-\d{6}-/.test(basename(path)));
  } catch {
    // A folder that may not be listed, or none.
    return [];
  }
}

function describe(path: string, config: JsonRecord): RunDirectory {
  const metricsPath = join(path, "metrics.jsonl");
  return {
    id: basename(resolve(path)),
    path,
    config,
    checkpoints: new CheckpointStore(path),
    metricsPath,
    sinks: ({ jsonl = true, tensorBoard = true } = {}) => [
      ...(jsonl ? [createJsonlSink(metricsPath)] : []),
      ...(tensorBoard ? [createTensorBoardSink(path)] : []),
    ],
  };
}

function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** `20260131-235959`, local time: it is read by people, and sorts. */
function timestamp(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}`;
  return `${day}-${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`;
}

const fileName = (name: string): string =>
  name
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[.-]+|-+$/g, "")
    .slice(0, 60) || "run";
