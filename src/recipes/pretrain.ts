// From text to a language model: train (or load) a tokenizer, tokenise, initialise (or continue) a decoder, train it.
// Everything is told as one stream of events. The run folder, from which the run can be resumed bit for bit, is made when everything
// that can be wrong with data and settings has been looked at, so that a mistake leaves nothing behind.
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { storageError, writeDirectoryAtomic } from "../base/atomic.ts";
import { CheckpointError, DataError, UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type Corpus, openCorpus, type PackedRows, packDocuments, stateOfTheUnion, type TokenSource } from "../data/index.ts";
import {
  compareConfigs,
  createRunDirectory,
  deriveSeed,
  describeDifferences,
  isCovered,
  type JsonRecord,
  type RunDirectory,
  type RunEvent,
  readMetrics,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { allocateDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderConfig, type DecoderOptions, decoderConfig } from "../models/decoder/config.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import { decoderPresets } from "../models/decoder/presets.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { describeMachine } from "../runtime/machine.ts";
import { measurePeakFlops } from "../runtime/measure.ts";
import { type Tokenizer, tokenByteLengths } from "../text/index.ts";
import { LanguageModelTrainer, languageModelSchema, type TrainableDecoder } from "../train/index.ts";
import { machineArtifact, stage, warning } from "./events.ts";
import { holdOut } from "./hold-out.ts";
import { copyTokenizer, resolveModel } from "./model-source.ts";
import { prepareTokenizer, tokenise, tokenizerFolder } from "./prepare-data.ts";
import {
  changeablePretraining,
  fittedSettings,
  ignoredSettings,
  type PretrainOptions,
  type PretrainSettings,
  pretrainSchema,
  recordedSettings,
  stepsOf,
  uselessPasses,
} from "./pretrain-options.ts";
import { Sampler } from "./sampler.ts";
import { expectFittingStep } from "./training-memory.ts";
import { isComplete, locateRun, loopSettingsOf, openFormer, settingsOf } from "./training-run.ts";

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
export async function* pretrain(options: PretrainOptions, context: PretrainContext): AsyncGenerator<RunEvent> {
  // What is told before there is a folder is written into its metrics later, and not told twice.
  const told = new Set<RunEvent>();
  for await (const event of pipeline(options, context, told)) {
    if (told.has(event)) continue;
    if (event.kind === "stage" || event.kind === "warning" || event.kind === "artifact") told.add(event);
    yield event;
  }
}

async function* pipeline(
  options: PretrainOptions,
  { backend, signal, onRun }: PretrainContext,
  told: ReadonlySet<RunEvent>,
): AsyncGenerator<RunEvent> {
  const asked = parseOptions(pretrainSchema, options) as PretrainSettings;
  checkSettings(asked);
  const { data, runs, name } = asked;
  let settings = asked;
  const resume = settings.resume === undefined ? undefined : locateRun(settings.resume);
  const { cache = join(resume ? dirname(resume.run) : runs, ".cache") } = settings;
  const { field, splitBy, extensions } = settings;
  const corpus = data.length > 0 ? openCorpus(data, { field, splitBy, extensions }) : stateOfTheUnion();
  const former = resume && openPretraining(resume.run, corpus);
  const initial = settings.init === undefined ? undefined : loadDecoder(resolveModel(settings.init));

  const { tokenizer, save: keepTokenizer } = yield* prepareTokenizer(settings, corpus, former, signal);
  const file = yield* tokenise(corpus, tokenizer, cache, signal);
  try {
    const decoder = makeDecoder(settings, tokenizer, initial);
    const rows = yield* packSides(settings, file, tokenizer, decoder);
    const { batchSize, accumulate } = settings;
    const rowsPerStep = batchSize * accumulate;
    const tokensPerStep = rowsPerStep * rows.train.length;
    const estimate = estimateDecoder(decoder.config, rows.train.length);
    expectFittingStep(estimate, { batchSize, length: rows.train.length }, describeMachine().memoryBytes);
    const peakFlops = measurePeakFlops(backend, { milliseconds: 200 });
    const wanted = stepsOf(settings, { rows: rows.train.numRows, rowsPerStep, tokensPerStep });
    const flopsPerStep = estimate.trainingFlopsPerToken * tokensPerStep;
    const fitted = fittedSettings(settings, wanted, { flopsPerStep, peakFlops });
    settings = fitted.settings;
    const total = fitted.steps;
    const isValidated = rows.validation !== undefined && settings.evaluateEvery > 0;
    for (const message of ignoredSettings(settings, rows.validation !== undefined)) yield warning(message);
    if (rowsPerStep > rows.train.numRows)
      yield warning(`an update of ${rowsPerStep} rows reads the training data (${rows.train.numRows} rows) more than once`);
    const passes = uselessPasses(settings, total, { rows: rows.train.numRows, rowsPerStep });
    if (passes !== undefined)
      yield warning(
        `${total} steps are ${passes} passes over ${rows.train.numPairs} training tokens: from so little text a model learns the text itself`,
        `Give more text or fewer steps (or epochs)${isValidated ? ", or earlyStopping.metric loss" : ""}.`,
      );

    const config = recordedSettings(settings, total, { corpus: corpus.fingerprint });
    if (former && former.checkpoints.steps().length === 0) {
      checkUnchanged(former, config);
      yield warning(`${former.path}: there is no checkpoint yet; the run starts from the beginning`);
    }
    yield machineArtifact(backend);
    yield describeModel(decoder, rows.train.length, peakFlops);
    if (total < wanted)
      yield warning(
        `this machine would need more than ${settings.fitSeconds} s for ${wanted} steps; ${total} fit`,
        "Take all of them with fitSeconds 0.",
      );
    using sampler = settings.sampleEvery > 0 ? new Sampler(backend, decoder, tokenizer, samplerOptions(settings)) : undefined;
    let run = former;
    const trainer = new LanguageModelTrainer(
      backend,
      decoder,
      { ...rows, bytesOfToken: tokenByteLengths(tokenizer) },
      { ...settingsOf(languageModelSchema, settings), totalSteps: total, seed: deriveSeed(settings.seed, "data") },
      {
        sample: () => sampler?.text() ?? "",
        saveExtras: (directory) => run && copyTokenizer(tokenizerFolder(run), directory),
        configFields: { bos_token_id: tokenizer.specialIds.bos, eos_token_id: tokenizer.specialIds.eos },
        peakFlops,
      },
    );
    try {
      run ??= createRunDirectory({ root: runs, name, config });
      if (!existsSync(tokenizerFolder(run))) writeDirectoryAtomic(tokenizerFolder(run), keepTokenizer);
      onRun?.(run);
      const loop = runLoop(
        trainer,
        {
          ...loopSettingsOf({ ...settings, steps: total }),
          evaluateEvery: isValidated ? settings.evaluateEvery : 0,
          // Whoever averages weights uses the average.
          ...(isValidated && settings.keepBest
            ? { keepBest: { metric: settings.ema > 0 ? "emaLoss" : "loss", mode: "min" as const } }
            : {}),
          checkpoints: run.checkpoints,
          config,
          changeable: changeablePretraining,
          ...(resume ? { resume: resume.checkpoint } : {}),
        },
        signal,
      );
      const events = sampler ? withOuterSamples(loop, sampler, run.metricsPath) : loop;
      yield* withSinks(after([...told], events), run.sinks());
    } finally {
      trainer.dispose();
    }
  } finally {
    file.close();
  }
}

/** The run to go on with. Its settings are compared by the loop, against its latest checkpoint; here only what needs words of its own. */
function openPretraining(path: string, corpus: Corpus): RunDirectory {
  const run = openFormer(path, "pretraining");
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
  const refused = compareConfigs(run.config, config).filter(({ path }) => !isCovered(path, changeablePretraining));
  if (refused.length > 0)
    throw new CheckpointError(
      `resume ${run.path}: expected the settings that the run was started with, got other ones: ${describeDifferences(refused)}`,
      { hint: "Give the saved values, or start a new run." },
    );
}

/** What can be said before any data is read. @throws UsageError. */
function checkSettings(settings: PretrainSettings): void {
  const { init, epochs, tokens, earlyStopping, validation, evaluateEvery, vocabSize, ema, runs, cache } = settings;
  if (epochs !== undefined && tokens !== undefined)
    throw new UsageError("epochs, tokens: expected one of them, got both", { hint: "Give the length of the run once." });
  if (earlyStopping && (validation === 0 || evaluateEvery === 0))
    throw new UsageError("earlyStopping: expected evaluations, got none", { hint: "Set validation and evaluateEvery above 0." });
  const metrics = ["loss", "perplexity", "bitsPerByte", ...(ema > 0 ? ["emaLoss"] : [])];
  if (earlyStopping && !metrics.includes(earlyStopping.metric))
    throw new UsageError(`earlyStopping.metric: expected one of ${metrics.join(", ")}, got "${earlyStopping.metric}"`);
  for (const [option, path] of Object.entries({ runs, cache }))
    if (path !== undefined && isOtherThanFolder(path))
      throw new UsageError(`${option}: expected a folder or nothing at ${path}, got a file`, { hint: "Choose another folder." });
  if (init === undefined) checkLength(settings, newConfig(settings, vocabSize));
}

/** @throws CheckpointError for a path that leads through a file, or that may not be looked at. */
function isOtherThanFolder(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() === false;
  } catch (cause) {
    throw storageError(cause, path);
  }
}

function checkLength({ sequenceLength = 0 }: PretrainSettings, { contextLength }: DecoderConfig): void {
  if (sequenceLength > contextLength)
    throw new UsageError(`sequenceLength: expected at most the model's context of ${contextLength} tokens, got ${sequenceLength}`, {
      hint: "Give a shorter sequenceLength or a larger model.contextLength.",
    });
}

/** The size with the changes to it. Where only `heads` is changed, each key and value head serves as many of them as before. */
function newConfig({ size, model }: PretrainSettings, vocabSize: number): DecoderConfig {
  const preset: Omit<DecoderOptions, "vocabSize"> = decoderPresets[size].options;
  const { heads = preset.heads } = model;
  const ratio = preset.heads / (preset.kvHeads ?? preset.heads);
  const kvHeads = heads % ratio === 0 ? heads / ratio : heads;
  return decoderConfig({ ...preset, kvHeads, ...model, vocabSize });
}

/** Rows for training and validation. @throws UsageError, DataError when the data, the sequence and the model do not fit. */
async function* packSides(
  settings: PretrainSettings,
  file: TokenSource,
  tokenizer: Tokenizer,
  { config }: TrainableDecoder,
): AsyncGenerator<RunEvent, { train: PackedRows; validation?: PackedRows }> {
  const length = settings.sequenceLength ?? config.contextLength;
  checkLength(settings, config);
  const separator = tokenizer.specialIds.eos ?? tokenizer.specialIds.bos ?? null;
  const pack = (source: TokenSource): PackedRows =>
    packDocuments(source, { length, mode: settings.packing, separator, crossDocumentTargets: !settings.isolateDocuments });
  const sides = holdOut(file, settings.validation);
  if (sides.by === "end")
    yield warning(
      `validation: too few documents to choose among; the last ${sides.validation?.numTokens.toLocaleString("en")} tokens are kept for it`,
      "splitBy paragraph or line makes more of them.",
    );
  const train = pack(sides.train);
  if (train.numPairs < length)
    throw new DataError(`data: expected at least ${length + 1} training tokens for a sequence of ${length}, got ${train.numPairs + 1}`, {
      hint: "Give more text or a shorter sequenceLength.",
    });
  return { train, ...(sides.validation ? { validation: pack(sides.validation) } : {}) };
}

function makeDecoder(settings: PretrainSettings, tokenizer: Tokenizer, initial: TrainableDecoder | undefined): TrainableDecoder {
  if (initial) {
    if (initial.config.vocabSize >= tokenizer.vocabSize) return initial;
    throw new UsageError(
      `tokenizer: expected at most the ${initial.config.vocabSize} tokens of the model in init, got ${tokenizer.vocabSize}`,
      { hint: "Use the tokenizer of that checkpoint." },
    );
  }
  const config = newConfig(settings, tokenizer.vocabSize);
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

async function* after(first: readonly RunEvent[], rest: AsyncGenerator<RunEvent>): AsyncGenerator<RunEvent> {
  yield* first;
  yield* rest;
}

/** Samples of a new run before its first step, and of every run after its last, where there are none yet. */
async function* withOuterSamples(events: AsyncGenerator<RunEvent>, sampler: Sampler, metricsPath: string): AsyncGenerator<RunEvent> {
  let sampledAt = -1;
  for await (const event of events) {
    const { step, total } = event;
    const isFirst = event.kind === "run-start" && event.resumedFrom === undefined;
    if (event.kind === "run-start" && !isFirst) sampledAt = lastSample(metricsPath, step);
    if (event.kind === "sample") sampledAt = step;
    const isLast = isComplete(event) && sampledAt !== step;
    const sample = async (): Promise<RunEvent> => ({ kind: "sample", step, total, time: Date.now(), sample: await sampler.text() });
    if (isLast) yield await sample();
    yield event;
    if (isFirst) yield await sample();
  }
}

/** Step of the last sample up to `step` that the metrics file holds, or -1. */
function lastSample(path: string, step: number): number {
  if (!existsSync(path)) return -1;
  let found = -1;
  for (const event of readMetrics(path)) if (event.kind === "sample" && event.step <= step) found = event.step;
  return found;
}
