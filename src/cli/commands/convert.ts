// `longwave convert <model> <output>`: a checkpoint folder or a GGUF file from any model.
import { z } from "zod";
import type { ConversionPlan } from "../../recipes/text-model/conversion-plan.ts";
import { ggufTypes } from "../../recipes/text-model/convert-model.ts";
import { defineCommand } from "../command.ts";
import { formatBytes } from "../render/format.ts";
import { planText } from "./quantize.ts";

export const convert = defineCommand({
  name: "convert",
  summary: "Write a model in another format",
  description:
    "To a folder as Hugging Face has it (config.json, model.safetensors, tokenizer.json), or to a file whose name ends with .gguf.",
  schema: z.object({
    model: z.string().min(1).describe("Checkpoint folder, run folder, .gguf or llama2.c .bin file, or owner/name on the hub."),
    output: z.string().min(1).describe("Folder or .gguf file to write."),
    dtype: z.enum(ggufTypes).optional().describe("Type of the matrices; quantised ones only in GGUF. Default: f32, in GGUF f16."),
    tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: the model's own."),
    allowRequantize: z
      .boolean()
      .default(false)
      .describe("Quantise also a model that is quantised already (the errors of both add up), or that does not become smaller."),
    overwrite: z.boolean().default(false).describe("Replace what is there."),
    offline: z.boolean().default(false).describe("Never download."),
  }),
  positionals: ["model", "output"],
  examples: [
    { command: "convert smol.gguf smol/", note: "GGUF to a folder that transformers loads" },
    { command: "convert runs/20260131-120000-quickstart mine.gguf --dtype q8_0", note: "a run for llama.cpp" },
  ],
  run: async ({ model, output, ...options }, context) => {
    const { convertModel } = await import("../../recipes/text-model/convert-model.ts");
    const onPlan = (plan: ConversionPlan): void => context.print(planText(model, plan));
    const { path, bytes } = await convertModel(model, output, { ...options, signal: context.signal, onPlan });
    context.print(`${path}: ${formatBytes(bytes)}`);
  },
});
