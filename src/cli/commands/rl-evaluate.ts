// `longwave rl evaluate <run>`: returns of whole episodes with a trained policy.
import { z } from "zod";
import { defineCommand } from "../command.ts";
import { policyFields } from "../policy-fields.ts";
import { formatMetric } from "../render/format.ts";
import { table } from "../render/table.ts";

export const rlEvaluate = defineCommand({
  name: "rl evaluate",
  summary: "Measure the return of a trained policy",
  schema: z.object({
    ...policyFields,
    episodes: z.int().positive().max(1_000_000).default(100).describe("Episodes to play."),
    stochastic: z.boolean().default(false).describe("Draw actions from the policy, instead of the most probable ones."),
    env: z.string().min(1).optional().describe("Another environment with the same spaces. Default: that of the run."),
    numEnvs: z.int().positive().max(1024).default(1).describe("Environments side by side."),
    seed: z.int().nonnegative().default(1).describe("Seed of the episodes."),
  }),
  positionals: ["run"],
  hasJson: true,
  examples: [
    { command: "rl evaluate runs/20260131-120000-ppo-CartPole-v1 --episodes 100", note: "mean and spread over 100 episodes" },
    {
      command: "rl evaluate runs/20260131-120000-ppo-CartPole-v1 --checkpoint latest",
      note: "the end of the run, not its best evaluation",
    },
  ],
  run: async ({ run, episodes, stochastic, checkpoint, env, numEnvs, seed }, context) => {
    const { evaluateRun } = await import("../../recipes/index.ts");
    const { backend } = await context.openRuntime({ threads: context.threads ?? 1 });
    const evaluated = await evaluateRun(backend, run, {
      episodes,
      deterministic: !stochastic,
      which: checkpoint,
      envs: numEnvs,
      seed,
      signal: context.signal,
      ...(env === undefined ? {} : { env }),
    });
    const { located } = evaluated;
    const returns = evaluated.results.map((result) => result.return);
    const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    const average = mean(returns);
    const std = Math.sqrt(mean(returns.map((value) => (value - average) ** 2)));
    const summary = {
      environment: evaluated.environment,
      policy: located.description,
      checkpoint: located.path,
      ...(located.environmentSteps === undefined ? {} : { environmentSteps: located.environmentSteps }),
      episodes: returns.length,
      meanReturn: average,
      stdReturn: std,
      standardError: returns.length > 1 ? std / Math.sqrt(returns.length - 1) : 0,
      minReturn: Math.min(...returns),
      maxReturn: Math.max(...returns),
      meanLength: mean(evaluated.results.map(({ length }) => length)),
    };
    if (context.json) return context.printJson({ ...summary, returns });
    context.print(
      table([
        ["environment", summary.environment],
        ["policy", `${located.description}: ${context.phrase(located.path)}`],
        [
          "mean return",
          `${formatMetric(average)} ± ${formatMetric(std)} over ${summary.episodes} episode${summary.episodes === 1 ? "" : "s"} (standard error ${formatMetric(summary.standardError)})`,
        ],
        ["lowest and highest", `${formatMetric(summary.minReturn)} and ${formatMetric(summary.maxReturn)}`],
        ["mean length", formatMetric(summary.meanLength)],
      ]).trimEnd(),
    );
  },
});
