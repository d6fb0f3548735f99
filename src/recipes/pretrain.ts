// From text to a language model: train (or load) a tokenizer, tokenise, initialise (or continue) a decoder, train it.
// Everything is told as one stream of events. The run folder, from which the run can be resumed bit for bit, is made when everything
// that can be wrong with data and settings has been looked at, so that a mistake leaves nothing behind.
import { existsSync, rmdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { CheckpointError, DataError, UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import {
  type Corpus,
  openCorpus,
  openTokenCache,
  type PackedRows,
  packDocuments,
  splitDocuments,
  stateOfTheUnion,
  type TokenFile,
  type TokenSource,
} from "../data/index.ts";
import {
  changeableSettings,
  compareConfigs,
  createRunDirectory,
  deriveSeed,
  describeDifference,
  type JsonRecord,
  openRunDirectory,
  type RunDirectory,
  type RunEvent,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { allocateDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import { decoderPresets } from "../models/decoder/presets.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { measurePeakFlops } from "../runtime/measure.ts";
import {
  loadTokenizer,
  saveTokenizer,
  type Tokenizer,
  type TokenizerRoles,
  tokenByteLengths,
  tokenizerFromTrained,
  trainBpe,
} from "../text/index.ts";
import { LanguageModelTrainer, languageModelSchema, type TrainableDecoder } from "../train/index.ts";
import { follow, type Report, stage, warning } from "./events.ts";
import { holdOut } from "./hold-out.ts";
import { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
import {
  ignoredSettings,
  locateRun,
  type PretrainOptions,
  type PretrainSettings,
  pretrainSchema,
  recordedSettings,
  stepsOf,
} from "./pretrain-options.ts";
import { Sampler } from "./sampler.ts";

const endOfText = "<|endoftext|>";
const roles: TokenizerRoles = { bosToken: endOfText, eosToken: endOfText, addBos: true };

export interface PretrainContext {
  backend: Backend;
  /** Aborts the preparation, or lets the running step finish and be saved. */
  signal?: AbortSignal;
  /** Called once the run folder exists. */
  onRun?: (run: RunDirectory) => void;
}

/**
 * Trains a language model. The first events are stages (tokenizer, data, model), then those of the step loop.
 * @throws UsageError, DataError, FormatError, CheckpointError, NotFiniteError, AbortedError: see their messages.
 */
export async function* pretrain(options: PretrainOptions, { backend, signal, onRun }: PretrainContext): AsyncGenerator<RunEvent> {
  const settings = parseOptions(pretrainSchema, options) as PretrainSettings;
  const { data, runs, name } = settings;
  const resume = settings.resume === undefined ? undefined : locateRun(settings.resume);
  const { cache = join(resume ? dirname(resume.run) : runs, ".cache") } = settings;
  const { field, splitBy, extensions } = settings;
  const corpus = data.length > 0 ? openCorpus(data, { field, splitBy, extensions }) : stateOfTheUnion();
  const former = resume && openFormer(resume.run, corpus);

  const { tokenizer, save: keepTokenizer } = yield* prepareTokenizer(settings, corpus, former, signal);
  const file = yield* tokenise(corpus, tokenizer, cache, signal);
  try {
    const decoder = makeDecoder(settings, tokenizer);
    const rows = yield* packSides(settings, file, tokenizer, decoder);
    const { batchSize, accumulate } = settings;
    const rowsPerStep = batchSize * accumulate;
    const tokensPerStep = rowsPerStep * rows.train.length;
    const total = stepsOf(settings, { rows: rows.train.numRows, rowsPerStep, tokensPerStep });
    const isValidated = rows.validation !== undefined && settings.evaluateEvery > 0;
    if (settings.earlyStopping && !isValidated)
      throw new UsageError("earlyStopping: expected evaluations, got none", { hint: "Set validation and evaluateEvery above 0." });
    for (const message of ignoredSettings(settings, rows.validation !== undefined)) yield warning(message);
    if (rowsPerStep > rows.train.numRows)
      yield warning(`an update of ${rowsPerStep} rows reads the training data (${rows.train.numRows} rows) more than once`);

    const config = JSON.parse(JSON.stringify({ ...recordedSettings(settings, total), corpus: corpus.fingerprint })) as JsonRecord;
    if (former && former.checkpoints.steps().length === 0) {
      checkUnchanged(former, config);
      yield warning(`${former.path}: there is no checkpoint yet; the run starts from the beginning`);
    }
    const peakFlops = measurePeakFlops(backend);
    yield describeModel(decoder, rows.train.length, peakFlops);
    using sampler = settings.sampleEvery > 0 ? new Sampler(backend, decoder, tokenizer, samplerOptions(settings)) : undefined;
    let run = former;
    const trainer = new LanguageModelTrainer(
      backend,
      decoder,
      { ...rows, bytesOfToken: tokenByteLengths(tokenizer) },
      { ...trainerOptions(settings), totalSteps: total, seed: deriveSeed(settings.seed, "data") },
      {
        sample: () => sampler?.text() ?? "",
        saveExtras: (directory) => run && copyTokenizer(tokenizerFolder(run), directory),
        configFields: { bos_token_id: tokenizer.specialIds.bos, eos_token_id: tokenizer.specialIds.eos },
        peakFlops,
      },
    );
    try {
      run ??= createRunDirectory({ root: runs, name, config });
      keepTokenizer(tokenizerFolder(run));
      onRun?.(run);
      const loop = runLoop(
        trainer,
        {
          steps: total,
          logEvery: settings.logEvery,
          evaluateEvery: isValidated ? settings.evaluateEvery : 0,
          sampleEvery: settings.sampleEvery,
          checkpointEvery: settings.checkpointEvery,
          checkpointSeconds: settings.checkpointSeconds,
          keepLast: settings.keepLast,
          onNotFinite: settings.onNotFinite,
          ...(settings.earlyStopping ? { earlyStopping: settings.earlyStopping } : {}),
          ...(isValidated && settings.keepBest ? { keepBest: { metric: "loss", mode: "min" as const } } : {}),
          checkpoints: run.checkpoints,
          config,
          changeable: changeableAtResume,
          ...(resume ? { resume: resume.checkpoint } : {}),
        },
        signal,
      );
      yield* withSinks(sampler ? withOuterSamples(loop, sampler) : loop, run.sinks());
    } finally {
      trainer.dispose();
    }
  } finally {
    file.close();
  }
}

/** Besides the loop's: what is only shown, and `data`, whose content has a fingerprint. */
const changeableAtResume = [...changeableSettings, "data", "samplePrompt", "sampleTokens", "evaluationBatches"];

/** The run to go on with. Its settings are compared by the loop, against its latest checkpoint; here only what needs words of its own. */
function openFormer(path: string, corpus: Corpus): RunDirectory {
  const run = openRunDirectory(path);
  if (run.config.corpus === undefined)
    throw new CheckpointError(`resume ${path}: expected the folder of a pretraining run, got one of another kind`, {
      hint: "Give a folder that longwave pretrain or quickstart made.",
    });
  if (run.config.corpus !== corpus.fingerprint)
    throw new CheckpointError(
      `resume ${path}: expected the data that the run was started with, got other files or changed ones (${corpus.name})`,
      {
        hint: "Files count as changed when their path, size or time of modification differs. Bring them back, or start a new run with --init.",
      },
    );
  return run;
}

/** The loop's comparison for a run that was stopped before its first checkpoint. @throws CheckpointError. */
function checkUnchanged(run: RunDirectory, config: JsonRecord): void {
  const isChangeable = (path: string): boolean => changeableAtResume.some((key) => path === key || path.startsWith(`${key}.`));
  const refused = compareConfigs(run.config, config).filter(({ path }) => !isChangeable(path));
  if (refused.length > 0)
    throw new CheckpointError(
      `resume ${run.path}: expected the settings that the run was started with, got other ones: ${refused.map(describeDifference).join(", ")}`,
      { hint: "Give the saved values, or start a new run." },
    );
}

const tokenizerFolder = (run: RunDirectory): string => join(run.path, "tokenizer");

interface PreparedTokenizer {
  tokenizer: Tokenizer;
  /** Writes it into the run's folder, unless it came from there. */
  save: (directory: string) => void;
}

async function* prepareTokenizer(
  settings: PretrainSettings,
  corpus: Corpus,
  former: RunDirectory | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, PreparedTokenizer> {
  const { vocabSize, preTokenizer } = settings;
  if (former && existsSync(join(tokenizerFolder(former), "tokenizer_config.json")))
    return { tokenizer: loadTokenizer(tokenizerFolder(former)), save: () => {} };
  const given = settings.tokenizer ?? (settings.init === undefined ? undefined : tokenizerBeside(resolveModel(settings.init)));
  if (given !== undefined) return { tokenizer: loadTokenizer(given), save: (directory) => copyTokenizer(given, directory) };
  const started = performance.now();
  yield stage("tokenizer", `training a byte-level BPE tokenizer of ${vocabSize} tokens on ${corpus.name}`);
  const trained = yield* follow((report) =>
    trainBpe(
      textsOf(corpus, settings, signal),
      { vocabSize, preTokenizer, specialTokens: [endOfText] },
      {
        signal,
        onProgress: ({ phase, done, total }) =>
          report(() =>
            phase === "count"
              ? stage("tokenizer", `tokenizer: read ${done.toLocaleString("en")} characters`)
              : stage("tokenizer", `tokenizer: ${done} tokens`, { progress: done / (total ?? vocabSize) }),
          ),
      },
    ),
  );
  const seconds = (performance.now() - started) / 1000;
  yield stage("tokenizer", `tokenizer: ${trained.tokens.length} tokens, ${trained.merges.length} merges in ${seconds.toFixed(1)} s`, {
    progress: 1,
    metrics: { seconds },
  });
  return { tokenizer: tokenizerFromTrained(trained, roles), save: (directory) => saveTokenizer(directory, trained, roles) };
}

async function* textsOf(corpus: Corpus, { validation }: PretrainSettings, signal?: AbortSignal): AsyncGenerator<string> {
  let any = false;
  for await (const { text } of splitDocuments(corpus.documents({ signal }), "train", { validation })) {
    any = true;
    yield text;
  }
  // All documents fell on the other side: the split will be by tokens (see holdOut), which are not there yet.
  if (!any) for await (const { text } of corpus.documents({ signal })) yield text;
}

async function* tokenise(
  corpus: Corpus,
  tokenizer: Tokenizer,
  directory: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, TokenFile> {
  const made = [directory, dirname(directory)].filter((path) => !existsSync(path));
  const encode = (text: string): Int32Array => tokenizer.encode(text, { addSpecialTokens: false });
  let isReused = false;
  try {
    const file = yield* follow((report: Report) =>
      openTokenCache(
        corpus,
        { encode, hash: tokenizer.hash, vocabularySize: tokenizer.vocabSize },
        {
          directory,
          signal,
          onEvent: (event) => {
            if (event.kind === "reused") isReused = true;
            if (event.kind !== "progress") return;
            const { tokens, bytes, totalBytes } = event;
            report(() => stage("data", `data: ${tokens.toLocaleString("en")} tokens so far`, { progress: bytes / totalBytes }));
          },
        },
      ),
    );
    const count = `${file.numTokens.toLocaleString("en")} tokens in ${file.numDocuments.toLocaleString("en")} documents`;
    yield stage("data", `data: ${count}${isReused ? " (tokenised before)" : ""}`, { progress: 1 });
    return file;
  } catch (error) {
    for (const path of made) removeIfEmpty(path);
    throw error;
  }
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Something is in it, or it was never made.
  }
}

/** Rows for training and validation. @throws UsageError, DataError when the data, the sequence and the model do not fit. */
async function* packSides(
  settings: PretrainSettings,
  file: TokenSource,
  tokenizer: Tokenizer,
  { config }: TrainableDecoder,
): AsyncGenerator<RunEvent, { train: PackedRows; validation?: PackedRows }> {
  const length = settings.sequenceLength ?? config.contextLength;
  if (length > config.contextLength)
    throw new UsageError(`sequenceLength: expected at most the model's context of ${config.contextLength} tokens, got ${length}`, {
      hint: "Give a shorter sequenceLength or a larger model.contextLength.",
    });
  const separator = tokenizer.specialIds.eos ?? tokenizer.specialIds.bos ?? null;
  const pack = (source: TokenSource): PackedRows =>
    packDocuments(source, { length, mode: settings.packing, separator, crossDocumentTargets: !settings.isolateDocuments });
  const sides = holdOut(file, settings.validation);
  if (sides.by === "end")
    yield warning(
      `validation: too few documents to choose among; the last ${sides.validation?.numTokens.toLocaleString("en")} tokens are kept for it`,
      "splitBy sets what a document is.",
    );
  const train = pack(sides.train);
  if (train.numPairs < length)
    throw new DataError(`data: expected at least ${length + 1} training tokens for a sequence of ${length}, got ${train.numPairs + 1}`, {
      hint: "Give more text or a shorter sequenceLength.",
    });
  return { train, ...(sides.validation ? { validation: pack(sides.validation) } : {}) };
}

function makeDecoder(settings: PretrainSettings, tokenizer: Tokenizer): TrainableDecoder {
  if (settings.init !== undefined) {
    const loaded = loadDecoder(resolveModel(settings.init));
    if (loaded.config.vocabSize >= tokenizer.vocabSize) return loaded;
    throw new UsageError(
      `init: expected a model with at least the tokenizer's ${tokenizer.vocabSize} ids, got one with ${loaded.config.vocabSize}`,
      { hint: "Use the tokenizer of that checkpoint." },
    );
  }
  const config = decoderConfig({ ...decoderPresets[settings.size].options, ...settings.model, vocabSize: tokenizer.vocabSize });
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs as never, decoder.parameters, deriveSeed(settings.seed, "weights"));
  return decoder;
}

function describeModel({ config }: TrainableDecoder, length: number, peakFlops: number): RunEvent {
  const { parameters, trainingFlopsPerToken } = estimateDecoder(config, length);
  const [millions, megaflops, gigaflops] = [parameters / 1e6, trainingFlopsPerToken / 1e6, peakFlops / 1e9];
  return stage(
    "model",
    `model: ${millions.toFixed(2)} M parameters, ${megaflops.toFixed(1)} MFLOP a token; this machine multiplies at ${gigaflops.toFixed(0)} GFLOP/s`,
    { progress: 1, metrics: { parameters, trainingFlopsPerToken, peakFlops } },
  );
}

const samplerOptions = ({ samplePrompt, sampleTokens, seed }: PretrainSettings) => ({
  prompt: samplePrompt,
  maxNewTokens: sampleTokens,
  seed,
});

function trainerOptions(settings: PretrainSettings) {
  const keys = Object.keys(languageModelSchema.shape) as (keyof typeof languageModelSchema.shape)[];
  return Object.fromEntries(keys.flatMap((key) => (settings[key] === undefined ? [] : [[key, settings[key]]])));
}

/** Samples of a new run before its first step, and of every run after its last, where the loop made none. */
async function* withOuterSamples(events: AsyncGenerator<RunEvent>, sampler: Sampler): AsyncGenerator<RunEvent> {
  let sampledAt = -1;
  for await (const event of events) {
    const { step, total } = event;
    const isFirst = event.kind === "run-start" && event.resumedFrom === undefined;
    const isLast = event.kind === "run-end" && ["finished", "done", "early-stopping"].includes(event.reason) && sampledAt !== step;
    const sample = async (): Promise<RunEvent> => ({ kind: "sample", step, total, time: Date.now(), sample: await sampler.text() });
    if (event.kind === "sample") sampledAt = step;
    if (isLast) yield await sample();
    yield event;
    if (isFirst) yield await sample();
  }
}
