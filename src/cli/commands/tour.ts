// `longwave tour`: the three verbs on real models in a few minutes, and a page that shows what happened.
import type { JsonRecord } from "../../engine/index.ts";
import { type TourPart, tourSchema } from "../../recipes/tour.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatBytes, formatDuration } from "../render/format.ts";
import { createProgress, type Progress } from "../render/progress.ts";
import { acknowledgeInterrupt, resumableError } from "../training-run.ts";

const headings: Record<TourPart, { title: string; show: readonly string[] }> = {
  train: { title: "1. train: a tokenizer and a small language model on two centuries of speeches", show: ["learningRate", "mfu"] },
  align: {
    title: "2. align: a model of children's stories learns from two reward functions (GRPO)",
    show: ["kl", "entropy", "completions/mean_length"],
  },
  accelerate: { title: "3. accelerate: Medusa heads draft that model's next tokens, without changing its text", show: ["learningRate"] },
};

export const tour = defineCommand({
  name: "tour",
  summary: "Train, align and accelerate in four minutes, with a page to look at",
  description: [
    "Three real runs on this machine, and report.html with their curves, texts, rewards and a drawn token tree.",
    "Each part is also a command of its own: pretrain, grpo, train-drafter, generate --drafter, report.",
  ].join("\n"),
  schema: tourSchema,
  examples: [
    { command: "tour", note: "everything" },
    { command: "tour --parts align --align-steps 20", note: "one part, shorter" },
  ],
  run: async (options, context: CommandContext) => {
    const { tour: run } = await import("../../recipes/tour.ts");
    const { backend, fallbackReason } = await context.openRuntime();
    if (fallbackReason) context.stderr.write(`warning: the slower binding backend is used: ${fallbackReason}\n`);
    const started = performance.now();
    let progress: Progress | undefined;
    let folder = "";
    const runs: Partial<Record<TourPart, string>> = {};
    let part: TourPart | undefined;
    let speculation: JsonRecord | undefined;
    let step: number | undefined;
    const ignoreInterrupt = acknowledgeInterrupt(context, () => step);
    try {
      const onPart = (begun: TourPart, tourFolder: string): void => {
        progress?.close();
        part = begun;
        step = undefined;
        folder = tourFolder;
        const { title, show } = headings[begun];
        context.print(`\n${context.stdout.colors.bold(title)}`);
        progress = createProgress(context.stdout, {
          phrase: context.phrase,
          alsoShow: show,
          ...(begun === "align" ? { metric: "reward" } : {}),
        });
      };
      const onRun = (part: TourPart, path: string): void => {
        runs[part] = context.phrase(path);
        context.print(`run folder: ${runs[part]}`);
      };
      for await (const event of run(options, { backend, signal: context.signal, onPart, onRun })) {
        if (part && runs[part] !== undefined) step = event.step;
        progress?.handle(event);
        if (event.kind === "artifact" && event.name === "speculation") speculation = event.data;
      }
      if (speculation) context.print(speculationText(speculation));
    } catch (error) {
      const unfinished = part && runs[part];
      throw part && unfinished ? resumableError(error, context, commands[part], unfinished) : error;
    } finally {
      ignoreInterrupt();
      progress?.close();
      // What was finished is worth a look even when the rest was interrupted.
      if (folder !== "") await writePage(folder, context);
    }
    for (const line of nextSteps(runs)) context.print(`try it:     ${context.program} ${line}`);
    context.print(`the tour took ${formatDuration((performance.now() - started) / 1000)}`);
  },
});

/** The command of each part. */
const commands: Record<TourPart, string> = { train: "pretrain", align: "grpo", accelerate: "train-drafter" };

/** Commands that use what the parts made. */
function nextSteps({ train, align, accelerate }: Partial<Record<TourPart, string>>): string[] {
  const lines = train === undefined ? [] : [`generate ${train} --prompt "The people of the United States"`];
  const drafter = accelerate === undefined ? "" : ` --drafter ${accelerate}`;
  if (align !== undefined) lines.push(`generate ${align} --prompt "Once upon a time"${drafter}`);
  return lines;
}

function speculationText({ ratio, tokensPerStep, identical }: JsonRecord): string {
  const factor = typeof ratio === "number" ? `${ratio.toFixed(2)} times as fast` : "not measured";
  const tokens = typeof tokensPerStep === "number" ? `, ${tokensPerStep.toFixed(2)} tokens a step` : "";
  return `with drafts: ${factor}${tokens}; greedy text ${identical === true ? "identical" : "different"}`;
}

async function writePage(folder: string, context: CommandContext): Promise<void> {
  const { writeReport } = await import("../../report/index.ts");
  const { commandLineOf, phraseOf } = await import("../reproduce.ts");
  try {
    const { path, bytes } = await writeReport(folder, {
      commands: async (record) => [(await commandLineOf(record, context.commands, context.program)) ?? []].flat(),
      phrase: (record) => phraseOf(record, context.commands, context),
    });
    context.print(`\nlook at it: ${context.phrase(path)} (${formatBytes(bytes)})`);
  } catch (error) {
    // The reason for stopping is what the user needs to see, not that there is nothing to draw.
    if (!context.signal.aborted) throw error;
  }
}
