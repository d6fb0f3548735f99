// Opens a tokenizer from what people have: a model's folder, a tokenizer.json, a GGUF model, or a llama2.c tokenizer file.
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { FormatError } from "../base/errors.ts";
import { loadGgufTokenizer } from "./gguf-tokenizer.ts";
import { loadLlama2cTokenizer } from "./llama2c-tokenizer.ts";
import { PipelineTokenizer } from "./pipeline-tokenizer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { checkTokenizerFile, type JsonObject, readJsonFile } from "./tokenizer-file.ts";

const maxConfigBytes = 16 << 20;

/**
 * Loads `tokenizer.json` (with `tokenizer_config.json` and `special_tokens_map.json` beside it, when they are there), the tokenizer
 * inside a GGUF file (`*.gguf`) or a llama2.c tokenizer (`*.bin`) from a file or a folder.
 * @throws FormatError when there is none, or when it is damaged, cut short or of an unsupported kind.
 */
export function loadTokenizer(fileOrDirectory: string): Tokenizer {
  const path = findTokenizer(fileOrDirectory);
  if (path.endsWith(".bin")) return loadLlama2cTokenizer(path);
  if (path.endsWith(".gguf")) return loadGgufTokenizer(path);
  const file = checkTokenizerFile(readJsonFile(path), path);
  const directory = dirname(path);
  const companions = ["special_tokens_map.json", "tokenizer_config.json"].map((name) => join(directory, name)).filter(existsSync);
  const config: JsonObject = Object.assign({}, ...companions.map((companion) => readJsonFile(companion, maxConfigBytes)));
  return new PipelineTokenizer(file, companions.length > 0 ? config : undefined);
}

/**
 * A tokenizer from the parsed content of tokenizer.json and tokenizer_config.json.
 * @param label names the file in errors.
 * @throws FormatError.
 */
export function tokenizerFromJson(json: JsonObject, config?: JsonObject, label?: string): Tokenizer {
  return new PipelineTokenizer(checkTokenizerFile(json, label), config);
}

function findTokenizer(path: string): string {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined) {
    throw new FormatError(`load a tokenizer: expected a file or folder at ${path}, got nothing`, { hint: "Check the path." });
  }
  if (!status.isDirectory()) return path;
  const names = readdirSync(path);
  if (names.includes("tokenizer.json")) return join(path, "tokenizer.json");
  const llama2c = names.filter((name) => /^tok(enizer|\d+)\.bin$/.test(name));
  if (llama2c.length === 1) return join(path, llama2c[0]);
  const gguf = names.filter((name) => name.endsWith(".gguf"));
  if (gguf.length === 1) return join(path, gguf[0]);
  const hint = names.includes("tokenizer.model")
    ? "A SentencePiece file alone is not enough: save the tokenizer with Hugging Face's tokenizers, which writes tokenizer.json."
    : "Give the folder of a model with its tokenizer, or the file itself.";
  throw new FormatError(`load a tokenizer: expected tokenizer.json in ${basename(path)}, got ${describe(names)}`, { hint });
}

const describe = (names: readonly string[]): string =>
  names.length === 0 ? "an empty folder" : names.slice(0, 5).join(", ") + (names.length > 5 ? ", …" : "");
