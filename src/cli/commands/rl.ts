// `longwave rl`: an algorithm and an environment in, a policy and its run folder out.
import type { z } from "zod";
import type { SettingsLayer } from "../../base/schema.ts";
import type { RunEvent } from "../../engine/index.ts";
import { type ControlRunOptions, control, controlDefaults, controlRunSchema, savedControlSettings } from "../../recipes/index.ts";
import { type Command, type CommandContext, defineCommand } from "../command.ts";
import { rlHeadings } from "../headings.ts";
import { formatMetric } from "../render/format.ts";
import { table } from "../render/table.ts";
import { followTraining, resumable } from "../training-run.ts";

async function execute(options: z.output<typeof controlRunSchema>, context: CommandContext): Promise<void> {
  const evaluations: Record<string, number>[] = [];
  let seeds: string | undefined;
  let reached: number | undefined;
  let best: string | undefined;
  const folder = await followTraining(
    { ...context, openRuntime: (runtime = {}) => context.openRuntime({ threads: context.threads ?? 1, ...runtime }) },
    (hooks) => control(options as ControlRunOptions, hooks),
    {
      name: "rl",
      progress: {
        metric: "return",
        alsoShow: ["length"],
        unit: "step",
        stepName: "environment step",
      },
      shown: (event) => shown(event, context.phrase),
      onEvent: (event) => {
        if (event.kind === "evaluation") evaluations.push(event.metrics);
        if (event.kind === "stage" && event.name === "seeds") seeds = event.message;
        if (event.kind === "stage" && event.name === "finished") reached = event.metrics?.environmentSteps ?? options.steps;
        if (event.kind === "run-end")
          best = event.best ? `${formatMetric(event.best.value)} at environment step ${event.best.step}` : undefined;
      },
    },
  );
  const { program } = context;
  if (reached !== undefined) {
    context.print(`train it further:  ${program} rl --resume ${folder} --steps ${2 * Math.max(reached, options.steps)}`);
    return;
  }
  const last = evaluations.at(-1);
  const rows: string[][] = [];
  // Of several runs the last one is described; the line of the seeds is about all.
  const which = seeds === undefined ? "" : `, seed ${options.seed + options.seeds - 1}`;
  if (last)
    rows.push([
      `mean return${which}`,
      `${formatMetric(last["eval/mean_reward"])} ± ${formatMetric(last["eval/std_reward"])} over ${options.evaluationEpisodes} episode${options.evaluationEpisodes === 1 ? "" : "s"}`,
    ]);
  if (best !== undefined) rows.push([`best evaluation${which}`, best]);
  context.print();
  if (rows.length > 0) context.print(table(rows).trimEnd());
  if (seeds !== undefined) context.print(seeds);
  if (rows.length > 0 || seeds !== undefined) context.print();
  context.print(`watch it:          ${program} rl watch ${folder}`);
  context.print(`measure it:        ${program} rl evaluate ${folder} --episodes 100`);
  context.print(`use it elsewhere:  ${program} rl export ${folder}`);
  context.print(`train it further:  ${program} rl --resume ${folder} --steps ${2 * options.steps}`);
  context.print(`look at the run:   ${program} report ${folder}`);
}

/** Steps, evaluations and ends in few words; metrics.jsonl keeps the names of the metrics. */
function shown(event: RunEvent, phrase: (text: string) => string): RunEvent {
  if (event.kind === "stage" && event.name === "finished") return { ...event, message: phrase(event.message) };
  if (event.kind === "step") {
    const { "rollout/ep_rew_mean": mean, "rollout/ep_len_mean": length } = event.metrics;
    return { ...event, metrics: mean === undefined ? {} : { return: mean, length } };
  }
  if (event.kind === "run-end" && event.best) return { ...event, best: { ...event.best, metric: "mean return" } };
  if (event.kind !== "evaluation") return event;
  const { "eval/mean_reward": mean, "eval/std_reward": std, "eval/mean_ep_length": length } = event.metrics;
  return { ...event, metrics: { return: mean, deviation: std, length } };
}

/** Usual values of the algorithm, and tuned ones of the environment, lie under everything that is given. */
function withUsualValues(command: Command): Command {
  return {
    ...command,
    execute: (layers, context) => {
      // Flags that were not given are there as undefined, and must not hide what a configuration file says.
      const given = Object.fromEntries(
        layers
          .flatMap(({ values }: SettingsLayer) => Object.entries(values as Record<string, unknown>))
          .filter(([, value]) => value !== undefined),
      );
      const values = controlDefaults(given);
      return command.execute([{ values, locate: () => "the usual settings" }, ...layers], context);
    },
  };
}

export const rl = resumable(
  withUsualValues(
    defineCommand({
      name: "rl",
      summary: "Learn from reward in an environment",
      description: [
        "PPO, A2C, TRPO, natural policy gradient or REINFORCE in a built-in environment (classic control, toy text, MuJoCo) or one of your",
        "own. Settings that are not given are tuned ones for this algorithm and environment where there are any (see rl zoo), else the",
        "usual ones of the algorithm; the defaults below are PPO's. Everything goes into a run folder; Ctrl-C finishes the rollout, saves",
        "and exits; --resume goes on from there, bit for bit.",
      ].join("\n"),
      schema: controlRunSchema,
      headings: rlHeadings,
      examples: [
        { command: "rl --env CartPole-v1", note: "PPO with tuned settings, half a minute" },
        { command: "rl --algo trpo --env HalfCheetah-v5 --steps 1e6 --seeds 3", note: "three runs, and an interval for their mean return" },
        { command: "rl --algo ppo --env Pendulum-v1 --hyperparameters sb3 --learning-rate 1e-3 --gamma 0.9", note: "settings of your own" },
        { command: "rl --env ./my-environment.mjs --num-envs 8", note: "an environment of your own: export function environment()" },
        { command: "rl --resume runs/20260131-120000-ppo-CartPole-v1 --steps 2e5", note: "go on with a run" },
      ],
      run: execute,
    }),
  ),
  savedControlSettings,
);
