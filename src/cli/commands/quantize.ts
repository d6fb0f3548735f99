// `longwave quantize <model> <output.gguf>`: smaller and faster, with what it costs in perplexity.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { DataError, UsageError } from "../../base/errors.ts";
import type { ConversionPlan } from "../../recipes/text-model/conversion-plan.ts";
import { defineCommand } from "../command.ts";
import { formatBytes } from "../render/format.ts";
import { createLiveLine } from "../render/live-line.ts";

export const quantize = defineCommand({
  name: "quantize",
  summary: "Write a model with matrices of 8, 5 or 4 bits, and measure what that costs",
  description:
    "Perplexity before and after is measured on the beginning of a text, as the model decodes: with the kernels for blocks of bits.",
  schema: z.object({
    model: z.string().min(1).describe("Checkpoint folder, run folder, .gguf or llama2.c .bin file, or owner/name on the hub."),
    output: z.string().min(1).describe("File to write; its name ends with .gguf."),
    type: z
      .enum(["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
      .default("q8_0")
      .describe("Blocks of 32 values; _0: a scale, _1: a scale and a minimum."),
    data: z.string().optional().describe("Text to measure perplexity on. Default: State of the Union addresses."),
    tokens: z.int().min(0).default(2048).describe("Tokens of it; 0: do not measure."),
    tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: the model's own."),
    allowRequantize: z
      .boolean()
      .default(false)
      .describe("Quantise also a model that is quantised already (the errors of both add up), or that does not become smaller."),
    overwrite: z.boolean().default(false).describe("Replace what is there."),
    offline: z.boolean().default(false).describe("Never download."),
  }),
  positionals: ["model", "output"],
  hasJson: true,
  examples: [{ command: "quantize smol/ smol-q4.gguf --type q4_0", note: "4 bits a weight and a scale for every 32" }],
  run: async ({ model, output, type, data, tokens, ...options }, context) => {
    if (!output.toLowerCase().endsWith(".gguf"))
      throw new UsageError(`output: expected a name that ends with .gguf, got ${output}`, {
        hint: "Quantised weights are stored as GGUF.",
      });
    const { convertModel } = await import("../../recipes/text-model/convert-model.ts");
    const { loadModel } = await import("../../recipes/text-model/load-model.ts");
    const { measurePerplexity } = await import("../../recipes/text-model/perplexity.ts");
    const { signal } = context;
    const line = createLiveLine(context.stderr);
    try {
      const text = tokens === 0 ? "" : await textOf(data, 8 * tokens);
      let sourceBytes = 0;
      const onPlan = (plan: ConversionPlan): void => {
        sourceBytes = plan.sourceBytes;
        line.clear();
        if (!context.json) context.print(planText(model, plan));
        line.update(() => `writing ${output}`);
      };
      line.update(() => `reading ${model}`);
      const { path, bytes, source } = await convertModel(model, output, { ...options, dtype: type, signal, onPlan });
      const result: Record<string, unknown> = { path, bytes, sourceBytes, type };
      line.clear();
      if (!context.json) context.print(`${path}: ${formatBytes(bytes)}, with the tokenizer`);
      if (tokens > 0) {
        const ids = source.tokenizer.encode(text).subarray(0, tokens);
        const { backend } = await context.openRuntime();
        const measure = (name: string, what: Parameters<typeof measurePerplexity>[1]) =>
          measurePerplexity(backend, what, ids, {
            signal,
            onProgress: (done, total) => line.update(() => `perplexity ${name}: ${done}/${total} tokens`),
          });
        const before = await measure("before", source.model);
        const after = await measure("after", (await loadModel(path)).model);
        line.clear();
        Object.assign(result, { before, after });
        if (!context.json) {
          context.print(
            `perplexity on ${before.tokens} tokens of ${data ?? "State of the Union addresses"}: ${before.perplexity.toFixed(3)} before, ${after.perplexity.toFixed(3)} after`,
          );
          context.print(`loss: ${before.loss.toFixed(4)} and ${after.loss.toFixed(4)} nats a token`);
        }
      }
      if (context.json) context.printJson(result);
    } finally {
      line.clear();
    }
  },
});

/** What is about to happen to the weights: `smol/: weights of 257 MiB (bf16) become about 140 MiB (q8_0)`. */
export const planText = (model: string, { sourceBytes, bytes, sourceTypes, dtype }: ConversionPlan): string =>
  `${model}: weights of ${formatBytes(sourceBytes)} (${sourceTypes.join(", ")}) become about ${formatBytes(Math.round(bytes))} (${dtype})`;

/** The beginning of a text. @throws DataError for a file that cannot be read. */
async function textOf(path: string | undefined, characters: number): Promise<string> {
  if (path === undefined) {
    const { stateOfTheUnion } = await import("../../data/index.ts");
    let text = "";
    for await (const { text: document } of stateOfTheUnion().documents()) {
      text += `${document}\n`;
      if (text.length >= characters) break;
    }
    return text.slice(0, characters);
  }
  try {
    return readFileSync(path, "utf8").slice(0, characters);
  } catch (cause) {
    throw new DataError(`${path}: expected a text file, got none`, { hint: "Check the path.", cause });
  }
}
