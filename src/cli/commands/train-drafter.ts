// `longwave train-drafter <model> --kind medusa|draft`: a model in, a drafter that makes it generate faster out.
import type { z } from "zod";
import type { SpeculationReport } from "../../recipes/index.ts";
import {
  savedDrafterSettings,
  type TrainDrafterOptions,
  tourAccelerateOptions,
  trainDrafterSchema,
} from "../../recipes/train-drafter-options.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { table } from "../render/table.ts";
import { followTraining, resumable } from "../training-run.ts";

async function execute(options: z.output<typeof trainDrafterSchema>, context: CommandContext): Promise<void> {
  const { trainDrafter: run } = await import("../../recipes/train-drafter.ts");
  let report: SpeculationReport | undefined;
  const folder = await followTraining(context, (hooks) => run(options as TrainDrafterOptions, hooks), {
    name: "train-drafter",
    progress: { alsoShow: ["learningRate", "gradientNorm"] },
    onEvent: (event) => {
      if (event.kind === "artifact" && event.name === "speculation") report = event.data as unknown as SpeculationReport;
    },
  });
  const { program } = context;
  context.print();
  if (report) context.print(describe(report).trimEnd());
  context.print();
  context.print(
    options.kind === "draft"
      ? `generate with it:  ${program} generate ${options.model} --weights ${options.weights} --speculate draft:${folder}`
      : `generate with it:  ${program} generate ${options.model} --drafter ${folder} --no-do-sample`,
  );
  context.print(`look at the run:   ${program} report ${folder}`);
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
    ["tokens a step", `${tokensPerStep.toFixed(2)} from trees of at most ${treeSize} nodes`],
    ["accepted", acceptanceByPosition.map(share).join(", ")],
    ["greedy text", identical ? "identical" : `differs: ${difference}`],
    ["cost", costCurve.map(({ tokens, milliseconds }) => `v(${tokens}) ${(milliseconds / one.milliseconds).toFixed(2)}`).join(", ")],
  ]);
}

export const trainDrafter = resumable(
  defineCommand({
    name: "train-drafter",
    summary: "Train heads, or a small model, that make a model generate faster",
    description: [
      "Lets the model write texts and trains what guesses its next tokens: Medusa heads on the frozen model (--kind medusa), or a small model",
      "of its own that knows the frequent tokens (--kind draft; it works with GGUF files and in every mode of decoding). Measures what it",
      "gives on this machine. Generation with either gives the same text, faster.",
    ].join("\n"),
    schema: trainDrafterSchema,
    positionals: ["model"],
    presets: { tour: { summary: "half a minute for a model of stories", values: tourAccelerateOptions } },
    examples: [
      { command: "train-drafter assets/stories260k/stories260K.bin --preset tour", note: "heads for a small model in half a minute" },
      { command: "train-drafter my-model --medusa.heads 5 --tokens 1000000 --steps 2000", note: "for one of your own" },
      { command: "train-drafter model.gguf --kind draft --steps 3000", note: "a small draft model for an instruct model" },
      { command: "train-drafter --resume runs/20260131-120000-train-drafter", note: "go on with a run that was interrupted" },
    ],
    run: execute,
  }),
  savedDrafterSettings,
);
