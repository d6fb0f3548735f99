// `longwave train-drafter <model> --kind medusa`: a model in, a drafter that makes it generate faster out.
import type { z } from "zod";
import type { SettingsLayer } from "../../base/schema.ts";
import type { SpeculationReport } from "../../recipes/index.ts";
import {
  savedDrafterSettings,
  type TrainDrafterOptions,
  tourAccelerateOptions,
  trainDrafterSchema,
} from "../../recipes/train-drafter-options.ts";
import { type Command, type CommandContext, defineCommand } from "../command.ts";
import { createProgress } from "../render/progress.ts";
import { table } from "../render/table.ts";

async function execute(options: z.output<typeof trainDrafterSchema>, context: CommandContext): Promise<void> {
  const { trainDrafter: run } = await import("../../recipes/train-drafter.ts");
  const { backend, fallbackReason } = await context.openRuntime();
  if (fallbackReason) context.stderr.write(`warning: the slower binding backend is used: ${fallbackReason}\n`);
  const progress = createProgress(context.stdout, { alsoShow: ["learningRate", "gradientNorm"] });
  let folder = "";
  let report: SpeculationReport | undefined;
  try {
    const onRun = ({ path }: { path: string }): void => {
      folder = path;
      context.print(`run folder: ${folder}`);
    };
    for await (const event of run(options as TrainDrafterOptions, { backend, signal: context.signal, onRun })) {
      progress.handle(event);
      if (event.kind === "artifact" && event.name === "speculation") report = event.data as unknown as SpeculationReport;
    }
  } catch (error) {
    progress.close();
    if (folder !== "" && context.signal.aborted) context.stderr.write(`go on with it:  longwave train-drafter --resume ${folder}\n`);
    throw error;
  } finally {
    progress.close();
  }
  context.print();
  if (report) context.print(describe(report).trimEnd());
  context.print();
  context.print(`generate with it:  longwave generate ${options.model} --drafter ${folder} --no-do-sample`);
}

function describe({
  plain,
  speculative,
  ratio,
  tokensPerStep,
  acceptanceByPosition,
  identical,
  difference,
  costCurve,
  treeSize,
}: SpeculationReport): string {
  const share = (value: number): string => `${(100 * value).toFixed(0)} %`;
  const [one] = costCurve;
  return table([
    ["plain", `${plain.tokensPerSecond.toFixed(0)} tokens/s`],
    ["with drafts", `${speculative.tokensPerSecond.toFixed(0)} tokens/s, ${ratio.toFixed(2)} times as fast`],
    ["tokens a step", `${tokensPerStep.toFixed(2)} from trees of ${treeSize} nodes`],
    ["accepted", acceptanceByPosition.map(share).join(", ")],
    ["greedy text", identical ? "identical" : `differs: ${difference}`],
    ["cost", costCurve.map(({ tokens, milliseconds }) => `v(${tokens}) ${(milliseconds / one.milliseconds).toFixed(2)}`).join(", ")],
  ]);
}

/** With --resume, the settings of that run lie under the flags, so that they need not be repeated. */
function resumable(command: Command): Command {
  return {
    ...command,
    execute: async (layers, context) => {
      const resume = layers.map(({ values }: SettingsLayer) => (values as Partial<TrainDrafterOptions>).resume).findLast(Boolean);
      if (resume === undefined) return command.execute(layers, context);
      const saved = { values: savedDrafterSettings(resume), locate: () => `settings of ${resume}` };
      return command.execute([saved, ...layers], context);
    },
  };
}

export const trainDrafter = resumable(
  defineCommand({
    name: "train-drafter",
    summary: "Train heads that make a model generate faster",
    description: [
      "Lets the model write texts, trains Medusa heads to guess several of its tokens ahead while it is frozen, measures what verifying",
      "guesses costs on this machine, and chooses how many to make. Generation with the heads gives the same text, faster.",
    ].join("\n"),
    schema: trainDrafterSchema,
    positionals: ["model"],
    presets: { tour: { summary: "half a minute for a model of stories", values: tourAccelerateOptions } },
    examples: [
      { command: "train-drafter assets/stories260k/stories260K.bin --preset tour", note: "heads for a small model in half a minute" },
      { command: "train-drafter my-model --medusa.heads 5 --tokens 1000000 --steps 2000", note: "for one of your own" },
      { command: "train-drafter --resume runs/20260131-120000-train-drafter", note: "go on with a run that was interrupted" },
    ],
    run: execute,
  }),
);
