// The list of training runs: docs/results/control/jobs.json, expanded to one job for each seed.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type ControlAlgorithm, type ControlOptions, controlAlgorithms } from "../../src/rl/control/options.ts";
import { zooEntry } from "../../src/rl/control/zoo.ts";

export const folder = fileURLToPath(new URL("../../docs/results/control/", import.meta.url));

const rowSchema = z.strictObject({
  group: z.enum(["published", "short", "ablation"]),
  algo: z.enum(controlAlgorithms),
  env: z.string(),
  /** Tells rows of one algorithm and environment apart. */
  variant: z.string().optional(),
  /** `zoo`: the tuned settings of zoo.ts; `default`: the algorithm's own. */
  preset: z.enum(["zoo", "default"]),
  /** Over the preset. */
  options: z.record(z.string(), z.unknown()).default({}),
  /** Options of the environment. */
  environment: z.record(z.string(), z.unknown()).default({}),
  steps: z.int().positive(),
  seeds: z.array(z.int().nonnegative()).default([0, 1, 2]),
  /** Threads that step the environments; 0: the main one. */
  workers: z.int().nonnegative().default(0),
  /** What others report for this row: mean, deviation over episodes (or seeds), source. */
  published: z.strictObject({ mean: z.number(), std: z.number().optional(), source: z.string() }).optional(),
});
export type Row = z.output<typeof rowSchema>;

export interface Job {
  /** Name of the result's file, without its ending. */
  readonly id: string;
  readonly row: Row;
  readonly seed: number;
}

export function readRows(): Row[] {
  const { rows } = z.strictObject({ rows: z.array(rowSchema) }).parse(JSON.parse(readFileSync(`${folder}jobs.json`, "utf8")));
  return rows;
}

export const rowId = ({ algo, env, variant }: Row): string => [algo, env, ...(variant ? [variant] : [])].join("-");
export const jobsOf = (row: Row): Job[] => row.seeds.map((seed) => ({ id: `${rowId(row)}-s${seed}`, row, seed }));
export const resultPath = ({ id }: Job): string => `${folder}${id}.json`;
/** Of the same run with Stable-Baselines3. */
export const peerPath = ({ id }: Job): string => `${folder}stable-baselines3/${id}.json`;
export const isDone = (job: Job): boolean => existsSync(resultPath(job));
export const isPeerDone = (job: Job): boolean => existsSync(peerPath(job));

/** All options of a row's runs. */
export function optionsOf({ algo, env, preset, options }: Row): ControlOptions & { algo: ControlAlgorithm } {
  const tuned = preset === "zoo" ? zooEntry(algo, env)?.options : {};
  if (!tuned) throw new Error(`${algo} ${env}: expected tuned settings in zoo.ts, found none`);
  return { ...tuned, ...options, algo };
}
