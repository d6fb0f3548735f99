// What a user may name as a model: a checkpoint folder, a run folder (its best or latest checkpoint), a llama2.c file.
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { FormatError } from "../base/errors.ts";
import { openCheckpoint } from "../engine/index.ts";
import { type LoadedDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { loadTokenizer, type Tokenizer } from "../text/index.ts";

/** The folder of weights that `path` stands for: of a run, its latest checkpoint. */
export function resolveModel(path: string): string {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (isFolder && !existsSync(join(path, "model.safetensors")) && existsSync(join(path, "checkpoints"))) return openCheckpoint(path).path;
  return path;
}

export interface ModelAndTokenizer {
  path: string;
  decoder: LoadedDecoder;
  tokenizer: Tokenizer;
}

/** @param tokenizerPath where the tokenizer is, when it does not lie beside the model. */
export function openModel(path: string, tokenizerPath?: string): ModelAndTokenizer {
  const resolved = resolveModel(path);
  const decoder = loadDecoder(resolved);
  return { path: resolved, decoder, tokenizer: loadTokenizer(tokenizerPath ?? besideModel(resolved)) };
}

function besideModel(path: string): string {
  if (!path.endsWith(".bin")) return path;
  for (const name of ["tokenizer.json", "tok512.bin", "tokenizer.bin"])
    if (existsSync(join(dirname(path), name))) return join(dirname(path), name);
  throw new FormatError(`${path}: expected a tokenizer beside it, got none`, { hint: "Name it with --tokenizer." });
}
