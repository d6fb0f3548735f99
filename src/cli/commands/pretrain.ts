// `longwave pretrain` and `longwave quickstart`: text in, a language model and its run folder out.
import type { z } from "zod";
import { type RunEvent, tokensPerSecond } from "../../engine/index.ts";
import { decoderPresets } from "../../models/decoder/presets.ts";
import {
  changeablePretraining,
  type PretrainOptions,
  pretrainSchema,
  quickstartOptions,
  pretrain as run,
  savedSettings,
} from "../../recipes/index.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { pretrainHeadings } from "../headings.ts";
import { formatCount, formatMetric } from "../render/format.ts";
import { table } from "../render/table.ts";
import { followTraining, resumable } from "../training-run.ts";

const sizes = Object.entries(decoderPresets).map(([name, { summary }]) => `  ${name.padEnd(14)}${summary}`);

async function execute(options: z.output<typeof pretrainSchema>, context: CommandContext): Promise<void> {
  const summary = new Summary();
  const folder = await followTraining(context, (hooks) => run(options as PretrainOptions, hooks), {
    name: "pretrain",
    progress: { alsoShow: ["learningRate", "gradientNorm", "mfu"] },
    onEvent: (event) => summary.add(event),
  });
  const { program } = context;
  context.print();
  context.print(context.phrase(summary.text()).trimEnd());
  context.print();
  context.print(`generate from it:  ${program} generate ${folder} --prompt ${JSON.stringify(options.samplePrompt)}`);
  context.print(`train it further:  ${program} pretrain --resume ${folder} --steps ${2 * summary.steps}`);
  context.print(`look at the run:   ${program} report ${folder}   (or tensorboard --logdir ${folder})`);
}

/** What a run came to, from its events. */
class Summary {
  readonly #rates: number[] = [];
  #training: { first: number; last: number } | undefined;
  #validation: { first: number; last: number; bitsPerByte?: number } | undefined;
  #end: Extract<RunEvent, { kind: "run-end" }> | undefined;
  #resumedAt: number | undefined;

  /** Of the whole run. */
  get steps(): number {
    return Math.max(this.#end?.step ?? 0, this.#end?.total ?? 0);
  }

  add(event: RunEvent): void {
    if (event.kind === "run-start" && event.resumedFrom !== undefined) this.#resumedAt = event.step;
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
    // Times and tokens are those of the whole run; what was seen is what came after the resume.
    const since = this.#resumedAt === undefined ? "" : ` since step ${this.#resumedAt}`;
    const losses = ({ first, last }: { first: number; last: number }): string =>
      first === last ? formatMetric(last) : `${formatMetric(first)} → ${formatMetric(last)}${since}`;
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
    headings: pretrainHeadings,
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
  savedSettings,
  changeablePretraining,
);

export const quickstart = resumable(
  defineCommand({
    name: "quickstart",
    summary: "Train a small language model on real text in two minutes",
    description:
      "A tokenizer and a small decoder on two centuries of State of the Union addresses (public domain, installed with the package).",
    schema: pretrainSchema,
    headings: pretrainHeadings,
    positionals: ["data"],
    presets: { quickstart: { summary: "4 layers of width 192, 500 steps of 2,048 tokens", values: quickstartOptions } },
    defaultPreset: "quickstart",
    examples: [
      { command: "quickstart", note: "the whole pipeline" },
      { command: "quickstart --steps 100", note: "shorter" },
    ],
    run: execute,
  }),
  savedSettings,
  changeablePretraining,
);
