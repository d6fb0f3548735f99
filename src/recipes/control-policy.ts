// Trained policies: found in a run folder, and played with.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Checkpoint, type CheckpointReference, openCheckpoint } from "../engine/index.ts";
import { evaluatePolicy } from "../rl/control/agent.ts";
import type { EpisodeResult } from "../rl/control/evaluation.ts";
import { type ControlPolicy, loadControlPolicy } from "../rl/control/policy-file.ts";
import type { Backend } from "../runtime/backend.ts";
import { environmentName, openNamedEnvironments } from "./control-source.ts";
import { locateRun, openRunOfKind } from "./training-run.ts";

/** A policy that was found by the path of a run folder, a checkpoint or the folder of a saved policy. */
export interface LocatedPolicy {
  readonly control: ControlPolicy;
  readonly path: string;
  /** Which one it is, in words: `the best checkpoint, at environment step 2048 (mean return 90.33)`. */
  readonly description: string;
  /** Environment steps that it has learnt from; undefined for a policy that was saved by itself. */
  readonly environmentSteps: number | undefined;
}

/**
 * @param which of a run's checkpoints: `best` (the latest where no best one was kept), `latest`, an environment step, or the name or path of its
 * folder. Without effect where `path` is no run folder.
 * @throws CheckpointError, FormatError when there is no policy.
 */
export function locatePolicy(path: string, which: CheckpointReference = "best"): LocatedPolicy {
  const { run, checkpoint } = locateRun(path);
  // A policy that was saved by itself.
  if (checkpoint === "auto" && existsSync(join(path, "policy.json")))
    return { control: loadControlPolicy(path), path, description: "a saved policy", environmentSteps: undefined };
  const { found, name, note = "" } = checkpoint === "auto" ? choose(run, which) : { found: openCheckpoint(path), name: "checkpoint" };
  const { totalTokens } = found.progress;
  const description = `the ${name} at environment step ${totalTokens}${note}`;
  return { control: loadControlPolicy(found.path), path: found.path, description, environmentSteps: totalTokens };
}

function choose(path: string, which: CheckpointReference): { found: Checkpoint; name: string; note?: string } {
  const { checkpoints } = openRunOfKind(path, "control");
  if (which !== "best") return { found: checkpoints.resolve(which), name: which === "latest" ? "latest checkpoint" : "checkpoint" };
  const best = checkpoints.best();
  if (!best) return { found: checkpoints.resolve("latest"), name: "latest checkpoint", note: " (no best one was kept)" };
  const value = best.progress.best?.value;
  return { found: best, name: "best checkpoint", note: value === undefined ? "" : ` (mean return ${value.toFixed(2)})` };
}

export interface EvaluateRunOptions {
  episodes: number;
  deterministic?: boolean;
  seed?: number;
  envs?: number;
  /** Default: that of the run. */
  env?: string;
  /** As for {@link locatePolicy}. Default `best`. */
  which?: CheckpointReference;
  signal?: AbortSignal;
}

/** Plays episodes with the policy of a run. @throws UsageError when the environment is not one of the policy's spaces. */
export async function evaluateRun(
  backend: Backend,
  path: string,
  options: EvaluateRunOptions,
): Promise<{ results: EpisodeResult[]; located: LocatedPolicy; environment: string }> {
  const { episodes, envs = 1, which = "best", env, ...rest } = options;
  const located = locatePolicy(path, which);
  const { control: policy } = located;
  const source = sourceOf(path, policy, env);
  const environments = await openNamedEnvironments(source.env, Math.min(envs, episodes), { options: source.options });
  const results = await evaluatePolicy(backend, policy, environments, { episodes, ...rest });
  return { results, located, environment: environmentName(source.env) };
}

/** The environment of a policy, as the run recorded it. */
export function sourceOf(path: string, policy: ControlPolicy, env?: string): { env: string; options: Readonly<Record<string, unknown>> } {
  if (env !== undefined) return { env, options: {} };
  const { run } = locateRun(path);
  if (!existsSync(join(run, "config.json"))) return { env: policy.environment, options: {} };
  const { config } = openRunOfKind(run, "control");
  return { env: String(config.env), options: (config.envOptions ?? {}) as Record<string, unknown> };
}
