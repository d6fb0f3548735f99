// `longwave pretrain` and `longwave quickstart`: text in, a language model and its run folder out.
import type { z } from "zod";
import { decoderPresets } from "../../models/decoder/presets.ts";
import { type PretrainOptions, pretrainSchema, pretrain as run } from "../../recipes/pretrain.ts";
import { quickstartOptions } from "../../recipes/quickstart.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { createProgress } from "../render/progress.ts";

const sizes = Object.entries(decoderPresets).map(([name, { summary }]) => `  ${name.padEnd(14)}${summary}`);

async function execute(options: z.output<typeof pretrainSchema>, context: CommandContext): Promise<void> {
  const { backend, fallbackReason } = await context.openRuntime();
  if (fallbackReason) context.stderr.write(`warning: the slower binding backend is used: ${fallbackReason}\n`);
  let folder = "";
  let samples: string[] = [];
  const progress = createProgress(context.stdout, { alsoShow: ["learningRate", "gradientNorm", "mfu"] });
  try {
    for await (const event of run(options as PretrainOptions, {
      backend,
      signal: context.signal,
      onRun: (directory) => {
        folder = directory.path;
        context.print(`run folder: ${folder}`);
      },
    })) {
      progress.handle(event);
      if (event.kind === "sample" && typeof event.sample === "string") samples = [...samples.slice(0, 1), event.sample];
    }
  } finally {
    progress.close();
  }
  context.print();
  context.print(`generate from it:  longwave generate ${folder} --prompt "${options.samplePrompt}"`);
  context.print(`look at the run:   ${folder}/metrics.jsonl, or tensorboard --logdir ${folder}`);
}

export const pretrain = defineCommand({
  name: "pretrain",
  summary: "Train a language model on text",
  description: [
    "Trains a tokenizer (or takes one), tokenises the data, and trains a decoder on it. Everything goes into a run folder:",
    "checkpoints as Hugging Face has them, metrics.jsonl and TensorBoard files. Ctrl-C finishes the step, saves and exits;",
    "--resume goes on from there, bit for bit.",
    "",
    "Sizes:",
    ...sizes,
  ].join("\n"),
  schema: pretrainSchema,
  positionals: ["data"],
  examples: [
    { command: "pretrain book.txt --steps 500", note: "a small model on one file" },
    {
      command: "pretrain 'texts/**/*.txt' --size mini --vocab-size 8192 --batch-size 8 --accumulate 4",
      note: "a larger one, 8,192 tokens an update",
    },
    { command: "pretrain book.txt --model.kv-heads 2 --optimizer.kind muon --learning-rate 0.02", note: "grouped-query attention, Muon" },
    { command: "pretrain book.txt --steps 500 --resume runs/20260131-120000-pretrain", note: "go on with a run" },
  ],
  run: execute,
});

export const quickstart = defineCommand({
  name: "quickstart",
  summary: "Train a small language model on real text in two minutes",
  description:
    "A tokenizer and a small decoder on two centuries of State of the Union addresses (public domain, installed with the package).",
  schema: pretrainSchema,
  positionals: ["data"],
  presets: { quickstart: { summary: "4 layers of width 192, 500 steps of 2,048 tokens", values: quickstartOptions } },
  defaultPreset: "quickstart",
  examples: [
    { command: "quickstart", note: "the whole pipeline" },
    { command: "quickstart --steps 100", note: "shorter" },
  ],
  run: execute,
});
