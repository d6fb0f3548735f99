// One way to load whatever a user names as a language model: a checkpoint folder, a run, a GGUF or llama2.c file, or a name on the hub; with its
// tokenizer, its chat template and what its generation_config.json says.
import { existsSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { FormatError, RemoteError, UsageError } from "../../base/errors.ts";
import { runsNear } from "../../engine/index.ts";
import { type GgufSource, openGguf } from "../../formats/gguf.ts";
import { readJsonObject } from "../../formats/json-file.ts";
import { type LoadedDecoder, loadDecoder, loadGgufDecoder } from "../../models/decoder/checkpoint.ts";
import { loadQuantisedGguf } from "../../models/decoder/gguf-quantised.ts";
import { bytesOfTree, type InferenceModel, quantiseDecoder } from "../../models/decoder/quantise.ts";
import { openGgufTokenizer } from "../../text/gguf-tokenizer.ts";
import { ChatTemplate, loadTokenizer, type Tokenizer } from "../../text/index.ts";
import { missingModel, resolveModel, tokenizerBeside } from "../model-source.ts";
import { checkSameTokens } from "./same-tokens.ts";

/** stored: as in the file (f32 for floats, blocks for GGUF's quantised types); f32: dequantised; q8, q4: quantised at load. */
export const weightKinds = ["stored", "f32", "q8", "q4"] as const;
export type WeightKind = (typeof weightKinds)[number];

export interface LoadModelOptions {
  /** tokenizer.json or its folder. Default: beside the model or in it. */
  tokenizer?: string;
  /** Default stored. */
  weights?: WeightKind;
  /** How far a download is, in bytes. */
  onProgress?: (file: string, loaded: number, total: number) => void;
  /** Never download: take what the hub's cache holds. Default false. */
  offline?: boolean;
  signal?: AbortSignal;
  /** Called when the weights are there and before the tokenizer is read: for work that needs nothing else, on another thread. */
  onWeights?: (model: InferenceModel) => void;
}

export interface LoadedModel {
  /** What was asked for. */
  readonly name: string;
  /** The file or folder it was read from. */
  readonly path: string;
  readonly model: InferenceModel;
  /** With memory of its own for training and saving; undefined for weights in blocks. */
  readonly decoder: LoadedDecoder | undefined;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate | undefined;
  /** End tokens that the checkpoint names, besides the tokenizer's. */
  readonly eosTokenIds: readonly number[];
  /** generation_config.json, empty where there is none. */
  readonly generationConfig: Readonly<Record<string, unknown>>;
  readonly weights: WeightKind;
  /** Bytes of all tensors. */
  readonly bytes: number;
}

/**
 * @param source a path, or `owner/name[@revision]` on the hub.
 * @throws FormatError, CheckpointError for what cannot be read; UsageError for a tokenizer of another model; RemoteError for a hub that fails.
 */
export async function loadModel(source: string, options: LoadModelOptions = {}): Promise<LoadedModel> {
  const local = existsSync(source) ? source : await fetched(source, options);
  const path = resolveModel(local);
  options.signal?.throwIfAborted();
  // The head of a GGUF file holds a whole vocabulary: it is read once, for the weights and for the tokenizer.
  using file = isGgufFile(path) ? openGguf(path) : undefined;
  const { weights = "stored" } = options;
  const { model, decoder } = file ? openGgufModel(file, weights) : openFloatModel(path, weights);
  options.onWeights?.(model);
  const { tokenizer, chatTemplate } = file && !options.tokenizer ? ggufText(file) : textBeside(path, options.tokenizer);
  const { vocabSize } = model.config;
  // A model's vocabulary may be padded past its tokenizer's, never the other way round.
  if (tokenizer.vocabSize > vocabSize)
    throw new UsageError(`tokenizer: expected at most ${vocabSize} tokens for this model, got ${tokenizer.vocabSize}`, {
      hint: "Use the tokenizer of this model.",
    });
  if (options.tokenizer !== undefined) {
    const own = ownTokenizer(path, file);
    if (own) checkSameTokens(tokenizer, own);
  }
  const generationConfig = file ? {} : readIfThere(join(path, "generation_config.json"));
  return {
    name: source,
    path,
    model,
    decoder,
    tokenizer,
    chatTemplate,
    eosTokenIds: eosOf(tokenizer, generationConfig, (model as Partial<LoadedDecoder>).hfConfig),
    generationConfig,
    weights,
    bytes: bytesOfTree(model.parameters.tree),
  };
}

/** The tokenizer that lies beside a model or in it, where there is one. */
function ownTokenizer(path: string, file: GgufSource | undefined): Tokenizer | undefined {
  try {
    if (file) return ggufText(file).tokenizer;
  } catch (error) {
    // One that cannot be read is what another one is given for.
    if (error instanceof FormatError) return undefined;
    throw error;
  }
  return statSync(path).isDirectory() && existsSync(join(path, "tokenizer.json")) ? loadTokenizer(path) : undefined;
}

export const isGgufFile = (path: string): boolean =>
  extname(path).toLowerCase() === ".gguf" && (statSync(path, { throwIfNoEntry: false })?.isFile() ?? false);

function openGgufModel(file: GgufSource, weights: WeightKind): { model: InferenceModel; decoder: LoadedDecoder | undefined } {
  if (weights !== "f32") return { model: loadQuantisedGguf(file, { weights }), decoder: undefined };
  const decoder = loadGgufDecoder(file);
  return { model: decoder, decoder };
}

function openFloatModel(path: string, weights: WeightKind): { model: InferenceModel; decoder: LoadedDecoder | undefined } {
  const decoder = loadDecoder(path);
  if (weights === "stored" || weights === "f32") return { model: decoder, decoder };
  return { model: quantiseDecoder(decoder, { bits: weights === "q8" ? 8 : 4 }), decoder: undefined };
}

/** Names with one slash may be on the hub, unless they begin with a folder of runs that is here; anything else is a path that is not there. */
async function fetched(source: string, { onProgress, offline, signal }: LoadModelOptions): Promise<string> {
  const isName = /^[\w.-]+\/[\w.-]+(@[\w./-]+)?$/.test(source) && !/\.(gguf|bin|safetensors)$/.test(source) && !source.startsWith(".");
  if (!isName) throw missingModel(source, ", owner/name on the hub");
  if (runsNear(source) !== undefined) throw missingModel(source);
  const { downloadModel } = await import("../../formats/hub.ts");
  try {
    return await downloadModel(source, {
      ...(onProgress ? { onProgress: ({ file, loaded, total }) => onProgress(file, loaded, total ?? 0) } : {}),
      ...(offline === undefined ? {} : { offline }),
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    // It may have been meant as a path.
    const message = error.message.startsWith(source)
      ? error.message
      : `${source}: expected a model on the hub, got no answer: ${error.message}`;
    throw new RemoteError(message, { cause: error, hint: `There is no folder ${source} here either. ${error.hint ?? ""}`.trim() });
  }
}

interface ModelText {
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate | undefined;
}

function ggufText(file: GgufSource): ModelText {
  const { tokenizer, config } = openGgufTokenizer(file);
  return { tokenizer, chatTemplate: ChatTemplate.fromConfig(config) };
}

const textBeside = (path: string, tokenizerPath: string | undefined): ModelText => ({
  tokenizer: loadTokenizer(tokenizerPath ?? tokenizerBeside(path)),
  chatTemplate: ChatTemplate.load(tokenizerPath ?? path),
});

function eosOf(tokenizer: Tokenizer, generationConfig: Readonly<Record<string, unknown>>, config: object | undefined): readonly number[] {
  const named = generationConfig.eos_token_id ?? (config as { eos_token_id?: unknown } | undefined)?.eos_token_id;
  const ids = (Array.isArray(named) ? named : [named]).filter((id): id is number => Number.isInteger(id));
  const { eos } = tokenizer.specialIds;
  return [...new Set([...(eos === undefined ? [] : [eos]), ...ids])];
}

const readIfThere = (path: string): Record<string, unknown> => (existsSync(path) ? readJsonObject(path) : {});
