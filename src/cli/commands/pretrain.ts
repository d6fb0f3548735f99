// `longwave pretrain` and `longwave quickstart`: text in, a language model and its run folder out.
import type { z } from "zod";
import type { SettingsLayer } from "../../base/schema.ts";
import { type RunEvent, tokensPerSecond } from "../../engine/index.ts";
import { decoderPresets } from "../../models/decoder/presets.ts";
import { type PretrainOptions, pretrainSchema, quickstartOptions, pretrain as run, savedSettings } from "../../recipes/index.ts";
import { type Command, type CommandContext, defineCommand } from "../command.ts";
import { formatCount, formatMetric } from "../render/format.ts";
import { createProgress } from "../render/progress.ts";
import { table } from "../render/table.ts";

const sizes = Object.entries(decoderPresets).map(([name, { summary }]) => `  ${name.padEnd(14)}${summary}`);

async function execute(options: z.output<typeof pretrainSchema>, context: CommandContext): Promise<void> {
  const { backend, fallbackReason } = await context.openRuntime();
  if (fallbackReason) context.stderr.write(`warning: the slower binding backend is used: ${fallbackReason}\n`);
  const progress = createProgress(context.stdout, { alsoShow: ["learningRate", "gradientNorm", "mfu"] });
  const summary = new Summary();
  let folder = "";
  try {
    const onRun = ({ path }: { path: string }): void => {
      folder = path;
      context.print(`run folder: ${folder}`);
    };
    for await (const event of run(options as PretrainOptions, { backend, signal: context.signal, onRun })) {
      progress.handle(event);
      summary.add(event);
    }
  } catch (error) {
    progress.close();
    if (folder !== "" && context.signal.aborted) context.stderr.write(`go on with it:  longwave pretrain --resume ${folder}\n`);
    throw error;
  } finally {
    progress.close();
  }
  context.print();
  context.print(summary.text().trimEnd());
  context.print();
  context.print(`generate from it:  longwave generate ${folder} --prompt ${JSON.stringify(options.samplePrompt)}`);
  context.print(`train it further:  longwave pretrain --resume ${folder} --steps <more>`);
  context.print(`look at the run:   ${folder}/metrics.jsonl, or tensorboard --logdir ${folder}`);
}

/** What a run came to, from its events. */
class Summary {
  readonly #rates: number[] = [];
  #training: { first: number; last: number } | undefined;
  #validation: { first: number; last: number; bitsPerByte?: number } | undefined;
  #end: Extract<RunEvent, { kind: "run-end" }> | undefined;

  add(event: RunEvent): void {
    if (event.kind === "step") {
      const { loss } = event.metrics;
      this.#training = { first: this.#training?.first ?? loss, last: loss };
      this.#rates.push(tokensPerSecond(event));
    } else if (event.kind === "evaluation") {
      const { loss, bitsPerByte } = event.metrics;
      this.#validation = { first: this.#validation?.first ?? loss, last: loss, bitsPerByte };
    } else if (event.kind === "run-end") this.#end = event;
  }

  text(): string {
    const losses = ({ first, last }: { first: number; last: number }): string =>
      first === last ? formatMetric(last) : `${formatMetric(first)} → ${formatMetric(last)}`;
    const rows: string[][] = [];
    if (this.#training) rows.push(["training loss", losses(this.#training)]);
    if (this.#validation) {
      const { bitsPerByte } = this.#validation;
      rows.push([
        "validation loss",
        losses(this.#validation) + (bitsPerByte === undefined ? "" : `, ${formatMetric(bitsPerByte)} bits a byte`),
      ]);
    }
    const best = this.#end?.best;
    if (best && this.#end && best.step !== this.#end.step) rows.push(["best", `${formatMetric(best.value)} at step ${best.step}`]);
    if (this.#rates.length > 0) rows.push(["speed", `${formatCount(median(this.#rates))} tokens/s (median)`]);
    if (this.#end?.checkpoint !== undefined) rows.push(["checkpoint", this.#end.checkpoint]);
    return table(rows);
  }
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** With --resume, the settings of that run lie under the flags, so that they need not be repeated. */
function resumable(command: Command): Command {
  return {
    ...command,
    execute: async (layers, context) => {
      const given = layers.map(({ values }: SettingsLayer) => (values as PretrainOptions).resume);
      const resume = given.findLast((path) => path !== undefined);
      if (resume === undefined) return command.execute(layers, context);
      const presets = Object.values(command.presets).map((preset) => preset.values);
      const numPresets = presets.includes(layers[0].values as never) ? 1 : 0;
      const saved = { values: savedSettings(resume), locate: () => `settings of ${resume}` };
      return command.execute([...layers.slice(0, numPresets), saved, ...layers.slice(numPresets)], context);
    },
  };
}

export const pretrain = resumable(
  defineCommand({
    name: "pretrain",
    summary: "Train a language model on text",
    description: [
      "Trains a tokenizer (or takes one), tokenises the data, and trains a decoder on it. Everything goes into a run folder:",
      "checkpoints as Hugging Face has them, metrics.jsonl and TensorBoard files. Ctrl-C finishes the step, saves and exits;",
      "--resume goes on from there with the run's own settings, bit for bit.",
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
      { command: "pretrain --resume runs/20260131-120000-pretrain", note: "go on with a run that was interrupted" },
      { command: "pretrain --resume runs/20260131-120000-pretrain --steps 2000", note: "train it for longer" },
    ],
    run: execute,
  }),
);

export const quickstart = resumable(
  defineCommand({
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
  }),
);
