// Flags of the commands that generate text: which model, how its weights are held, how it speculates; and opening it with them.
import { z } from "zod";
import type { TextModel } from "../recipes/text-model/text-model.ts";
import type { CommandContext } from "./command.ts";

export const modelFields = {
  model: z
    .string()
    .min(1)
    .describe("Checkpoint folder, run folder (its latest checkpoint), .gguf or llama2.c .bin file, or owner/name on the hub."),
  tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model, or in it."),
  weights: z
    .enum(["stored", "f32", "q8", "q4"])
    .default("stored")
    .describe("How matrices are held: as they are stored, as floats, or quantised to 8 or 4 bits while loading."),
  speculate: z
    .string()
    .default("none")
    .describe(
      "Drafts for faster generation: none, lookup, suffix, draft:<smaller model>, or a folder of trained heads. Options follow: lookup,numTokens=8.",
    ),
  exact: z
    .boolean()
    .default(false)
    .describe(
      "Run every call with one number of tokens, so that text is the same to the last bit with and without drafts (chains, cut to 7).",
    ),
  context: z.int().min(1).optional().describe("Positions of the cache. Default: the model's context length, at most 4096."),
  offline: z.boolean().default(false).describe("Never download: take what the hub's cache holds."),
} as const;

/** Root and drafts of a call under --exact. */
const exactBlock = 8;

/** Opens a model with these flags; downloads show their progress. */
export async function openTextModel(
  options: z.output<z.ZodObject<typeof modelFields>>,
  context: CommandContext,
  drafting: { draw?: boolean } = {},
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
    ...(drafting.draw ? { drawDrafts: true } : {}),
  });
  if (progress !== "" && context.stderr.isTTY) context.stderr.write("\r\x1b[K");
  const limit = opened.config.contextLength;
  if (capacity !== undefined && capacity > limit && opened.config.position === "rotary")
    context.stderr.write(`warning: the model was trained for a context of ${limit} tokens, not ${capacity}\n`);
  return opened;
}
