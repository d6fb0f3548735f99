// From a model to a drafter for it: texts that the model writes itself, heads trained on them while it is frozen, a tree calibrated on
// further texts and sized by what verification costs on this machine, and a measurement with and without it.
import { join } from "node:path";
import { writeDirectoryAtomic } from "../base/atomic.ts";
import { UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type PackedRows, packDocuments, tokensOf } from "../data/index.ts";
import { measureCostCurve, measureDraftCost } from "../decode/cost-curve.ts";
import { MedusaDrafter } from "../decode/drafters/medusa.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { type CostPoint, chooseTreeSize, type GrownTree, growTree, jointPaths } from "../decode/static-tree.ts";
import { TreeShape } from "../decode/token-tree.ts";
import {
  changeableSettings,
  createRunDirectory,
  deriveSeed,
  type JsonRecord,
  type RunDirectory,
  type RunEvent,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { type LoadedDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { createMedusa, type MedusaHeads } from "../models/heads/medusa.ts";
import { type MedusaInfo, saveMedusa } from "../models/heads/medusa-checkpoint.ts";
import type { Backend } from "../runtime/backend.ts";
import { loadTokenizer, type Tokenizer } from "../text/index.ts";
import { MedusaTrainer, medusaTrainingSchema } from "../train/medusa.ts";
import { follow, stage, warning } from "./events.ts";
import { resolveModel, tokenizerBeside } from "./model-source.ts";
import { type SelfDistilledText, selfDistil } from "./self-distillation.ts";
import { findTokenTree, measureSpeculation } from "./speculation-report.ts";
import { trainDraftModel } from "./train-draft-model.ts";
import { type TrainDrafterOptions, type TrainDrafterSettings, trainDrafterSchema } from "./train-drafter-options.ts";
import { loopSettingsOf, openFormer, recordOf, settingsOf } from "./training-run.ts";

export interface TrainDrafterContext {
  backend: Backend;
  /** Aborts the preparation, or lets the running step finish and be saved. */
  signal?: AbortSignal;
  /** Called once the run folder exists. */
  onRun?: (run: RunDirectory) => void;
}

/**
 * Trains a drafter. The first events are stages (texts), then those of the step loop; before `run-end` come the artifacts "speculation" and
 * "token-tree". The finished drafter is in `<run>/drafter`.
 * @throws UsageError, FormatError, CheckpointError, NotFiniteError, AbortedError: see their messages.
 */
export async function* trainDrafter(
  options: TrainDrafterOptions,
  { backend, signal, onRun }: TrainDrafterContext,
): AsyncGenerator<RunEvent> {
  const settings = parseOptions(trainDrafterSchema, options) as TrainDrafterSettings;
  if (settings.kind === "draft") {
    yield* trainDraftModel(settings, { backend, signal, onRun });
    return;
  }
  const path = resolveModel(settings.model);
  const target = loadDecoder(path);
  const tokenizer = loadTokenizer(settings.tokenizer ?? tokenizerBeside(path));
  if (tokenizer.vocabSize > target.config.vocabSize)
    throw new UsageError(`tokenizer: expected at most ${target.config.vocabSize} tokens for this model, got ${tokenizer.vocabSize}`, {
      hint: "Use the tokenizer of this model.",
    });
  const lengths = lengthsOf(settings, target);
  const config = recordOf(settings, { tokenizerHash: tokenizer.hash });
  const former = settings.resume === undefined ? undefined : openFormer(settings.resume, "drafter");
  const heads = createMedusa(target, settings.medusa);
  const texts = yield* writeTexts(backend, target, tokenizer, settings, lengths.text, signal);
  const base = { base: settings.model, tokenizerHash: tokenizer.hash };
  const trainer = new MedusaTrainer(
    backend,
    target,
    heads,
    { train: pack(texts.train, lengths.sequence), heldOut: pack(texts.heldOut, lengths.sequence) },
    { ...settingsOf(medusaTrainingSchema, settings), totalSteps: settings.steps, seed: deriveSeed(settings.seed, "data") },
    () => base,
  );
  try {
    const run = former ?? createRunDirectory({ root: settings.runs, name: settings.name, config });
    onRun?.(run);
    const hasCheckpoint = run.checkpoints.steps().length > 0;
    const loop = runLoop(
      trainer,
      {
        ...loopSettingsOf(settings),
        evaluateFirst: settings.evaluateEvery > 0,
        checkpoints: run.checkpoints,
        config,
        changeable: [...changeableSettings, ...changeable],
        ...(former && hasCheckpoint ? { resume: "auto" as const } : {}),
      },
      signal,
    );
    const finish = (end: RunEvent) =>
      finishDrafter(end, { backend, target, tokenizer, settings, trainer, heads, base, run, texts, signal });
    yield* withSinks(beforeEnd(loop, finish), run.sinks());
  } finally {
    trainer.dispose();
  }
}

/** Tokens of an opening at most, where nothing is asked for. */
const openingTokens = 32;

/** What is only measured and shown. */
const changeable = ["evaluationBatches", "guesses", "maxTreeNodes", "measurePrompts", "measureTokens", "measureRounds", "model"];

function lengthsOf({ textLength, sequenceLength }: TrainDrafterSettings, { config: { contextLength } }: LoadedDecoder) {
  const text = textLength ?? Math.min(256, contextLength);
  const sequence = sequenceLength ?? Math.min(256, text);
  for (const [name, value] of Object.entries({ textLength: text, sequenceLength: sequence }))
    if (value > contextLength)
      throw new UsageError(`${name}: expected at most the model's context of ${contextLength} tokens, got ${value}`, {
        hint: `Give a smaller ${name}.`,
      });
  return { text, sequence };
}

interface Texts {
  train: readonly SelfDistilledText[];
  heldOut: readonly SelfDistilledText[];
}

async function* writeTexts(
  backend: Backend,
  target: LoadedDecoder,
  tokenizer: Tokenizer,
  settings: TrainDrafterSettings,
  textLength: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, Texts> {
  const { bos, eos } = tokenizer.specialIds;
  const begin = bos ?? eos;
  if (begin === undefined)
    throw new UsageError("tokenizer: expected a token for the beginning of a text, to let the model write from there, got none");
  const write = async function* (
    name: "train" | "heldOut",
    tokens: number,
    temperature: number,
  ): AsyncGenerator<RunEvent, SelfDistilledText[]> {
    return yield* follow((report) =>
      selfDistil(backend, target, {
        start: [begin],
        tokens,
        textLength,
        openingTokens: settings.openingTokens ?? openingTokens,
        temperature,
        eosTokenIds: eos === undefined ? [] : [eos],
        seed: deriveSeed(settings.seed, name),
        signal,
        onProgress: (written) =>
          report(() =>
            stage("texts", `texts: the model has written ${written.toLocaleString("en")} tokens`, { progress: written / tokens }),
          ),
      }),
    );
  };
  const started = performance.now();
  const train = yield* write("train", settings.tokens, settings.temperature);
  const heldOut = yield* write("heldOut", settings.heldOutTokens, settings.heldOutTemperature);
  const seconds = (performance.now() - started) / 1000;
  const count = (texts: readonly SelfDistilledText[]): number => texts.reduce((sum, { ids }) => sum + ids.length, 0);
  yield stage(
    "texts",
    `texts: the model wrote ${count(train).toLocaleString("en")} tokens to train on and ${count(heldOut).toLocaleString("en")} held out, in ${seconds.toFixed(1)} s`,
    { progress: 1, metrics: { trainTokens: count(train), heldOutTokens: count(heldOut), seconds } },
  );
  return { train, heldOut };
}

const pack = (texts: readonly SelfDistilledText[], length: number): PackedRows =>
  packDocuments(tokensOf(texts.map(({ ids }) => ids)), { length, separator: null, crossDocumentTargets: false });

/** What `more` tells comes before the end of a run that was finished. */
async function* beforeEnd(events: AsyncGenerator<RunEvent>, more: (end: RunEvent) => AsyncGenerator<RunEvent>): AsyncGenerator<RunEvent> {
  for await (const event of events) {
    if (event.kind === "run-end" && event.reason === "finished") yield* more(event);
    yield event;
  }
}

interface Finish {
  backend: Backend;
  target: LoadedDecoder;
  tokenizer: Tokenizer;
  settings: TrainDrafterSettings;
  trainer: MedusaTrainer;
  heads: MedusaHeads;
  base: MedusaInfo;
  run: RunDirectory;
  texts: Texts;
  signal: AbortSignal | undefined;
}

/** Calibration, the tree, the finished drafter on disk, and the measurement. */
async function* finishDrafter({ step, total }: RunEvent, finish: Finish): AsyncGenerator<RunEvent> {
  const { backend, target, tokenizer, settings, trainer, heads, base, run, texts, signal } = finish;
  const artifact = (name: string, data: JsonRecord): RunEvent => ({ kind: "artifact", step, total, time: Date.now(), name, data });
  const calibration = await trainer.calibrate(undefined, signal);
  const grown = growTree(jointPaths(calibration.ranks, heads.config.heads), {
    maxNodes: settings.maxTreeNodes,
    maxDepth: heads.config.heads,
    maxChildren: Math.min(settings.guesses, target.config.vocabSize),
  });
  using runner = new DecoderRunner(backend, target);
  const { costCurve, numNodes, speedup } = sizeTree(backend, runner, target, heads, grown);
  if (numNodes === 0)
    yield warning(
      "drafts do not pay on this machine by its cost curve: the tree is left at one node",
      "A larger model, or better heads, would change that.",
    );
  const choices = grown.choices.slice(0, Math.max(1, numNodes));
  const info = { ...base, choices };
  writeDirectoryAtomic(join(run.path, "drafter"), (directory) => saveMedusa(directory, heads, info));
  yield artifact("calibration", {
    accuracies: calibration.accuracies as JsonRecord[string],
    positions: calibration.numPositions,
    choices,
    expectedTokensPerStep: grown.expected.map((accepted) => 1 + accepted),
    costCurve: costCurve as unknown as JsonRecord[string],
    expectedSpeedup: speedup,
  });
  if (settings.measurePrompts === 0) return;
  const prompts = texts.heldOut.slice(0, settings.measurePrompts).map(({ ids, openingLength }) => ids.slice(0, openingLength));
  const room = runner.capacity - Math.max(...prompts.map(({ length }) => length));
  const maxNewTokens = Math.min(settings.measureTokens, room);
  {
    using drafter = new MedusaDrafter(backend, heads, target, info);
    const decode = {
      drafter,
      rounds: settings.measureRounds,
      treeSize: drafter.shape.size,
      costCurve,
      prompts,
      maxNewTokens,
      tokenizer,
      signal,
    };
    yield artifact("speculation", await measureSpeculation(runner, decode));
  }
  // Drawn with all grown nodes: what pays here is often a chain, which shows little.
  using drafter = new MedusaDrafter(backend, heads, target, { ...info, choices: grown.choices });
  const tree = await findTokenTree(runner, { drafter, prompts, maxNewTokens, tokenizer, signal });
  if (tree) yield artifact("token-tree", tree);
}

/** How many nodes of a grown tree pay here. */
function sizeTree(backend: Backend, runner: DecoderRunner, target: LoadedDecoder, heads: MedusaHeads, grown: GrownTree) {
  const sizes = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64].filter((size) => size <= grown.choices.length);
  const shapes = [TreeShape.chain(0), ...sizes.map((size) => TreeShape.fromChoices(grown.choices.slice(0, size)))];
  // With the drafter's rows, as it will be run.
  runner.provide({ hidden: true });
  const costCurve: CostPoint[] = measureCostCurve(runner, shapes);
  if (grown.choices.length === 0) return { costCurve, numNodes: 0, speedup: 1 };
  using drafter = new MedusaDrafter(backend, heads, target, { choices: grown.choices });
  return { costCurve, ...chooseTreeSize(grown, costCurve, { draftMilliseconds: measureDraftCost(runner, drafter) }) };
}
