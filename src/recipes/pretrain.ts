// From text to a language model: train (or load) a tokenizer, tokenise, initialise (or continue) a decoder, train it.
// Everything is told as one stream of events; files go into a run folder from which the run can be resumed bit for bit.
import { cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError, UsageError } from "../base/errors.ts";
import {
  type Corpus,
  openCorpus,
  openTokenCache,
  type PackedRows,
  packDocuments,
  sourceSchema,
  splitDocuments,
  splitTokens,
  stateOfTheUnion,
} from "../data/index.ts";
import { complete } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import {
  createRunDirectory,
  deriveSeed,
  type JsonRecord,
  loopSchema,
  openRunDirectory,
  type RunDirectory,
  type RunEvent,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { allocateDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig, decoderSchema } from "../models/decoder/config.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import { decoderPresets } from "../models/decoder/presets.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { measurePeakFlops } from "../runtime/measure.ts";
import { loadTokenizer, saveTokenizer, type Tokenizer, tokenByteLengths, trainBpe } from "../text/index.ts";
import { LanguageModelTrainer, languageModelSchema, type TrainableDecoder } from "../train/language-model.ts";

const endOfText = "<|endoftext|>";
const presetNames = Object.keys(decoderPresets) as [keyof typeof decoderPresets];
const { steps, logEvery, keepLast, onNotFinite, checkpointSeconds, earlyStopping } = loopSchema.shape;

export const pretrainSchema = z.strictObject({
  data: z.array(z.string()).default([]).describe("Text or JSONL files, folders or patterns. Default: the State of the Union addresses"),
  ...sourceSchema.shape,
  validation: z.number().min(0).lt(1).default(0.05).describe("Share of the documents kept for validation"),
  tokenizer: z.string().optional().describe("tokenizer.json or a folder that holds one. Default: one is trained on the training documents"),
  vocabSize: z.int().min(257).default(2048).describe("Vocabulary of the tokenizer that is trained"),
  preTokenizer: z.enum(["gpt2", "llama3"]).default("gpt2").describe("How the tokenizer that is trained splits text into words"),
  size: z.enum(presetNames).default("nano").describe("Size of the model; options under model change it"),
  model: decoderSchema.partial().omit({ vocabSize: true }).prefault({}).describe("Options of the model"),
  init: z.string().optional().describe("Start from this checkpoint folder instead of random weights; size and model are then ignored"),
  ...languageModelSchema.shape,
  packing: z
    .enum(["concatenate", "bestFit"])
    .default("concatenate")
    .describe("One stream of documents cut into rows, or whole documents packed into rows"),
  seed: z.int().nonnegative().default(0).describe("Seed of weights and data order"),
  steps: steps.default(1000),
  logEvery,
  evaluateEvery: z.int().nonnegative().default(100).describe("Evaluate every so many steps; 0: never"),
  sampleEvery: z.int().nonnegative().default(200).describe("Write a sample text every so many steps; 0: never"),
  checkpointEvery: z.int().nonnegative().default(200).describe("Save every so many steps; at the end and when interrupted always"),
  checkpointSeconds,
  keepLast,
  keepBest: z.boolean().default(true).describe("Also keep the checkpoint with the lowest validation loss"),
  earlyStopping,
  onNotFinite,
  samplePrompt: z.string().default("The ").describe("Prompt of the sample texts"),
  sampleTokens: z.int().positive().default(64).describe("Tokens of a sample text"),
  runs: z.string().default("runs").describe("Folder of all runs"),
  name: z.string().default("pretrain").describe("Name of the run, part of its folder's name"),
  resume: z.string().optional().describe("Go on with this run folder; the configuration must be the same"),
  cache: z.string().optional().describe("Folder of tokenised data. Default: <runs>/.cache"),
});

export type PretrainOptions = z.input<typeof pretrainSchema>;
type Settings = z.output<typeof pretrainSchema>;

export interface PretrainContext {
  backend: Backend;
  signal?: AbortSignal;
  /** Called once the run folder exists. */
  onRun?: (run: RunDirectory) => void;
}

/**
 * Trains a language model. The first events are stages (tokenizer, data, model), then those of the step loop.
 * @throws UsageError, DataError, CheckpointError, NotFiniteError, AbortedError: see their messages.
 */
export async function* pretrain(options: PretrainOptions, { backend, signal, onRun }: PretrainContext): AsyncGenerator<RunEvent> {
  const settings = pretrainSchema.parse(options);
  const { resume, runs, name, cache, steps: total } = settings;
  const stage = (stageName: string, message: string, extra: { progress?: number; metrics?: Record<string, number> } = {}): RunEvent => ({
    kind: "stage",
    step: 0,
    total,
    time: Date.now(),
    name: stageName,
    message,
    ...extra,
  });
  const corpus =
    settings.data.length > 0
      ? openCorpus(settings.data, { field: settings.field, splitBy: settings.splitBy, extensions: settings.extensions })
      : stateOfTheUnion();
  const { resume: _, runs: __, name: ___, cache: ____, ...recorded } = settings;
  const config = JSON.parse(JSON.stringify({ ...recorded, corpus: corpus.fingerprint })) as JsonRecord;
  const run = resume === undefined ? createRunDirectory({ root: runs, name, config }) : openRunDirectory(resume);
  onRun?.(run);

  const tokenizerDirectory = join(run.path, "tokenizer");
  let tokenizer: Tokenizer;
  if (existsSync(join(tokenizerDirectory, "tokenizer.json"))) {
    tokenizer = loadTokenizer(tokenizerDirectory);
  } else if (settings.tokenizer ?? settings.init) {
    const source = (settings.tokenizer ?? settings.init) as string;
    tokenizer = loadTokenizer(source);
    copyTokenizer(source, tokenizerDirectory);
  } else {
    const started = performance.now();
    yield stage("tokenizer", `training a byte-level BPE tokenizer of ${settings.vocabSize} tokens on ${corpus.name}`);
    const trained = await trainBpe(
      textsOf(corpus, settings, signal),
      { vocabSize: settings.vocabSize, preTokenizer: settings.preTokenizer, specialTokens: [endOfText] },
      { signal },
    );
    saveTokenizer(tokenizerDirectory, trained, { eosToken: endOfText, bosToken: endOfText });
    tokenizer = loadTokenizer(tokenizerDirectory);
    const seconds = (performance.now() - started) / 1000;
    yield stage("tokenizer", `tokenizer: ${trained.tokens.length} tokens, ${trained.merges.length} merges in ${seconds.toFixed(1)} s`, {
      progress: 1,
      metrics: { seconds },
    });
  }

  const separator = tokenizer.specialIds.eos ?? tokenizer.specialIds.bos ?? null;
  const file = await openTokenCache(
    corpus,
    { encode: (text) => tokenizer.encode(text, { addSpecialTokens: false }), hash: tokenizer.hash, vocabularySize: tokenizer.vocabSize },
    { directory: cache ?? join(runs, ".cache"), signal },
  );
  try {
    yield stage("data", `data: ${file.numTokens.toLocaleString("en")} tokens in ${file.numDocuments.toLocaleString("en")} documents`, {
      progress: 1,
    });
    const decoder = makeDecoder(settings, tokenizer);
    const length = settings.sequenceLength ?? decoder.config.contextLength;
    if (length > decoder.config.contextLength) {
      throw new UsageError(
        `sequenceLength: expected at most the model's context of ${decoder.config.contextLength} tokens, got ${length}`,
        {
          hint: "Give a shorter sequenceLength or a larger model.contextLength.",
        },
      );
    }
    const pack = (source: Parameters<typeof packDocuments>[0]): PackedRows =>
      packDocuments(source, { length, mode: settings.packing, separator });
    const sides = settings.validation > 0 ? splitTokens(file, { validation: settings.validation }) : { train: file, validation: undefined };
    const data = {
      train: pack(sides.train),
      validation: sides.validation && pack(sides.validation),
      bytesOfToken: tokenByteLengths(tokenizer),
    };
    const estimate = estimateDecoder(decoder.config, length);
    const peakFlops = measurePeakFlops(backend);
    yield stage(
      "model",
      `model: ${(estimate.parameters / 1e6).toFixed(2)} M parameters, ${(estimate.trainingFlopsPerToken / 1e6).toFixed(1)} MFLOP a token; this machine multiplies at ${(peakFlops / 1e9).toFixed(0)} GFLOP/s`,
      {
        progress: 1,
        metrics: { parameters: estimate.parameters, trainingFlopsPerToken: estimate.trainingFlopsPerToken, peakFlops },
      },
    );
    using sampler = new Sampler(backend, decoder, tokenizer, settings);
    const trainer = new LanguageModelTrainer(
      backend,
      decoder,
      data,
      { ...trainerOptions(settings), totalSteps: total, seed: deriveSeed(settings.seed, "data") },
      {
        sample: () => sampler.text(),
        saveExtras: (directory) => copyTokenizer(tokenizerDirectory, directory),
        configFields: { bos_token_id: tokenizer.specialIds.bos, eos_token_id: tokenizer.specialIds.eos },
        peakFlops,
      },
    );
    try {
      const validated = data.validation !== undefined;
      const events = runLoop(
        trainer,
        {
          steps: total,
          logEvery: settings.logEvery,
          evaluateEvery: validated ? settings.evaluateEvery : 0,
          sampleEvery: settings.sampleEvery,
          checkpointEvery: settings.checkpointEvery,
          checkpointSeconds: settings.checkpointSeconds,
          keepLast: settings.keepLast,
          onNotFinite: settings.onNotFinite,
          ...(settings.earlyStopping ? { earlyStopping: settings.earlyStopping } : {}),
          ...(validated && settings.keepBest && settings.evaluateEvery > 0 ? { keepBest: { metric: "loss", mode: "min" as const } } : {}),
          checkpoints: run.checkpoints,
          config,
          ...(resume === undefined ? {} : { resume: "latest" }),
        },
        signal,
      );
      yield* withSinks(events, run.sinks());
    } finally {
      trainer.dispose();
    }
  } finally {
    file.close();
  }
}

function trainerOptions(settings: Settings) {
  const keys = Object.keys(languageModelSchema.shape) as (keyof typeof languageModelSchema.shape)[];
  return Object.fromEntries(keys.flatMap((key) => (settings[key] === undefined ? [] : [[key, settings[key]]])));
}

async function* textsOf(corpus: Corpus, settings: Settings, signal?: AbortSignal): AsyncGenerator<string> {
  const documents = corpus.documents({ signal });
  const chosen = settings.validation > 0 ? splitDocuments(documents, "train", { validation: settings.validation }) : documents;
  for await (const { text } of chosen) yield text;
}

function makeDecoder(settings: Settings, tokenizer: Tokenizer): TrainableDecoder {
  if (settings.init) {
    const loaded = loadDecoder(settings.init);
    if (loaded.config.vocabSize < tokenizer.vocabSize) {
      throw new UsageError(
        `init: expected a model with at least the tokenizer's ${tokenizer.vocabSize} ids, got ${loaded.config.vocabSize}`,
        { hint: "Use the tokenizer of that checkpoint." },
      );
    }
    return loaded;
  }
  const config = decoderConfig({ ...decoderPresets[settings.size].options, ...settings.model, vocabSize: tokenizer.vocabSize });
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs as never, decoder.parameters, deriveSeed(settings.seed, "weights"));
  return decoder;
}

const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

function copyTokenizer(source: string, directory: string): void {
  try {
    for (const name of tokenizerFiles)
      if (existsSync(join(source, name))) cpSync(join(source, name), join(directory, name), { recursive: true });
    if (source.endsWith(".json")) cpSync(source, join(directory, "tokenizer.json"));
  } catch (cause) {
    throw new CheckpointError(`${directory}: expected to write the tokenizer, got ${String(cause)}`, {
      cause,
      hint: "Check free space and permissions.",
    });
  }
}

/** Writes sample texts with the current weights: programs that read them as inputs. */
class Sampler {
  readonly #runner: DecoderRunner;
  readonly #tokenizer: Tokenizer;
  readonly #settings: Settings;

  constructor(backend: Backend, decoder: TrainableDecoder, tokenizer: Tokenizer, settings: Settings) {
    this.#runner = new DecoderRunner(backend, decoder, { weights: "bound" });
    this.#tokenizer = tokenizer;
    this.#settings = settings;
  }

  async text(): Promise<string> {
    const { samplePrompt, sampleTokens, seed } = this.#settings;
    const bos = this.#tokenizer.specialIds.bos;
    const ids = [...(bos === undefined ? [] : [bos]), ...this.#tokenizer.encode(samplePrompt, { addSpecialTokens: false })];
    const maxNewTokens = Math.min(sampleTokens, this.#runner.capacity - ids.length);
    const result = await complete(
      this.#runner,
      { ids, maxNewTokens, seed, sampling: { temperature: 0.8, topK: 50 } },
      { tokenizer: this.#tokenizer },
    );
    return samplePrompt + result.text;
  }

  [Symbol.dispose](): void {
    this.#runner.dispose();
  }
}
