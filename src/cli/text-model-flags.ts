// Flags of the commands that generate text: which model, how its weights are held, how it speculates; and opening it with them.
import { z } from "zod";
import { samplingOptions } from "../decode/sampling/options.ts";
import type { TextModel } from "../recipes/text-model/text-model.ts";
import type { CommandContext } from "./command.ts";

export const modelFields = {
  model: z
    .string()
    .min(1)
    .describe("Checkpoint folder, run folder (its latest checkpoint), .gguf or llama2.c .bin file, or owner/name on the hub."),
  ...grouped("Model", {
    tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model, or in it."),
    weights: z
      .enum(["stored", "f32", "q8", "q4"])
      .default("stored")
      .describe("How matrices are held in memory: as they are stored, as float32, or quantised to 8 or 4 bits while loading."),
    context: z
      .int()
      .min(1)
      .optional()
      .describe("Tokens that prompt and answer have room for. Default: the model's own limit, at most 4096."),
    offline: z.boolean().default(false).describe("Never download: take what the hub's cache holds."),
  }),
} as const;

export const speculationFields = grouped("Speculation", {
  speculate: z
    .string()
    .default("none")
    .describe(
      "Drafts that the model only checks, for faster generation: none, lookup, suffix, draft:<smaller model>, or a folder of trained heads. Options follow: lookup,numTokens=8.",
    ),
  exact: z
    .boolean()
    .default(false)
    .describe("The same text to the last bit with and without drafts: every call runs on 8 tokens, and at most 7 are drafted."),
});

/** Sampling settings under headings. One that is new is listed under Sampling. */
export const samplingFields: typeof samplingOptions.shape = {
  ...grouped("Sampling", samplingOptions.shape),
  ...grouped("Sampling", {
    doSample: samplingOptions.shape.doSample.describe(
      "Draw tokens; --no-do-sample takes the most probable one each time, and ignores temperature and what cuts the distribution.",
    ),
  }),
  ...grouped(
    "Repetition",
    pick(
      "dryMultiplier",
      "dryBase",
      "dryAllowedLength",
      "dryPenaltyLastN",
      "repetitionPenalty",
      "penalizePrompt",
      "frequencyPenalty",
      "presencePenalty",
      "noRepeatNgramSize",
    ),
  ),
  ...grouped("Repetition", {
    drySequenceBreakers: samplingOptions.shape.drySequenceBreakers.describe(
      "Token sequences that no repetition reaches across, as JSON: [[198],[13,198]].",
    ),
  }),
  ...grouped("Token ids", {
    badWordsIds: samplingOptions.shape.badWordsIds.describe("Token sequences that must not be generated, as JSON: [[5],[6,7]]."),
    sequenceBias: samplingOptions.shape.sequenceBias.describe(
      "Added to the logit of the last id of a sequence when the others are the end of the text, as JSON: [[[6,7],-2.5]].",
    ),
    ...pick("suppressTokens", "beginSuppressTokens"),
  }),
  ...grouped(
    "Length",
    pick("minLength", "minNewTokens", "maxLength", "eosTokenId", "forcedBosTokenId", "forcedEosTokenId", "exponentialDecayLengthPenalty"),
  ),
};

function pick<K extends keyof typeof samplingOptions.shape>(...names: K[]): Pick<typeof samplingOptions.shape, K> {
  return Object.fromEntries(names.map((name) => [name, samplingOptions.shape[name]])) as Pick<typeof samplingOptions.shape, K>;
}

/** The same fields under one heading of the help. */
export function grouped<S extends z.ZodRawShape>(group: string, fields: S): S {
  return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, (field as z.ZodType).meta({ group })])) as unknown as S;
}

/** Root and drafts of a call under --exact. */
const exactBlock = 8;

/** Opens a model with these flags; downloads show their progress. */
export async function openTextModel(
  options: z.output<z.ZodObject<typeof modelFields & typeof speculationFields>>,
  context: CommandContext,
  { draw = false, prepare = true }: { draw?: boolean; prepare?: boolean } = {},
): Promise<TextModel> {
  const { load } = await import("../recipes/text-model/text-model.ts");
  const { backend, fallbackReason } = await context.openRuntime();
  if (fallbackReason !== undefined) context.stderr.write(`warning: the slower backend is used: ${fallbackReason}\n`);
  const { model, tokenizer, weights, speculate, context: capacity, offline, exact } = options;
  let shown = 0;
  let progress = "";
  const onProgress = (file: string, loaded: number, total: number): void => {
    if (performance.now() - shown < (context.stderr.isTTY ? 200 : 5000) && loaded < total) return;
    shown = performance.now();
    const share = total > 0 ? `${((100 * loaded) / total).toFixed(0)} %` : `${(loaded / 1e6).toFixed(1)} MB`;
    progress = `${file}: ${share}`;
    context.stderr.write(context.stderr.isTTY ? `\r\x1b[K${progress}` : `${progress}\n`);
  };
  const opened = await load(model, {
    backend,
    tokenizer,
    weights,
    offline,
    onProgress,
    signal: context.signal,
    ...(speculate === "none" ? {} : { speculate }),
    ...(capacity === undefined ? {} : { capacity }),
    ...(exact ? { exactBlock } : {}),
    ...(draw ? { drawDrafts: true } : {}),
    prepare,
  });
  if (progress !== "" && context.stderr.isTTY) context.stderr.write("\r\x1b[K");
  const limit = opened.config.contextLength;
  if (capacity !== undefined && capacity > limit && opened.config.position === "rotary")
    context.stderr.write(`warning: the model was trained for a context of ${limit} tokens, not ${capacity}\n`);
  return opened;
}
