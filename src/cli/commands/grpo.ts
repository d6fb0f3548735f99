// `longwave grpo <model>`: a model, prompts and reward functions in, an aligned model and its run folder out.
import type { z } from "zod";
import type { RunEvent } from "../../engine/index.ts";
import {
  changeableAlignment,
  type GrpoOptions,
  grpoSchema,
  grpo as run,
  savedGrpoSettings,
  tourAlignOptions,
} from "../../recipes/index.ts";
import { groupPolicyPresets, namedRewardUsages } from "../../rl/index.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { grpoHeadings } from "../headings.ts";
import { formatMetric } from "../render/format.ts";
import { table } from "../render/table.ts";
import { followTraining, resumable } from "../training-run.ts";

async function execute(options: z.output<typeof grpoSchema>, context: CommandContext): Promise<void> {
  const summary = new Summary();
  const folder = await followTraining(context, (hooks) => run(options as GrpoOptions, hooks), {
    name: "grpo",
    progress: { alsoShow: ["reward", "reward_std", "kl", "entropy", "completions/mean_length"] },
    shown,
    onEvent: (event) => summary.add(event),
  });
  const { program } = context;
  context.print();
  context.print(context.phrase(summary.text()).trimEnd());
  context.print();
  context.print(`generate from it:  ${program} generate ${folder}`);
  context.print(`train it further:  ${program} grpo --resume ${folder} --steps ${2 * summary.steps}`);
  context.print(`look at the run:   ${program} report ${folder}`);
}

const shownRows = 3;
const shownMetrics = /^(reward|reward_stderr|rewards\/.*\/mean|kl|entropy|completions\/mean_length)$/;

/** An event as the terminal shows it: few completions, as text, and the metrics that matter most. The files have them all. */
function shown(event: RunEvent): RunEvent {
  if (event.kind === "evaluation")
    return { ...event, metrics: Object.fromEntries(Object.entries(event.metrics).filter(([name]) => shownMetrics.test(name))) };
  if (event.kind !== "sample" || typeof event.sample === "string") return event;
  // From the first completion to the last, of whatever prompts.
  const step = Math.max(1, Math.floor(event.sample.length / shownRows));
  const rows = event.sample.filter((_, i) => i % step === 0).slice(0, shownRows);
  const lines = rows.map(({ prompt, completion, reward }) => {
    const text = `${prompt}${completion}`.replaceAll(/\s+/g, " ");
    return `[${typeof reward === "number" ? formatMetric(reward) : "no reward"}] ${text.length > 160 ? `${text.slice(0, 157)}...` : text}`;
  });
  return { ...event, sample: lines.join("\n") };
}

/** What a run came to, from its events. */
class Summary {
  #first: Readonly<Record<string, number>> | undefined;
  #last: Readonly<Record<string, number>> | undefined;
  #end: Extract<RunEvent, { kind: "run-end" }> | undefined;
  #resumedAt: number | undefined;

  /** Of the whole run. */
  get steps(): number {
    return Math.max(this.#end?.step ?? 0, this.#end?.total ?? 0);
  }

  add(event: RunEvent): void {
    if (event.kind === "run-start" && event.resumedFrom !== undefined) this.#resumedAt = event.step;
    if (event.kind === "evaluation") {
      this.#first ??= event.metrics;
      this.#last = event.metrics;
    } else if (event.kind === "run-end") this.#end = event;
  }

  text(): string {
    const rows: string[][] = [];
    const change = (name: string): string => {
      const [from, to] = [this.#first?.[name], this.#last?.[name]];
      return from === undefined || to === undefined ? "" : `${formatMetric(from)} → ${formatMetric(to)}`;
    };
    // The evaluation before a resume was told then.
    const since = this.#resumedAt === undefined ? "" : ` since step ${this.#resumedAt}`;
    if (this.#first && this.#last) {
      rows.push(["reward on held-out prompts", `${change("reward")} ± ${formatMetric(this.#last.reward_stderr ?? 0)}${since}`]);
      for (const name of Object.keys(this.#last)) {
        const reward = /^rewards\/(.*)\/mean$/.exec(name)?.[1];
        if (reward !== undefined) rows.push([`  ${reward}`, change(name)]);
      }
      rows.push(["KL to the start model, nats a token", formatMetric(this.#last.kl ?? 0)]);
      rows.push(["length, tokens", change("completions/mean_length")]);
    }
    if (this.#end?.checkpoint !== undefined) rows.push(["checkpoint", this.#end.checkpoint]);
    return table(rows);
  }
}

export const grpo = resumable(
  defineCommand({
    name: "grpo",
    summary: "Align a model with reward functions",
    description: [
      "Group policy optimisation: several completions of each prompt, scored by reward functions, compared with each other.",
      "Everything goes into a run folder: checkpoints as Hugging Face has them, metrics.jsonl and TensorBoard files. Ctrl-C finishes the",
      "step, saves and exits; --resume goes on from there with the run's own settings, bit for bit.",
      "",
      "Rewards by name (several add up, see --reward-weights), or a module whose exported functions get { prompt, completion,",
      "completionIds, isComplete } and the columns of the prompt's record, and return a number, or null where they do not apply:",
      ...namedRewardUsages.map((usage) => `  ${usage}`),
    ].join("\n"),
    schema: grpoSchema,
    headings: grpoHeadings,
    positionals: ["model"],
    presets: {
      ...groupPolicyPresets,
      tour: { summary: "the alignment of the tour: stories with an animal that end with a full sentence", values: tourAlignOptions },
    },
    examples: [
      { command: "grpo assets/stories260k/stories260K.bin --preset tour", note: "a minute on two cores" },
      {
        command: "grpo runs/20260131-120000-pretrain --data prompts.jsonl --rewards my-rewards.mjs --num-generations 16 --beta 0.04",
        note: "a model, prompts and rewards of your own",
      },
      {
        command: "grpo runs/20260131-120000-pretrain --data prompts.jsonl --rewards contains:peace --preset dr-grpo",
        note: "another method",
      },
      { command: "grpo --resume runs/20260131-120000-grpo --steps 200", note: "go on with a run" },
    ],
    run: execute,
  }),
  (path) => ({ ...savedGrpoSettings(path) }),
  changeableAlignment,
);
