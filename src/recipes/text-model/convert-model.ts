// One model in another format: a checkpoint folder as Hugging Face has it, or a GGUF file; with its tokenizer and chat template.
import { cpSync, existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { storageError, writeDirectoryAtomic } from "../../base/atomic.ts";
import { CheckpointError, UsageError } from "../../base/errors.ts";
import { makeDirectories } from "../../base/make-directories.ts";
import { openGguf } from "../../formats/gguf.ts";
import { readJsonObject } from "../../formats/json-file.ts";
import { saveDecoder } from "../../models/decoder/checkpoint.ts";
import { saveGguf } from "../../models/decoder/gguf-save.ts";
import { ggufTokenizerFiles, tokenizerGgufEntries } from "../../text/index.ts";
import { copyTokenizer, resolveModel, tokenizerBeside } from "../model-source.ts";
import { type ConversionPlan, checkConversion, planConversion } from "./conversion-plan.ts";
import { isGgufFile, type LoadedModel, loadModel } from "./load-model.ts";

/** Of folders and of GGUF files. */
export const floatTypes = ["f32", "f16", "bf16"] as const;
export const ggufTypes = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] as const;
export type StoredType = (typeof ggufTypes)[number];

export interface ConvertOptions {
  /** Type of the matrices. Default: f32 for folders, f16 for GGUF. */
  dtype?: StoredType;
  /** tokenizer.json or its folder. Default: the model's own. */
  tokenizer?: string;
  /** Replace what is there. Default false. */
  overwrite?: boolean;
  /** Quantise also what is quantised already, or would not become smaller. Default false: a UsageError. */
  allowRequantize?: boolean;
  /** Told before anything is written. */
  onPlan?: (plan: ConversionPlan) => void;
  offline?: boolean;
  onProgress?: (file: string, loaded: number, total: number) => void;
  signal?: AbortSignal;
}

export interface Converted {
  readonly path: string;
  readonly bytes: number;
  readonly source: LoadedModel;
}

/**
 * @param output a path that ends with .gguf, or a folder.
 * @throws FormatError, CheckpointError, UsageError.
 */
export async function convertModel(source: string, output: string, options: ConvertOptions = {}): Promise<Converted> {
  const toGguf = extname(output).toLowerCase() === ".gguf";
  const dtype = options.dtype ?? (toGguf ? "f16" : "f32");
  if (!toGguf && !floatTypes.includes(dtype as never))
    throw new UsageError(`convert: expected ${floatTypes.join(", ")} for a folder, got ${dtype}`, {
      hint: "Quantised types go into a .gguf file.",
    });
  if (existsSync(output) && !options.overwrite)
    throw new CheckpointError(`${output}: expected nothing there, got a ${statSync(output).isDirectory() ? "folder" : "file"}`, {
      hint: "Choose another name, or give --overwrite.",
    });
  if (!toGguf) refuseOtherFolder(output);
  const { tokenizer, offline, onProgress, signal, allowRequantize = false, onPlan } = options;
  const check = (path: string): void => {
    const plan = planConversion(path, dtype);
    if (!allowRequantize) checkConversion(source, plan);
    onPlan?.(plan);
  };
  // What is here is looked at before it is read; what is on the hub when it has come.
  const isHere = existsSync(source);
  if (isHere) check(resolveModel(source));
  const loaded = await loadModel(source, { weights: "f32", ...{ tokenizer, offline, onProgress, signal } });
  if (!isHere) check(loaded.path);
  if (!loaded.decoder) throw new UsageError(`${source}: expected weights that can be saved`);
  if (toGguf) {
    const { json, config } = tokenizerFiles(loaded, tokenizer);
    saveGguf(
      output,
      loaded.decoder,
      { dtype: dtype.toUpperCase() as never, name: basename(source) },
      tokenizerGgufEntries(json, config, loaded.model.config.vocabSize),
    );
    return { path: output, bytes: statSync(output).size, source: loaded };
  }
  const decoder = loaded.decoder;
  // What is there stays until the new folder is whole: it may be the source, too.
  writeDirectoryAtomic(output, (temporary) => {
    saveDecoder(temporary, decoder, { dtype: dtype as "f32" });
    writeTokenizer(loaded, temporary, tokenizer);
    const generation = join(loaded.path, "generation_config.json");
    if (existsSync(generation)) cpSync(generation, join(temporary, "generation_config.json"));
  });
  return { path: output, bytes: statSync(join(output, "model.safetensors")).size, source: loaded };
}

/** Overwriting replaces a whole folder: only one that holds a checkpoint, or nothing. @throws CheckpointError. */
function refuseOtherFolder(output: string): void {
  const isFolder = statSync(output, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (!isFolder || existsSync(join(output, "config.json")) || readdirSync(output).length === 0) return;
  throw new CheckpointError(`${output}: expected the folder of a checkpoint to replace, got one without config.json`, {
    hint: "Choose another name, or remove the folder yourself.",
  });
}

function writeTokenizer({ path }: LoadedModel, folder: string, tokenizer: string | undefined): void {
  if (tokenizer === undefined && isGgufFile(path)) {
    using file = openGguf(path);
    const files = ggufTokenizerFiles(file);
    try {
      makeDirectories(folder);
      writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(files.tokenizer));
      writeFileSync(join(folder, "tokenizer_config.json"), `${JSON.stringify(files.config, null, 2)}\n`);
    } catch (cause) {
      throw storageError(cause, folder);
    }
    return;
  }
  copyTokenizer(tokenizer ?? tokenizerBeside(path), folder);
}

/** tokenizer.json and tokenizer_config.json of a model, whatever it is stored in. */
function tokenizerFiles({ path }: LoadedModel, tokenizer: string | undefined) {
  if (tokenizer === undefined && isGgufFile(path)) {
    using file = openGguf(path);
    const files = ggufTokenizerFiles(file);
    return { json: files.tokenizer, config: files.config };
  }
  const source = tokenizer ?? tokenizerBeside(path);
  const folder = statSync(source).isDirectory() ? source : join(source, "..");
  const json = statSync(source).isDirectory() ? join(source, "tokenizer.json") : source;
  if (!json.endsWith(".json") || !existsSync(json))
    throw new UsageError(`${source}: expected a tokenizer.json for a GGUF file, got another tokenizer`, {
      hint: "Name one with --tokenizer.",
    });
  const config = join(folder, "tokenizer_config.json");
  return { json: readJsonObject(json), config: existsSync(config) ? readJsonObject(config) : {} };
}
