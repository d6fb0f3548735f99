// Environments from what a user names: ids, and modules of his own.
import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { UsageError } from "../base/errors.ts";
import type { Environment, VectorEnvironment } from "../rl/control/environment.ts";
import { environmentInfo } from "../rl/control/registry.ts";
import { type EnvironmentSpec, makerOf } from "../rl/control/vector-spec.ts";
import { openEnvironments } from "../rl/control/vector-workers.ts";

const isModule = (text: string): boolean => /\.(js|mjs|ts|mts)$/.test(text);

/** What a run records as the name of its environment. */
export const environmentName = (env: string): string => (isModule(env) ? basename(env) : env);

/** Where it is found again from any folder. */
export const environmentSource = (env: string): string => (isModule(env) ? resolve(env) : env);

/** Whether a saved environment is a module of the same name: where it lies may change. */
export const isSameModule = (saved: unknown, env: string): boolean =>
  typeof saved === "string" && isModule(saved) && isModule(env) && basename(saved) === basename(env);

/** Mean return from which the environment counts as solved. @throws UsageError for an unknown id. */
export const thresholdOf = (env: string): number | undefined => (isModule(env) ? undefined : environmentInfo(env).rewardThreshold);

/**
 * `count` environments.
 * @throws UsageError for an unknown id (with the nearest one), unknown options, or a module without a function `environment`.
 */
export async function openNamedEnvironments(
  env: string,
  count: number,
  { options = {}, workers = 0 }: { options?: Readonly<Record<string, unknown>>; workers?: number } = {},
): Promise<VectorEnvironment> {
  return openEnvironments(specOf(env, options), count, { name: environmentName(env), workers });
}

/** One environment by itself. @throws as {@link openNamedEnvironments}. */
export async function openSingleEnvironment(env: string, options: Readonly<Record<string, unknown>> = {}): Promise<Environment> {
  const make = await makerOf(specOf(env, options));
  return make(0);
}

function specOf(env: string, options: Readonly<Record<string, unknown>>): EnvironmentSpec {
  if (!isModule(env)) {
    environmentInfo(env);
    return { id: env, options };
  }
  const file = resolve(env);
  if (!existsSync(file)) throw new UsageError(`env: expected a module, got nothing at ${env}`, { hint: "Check the path." });
  // As text: it is sent to threads.
  return { module: pathToFileURL(file).href, export: "environment", options };
}
