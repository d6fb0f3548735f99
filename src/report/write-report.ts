// From a folder to report.html in it.
import { statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { writeFileAtomic } from "../base/atomic.ts";
import { readRuns } from "./read-runs.ts";
import { renderReport } from "./render-report.ts";
import type { RunRecord } from "./run-record.ts";

export interface ReportOptions {
  /** Where to write. Default: `report.html` in the folder. */
  readonly output?: string;
  /** Heading of the page. Default: the name of the folder. */
  readonly title?: string;
  /** Command lines that repeat a run, where it did not record them itself. Default: none. */
  readonly commands?: (run: RunRecord) => readonly string[] | Promise<readonly string[]>;
  /** Puts what a run told into the words of whoever started it. Default: as it is. */
  readonly phrase?: (run: RunRecord) => Promise<(text: string) => string>;
}

export interface WrittenReport {
  readonly path: string;
  readonly bytes: number;
  /** Names of the runs that it shows, in order. */
  readonly runs: readonly string[];
  /** What was missing or damaged, each with the run's name in front. */
  readonly notes: readonly string[];
}

const phrased = (run: RunRecord, phrase: (text: string) => string): RunRecord => ({
  ...run,
  log: run.log.map((entry) => ({
    ...entry,
    message: phrase(entry.message),
    ...(entry.hint === undefined ? {} : { hint: phrase(entry.hint) }),
  })),
});

/**
 * Writes one self-contained page about the run at `path`, or about the runs in its sub-folders.
 * The page needs no network: style, script and data are inside, and without its script it still shows every figure.
 * @param path run folder, its metrics.jsonl, or a folder of run folders.
 * @throws CheckpointError when there is nothing to show, or the page cannot be written.
 */
export async function writeReport(
  path: string,
  { output, title, commands = () => [], phrase }: ReportOptions = {},
): Promise<WrittenReport> {
  const found = readRuns(path);
  const runs = phrase ? await Promise.all(found.map(async (run) => phrased(run, await phrase(run)))) : found;
  const folder = statSync(path).isDirectory() ? path : dirname(path);
  const lines = new Map<RunRecord, readonly string[]>();
  for (const run of runs) lines.set(run, await commands(run));
  const heading = title ?? basename(resolve(folder));
  const page = Buffer.from(renderReport(runs, { title: heading, commands: (run) => lines.get(run) ?? [] }));
  const target = output ?? join(folder, "report.html");
  writeFileAtomic(target, page);
  const notes = runs.flatMap((run) => run.notes.map((note) => `${run.id}: ${note}`));
  return { path: target, bytes: page.length, runs: runs.map(({ id }) => id), notes };
}
