// The folder of a draft model that knows the frequent tokens of its target: a decoder as Hugging Face has them, whose config.json says in
// `draft_vocabulary` which of the target's ids its own stand for. The last id stands for all others. It has no tokenizer: the target's is used.
import { join } from "node:path";
import { z } from "zod";
import { FormatError } from "../base/errors.ts";
import { readJsonObject } from "../formats/json-file.ts";
import { type LoadedDecoder, loadDecoder, saveDecoder } from "../models/decoder/checkpoint.ts";
import type { TrainableDecoder } from "../train/index.ts";

const vocabularySchema = z.object({
  /** By draft id: the target's. */
  target_ids: z.array(z.int().nonnegative()).min(1),
  target_vocab_size: z.int().positive(),
  /** `Tokenizer.hash` of the target's tokenizer. */
  tokenizer_hash: z.string(),
});
export type DraftVocabularyFields = z.output<typeof vocabularySchema>;

export interface TrimmedDraft {
  readonly decoder: LoadedDecoder;
  readonly vocabulary: DraftVocabularyFields;
}

/** Writes config.json and model.safetensors into an existing folder. */
export const saveTrimmedDraft = (directory: string, decoder: TrainableDecoder, vocabulary: DraftVocabularyFields): void =>
  saveDecoder(directory, decoder, { fields: { draft_vocabulary: vocabulary } });

/** Whether a folder is of such a model. */
export function isTrimmedDraft(path: string): boolean {
  const config = configOf(path);
  return config !== undefined && "draft_vocabulary" in config;
}

/** @throws FormatError for a folder that is none, or whose mapping does not fit the model. */
export function loadTrimmedDraft(path: string): TrimmedDraft {
  const found = vocabularySchema.safeParse(configOf(path)?.draft_vocabulary);
  const hint = "Train it anew with longwave train-drafter --kind draft.";
  if (!found.success) throw new FormatError(`${path}: expected draft_vocabulary in config.json, got none or a broken one`, { hint });
  const decoder = loadDecoder(path);
  const size = found.data.target_ids.length;
  if (decoder.config.vocabSize <= size)
    throw new FormatError(
      `${path}: expected a model of more than the ${size} tokens of draft_vocabulary, got ${decoder.config.vocabSize}`,
      {
        hint,
      },
    );
  return { decoder, vocabulary: found.data };
}

function configOf(path: string): Record<string, unknown> | undefined {
  try {
    return readJsonObject(join(path, "config.json"));
  } catch {
    return undefined;
  }
}
