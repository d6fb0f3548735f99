// Aligning a language model with reward functions by group policy optimisation: a model, prompts and rewards in, a run folder out.
// Everything is told as one stream of events; the run folder is made when all that can be wrong with the input has been looked at.
import { UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import {
  changeableSettings,
  createRunDirectory,
  deriveSeed,
  type RunDirectory,
  type RunEvent,
  runLoop,
  withSinks,
} from "../engine/index.ts";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import {
  type GroupPolicyData,
  GroupPolicyTrainer,
  groupPolicySchema,
  ignoredSettings,
  type Prompt,
  type RewardInput,
} from "../rl/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { loadTokenizer, type Tokenizer } from "../text/index.ts";
import { stage, warning } from "./events.ts";
import { type GrpoOptions, type GrpoSettings, grpoSchema, type PromptRecord } from "./grpo-options.ts";
import { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
import { encodePrompts, fingerprintOf, readPrompts, splitPrompts, storyPrompts } from "./prompt-source.ts";
import { openRewards } from "./reward-source.ts";
import { isComplete, locateRun, loopSettingsOf, openFormer, recordOf, settingsOf } from "./training-run.ts";

export interface GrpoContext {
  backend: Backend;
  /** Lets the running step finish and be saved. A rollout that takes longer is given up, and the steps before it are saved. */
  signal?: AbortSignal;
  /** Seconds that rewards and rollouts get to finish after an abort. Default 10. */
  graceSeconds?: number;
  /** Called once the run folder exists. */
  onRun?: (run: RunDirectory) => void;
}

/** Settings that may differ at resume. Besides the loop's: what is only shown, waited for, or kept by its content (see the fingerprints). */
export const changeableAlignment: readonly string[] = [
  ...changeableSettings,
  "data",
  "prompts",
  "heldOut",
  "sampleRows",
  "rewardTimeout",
  "rolloutRows",
  "rewards",
];

/**
 * Aligns a model. The first events are stages (model, prompts), then those of the step loop.
 * @throws UsageError, DataError, FormatError, CheckpointError, RewardError, NotFiniteError, AbortedError: see their messages.
 */
export async function* grpo(options: GrpoOptions, { backend, signal, graceSeconds = 10, onRun }: GrpoContext): AsyncGenerator<RunEvent> {
  const { prompts: givenPrompts = [], rewards: givenRewards = [], ...rest } = options;
  const settings = parseOptions(grpoSchema, {
    ...rest,
    prompts: givenPrompts.map((prompt) => (typeof prompt === "string" ? prompt : prompt.prompt)),
    rewards: givenRewards.map(nameOf),
  });
  const resume = settings.resume === undefined ? undefined : locateRun(settings.resume);
  const former = resume && openFormer(resume.run, "alignment");
  for (const message of ignoredSettings({ ...settings })) yield warning(message);

  if (settings.model === undefined) throw new UsageError("model: expected a checkpoint folder or file, got none");
  const path = resolveModel(settings.model);
  const decoder = loadDecoder(path);
  const tokenizerPath = settings.tokenizer ?? tokenizerBeside(path);
  const tokenizer = loadTokenizer(tokenizerPath);
  if (tokenizer.vocabSize > decoder.config.vocabSize)
    throw new UsageError(`tokenizer: expected at most ${decoder.config.vocabSize} tokens for this model, got ${tokenizer.vocabSize}`, {
      hint: "Use the tokenizer of this model.",
    });
  const { layers, width, contextLength } = decoder.config;
  const parameters = decoder.parameters.layout.leaves.reduce((sum, { length }) => sum + length, 0);
  yield stage(
    "model",
    `model: ${(parameters / 1e6).toFixed(2)} M parameters, ${layers} layers of width ${width}, context ${contextLength}`,
    {
      progress: 1,
      metrics: { parameters },
    },
  );
  const { train, heldOut } = await collectPrompts(settings, givenPrompts, tokenizer, path);
  yield stage("prompts", `prompts: ${train.length} for training, ${heldOut.length} for evaluation`, { progress: 1 });
  if (givenRewards.length === 0)
    throw new UsageError("rewards: expected at least one reward function, got none", {
      hint: "For example contains:cat, or a module of yours.",
    });
  const rewards = await openRewards(givenRewards);

  const isEvaluated = heldOut.length > 0 && settings.evaluateEvery > 0;
  if ((settings.keepBest || settings.earlyStopping) && !isEvaluated)
    throw new UsageError("keepBest, earlyStopping: expected evaluations, got none", {
      hint: "Set validation (or heldOut) and evaluateEvery above 0.",
    });
  const config = recordOf(settings, {
    // A record's columns may be anything; texts alone can be given again at resume.
    ...(givenPrompts.every((prompt) => typeof prompt === "string") ? {} : { prompts: [] }),
    promptsFingerprint: fingerprintOf([...train, ...heldOut]),
    rewardNames: rewards.map(nameOf),
  });
  let run = former;
  const trainer = new GroupPolicyTrainer(
    backend,
    decoder,
    dataOf(settings, { train, heldOut: isEvaluated ? heldOut : [] }, rewards, tokenizer, path),
    { ...settingsOf(groupPolicySchema, settings), totalSteps: settings.steps, seed: deriveSeed(settings.seed, "grpo") },
    {
      signal: signal && afterGrace(signal, graceSeconds),
      saveExtras: (directory) => copyTokenizer(tokenizerPath, directory),
      configFields: { bos_token_id: tokenizer.specialIds.bos, eos_token_id: tokenizer.specialIds.eos },
    },
  );
  try {
    if (former && former.checkpoints.steps().length === 0)
      yield warning(`${former.path}: there is no checkpoint yet; the run starts from the beginning`);
    run ??= createRunDirectory({ root: settings.runs, name: settings.name, config });
    onRun?.(run);
    const loop = runLoop(
      trainer,
      {
        ...loopSettingsOf(settings),
        evaluateEvery: isEvaluated ? settings.evaluateEvery : 0,
        evaluateFirst: isEvaluated,
        ...(settings.keepBest ? { keepBest: { metric: "reward", mode: "max" as const } } : {}),
        checkpoints: run.checkpoints,
        config,
        changeable: changeableAlignment,
        ...(resume && run.checkpoints.steps().length > 0 ? { resume: resume.checkpoint } : {}),
      },
      signal,
    );
    yield* withSinks(settings.sampleEvery > 0 ? withOuterSamples(loop, trainer) : loop, run.sinks());
  } finally {
    trainer.dispose();
  }
}

const nameOf = (reward: string | RewardInput): string => (typeof reward === "string" ? reward : reward.name);

async function collectPrompts(
  settings: GrpoSettings,
  given: readonly (string | PromptRecord)[],
  tokenizer: Tokenizer,
  model: string,
): Promise<{ train: Prompt[]; heldOut: Prompt[] }> {
  const texts = given.map((prompt): PromptRecord => (typeof prompt === "string" ? { prompt } : prompt));
  let records = [...texts, ...(await readPrompts(settings.data, settings.field))];
  if (records.length === 0 && /stories\d+[KM]\.bin$/i.test(model)) records = [...storyPrompts];
  if (records.length === 0)
    throw new UsageError("prompts: expected texts or files of prompts, got none", { hint: "Give --data prompts.jsonl or --prompts." });
  const held = await readPrompts(settings.heldOut, settings.field);
  if (held.length > 0) return { train: encodePrompts(records, tokenizer), heldOut: encodePrompts(held, tokenizer) };
  return splitPrompts(encodePrompts(records, tokenizer), settings.validation, settings.seed);
}

function dataOf(
  settings: GrpoSettings,
  { train, heldOut }: { train: Prompt[]; heldOut: Prompt[] },
  rewards: readonly RewardInput[],
  tokenizer: Tokenizer,
  model: string,
): GroupPolicyData {
  const { bos, eos } = tokenizer.specialIds;
  // Models of llama2.c begin the next story where a story ends.
  const ends = settings.endTokens ?? [eos, ...(model.endsWith(".bin") ? [bos] : [])].filter((id) => id !== undefined);
  return {
    prompts: train,
    ...(heldOut.length > 0 ? { heldOut } : {}),
    rewards,
    endTokenIds: ends,
    // Decoded behind its prompt, because tokenizers treat the beginning of a text in their own ways.
    textOf: ({ ids }, completionIds) => {
      const [before, whole] = [tokenizer.decode(ids), tokenizer.decode([...ids, ...completionIds])];
      return whole.startsWith(before) ? whole.slice(before.length) : tokenizer.decode(completionIds);
    },
  };
}

/** Aborts some time after another signal. */
function afterGrace(signal: AbortSignal, seconds: number): AbortSignal {
  const controller = new AbortController();
  signal.addEventListener("abort", () => setTimeout(() => controller.abort(signal.reason), seconds * 1000).unref(), { once: true });
  return controller.signal;
}

/** Completions of the first step and of the last, where the loop told none. */
async function* withOuterSamples(events: AsyncGenerator<RunEvent>, trainer: GroupPolicyTrainer): AsyncGenerator<RunEvent> {
  let sampledAt = -1;
  for await (const event of events) {
    const { step, total } = event;
    const sample = (): RunEvent => ({ kind: "sample", step, total, time: Date.now(), sample: trainer.sample() });
    if (event.kind === "sample") sampledAt = step;
    if (isComplete(event) && sampledAt !== step) {
      const { sample: rows } = sample() as Extract<RunEvent, { kind: "sample" }>;
      if (rows.length > 0) yield sample();
    }
    yield event;
    if (event.kind === "step" && step === 1) {
      sampledAt = 1;
      yield sample();
    }
  }
}
