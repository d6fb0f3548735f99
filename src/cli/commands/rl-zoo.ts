// `longwave rl zoo`: the tuned settings that are known, and runs that reproduce their table.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatCount, formatMetric } from "../render/format.ts";
import { table } from "../render/table.ts";

const schema = z.object({
  algo: z.enum(["ppo", "a2c", "trpo"]).optional().describe("Only this algorithm."),
  env: z.string().min(1).optional().describe("Only this environment."),
  reproduce: z.boolean().default(false).describe("Run them, and put the returns beside the published ones."),
  seeds: z.int().positive().max(100).default(1).describe("Runs of each, when they are reproduced."),
  episodes: z.int().positive().max(10_000).default(50).describe("Episodes of the last evaluation of a run."),
  steps: z.int().positive().optional().describe("Environment steps of each run. Default: those of the tuned one."),
  runs: z.string().min(1).default("runs").describe("Folder of all runs."),
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
    reported === undefined ? "" : `${reported[0]}${reported[1] === undefined ? "" : ` ± ${reported[1]}`}`;
  if (!reproduce) {
    if (context.json) return context.printJson(chosen);
    const rows = chosen.map((entry) => [entry.algo, entry.env, formatCount(entry.steps), published(entry)]);
    context.print(table([["algorithm", "environment", "steps", "published return"], ...rows]).trimEnd());
    return;
  }
  const { control } = await import("../../recipes/index.ts");
  const { aggregateScores } = await import("../../rl/core/aggregate-scores.ts");
  const { backend } = await context.openRuntime({ threads: context.threads ?? 1 });
  const results: { algo: string; env: string; steps: number; published?: readonly [number, number?]; scores: number[]; seconds: number }[] =
    [];
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
      for await (const event of control(options, { backend, signal: context.signal }))
        if (event.kind === "evaluation") score = event.metrics["eval/mean_reward"];
      scores.push(score);
      if (!context.json)
        context.print(`${entry.algo} in ${entry.env}, seed ${seed}: ${formatMetric(score)} (published ${published(entry) || "nothing"})`);
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
    return [name, id, formatCount(total), `${formatMetric(mean)}${range}`, published(chosen[i]), `${seconds.toFixed(0)} s`];
  });
  context.print();
  context.print(table([["algorithm", "environment", "steps", "mean return", "published", "time of a run"], ...rows]).trimEnd());
}
