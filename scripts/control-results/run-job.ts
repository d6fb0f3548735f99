// One training run: learning curve, and a final evaluation of 100 episodes with the most probable actions.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { writeFileAtomic } from "../../src/base/atomic.ts";
import { Agent, evaluatePolicy } from "../../src/rl/control/agent.ts";
import { environmentFactory } from "../../src/rl/control/registry.ts";
import { batchEnvironments } from "../../src/rl/control/vector.ts";
import { openEnvironments } from "../../src/rl/control/vector-workers.ts";
import { openBackend } from "../../src/runtime/open.ts";
import { type Job, optionsOf, resultPath } from "./jobs.ts";

export const evaluationEpisodes = 100;
/** Far from the seeds of training. */
export const evaluationSeed = 1_000_000;
/** Worker threads read the sources too. */
const execArgv = ["--import", new URL("../../src/runtime/testing/register-typescript.mjs", import.meta.url).href];
const curvePoints = 40;

export interface JobResult {
  id: string;
  algo: string;
  env: string;
  variant?: string;
  seed: number;
  steps: number;
  command: string;
  /** Of the deterministic evaluation; the deviation is over episodes. */
  evaluation: { episodes: number; mean: number; std: number; length: number };
  /** Mean return of the last 100 episodes of training, NaN as null. */
  trainingReturn: number | null;
  /** [environment steps, mean return of the last 100 episodes]. */
  curve: [number, number][];
  /** Training alone, by the clock. */
  seconds: number;
  /** Of all threads. */
  cpuSeconds: number;
  versions: { longwave: string; commit: string; onnxRuntime: string; node: string; cpu: string; cores: number };
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

/** Trains, evaluates, and writes the result in one piece. @param onProgress hears of points of the curve. */
export async function runJob(job: Job, onProgress: (steps: number, meanReturn: number) => void, signal: AbortSignal): Promise<JobResult> {
  const { row, seed, id } = job;
  const { algo, ...options } = optionsOf(row);
  const numEnvs = options.numEnvs ?? 1;
  const make = await environmentFactory(row.env, row.environment);
  const { backend, version } = openVersioned();
  // Several runs at a time take a core each, and workers would only wait for each other; the numbers are the same.
  const workers = process.env.CONTROL_RESULTS_CHILD ? 0 : row.workers;
  const env =
    workers > 0
      ? await openEnvironments({ id: row.env, options: row.environment }, numEnvs, { workers, execArgv })
      : batchEnvironments(make, numEnvs, { name: row.env });
  const agent = new Agent(algo, { ...options, env, evaluationEnv: make, seed, backend });
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const curve: [number, number][] = [];
  const every = Math.max(1, Math.floor(row.steps / agent.trainer.stepsPerIteration / curvePoints));
  for await (const event of agent.learn(row.steps, { signal })) {
    if (event.kind !== "step") continue;
    const mean = event.metrics["rollout/ep_rew_mean"];
    if (mean === undefined || (event.metrics["time/iterations"] % every !== 0 && event.step !== event.total)) continue;
    curve.push([event.metrics["time/total_timesteps"], round(mean, 2)]);
    onProgress(event.metrics["time/total_timesteps"], mean);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const episodes = await evaluatePolicy(backend, agent.trainer.control, batchEnvironments(make, 10, { name: row.env }), {
    episodes: evaluationEpisodes,
    seed: evaluationSeed,
    signal,
  });
  const returns = episodes.map((episode) => episode.return);
  const mean = returns.reduce((sum, value) => sum + value, 0) / returns.length;
  const result: JobResult = {
    id,
    algo,
    env: row.env,
    ...(row.variant ? { variant: row.variant } : {}),
    seed,
    steps: agent.trainer.numTimesteps,
    command: `node scripts/control-results.mjs --only ${id}`,
    evaluation: {
      episodes: returns.length,
      mean: round(mean, 2),
      std: round(Math.sqrt(returns.reduce((sum, value) => sum + (value - mean) ** 2, 0) / returns.length), 2),
      length: round(episodes.reduce((sum, { length }) => sum + length, 0) / episodes.length, 1),
    },
    trainingReturn: curve.at(-1)?.[1] ?? null,
    curve,
    seconds: round(seconds, 1),
    cpuSeconds: round((user + system) / 1e6, 1),
    versions: version,
  };
  agent.dispose();
  backend.dispose();
  writeFileAtomic(resultPath(job), oneLineArrays(result));
  return result;
}

function openVersioned(): { backend: ReturnType<typeof openBackend>["backend"]; version: JobResult["versions"] } {
  const { backend } = openBackend({ threads: 1 });
  const { version: longwave } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  const { length: cores, 0: first } = cpus();
  const cpu = first?.model.trim() || "unknown";
  return { backend, version: { longwave, commit, onnxRuntime: backend.version, node: process.version, cpu, cores } };
}

/** The curve takes a few lines, not hundreds. */
export const oneLineArrays = (result: object): string =>
  `${JSON.stringify(result, null, 2).replace(/\[\n\s+(-?[\d.e+-]+),\n\s+(-?[\d.e+-]+)\n\s+\]/g, "[$1, $2]")}\n`;
