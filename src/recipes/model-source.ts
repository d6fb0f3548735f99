// What a user may name as a model: a checkpoint folder, a run folder (its latest checkpoint), a llama2.c file; and its tokenizer.
import { cpSync, existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { storageError } from "../base/atomic.ts";
import { CheckpointError, FormatError } from "../base/errors.ts";
import { makeDirectories } from "../base/make-directories.ts";
import { openCheckpoint, runsNear } from "../engine/index.ts";

/** What somebody may have meant to train on or to measure with. */
const textExtensions = [".txt", ".md", ".jsonl", ".csv", ".html"];

/**
 * The folder or file of weights that `path` stands for: of a run, its latest complete checkpoint.
 * @throws CheckpointError for a run without one and for a folder of several runs, FormatError for a text and where nothing is.
 */
export function resolveModel(path: string): string {
  // A path that leads through a file is an error of its own for stat, not for this.
  if (!existsSync(path)) throw missingModel(path);
  const isFolder = statSync(path).isDirectory();
  if (!isFolder && textExtensions.includes(extname(path).toLowerCase()))
    throw new FormatError(`${path}: expected a checkpoint folder, a run folder or a model file, got a text`, {
      hint: `Train on it: \`longwave pretrain ${path}\`, or measure a model on it: \`longwave evaluate <model> ${path}\`.`,
    });
  const has = (name: string): boolean => existsSync(join(path, name));
  if (!isFolder || has("model.safetensors") || has("model.safetensors.index.json")) return path;
  if (has("checkpoints")) return openCheckpoint(path).path;
  // Before its first checkpoint a run has its settings in config.json, which must not be taken for a model's.
  if (has("config.json") && (has("metrics.jsonl") || has("tokenizer")))
    throw new CheckpointError(`run folder ${path}: expected a checkpoint, got none yet`, {
      hint: `Train it further: longwave pretrain --resume ${path}`,
    });
  const inside = has("config.json") ? undefined : runsNear(path);
  if (inside !== undefined) throw new CheckpointError(`${path}: expected a model or one run, got a folder of them`, { hint: inside });
  return path;
}

/** The error for a model that is not at `path`; names the runs that are where it was looked for. */
export const missingModel = (path: string, alsoExpected = ""): FormatError =>
  new FormatError(`${path}: expected a checkpoint folder, a run folder${alsoExpected} or a model file, got nothing there`, {
    hint: runsNear(path) ?? "Check the path.",
  });

/** Where the tokenizer of a model lies that `resolveModel` found. @throws FormatError when a llama2.c file has none beside it. */
export function tokenizerBeside(model: string): string {
  if (!model.endsWith(".bin")) return model;
  const folder = dirname(model);
  const name = ["tokenizer.json", ...llama2cTokenizers(folder)].find((candidate) => existsSync(join(folder, candidate)));
  if (name !== undefined) return join(folder, name);
  throw new FormatError(`${model}: expected a tokenizer beside it, got none`, { hint: "Name it with --tokenizer." });
}

const llama2cTokenizers = (folder: string): string[] => readdirSync(folder).filter((name) => /^tok(enizer|\d+)\.bin$/.test(name));

const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/** Copies a tokenizer (a folder, a tokenizer.json with what belongs to it, or a llama2.c file) into a folder. @throws CheckpointError. */
export function copyTokenizer(source: string, directory: string): void {
  try {
    makeDirectories(directory);
    const isFolder = statSync(source).isDirectory();
    const folder = isFolder ? source : dirname(source);
    if (source.endsWith(".bin")) {
      cpSync(source, join(directory, "tokenizer.bin"));
      return;
    }
    const isComplete = !isFolder || existsSync(join(folder, "tokenizer.json"));
    const names = isComplete ? tokenizerFiles : llama2cTokenizers(folder);
    for (const name of names) {
      const from = name === "tokenizer.json" && !isFolder ? source : join(folder, name);
      if (existsSync(from)) cpSync(from, join(directory, name.endsWith(".bin") ? "tokenizer.bin" : basename(name)));
    }
  } catch (cause) {
    throw storageError(cause, directory);
  }
}
