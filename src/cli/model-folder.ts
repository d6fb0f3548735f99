// Opens what a user names as a model, with its tokenizer, and checks that the two belong together.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../base/errors.ts";
import { type LoadedDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { resolveModel, tokenizerBeside } from "../recipes/index.ts";
import { checkSameTokens } from "../recipes/text-model/same-tokens.ts";
import { loadTokenizer, type Tokenizer } from "../text/index.ts";

export { resolveModel };

export interface ModelAndTokenizer {
  path: string;
  decoder: LoadedDecoder;
  tokenizer: Tokenizer;
}

/**
 * @param path a checkpoint folder, a run folder (its latest checkpoint) or a llama2.c file.
 * @param tokenizerPath where the tokenizer is, when it does not lie beside the model.
 * @throws FormatError, CheckpointError for what cannot be read; UsageError for the tokenizer of another model.
 */
export function openModel(path: string, tokenizerPath?: string): ModelAndTokenizer {
  const resolved = resolveModel(path);
  const decoder = loadDecoder(resolved);
  const tokenizer = loadTokenizer(tokenizerPath ?? tokenizerBeside(resolved));
  const { vocabSize } = decoder.config;
  // A model's vocabulary may be padded past its tokenizer's, never the other way round.
  if (tokenizer.vocabSize > vocabSize)
    throw new UsageError(`tokenizer: expected at most ${vocabSize} tokens for this model, got ${tokenizer.vocabSize}`, {
      hint: "Use the tokenizer of this model.",
    });
  if (tokenizerPath !== undefined && existsSync(join(resolved, "tokenizer.json"))) checkSameTokens(tokenizer, loadTokenizer(resolved));
  return { path: resolved, decoder, tokenizer };
}
