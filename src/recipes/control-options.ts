// Settings of learning from reward in an environment: one schema, from which flags, help and validation come. What is not given comes
// from the algorithm, and from the tuned settings for the environment where there are any.
import { z } from "zod";
import { parseOptions } from "../base/schema.ts";
import { loopSchema } from "../engine/index.ts";
import { algorithmDefaults, type ControlAlgorithm, type ControlOptions, controlAlgorithms, controlSchema } from "../rl/control/options.ts";
import { type ControlStyle, controlStyles, presetOptions, zooEntry } from "../rl/control/zoo.ts";
import { savedSettingsOf } from "./training-run.ts";

const { logEvery, keepLast, checkpointSeconds, onNotFinite } = loopSchema.shape;

export const hyperparameterSources = ["auto", "zoo", ...(Object.keys(controlStyles) as ControlStyle[])] as const;

export const controlRunSchema = z.strictObject({
  env: z
    .string()
    .min(1)
    .default("CartPole-v1")
    .describe("Environment by its id, or a .js or .mjs module with a function `environment(index, options)` that makes one"),
  envOptions: z
    .record(z.string(), z.json())
    .default({})
    .describe("Options of the environment, as JSON; a module's function gets them as its second argument"),
  workers: z.int().nonnegative().max(1024).default(0).describe("Threads that step environments; 0: the main one"),
  hyperparameters: z
    .enum(hyperparameterSources)
    .default("auto")
    .describe(
      "Where settings that are not given come from: tuned ones of rl-baselines3-zoo (auto: where it has them), or a library's defaults",
    ),
  steps: z.int().positive().default(100_000).describe("Environment steps of the whole run, those before a resume included"),
  ...controlSchema.shape,
  seed: z.int().nonnegative().default(0).describe("Seed of everything"),
  seeds: z.int().positive().max(1000).default(1).describe("Runs, with this seed and the ones after it, each in a folder of its own"),
  logEvery: logEvery.describe("Tell the metrics of every so many-th update, and of the last one"),
  evaluateEvery: z.int().nonnegative().default(10_000).describe("Evaluate every so many environment steps, and after the last; 0: never"),
  stopWhenSolved: z.boolean().default(false).describe("End the run when an evaluation reaches the environment's own threshold"),
  checkpointEvery: z
    .int()
    .nonnegative()
    .default(100_000)
    .describe("Save every so many environment steps; at the end and when interrupted always"),
  checkpointSeconds,
  keepLast,
  keepBest: z.boolean().default(true).describe("Keep the checkpoint of the best evaluation"),
  onNotFinite,
  runs: z.string().min(1).default("runs").describe("Folder of all runs"),
  name: z.string().optional().describe("Name of the run, part of its folder's name. Default: algorithm and environment"),
  resume: z.string().min(1).optional().describe("Go on with this run folder (or from one of its checkpoints), with its configuration"),
});

export type ControlRunOptions = z.input<typeof controlRunSchema>;
export type ControlRunSettings = z.output<typeof controlRunSchema>;

/**
 * Values below those that are given: the algorithm's, over them the tuned ones or a library's.
 * @param given merged values, as far as they are known; wrong ones are left to the validation.
 */
export function controlDefaults(given: Readonly<Record<string, unknown>>): ControlRunOptions {
  const named = (given.algo ?? "ppo") as ControlAlgorithm;
  if (!controlAlgorithms.includes(named)) return {};
  const env = String(given.env ?? "CartPole-v1");
  const source = (given.hyperparameters ?? "auto") as (typeof hyperparameterSources)[number];
  const preset = hyperparameterSources.includes(source) ? presetOptions(source, named, env) : undefined;
  const entry = source === "auto" || source === "zoo" ? zooEntry(named, env) : undefined;
  const { algo: _, ...values } = { ...algorithmDefaults[named], ...preset } as ControlOptions;
  return { ...values, ...(entry ? { steps: entry.steps } : {}) };
}

/** @throws UsageError for an option that is unknown or out of range. */
export const parseControlRun = (options: ControlRunOptions): ControlRunSettings =>
  parseOptions(controlRunSchema, { ...controlDefaults(options), ...options });

/**
 * The settings that a run was started with, to go on with them: `control({ ...savedControlSettings(path), resume: path })`.
 * @throws CheckpointError when there is no run at `path`.
 */
export const savedControlSettings = (path: string): ControlRunOptions => savedSettingsOf(controlRunSchema, path, "control");
