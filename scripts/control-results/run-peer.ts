// The same job with Stable-Baselines3: what its seeds reach in the same place, where a published number is of one run alone.
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { writeFileAtomic } from "../../src/base/atomic.ts";
import { type Job, optionsOf, peerPath } from "./jobs.ts";
import { evaluationEpisodes, evaluationSeed, type JobResult, oneLineArrays } from "./run-job.ts";

const script = fileURLToPath(new URL("../../bench/peers/rl_results.py", import.meta.url));

export type PeerResult = Omit<JobResult, "versions" | "variant"> & { versions: string };

/** @param python an interpreter that has stable-baselines3, sb3-contrib and gymnasium[mujoco]. @throws Error with what it wrote when it failed. */
export async function runPeer(python: string, job: Job, signal: AbortSignal): Promise<PeerResult> {
  const { algo, ...options } = optionsOf(job.row);
  const { env, environment, steps } = job.row;
  const child = spawn(python, [script], { signal, env: { ...process.env, OMP_NUM_THREADS: "1", PYTHONDONTWRITEBYTECODE: "1" } });
  let [told, errors] = ["", ""];
  child.stdout.on("data", (data: Buffer) => void (told += data.toString()));
  child.stderr.on("data", (data: Buffer) => void (errors = (errors + data.toString()).slice(-4000)));
  child.stdin.end(JSON.stringify({ algo, env, options, environment, steps, seed: job.seed, episodes: evaluationEpisodes, evaluationSeed }));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`${script}: expected a result, got exit code ${code}\n${errors}`);
  const command = `node scripts/control-results.mjs --peer <python> --only ${job.id}`;
  const result = { id: job.id, algo, env, seed: job.seed, command, ...JSON.parse(told) } as PeerResult;
  mkdirSync(dirname(peerPath(job)), { recursive: true });
  writeFileAtomic(peerPath(job), oneLineArrays(result));
  return result;
}
