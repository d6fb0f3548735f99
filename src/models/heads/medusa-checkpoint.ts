// Medusa heads in the published layouts: config.json and medusa_lm_head.safetensors with the keys `{head}.{layer}.linear.weight|bias` and,
// in v1, `{head}.{layers}.weight` for the head's own unembedding. What longwave knows besides (sizes, the tokenizer's hash, the static tree) are
// more fields of config.json. Numbers of heads and layers come from the tensors: published files contradict their own config.json.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic.ts";
import { FormatError } from "../../base/errors.ts";
import { readJsonObject } from "../../formats/json-file.ts";
import { writeSafetensors } from "../../formats/safetensors-write.ts";
import type { TensorSource } from "../../formats/tensor-source.ts";
import { openWeights } from "../../formats/weights.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { allocateMedusa, type MedusaConfig, type MedusaHead, type MedusaHeads, medusaSchema } from "./medusa.ts";

const weightsName = "medusa_lm_head.safetensors";
const maxNodes = 1024;

const configSchema = z.looseObject({
  medusa_num_heads: z.int().nullish(),
  medusa_num_layers: z.int().nullish(),
  base_model_name_or_path: z.string().nullish(),
  version: z.union([z.string(), z.number()]).nullish(),
  tokenizer_hash: z.string().nullish(),
  medusa_choices: z
    .array(z.array(z.int().nonnegative().max(255)).min(1).max(16))
    .max(maxNodes)
    .nullish(),
});

/** What lies beside the weights. */
export interface MedusaInfo {
  /** Name or folder of the target. */
  readonly base?: string;
  /** Hash of the tokenizer of the target. */
  readonly tokenizerHash?: string;
  /** Paths of the static tree. */
  readonly choices?: readonly (readonly number[])[];
}

export interface LoadedMedusa extends MedusaHeads {
  readonly info: MedusaInfo;
}

/** Names of a head's tensors in the published layout, with its memory. */
function* slots(heads: readonly MedusaHead<TensorBuffer>[]): Generator<[name: string, slot: TensorBuffer]> {
  for (const [k, { blocks, unembedding }] of heads.entries()) {
    for (const [layer, { weight, bias }] of blocks.entries()) {
      yield [`${k}.${layer}.linear.weight`, weight];
      yield [`${k}.${layer}.linear.bias`, bias];
    }
    if (unembedding) yield [`${k}.${blocks.length}.weight`, unembedding.weight];
  }
}

/**
 * @param folder with config.json and medusa_lm_head.safetensors, or the .pt file of older uploads.
 * @param vocabSize of the target, which layout v2 does not tell; the own unembeddings' size otherwise.
 * @throws FormatError naming what is missing or of the wrong shape.
 */
export function loadMedusa(folder: string, vocabSize?: number): LoadedMedusa {
  const path = [weightsName, "medusa_lm_head.pt"].map((name) => join(folder, name)).find((each) => existsSync(each));
  if (path === undefined) {
    throw new FormatError(`${folder}: expected ${weightsName} in it, got none`, {
      hint: "Name the folder that longwave train-drafter wrote.",
    });
  }
  using source = openWeights(path);
  const info = readInfo(join(folder, "config.json"));
  const prefix = [...source.entries.keys()].every((name) => name.startsWith("medusa_head.")) ? "medusa_head." : "";
  const config = configOf(source, prefix, path, vocabSize ?? info.vocabSize);
  const medusa = allocateMedusa(config);
  for (const [name, slot] of slots(medusa.parameters.tree.heads as MedusaHead<TensorBuffer>[])) {
    if (!source.entries.has(prefix + name)) throw new FormatError(`${path}: expected a tensor "${prefix}${name}", got none`);
    source.readInto(prefix + name, slot);
  }
  return { ...medusa, info };
}

function readInfo(path: string): MedusaInfo & { vocabSize?: number } {
  const parsed = configSchema.safeParse(readJsonObject(path));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new FormatError(`${path}: ${issue.path.join(".")}: ${issue.message}`);
  }
  const { base_model_name_or_path: base, tokenizer_hash: tokenizerHash, medusa_choices: choices, vocab_size: size } = parsed.data;
  return {
    ...(base ? { base } : {}),
    ...(tokenizerHash ? { tokenizerHash } : {}),
    ...(choices ? { choices } : {}),
    ...(typeof size === "number" && Number.isInteger(size) && size > 0 ? { vocabSize: size } : {}),
  };
}

function configOf({ entries }: TensorSource, prefix: string, path: string, vocabSize: number | undefined): MedusaConfig {
  const count = (nameOf: (i: number) => string): number => {
    let n = 0;
    while (entries.has(prefix + nameOf(n))) n++;
    return n;
  };
  const heads = count((k) => `${k}.0.linear.weight`);
  const layers = count((layer) => `0.${layer}.linear.weight`);
  const first = entries.get(`${prefix}0.0.linear.weight`);
  const own = entries.get(`${prefix}0.${layers}.weight`);
  const size = own?.shape[0] ?? vocabSize;
  if (first?.shape.length !== 2)
    throw new FormatError(
      `${path}: expected heads with tensors "0.0.linear.weight" and so on, got ${[...entries.keys()].slice(0, 3).join(", ")}`,
    );
  if (size === undefined)
    throw new FormatError(`${path}: expected vocab_size in config.json for heads without unembeddings of their own, got none`);
  const parsed = medusaSchema.safeParse({ heads, layers, unembedding: own ? "own" : "shared" });
  if (!parsed.success) throw new FormatError(`${path}: expected 1 to 16 heads of 1 to 16 layers, got ${heads} of ${layers}`);
  return { ...parsed.data, width: first.shape[0], vocabSize: size };
}

/** Writes config.json and medusa_lm_head.safetensors into an existing directory, in layout v1 or v2. @throws CheckpointError when the disk refuses. */
export function saveMedusa(
  directory: string,
  { config, parameters }: MedusaHeads,
  { base, tokenizerHash, choices }: MedusaInfo = {},
): void {
  const fields = {
    architectures: ["MedusaModel"],
    model_type: "medusa",
    medusa_num_heads: config.heads,
    medusa_num_layers: config.layers,
    base_model_name_or_path: base ?? "",
    ...(config.unembedding === "shared" ? { version: "2" } : {}),
    hidden_size: config.width,
    vocab_size: config.vocabSize,
    ...(tokenizerHash === undefined ? {} : { tokenizer_hash: tokenizerHash }),
    ...(choices === undefined ? {} : { medusa_choices: choices }),
  };
  writeFileAtomic(join(directory, "config.json"), `${JSON.stringify(fields, null, 2)}\n`);
  const tensors = Array.from(slots(parameters.tree.heads as MedusaHead<TensorBuffer>[]), ([name, { shape, data }]) => ({
    name,
    dtype: "f32" as const,
    shape,
    data,
  }));
  writeSafetensors(join(directory, weightsName), tensors);
}
