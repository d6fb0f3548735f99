// Settings of pretraining: one schema, from which flags, help and validation come; and what follows from them.
import { z } from "zod";
import { parseOptions } from "../base/schema.ts";
import { sourceSchema } from "../data/index.ts";
import { changeableSettings, type JsonRecord, loopSchema } from "../engine/index.ts";
import { type DecoderOptions, decoderSchema } from "../models/decoder/config.ts";
import { type DecoderPresetName, decoderPresets } from "../models/decoder/presets.ts";
import { languageModelSchema } from "../train/language-model.ts";
import { recordOf, savedSettingsOf } from "./training-run.ts";

const presetNames = Object.keys(decoderPresets) as [DecoderPresetName];
const { logEvery, keepLast, onNotFinite, checkpointSeconds, earlyStopping } = loopSchema.shape;
const defaultSteps = 1000;

/** Changes to a size: only what is given counts, so the schema's own defaults must not come in. */
const modelChanges = z
  .strictObject(
    Object.fromEntries(
      Object.entries(decoderSchema.omit({ vocabSize: true }).shape).map(([name, field]): [string, z.ZodType] => {
        const inner = field instanceof z.ZodDefault ? (field.unwrap() as z.ZodType) : field;
        const fallback = field instanceof z.ZodDefault ? `. Default: the size's, else ${JSON.stringify(field.parse(undefined))}` : "";
        return [name, inner.optional().describe(`${field.description ?? ""}${fallback}`)];
      }),
    ),
  )
  .prefault({}) as unknown as z.ZodPrefault<z.ZodType<Partial<Omit<DecoderOptions, "vocabSize">>>>;

export const pretrainSchema = z.strictObject({
  data: z.array(z.string()).default([]).describe("Text or JSONL files, folders or patterns. Default: the State of the Union addresses"),
  ...sourceSchema.shape,
  validation: z.number().min(0).lt(1).default(0.05).describe("Share of the documents kept for validation; 0: none"),
  tokenizer: z
    .string()
    .optional()
    .describe("tokenizer.json or a folder that holds one. Default: that of init, else one is trained on the training documents"),
  vocabSize: z.int().min(257).default(2048).describe("Vocabulary of the tokenizer that is trained"),
  preTokenizer: z.enum(["gpt2", "llama3"]).default("gpt2").describe("How the tokenizer that is trained splits text into words"),
  size: z.enum(presetNames).default("nano").describe("Size of the model; options under model change it"),
  model: modelChanges.describe("Options of the model"),
  init: z
    .string()
    .optional()
    .describe("Start from this checkpoint or run folder instead of random weights; size and model are then ignored"),
  ...languageModelSchema.shape,
  packing: z
    .enum(["concatenate", "bestFit"])
    .default("concatenate")
    .describe("One stream of documents cut into rows, or whole documents packed into rows"),
  seed: z.int().nonnegative().default(0).describe("Seed of weights and data order"),
  steps: z.int().positive().optional().describe(`Steps of the whole run, those before a resume included. Default: ${defaultSteps}`),
  epochs: z.number().positive().optional().describe("Length of the run as passes over the training data, instead of steps"),
  tokens: z.number().positive().optional().describe("Length of the run in tokens, instead of steps"),
  fitSeconds: z
    .number()
    .nonnegative()
    .default(0)
    .describe("Take fewer steps where this machine would need more than about so many seconds; said when it happens. 0: never"),
  logEvery,
  evaluateEvery: z.int().nonnegative().default(100).describe("Evaluate every so many steps and after the last one; 0: never"),
  sampleEvery: z
    .int()
    .nonnegative()
    .default(200)
    .describe("Write a sample text before the first step, every so many steps and after the last one; 0: never"),
  checkpointEvery: z.int().nonnegative().default(200).describe("Save every so many steps; at the end and when interrupted always"),
  checkpointSeconds,
  keepLast,
  keepBest: z
    .boolean()
    .default(true)
    .describe("Also keep the checkpoint with the lowest validation loss (with ema: that of the averaged weights)"),
  earlyStopping,
  onNotFinite,
  samplePrompt: z.string().default("The ").describe("Prompt of the sample texts"),
  sampleTokens: z.int().positive().default(64).describe("Tokens of a sample text"),
  runs: z.string().min(1).default("runs").describe("Folder of all runs"),
  name: z.string().default("pretrain").describe("Name of the run, part of its folder's name"),
  resume: z.string().min(1).optional().describe("Go on with this run folder (or from one of its checkpoints), with its configuration"),
  cache: z.string().min(1).optional().describe("Folder of tokenised data. Default: .cache beside the runs"),
});

export type PretrainOptions = z.input<typeof pretrainSchema>;
export type PretrainSettings = z.output<typeof pretrainSchema>;

/** What has no effect on a run but through what is recorded. */
const notRecorded = ["cache", "epochs", "tokens", "fitSeconds"];

/**
 * Settings that may differ at resume. Besides the loop's: what is only shown, `data`, whose content has a fingerprint, and what one changes
 * when a run diverges.
 */
export const changeablePretraining: readonly string[] = [
  ...changeableSettings,
  ...notRecorded,
  ...["data", "samplePrompt", "sampleTokens", "evaluationBatches"],
  ...["learningRate", "schedule", "maxGradientNorm"],
];

/** What config.json of a run holds; its length is told in steps, however it was given. */
export const recordedSettings = (settings: PretrainSettings, steps: number, more: { corpus?: string } = {}): JsonRecord =>
  recordOf(settings, { steps, ...more }, notRecorded);

/**
 * The settings that a run goes on with: `pretrain({ ...savedSettings(path), resume: path })`.
 * @throws CheckpointError when there is no run at `path`.
 */
export const savedSettings = (path: string): Partial<PretrainOptions> => savedSettingsOf(pretrainSchema, path, "pretraining");

/** The same, complete and checked. @throws CheckpointError, UsageError for a run of another version with other settings. */
export const parseSavedSettings = (path: string): PretrainSettings => parseOptions(pretrainSchema, savedSettings(path)) as PretrainSettings;

/** Number of updates. At most one of epochs and tokens is given, and wins over steps. */
export function stepsOf(
  { steps, epochs, tokens }: Pick<PretrainSettings, "steps" | "epochs" | "tokens">,
  data: { rows: number; rowsPerStep: number; tokensPerStep: number },
): number {
  if (epochs !== undefined) return Math.max(1, Math.ceil((epochs * data.rows) / data.rowsPerStep));
  if (tokens !== undefined) return Math.max(1, Math.ceil(tokens / data.tokensPerStep));
  return steps ?? defaultSteps;
}

/** Beyond so many passes more of them teach nothing (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", section 6). */
const mostPasses = 40;

/** How often a run of so many steps reads its training rows, where that is too often to help and nothing will end it earlier. */
export function uselessPasses(
  { earlyStopping }: Pick<PretrainSettings, "earlyStopping">,
  steps: number,
  data: { rows: number; rowsPerStep: number },
): number | undefined {
  const passes = Math.round((steps * data.rowsPerStep) / data.rows);
  return passes > mostPasses && !earlyStopping ? passes : undefined;
}

/** Options that were given but have no effect beside others, each with the reason. */
export function ignoredSettings(settings: PretrainSettings, isValidated: boolean): string[] {
  const { shape } = pretrainSchema;
  const changed = (name: "size" | "vocabSize" | "preTokenizer" | "samplePrompt" | "sampleTokens" | "evaluateEvery"): boolean =>
    settings[name] !== shape[name].parse(undefined);
  const { init, tokenizer, resume } = settings;
  const source = tokenizer === undefined ? "init" : "tokenizer";
  const cases: [boolean, string, string][] = [
    [init !== undefined && changed("size"), "size", "init brings its own model"],
    [init !== undefined && Object.keys(settings.model).length > 0, "model", "init brings its own model"],
    [(init ?? tokenizer) !== undefined && changed("vocabSize"), "vocabSize", `${source} brings its own vocabulary`],
    [(init ?? tokenizer) !== undefined && changed("preTokenizer"), "preTokenizer", `${source} brings its own`],
    [settings.sampleEvery === 0 && changed("samplePrompt"), "samplePrompt", "sampleEvery is 0"],
    [settings.sampleEvery === 0 && changed("sampleTokens"), "sampleTokens", "sampleEvery is 0"],
    [!isValidated && changed("evaluateEvery"), "evaluateEvery", "there is no validation data"],
    [!isValidated && settings.evaluationBatches !== undefined, "evaluationBatches", "there is no validation data"],
    [resume === undefined && settings.steps !== undefined && settings.epochs !== undefined, "steps", "epochs sets the length of the run"],
    [resume === undefined && settings.steps !== undefined && settings.tokens !== undefined, "steps", "tokens sets the length of the run"],
  ];
  return cases.filter(([given]) => given).map(([, name, reason]) => `${name} has no effect: ${reason}`);
}

/** Share of the measured product speed that training reaches at least (docs/log.md): steps are estimated with it. */
const trainingEfficiency = 0.5;

/**
 * The settings of a run that `fitSeconds` shortens: fewer steps, and what is due every so many of them in proportion. Unchanged where the
 * machine is fast enough.
 */
export function fittedSettings<S extends PretrainSettings>(
  settings: S,
  steps: number,
  { flopsPerStep, peakFlops }: { flopsPerStep: number; peakFlops: number },
): { settings: S; steps: number } {
  const seconds = flopsPerStep / (trainingEfficiency * peakFlops);
  const fitting = Math.max(1, Math.floor(settings.fitSeconds / seconds));
  if (settings.fitSeconds === 0 || settings.resume !== undefined || fitting >= steps) return { settings, steps };
  const scaled = (every: number): number => (every === 0 ? 0 : Math.max(1, Math.ceil((every * fitting) / steps)));
  const { evaluateEvery, sampleEvery, checkpointEvery } = settings;
  const every = { evaluateEvery: scaled(evaluateEvery), sampleEvery: scaled(sampleEvery), checkpointEvery: scaled(checkpointEvery) };
  // A warm-up in steps shrinks with the run; one below 1 is a share of it already.
  const { schedule } = settings;
  const warmup =
    "warmupSteps" in schedule && schedule.warmupSteps !== undefined && schedule.warmupSteps >= 1
      ? { warmupSteps: scaled(schedule.warmupSteps) }
      : {};
  return { settings: { ...settings, ...every, schedule: { ...schedule, ...warmup } }, steps: fitting };
}
