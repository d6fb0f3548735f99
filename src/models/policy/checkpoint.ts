// Policies on disk: policy.json (sizes, head, activations) and model.safetensors with the parameter names of Stable-Baselines3.
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic.ts";
import { FormatError } from "../../base/errors.ts";
import { readJsonObject } from "../../formats/json-file.ts";
import { openSafetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors-write.ts";
import { type PolicyConfig, policySchema } from "./config.ts";
import { checkpointNames } from "./names.ts";
import { allocatePolicy, type Policy } from "./parameters.ts";

const configName = "policy.json";
const weightsName = "model.safetensors";

const size = z.int().positive().max(1_000_000);
const epsilon = z.number().nonnegative().optional();
const headSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("categorical"), n: size }),
  z.strictObject({ kind: z.literal("multi-categorical"), dims: z.array(size).min(1).max(10_000) }),
  z.strictObject({ kind: z.literal("bernoulli"), n: size }),
  z.strictObject({ kind: z.literal("gaussian"), size, squash: z.boolean(), epsilon }),
  z.strictObject({
    kind: z.literal("gsde"),
    size,
    squash: z.boolean(),
    fullStd: z.boolean(),
    useExpln: z.boolean(),
    learnFeatures: z.boolean(),
    epsilon,
  }),
]);
const configSchema = policySchema.extend({ observationSize: size, head: headSchema, dtype: z.enum(["f32", "f64"]) });
const fileSchema = z.looseObject({ format: z.literal("longwave-policy"), policy: configSchema });

export interface LoadedPolicy {
  readonly policy: Policy;
  /** The fields of policy.json beside the policy's own. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Writes into an existing directory. @param fields more for policy.json. @throws CheckpointError when the disk refuses. */
export function savePolicy(directory: string, { config, parameters }: Policy, fields: Readonly<Record<string, unknown>> = {}): void {
  writeFileAtomic(join(directory, configName), `${JSON.stringify({ ...fields, format: "longwave-policy", policy: config }, null, 2)}\n`);
  const tensors = Array.from(checkpointNames(config), ([name, path]) => {
    const { shape, data } = parameters.leaves.get(path) as NonNullable<ReturnType<typeof parameters.leaves.get>>;
    return { name, dtype: config.dtype, shape, data };
  });
  writeSafetensors(join(directory, weightsName), tensors);
}

/** @throws FormatError naming what is missing, of the wrong shape or out of range. */
export function loadPolicy(directory: string): LoadedPolicy {
  const path = join(directory, configName);
  const parsed = fileSchema.safeParse(readJsonObject(path));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new FormatError(`${path}: expected a policy, got ${issue.path.join(".") || "another file"}: ${issue.message}`);
  }
  const { policy: config, format: _, ...fields } = parsed.data;
  const policy = allocatePolicy(config as PolicyConfig);
  readWeights(join(directory, weightsName), policy);
  return { policy, fields };
}

/** Reads parameters into a policy of the same shape. @throws FormatError for tensors that are missing or of another shape. */
export function readWeights(path: string, { config, parameters }: Policy): void {
  using source = openSafetensors(path);
  for (const [name, leafPath] of checkpointNames(config)) {
    const leaf = parameters.leaves.get(leafPath);
    if (!source.entries.has(name) || !leaf) throw new FormatError(`${path}: expected a tensor "${name}", got none`);
    source.readInto(name, leaf);
  }
}
