// A run's folder, or a tour's folder of runs, as records. Damage is told in the record's notes; only "nothing to show" is an error.
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { StringDecoder } from "node:string_decoder";
import { CheckpointError } from "../base/errors.ts";
import type { JsonRecord } from "../engine/index.ts";
import { openSafetensors } from "../formats/index.ts";
import { isRecord } from "./json.ts";
import { RunGatherer, type RunRecord } from "./run-record.ts";

const maxConfigBytes = 16 * 1024 * 1024;
/** A longer line is damage: no event comes near it. */
const maxLineCharacters = 64 * 1024 * 1024;
/** More than a tour ever has: such a folder is one of unrelated runs. */
const maxRuns = 12;

/**
 * The run at `path`, or the runs in its sub-folders in the order of their start.
 * @param path a run folder, its metrics.jsonl, or a folder whose sub-folders are run folders.
 * @throws CheckpointError when there is no run, too many, or none from which anything can be read.
 */
export function readRuns(path: string): RunRecord[] {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status) throw missing(path, "no such folder");
  const folder = status.isDirectory() ? path : basename(path) === "metrics.jsonl" ? dirname(path) : undefined;
  if (folder === undefined) throw missing(path, "a file");
  const subfolders = readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .filter((name) => statSync(name, { throwIfNoEntry: false })?.isDirectory() && isRunFolder(name));
  const folders = [...(isRunFolder(folder) ? [folder] : []), ...subfolders];
  if (folders.length === 0) throw missing(path, "a folder without config.json and metrics.jsonl");
  if (folders.length > maxRuns)
    throw new CheckpointError(`report ${path}: expected one run or at most ${maxRuns} that belong together, got ${folders.length}`, {
      hint: `Name one of them, such as ${folders[folders.length - 1]}.`,
    });
  const runs = folders.map(readRun).filter((run) => run !== undefined);
  if (runs.length === 0)
    throw new CheckpointError(`report ${path}: expected at least a configuration or one event, got files from which neither can be read`, {
      hint: "The run wrote nothing before it broke, or the files are damaged: start it again.",
    });
  return runs.sort((a, b) => (a.started ?? Number.POSITIVE_INFINITY) - (b.started ?? Number.POSITIVE_INFINITY) || compare(a.id, b.id));
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

const missing = (path: string, got: string): CheckpointError =>
  new CheckpointError(`report ${path}: expected the folder of a run (config.json, metrics.jsonl) or of several, got ${got}`, {
    hint: "Give the folder that a command printed as its run folder, such as runs/20260131-120000-quickstart.",
  });

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;

/** Checkpoints hold a config.json too, but beside weights or with an architecture. */
function isRunFolder(folder: string): boolean {
  if (isFile(join(folder, "metrics.jsonl"))) return true;
  if (!isFile(join(folder, "config.json"))) return false;
  const config = readConfig(join(folder, "config.json"));
  return !(isRecord(config) && ("architectures" in config || "model_type" in config));
}

function readRun(folder: string): RunRecord | undefined {
  const notes: string[] = [];
  const gatherer = new RunGatherer();
  readEvents(join(folder, "metrics.jsonl"), gatherer, notes);
  const config = readConfig(join(folder, "config.json"));
  if (typeof config === "string") notes.push(config);
  if (gatherer.numEvents === 0 && !isRecord(config)) return undefined;
  if (gatherer.numEvents > 0 && gatherer.metrics.size === 0 && gatherer.artifacts.length === 0 && gatherer.samples.length === 0)
    notes.push("The run recorded no step: there are no curves to show.");
  if (gatherer.numEvents > 0 && gatherer.endReason === undefined)
    notes.push(
      `The record stops at step ${gatherer.step.toLocaleString("en-US")}${gatherer.total > 0 ? ` of ${gatherer.total.toLocaleString("en-US")}` : ""} without an end: the run still goes on, or it was killed.`,
    );
  if (gatherer.numMetricsLeftOut > 0) notes.push("There are too many different metrics: the later ones are left out.");
  if (gatherer.numLogLeftOut > 0) notes.push(`${gatherer.numLogLeftOut.toLocaleString("en-US")} later events are not listed.`);
  const { metrics, evaluations, stageMetrics, samples, artifacts, log, started, lastTime, step, total } = gatherer;
  const { elapsedSeconds, tokens, endReason } = gatherer;
  const checkpoint = newestCheckpoint(folder);
  return {
    id: basename(resolve(folder)),
    path: folder,
    config: isRecord(config) ? config : gatherer.config,
    ...(checkpoint ? { checkpoint } : {}),
    ...{ metrics, evaluations, stageMetrics, samples, artifacts, log, started, lastTime, step, total, elapsedSeconds, tokens, endReason },
    notes,
  };
}

/** The configuration, or a sentence about what is wrong with it. */
function readConfig(path: string): JsonRecord | string {
  try {
    const status = statSync(path, { throwIfNoEntry: false });
    if (!status) return "config.json is missing; the configuration is the one in metrics.jsonl, if any.";
    if (status.size > maxConfigBytes) return `config.json is too large to be one (${status.size} bytes).`;
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isRecord(value) ? value : "config.json holds no JSON object.";
  } catch (error) {
    return `config.json cannot be read: ${(error as Error).message}`;
  }
}

/** Line by line, so that a long run need not fit into memory as text. Damaged lines are counted and skipped. */
function readEvents(path: string, gatherer: RunGatherer, notes: string[]): void {
  const damaged: number[] = [];
  let number = 0;
  const addLine = (line: string): void => {
    number++;
    if (line.trim() === "") return;
    try {
      if (gatherer.add(JSON.parse(line))) return;
    } catch {
      // Not JSON: damaged like a line that is no event.
    }
    damaged.push(number);
  };
  let endsCleanly = true;
  try {
    if (!isFile(path)) {
      notes.push("metrics.jsonl is missing: the run recorded nothing, or the file was taken away.");
      return;
    }
    endsCleanly = readLines(path, addLine);
  } catch (error) {
    notes.push(`metrics.jsonl cannot be read to its end: ${(error as Error).message}`);
  }
  const isCut = !endsCleanly && damaged[damaged.length - 1] === number;
  if (isCut) damaged.pop();
  if (isCut) notes.push("The last line of metrics.jsonl is cut short: it was being written when the run stopped.");
  if (damaged.length > 0)
    notes.push(
      `Damaged lines of metrics.jsonl are left out: ${damaged.slice(0, 5).join(", ")}${damaged.length > 5 ? `, … (${damaged.length})` : ""}.`,
    );
  if (gatherer.numEvents === 0) notes.push("metrics.jsonl holds no event.");
}

/** @returns whether the last line ends with a newline. */
function readLines(path: string, addLine: (line: string) => void): boolean {
  const file = openSync(path, "r");
  try {
    const decoder = new StringDecoder("utf8");
    const chunk = Buffer.alloc(1 << 18);
    let rest = "";
    for (let count = readSync(file, chunk); count > 0; count = readSync(file, chunk)) {
      const lines = (rest + decoder.write(chunk.subarray(0, count))).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) addLine(line);
      if (rest.length > maxLineCharacters) throw new Error("a line is longer than 64 MiB");
    }
    rest += decoder.end();
    if (rest !== "") addLine(rest);
    return rest === "";
  } finally {
    closeSync(file);
  }
}

/** What the newest readable checkpoint says about the model. Only looks: nothing is recovered or moved. */
function newestCheckpoint(folder: string): RunRecord["checkpoint"] {
  const directory = join(folder, "checkpoints");
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const names = readdirSync(directory).filter((name) => /^step-\d+$/.test(name));
  for (const name of names.sort().reverse()) {
    const config = readConfig(join(directory, name, "config.json"));
    const parameters = countParameters(join(directory, name));
    if (isRecord(config) || parameters !== undefined)
      return { ...(isRecord(config) ? { config } : {}), ...(parameters === undefined ? {} : { parameters }) };
  }
  return undefined;
}

function countParameters(folder: string): number | undefined {
  try {
    using source = openSafetensors(folder);
    let count = 0;
    for (const { shape } of source.entries.values()) count += shape.reduce((product, dimension) => product * dimension, 1);
    return count;
  } catch {
    return undefined; // A checkpoint without readable weights: the header goes without the number.
  }
}
