// From a model to a small one that drafts for it: the model writes texts (written-texts.ts), which stay in the run folder; a decoder of a few
// million parameters that knows its frequent tokens learns what it said and thought likely; then both decode further prompts, with and without.
import { join } from "node:path";
import { writeDirectoryAtomic } from "../base/atomic.ts";
import { DataError, UsageError } from "../base/errors.ts";
import { measureCostCurve } from "../decode/cost-curve.ts";
import { DraftModelDrafter } from "../decode/drafters/draft-model.ts";
import { complete } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { TreeShape } from "../decode/token-tree.ts";
import { TrimmedVocabulary } from "../decode/trimmed-vocabulary.ts";
import {
  changeableSettings,
  createRunDirectory,
  deriveSeed,
  type RunDirectory,
  type RunEvent,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { estimateDecoder } from "../models/decoder/estimate.ts";
import { DraftModelTrainer } from "../train/draft-model.ts";
import type { TrainableDecoder } from "../train/index.ts";
import { medusaTrainingSchema } from "../train/medusa.ts";
import { type DraftVocabularyFields, loadTrimmedDraft, saveTrimmedDraft } from "./draft-checkpoint.ts";
import { draftRows, frequentIds } from "./draft-rows.ts";
import { draftConfig, startDraft } from "./draft-start.ts";
import { follow, stage, warning } from "./events.ts";
import { readPrompts, splitPrompts } from "./prompt-source.ts";
import { measureSpeculation } from "./speculation-report.ts";
import { type LoadedModel, loadModel } from "./text-model/load-model.ts";
import { textPlans } from "./text-plans.ts";
import { TextStore } from "./text-store.ts";
import type { TrainDrafterContext } from "./train-drafter.ts";
import type { TrainDrafterSettings } from "./train-drafter-options.ts";
import { isComplete, loopSettingsOf, openFormer, recordOf, settingsOf } from "./training-run.ts";
import { type TextPlan, type WrittenText, writeTexts } from "./written-texts.ts";

/** Share of one's own prompts whose answers are held out. */
const heldOutPrompts = 0.1;
/** So many texts without a single answer are a model that asks nothing. */
const mostUnused = 200;
/** What is only measured and shown, and where texts are found. */
const changeable = ["evaluationBatches", "measurePrompts", "measureTokens", "measureRounds", "model", "texts", "writeBatch"];

/** Tokens of a sample text. */
const sampleTokens = 48;

type Side = "train" | "heldOut";
type Sides<T> = Record<Side, T>;

/** See `trainDrafter`; for `kind: "draft"`. */
export async function* trainDraftModel(settings: TrainDrafterSettings, context: TrainDrafterContext): AsyncGenerator<RunEvent> {
  const { backend, signal, onRun } = context;
  const target = await loadModel(settings.model, {
    weights: settings.weights,
    ...(settings.tokenizer ? { tokenizer: settings.tokenizer } : {}),
  });
  const { contextLength, vocabSize } = target.model.config;
  const textLength = settings.textLength ?? Math.min(256, contextLength);
  const length = settings.sequenceLength ?? textLength;
  if (textLength > contextLength)
    throw new UsageError(`textLength: expected at most the model's context of ${contextLength} tokens, got ${textLength}`, {
      hint: "Give a smaller textLength.",
    });
  const draftSize = Math.min(settings.draft.vocabSize, vocabSize);
  const config = draftConfig(settings, target.model.config, draftSize, Math.max(length, textLength));
  const plans = await plansOf(settings, target);
  const former = settings.resume === undefined ? undefined : openFormer(settings.resume, "drafter");
  const record = recordOf(settings, { tokenizerHash: target.tokenizer.hash });
  const run = former ?? createRunDirectory({ root: settings.runs, name: settings.name, config: record });
  onRun?.(run);

  async function* events(): AsyncGenerator<RunEvent> {
    const texts = yield* writeSides(settings, context, target, plans, { run, textLength });
    // The one that the loop goes on from: a damaged one is passed over.
    const newest = run.checkpoints.latest();
    const vocabulary: DraftVocabularyFields = newest
      ? loadTrimmedDraft(newest.path).vocabulary
      : {
          target_ids: [...frequentIds(texts.train, draftSize, vocabSize)],
          target_vocab_size: vocabSize,
          tokenizer_hash: target.tokenizer.hash,
        };
    const map = new TrimmedVocabulary(vocabulary.target_ids, vocabSize);
    const decoder = startDraft(config, settings, target, map);
    yield describeDraft(decoder, texts, map, length);
    const rowOptions = { length, top: settings.top, distillation: settings.distillation };
    const trainer = new DraftModelTrainer(
      backend,
      decoder,
      {
        train: draftRows(texts.train, map, { ...rowOptions, promptWeight: settings.promptWeight }),
        heldOut: draftRows(texts.heldOut, map, rowOptions),
      },
      { ...trainingSettings(settings), totalSteps: settings.steps, seed: deriveSeed(settings.seed, "data") },
      {
        save: (directory) => saveTrimmedDraft(directory, decoder, vocabulary),
        sample: () => sampleOf(context, target, decoder, map, texts.heldOut),
      },
    );
    try {
      const loop = runLoop(
        trainer,
        {
          ...loopSettingsOf(settings),
          evaluateFirst: settings.evaluateEvery > 0,
          checkpoints: run.checkpoints,
          config: record,
          changeable: [...changeableSettings, ...changeable],
          ...(former && run.checkpoints.steps().length > 0 ? { resume: "auto" as const } : {}),
        },
        signal,
      );
      for await (const event of loop) {
        if (isComplete(event)) {
          writeDirectoryAtomic(join(run.path, "drafter"), (directory) => saveTrimmedDraft(directory, decoder, vocabulary));
          yield* measured(event, { settings, context, target, decoder, map, texts: texts.heldOut });
        }
        yield event;
      }
    } finally {
      trainer.dispose();
    }
  }
  yield* withSinks(events(), run.sinks());
}

const trainingSettings = (settings: TrainDrafterSettings) =>
  settingsOf(medusaTrainingSchema, settings) as unknown as ConstructorParameters<typeof DraftModelTrainer>[3];

/** A question of fewer tokens is often cut short. */
const openingTokensOf = ({ openingTokens, chat }: TrainDrafterSettings, { chatTemplate }: LoadedModel): number =>
  openingTokens ?? ((chat ?? chatTemplate !== undefined) ? 64 : 32);

interface SidePlan {
  planOf: (index: number) => TextPlan;
  /** Texts that differ; Infinity where each is drawn. */
  most: number;
  temperature: number;
}

async function plansOf(settings: TrainDrafterSettings, target: LoadedModel): Promise<Sides<SidePlan>> {
  const { prompts: files, field, seed, chat, temperature, heldOutTemperature } = settings;
  const openingTokens = openingTokensOf(settings, target);
  const own = files.length > 0 ? splitPrompts(await readPrompts(files, field), heldOutPrompts, seed) : undefined;
  const side = (name: Side, at: number): SidePlan => {
    const prompts = own?.[name].map(({ prompt }) => prompt);
    const planOf = textPlans(target, { openingTokens, ...(chat === undefined ? {} : { chat }), ...(prompts ? { prompts } : {}) });
    return { planOf, most: prompts && at === 0 ? prompts.length : Number.POSITIVE_INFINITY, temperature: at };
  };
  return { train: side("train", temperature), heldOut: side("heldOut", heldOutTemperature) };
}

/** Both sides' texts: those that are there, and as many more as are asked for. */
async function* writeSides(
  settings: TrainDrafterSettings,
  { backend, signal }: TrainDrafterContext,
  target: LoadedModel,
  plans: Sides<SidePlan>,
  { run, textLength }: { run: RunDirectory; textLength: number },
): AsyncGenerator<RunEvent, Sides<WrittenText[]>> {
  const folder = settings.texts ?? join(run.path, "texts");
  const wanted = { train: settings.tokens, heldOut: settings.heldOutTokens };
  const startedAt = performance.now();
  const result = {} as Sides<WrittenText[]>;
  for (const name of ["heldOut", "train"] as const) {
    const { planOf, most, temperature } = plans[name];
    const { top, prompts, field, chat = null, seed } = settings;
    const openingTokens = openingTokensOf(settings, target);
    const store = new TextStore(join(folder, `${name}.jsonl`), {
      tokenizerHash: target.tokenizer.hash,
      vocabSize: target.model.config.vocabSize,
      top,
      settings: { temperature, textLength, seed, ...(prompts.length > 0 ? { prompts, field, chat } : { openingTokens, chat }) },
    });
    if (store.numTokens < wanted[name]) {
      yield* follow(async (report) => {
        using runner = new DecoderRunner(backend, target.model, { batch: settings.writeBatch, capacity: textLength });
        while (store.numTokens < wanted[name]) {
          const before = store.numTokens;
          let launched = 0;
          let finished = 0;
          // Those on their way will bring about as much as the others did.
          const isEnough = (): boolean => {
            const mean = finished > 0 ? (store.numTokens - before) / finished : textLength / 2;
            return store.numTokens + (launched - finished) * mean >= wanted[name];
          };
          const indices = function* (): Generator<number> {
            for (let index = 0; index < most && !isEnough(); index++) {
              if (store.has(index)) continue;
              launched++;
              yield index;
            }
          };
          for await (const text of writeTexts(runner, {
            planOf,
            indices: indices(),
            answerTokens: textLength,
            temperature,
            eosTokenIds: target.eosTokenIds,
            seed: deriveSeed(seed, name),
            top,
            ...(signal ? { signal } : {}),
          })) {
            store.add(text);
            finished++;
            if (finished >= mostUnused && store.numTokens === before)
              throw new DataError(`texts: expected answers, got none in ${finished} texts`, {
                hint: "Give questions with --prompts, or a larger textLength.",
              });
            const written = store.numTokens;
            report(() =>
              stage("texts", `texts: the model has written ${written.toLocaleString("en")} tokens of answers (${name})`, {
                progress: Math.min(1, written / wanted[name]),
              }),
            );
          }
          if (launched === 0) break;
        }
      });
    }
    if (store.numTokens < 0.9 * wanted[name])
      yield warning(
        `texts: the prompts gave ${store.numTokens.toLocaleString("en")} tokens of ${wanted[name].toLocaleString("en")} (${name})`,
        "Give more prompts, or a temperature above 0.",
      );
    result[name] = store.texts;
  }
  const count = (texts: readonly WrittenText[]): number => texts.reduce((sum, { ids, promptLength }) => sum + ids.length - promptLength, 0);
  const [trainTokens, heldOutTokens] = [count(result.train), count(result.heldOut)];
  const seconds = (performance.now() - startedAt) / 1000;
  yield stage(
    "texts",
    `texts: ${trainTokens.toLocaleString("en")} tokens of answers to train on and ${heldOutTokens.toLocaleString("en")} held out, in ${seconds.toFixed(1)} s`,
    { progress: 1, metrics: { trainTokens, heldOutTokens, seconds } },
  );
  return result;
}

function describeDraft({ config }: TrainableDecoder, { train }: Sides<WrittenText[]>, map: TrimmedVocabulary, length: number): RunEvent {
  const { parameters } = estimateDecoder(config, length);
  let [known, all] = [0, 0];
  for (const { ids, promptLength } of train) for (let i = promptLength; i < ids.length; i++, all++) if (map.toDraft[ids[i]] >= 0) known++;
  const coverage = known / all;
  return stage(
    "model",
    `draft model: ${(parameters / 1e6).toFixed(2)} M parameters; its ${map.size.toLocaleString("en")} tokens are ${(100 * coverage).toFixed(1)} % of the texts`,
    { progress: 1, metrics: { parameters, coverage } },
  );
}

/** What the draft model answers by itself to a held-out prompt, most probable tokens; tokens that it does not know are left out. */
async function sampleOf(
  { backend }: TrainDrafterContext,
  { tokenizer }: LoadedModel,
  decoder: TrainableDecoder,
  map: TrimmedVocabulary,
  [text]: readonly WrittenText[],
): Promise<string> {
  if (!text) return "";
  const prompt = text.ids.slice(0, text.promptLength);
  using runner = new DecoderRunner(backend, decoder, { weights: "bound" });
  const ids = prompt.map((id) => map.draftId(id));
  const answer = await complete(runner, { ids, maxNewTokens: sampleTokens, sampling: { doSample: false }, eosTokenIds: [] }, {});
  const said = answer.ids.filter((id) => id < map.size).map((id) => map.targetIds[id]);
  return tokenizer.decode([...prompt, ...said]);
}

interface Measure {
  settings: TrainDrafterSettings;
  context: TrainDrafterContext;
  target: LoadedModel;
  decoder: TrainableDecoder;
  map: TrimmedVocabulary;
  texts: readonly WrittenText[];
}

/** What the drafter gives on held-out prompts here and now: the artifact "speculation". */
async function* measured({ step, total }: RunEvent, { settings, context, target, decoder, map, texts }: Measure): AsyncGenerator<RunEvent> {
  const prompts = texts.slice(0, settings.measurePrompts).map(({ ids, promptLength }) => ids.slice(0, promptLength));
  if (prompts.length === 0) return;
  const { backend, signal } = context;
  const longest = Math.max(...prompts.map(({ length }) => length));
  const capacity = Math.min(target.model.config.contextLength, longest + settings.measureTokens + 16);
  const maxNewTokens = Math.min(settings.measureTokens, capacity - longest - 1);
  using runner = new DecoderRunner(backend, target.model, { capacity });
  using drafter = new DraftModelDrafter(backend, decoder, {}, { map, runner: { capacity } });
  const sizes = [1, 2, 3, 4, 6, 8].filter((size) => size < capacity / 2);
  const costCurve = measureCostCurve(
    runner,
    sizes.map((size) => TreeShape.chain(size - 1)),
  );
  // The drafter learns what it costs and how often it is right.
  await complete(
    runner,
    { ids: prompts[0], maxNewTokens, sampling: { doSample: false } },
    { tokenizer: target.tokenizer, drafter, ...(signal ? { signal } : {}) },
  );
  const data = await measureSpeculation(runner, {
    drafter,
    rounds: settings.measureRounds,
    treeSize: 9,
    costCurve,
    prompts,
    maxNewTokens,
    tokenizer: target.tokenizer,
    ...(signal ? { signal } : {}),
  });
  yield { kind: "artifact", step, total, time: Date.now(), name: "speculation", data };
}
