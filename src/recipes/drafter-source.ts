// What a user may name as a drafter: a folder of Medusa heads, or the run folder that trained them.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "../base/errors.ts";
import type { Drafter } from "../decode/drafter.ts";
import { MedusaDrafter } from "../decode/drafters/medusa.ts";
import { openCheckpoint } from "../engine/index.ts";
import type { InferenceModel } from "../models/decoder/quantise.ts";
import { checkMedusaTarget } from "../models/heads/medusa.ts";
import { loadMedusa } from "../models/heads/medusa-checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";

/** The folder of heads that `path` stands for: of a run its finished drafter, else its latest checkpoint. */
export function resolveDrafter(path: string): string {
  if (existsSync(join(path, "medusa_lm_head.safetensors")) || !existsSync(path)) return path;
  if (existsSync(join(path, "drafter"))) return join(path, "drafter");
  return existsSync(join(path, "checkpoints")) ? openCheckpoint(path).path : path;
}

/**
 * The drafter at `path` for a model. Heads without a tree of their own draft a chain of their best guesses.
 * @param tokenizerHash of the model's tokenizer.
 * @throws FormatError for what cannot be read, UsageError for heads of another model.
 */
export function openDrafter(backend: Backend, path: string, model: InferenceModel, tokenizerHash?: string): Drafter {
  const folder = resolveDrafter(path);
  if (!existsSync(folder))
    throw new FormatError(`${path}: expected the folder of a drafter, got nothing there`, { hint: "Check the path." });
  const heads = loadMedusa(folder, model.config.vocabSize);
  const { choices, tokenizerHash: own } = heads.info;
  checkMedusaTarget(heads.config, model.config, { heads: own, target: tokenizerHash });
  const chain = Array.from({ length: heads.config.heads }, (_, k) => new Array<number>(k + 1).fill(0));
  return new MedusaDrafter(backend, heads, model, { choices: choices ?? chain, tokenizerHash: own });
}
