// `node scripts/control-results.mjs [--only pattern] [--dry-run] [--page] [--parallel n] [--peer python]`. What has a result is not trained again: a run that
// is interrupted leaves nothing behind, and the next start goes on with it.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isDone, isPeerDone, type Job, jobsOf, readRows } from "./jobs.ts";
import { writePage } from "./page.ts";
import { runJob } from "./run-job.ts";
import { runPeer } from "./run-peer.ts";

const usage = `node scripts/control-results.mjs [options]
  --only p      jobs whose name has this part; * stands for anything, and several are separated by commas
  --dry-run     name the jobs, and which are done
  --parallel n  so many at a time, each a process of its own (default 1)
  --peer p      train with Stable-Baselines3 instead, by this Python; results go to docs/results/control/stable-baselines3
  --page        only write docs/results-control.md from what is there (done after training too)`;

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string" },
      "dry-run": { type: "boolean", default: false },
      page: { type: "boolean", default: false },
      parallel: { type: "string", default: "1" },
      peer: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const rows = readRows();
  if (values.page) {
    writePage(rows);
    return 0;
  }
  const { peer } = values;
  const done = peer === undefined ? isDone : isPeerDone;
  const matches = matcher(values.only);
  const jobs = rows.flatMap(jobsOf).filter(({ id }) => matches(id));
  if (jobs.length === 0) {
    process.stderr.write(`control-results: expected a pattern that matches a job, got ${values.only}\n`);
    return 2;
  }
  if (values["dry-run"]) {
    // In one piece, so that `| head` is no error.
    process.stdout.write(jobs.map((job) => `${done(job) ? "done   " : "missing"}  ${job.id}  ${job.row.steps} steps\n`).join(""));
    return 0;
  }
  const parallel = Number(values.parallel);
  if (!(Number.isInteger(parallel) && parallel >= 1)) throw new Error(`--parallel: expected a positive integer, got ${values.parallel}`);
  const missing = jobs.filter((job) => !done(job));
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => stop.abort());
  const failures = await (parallel === 1 || missing.length < 2
    ? inThisProcess(missing, peer, stop.signal)
    : inProcesses(missing, parallel, peer, stop.signal));
  // A child of --parallel leaves the page to its parent.
  if (!process.env.CONTROL_RESULTS_CHILD) writePage(rows);
  return failures > 0 || stop.signal.aborted ? 1 : 0;
}

/** A name that is given whole matches itself alone. */
function matcher(only: string | undefined): (id: string) => boolean {
  if (only === undefined) return () => true;
  const patterns = only.split(",").map((part) => {
    const body = part.split("*").map((text) => text.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(/-s\d+$/.test(part) ? `^${body.join(".*")}$` : body.join(".*"));
  });
  return (id) => patterns.some((pattern) => pattern.test(id));
}

async function inThisProcess(jobs: readonly Job[], peer: string | undefined, signal: AbortSignal): Promise<number> {
  let failures = 0;
  for (const job of jobs) {
    if (signal.aborted) break;
    try {
      const run =
        peer === undefined
          ? runJob(job, (steps, mean) => tell(`  ${job.id}  ${steps}  ${mean.toFixed(2)}`), signal)
          : runPeer(peer, job, signal);
      const { evaluation, seconds } = await run;
      tell(`${job.id}  ${evaluation.mean} ± ${evaluation.std} over ${evaluation.episodes} episodes, ${seconds} s`);
    } catch (error) {
      failures++;
      tell(`${job.id}  failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  }
  return failures;
}

async function inProcesses(jobs: readonly Job[], parallel: number, peer: string | undefined, signal: AbortSignal): Promise<number> {
  const left = [...jobs];
  let failures = 0;
  const script = fileURLToPath(new URL("../control-results.mjs", import.meta.url));
  const work = async (): Promise<void> => {
    for (let job = left.shift(); job && !signal.aborted; job = left.shift()) {
      const { id } = job;
      const child = spawn(process.execPath, [script, "--only", id, ...(peer === undefined ? [] : ["--peer", peer])], {
        stdio: ["ignore", "inherit", "inherit"],
        env: { ...process.env, CONTROL_RESULTS_CHILD: "1" },
      });
      const stop = (): void => void child.kill();
      signal.addEventListener("abort", stop);
      const code = await new Promise<number | null>((resolve) => child.once("exit", resolve));
      signal.removeEventListener("abort", stop);
      if (code !== 0) failures++;
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  return failures;
}

const tell = (line: string): void => void process.stdout.write(`${line}\n`);
