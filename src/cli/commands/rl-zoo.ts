// `longwave rl zoo`: the tuned settings that are known, and runs that reproduce their table.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatCount, formatDuration, formatMetric } from "../render/format.ts";
import { createLiveLine } from "../render/live-line.ts";
import { table } from "../render/table.ts";

const schema = z.object({
  algo: z.enum(["ppo", "a2c", "trpo"]).optional().describe("Only this algorithm."),
  env: z.string().min(1).optional().describe("Only this environment."),
  reproduce: z
    .boolean()
    .default(false)
    .describe(
      "Run those that are listed, one after the other, and put the returns beside the published ones. Narrow the list first: a million environment steps take minutes to hours.",
    ),
  seeds: z.int().positive().max(100).default(1).describe("With --reproduce: runs of each, with seeds 0, 1, ..."),
  episodes: z.int().positive().max(10_000).default(50).describe("With --reproduce: episodes of the last evaluation of a run."),
  steps: z.int().positive().optional().describe("With --reproduce: environment steps of each run. Default: those of the tuned one."),
  runs: z.string().min(1).default("runs").describe("With --reproduce: folder of all runs."),
});

export const rlZoo = defineCommand({
  name: "rl zoo",
  summary: "List tuned settings, or reproduce their published returns",
  description: [
    "Settings that rl-baselines3-zoo tuned (MIT licence), used by rl unless told otherwise. Published returns are of one run each, over",
    "episodes of its trained agent, and of the environments' former versions.",
  ].join("\n"),
  schema,
  hasJson: true,
  examples: [
    { command: "rl zoo", note: "the list" },
    { command: "rl zoo --env CartPole-v1 --reproduce --seeds 3", note: "runs PPO, A2C and TRPO in CartPole, three times each" },
    { command: "rl zoo --algo ppo --env Hopper-v5 --reproduce --steps 20000", note: "a short try, far from the published return" },
  ],
  run: execute,
});

async function execute(
  { algo, env, reproduce, seeds, episodes, steps, runs }: z.output<typeof schema>,
  context: CommandContext,
): Promise<void> {
  const { zoo } = await import("../../rl/control/zoo.ts");
  const chosen = zoo.filter((entry) => (algo === undefined || entry.algo === algo) && (env === undefined || entry.env === env));
  if (chosen.length === 0)
    throw new UsageError(
      `rl zoo: expected an algorithm and environment with tuned settings, got ${[algo, env].filter(Boolean).join(" and ")}`,
      {
        hint: `Environments: ${[...new Set(zoo.map((entry) => entry.env))].join(", ")}.`,
      },
    );
  const published = ({ reported }: (typeof zoo)[number]): string =>
    reported === undefined ? "-" : `${reported[0]}${reported[1] === undefined ? "" : ` ± ${reported[1]}`}`;
  if (!reproduce) {
    if (context.json) return context.printJson(chosen);
    const rows = chosen.map((entry) => [entry.algo, entry.env, formatCount(entry.steps), published(entry)]);
    const header = ["algorithm", "environment", "environment steps", "published return"];
    context.print(table(rows, { header, align: "llrl", colors: context.stdout.colors }).trimEnd());
    context.print(`\nuse one:   ${context.program} rl --algo ${chosen[0].algo} --env ${chosen[0].env}`);
    context.print(`check it:  ${context.program} rl zoo --algo ${chosen[0].algo} --env ${chosen[0].env} --reproduce`);
    return;
  }
  const { control } = await import("../../recipes/index.ts");
  const { aggregateScores } = await import("../../rl/core/aggregate-scores.ts");
  const { backend } = await context.openRuntime({ threads: context.threads ?? 1 });
  const results: { algo: string; env: string; steps: number; published?: readonly [number, number?]; scores: number[]; seconds: number }[] =
    [];
  const numRuns = chosen.length * seeds;
  const line = createLiveLine(context.stderr);
  if (!context.json) context.print(`${numRuns} run${numRuns === 1 ? "" : "s"}, each in a folder of its own in ${runs}`);
  for (const entry of chosen) {
    const total = steps ?? entry.steps;
    const scores: number[] = [];
    const startedAt = performance.now();
    for (let seed = 0; seed < seeds; seed++) {
      let score = Number.NaN;
      const options = {
        algo: entry.algo,
        env: entry.env,
        hyperparameters: "zoo",
        steps: total,
        seed,
        runs,
        evaluationEpisodes: episodes,
        evaluateEvery: total,
      } as const;
      const label = `${entry.algo} in ${entry.env}, seed ${seed}`;
      try {
        for await (const event of control(options, { backend, signal: context.signal })) {
          if (event.kind === "evaluation") score = event.metrics["eval/mean_reward"];
          if (event.kind === "step")
            line.update(
              () => `${label}: environment step ${event.step}/${event.total}, ETA of this run ${formatDuration(event.remainingSeconds)}`,
            );
        }
      } finally {
        line.clear();
      }
      scores.push(score);
      if (!context.json) context.print(`${label}: mean return ${formatMetric(score)} over ${episodes} episodes`);
    }
    const seconds = (performance.now() - startedAt) / 1000 / seeds;
    results.push({
      algo: entry.algo,
      env: entry.env,
      steps: total,
      ...(entry.reported ? { published: entry.reported } : {}),
      scores,
      seconds,
    });
  }
  if (context.json) return context.printJson(results.map((result) => ({ ...result, ...aggregateScores([result.scores]) })));
  const rows = results.map(({ algo: name, env: id, steps: total, scores, seconds }, i) => {
    const { mean, interval } = aggregateScores([scores]);
    const range = scores.length > 1 ? ` (95 % ${formatMetric(interval[0])} to ${formatMetric(interval[1])})` : "";
    return [name, id, formatCount(total), `${formatMetric(mean)}${range}`, published(chosen[i]), formatDuration(seconds)];
  });
  context.print();
  const header = ["algorithm", "environment", "environment steps", "mean return", "published", "time of a run"];
  context.print(table(rows, { header, align: "llrllr", colors: context.stdout.colors }).trimEnd());
  const short = chosen.filter((entry) => steps !== undefined && steps < entry.steps);
  if (short.length > 0)
    context.print(
      `Published returns are of longer runs: ${short.map((entry) => `${entry.algo} ${formatCount(entry.steps)}`).join(", ")} environment steps.`,
    );
}
