// `longwave rl watch <run>`: episodes of a trained policy as one page to look at.
import { statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic.ts";
import { defineCommand } from "../command.ts";
import { policyFields } from "../policy-fields.ts";
import { formatBytes, formatMetric } from "../render/format.ts";

export const rlWatch = defineCommand({
  name: "rl watch",
  summary: "Draw episodes of a trained policy as one self-contained HTML page",
  schema: z.object({
    ...policyFields,
    output: z.string().min(1).optional().describe("Where to write the page. Default: episode.html in the folder."),
    episodes: z.int().positive().max(20).default(1).describe("Episodes on the page."),
    stochastic: z.boolean().default(false).describe("Draw actions from the policy, instead of the most probable ones."),
    env: z.string().min(1).optional().describe("Another environment with the same spaces. Default: that of the run."),
    seed: z.int().nonnegative().default(1).describe("Seed of the first episode; the others follow."),
    maxSteps: z.int().positive().max(100_000).default(2000).describe("Longer episodes are cut here."),
  }),
  positionals: ["run"],
  hasJson: true,
  examples: [{ command: "rl watch runs/20260131-120000-ppo-CartPole-v1", note: "writes episode.html into the run folder" }],
  run: async ({ run, output, episodes, stochastic, checkpoint, env, seed, maxSteps }, context) => {
    const { locatePolicy, openSingleEnvironment, recordEpisode, episodePage, environmentName, sourceOf } = await import(
      "../../recipes/index.ts"
    );
    const { backend } = await context.openRuntime({ threads: context.threads ?? 1 });
    const { control, description, path: from, environmentSteps } = locatePolicy(run, checkpoint);
    const source = sourceOf(run, control, env);
    const environment = await openSingleEnvironment(source.env, source.options);
    try {
      const recorded = Array.from({ length: episodes }, (_, i) =>
        recordEpisode(backend, control, environment, { deterministic: !stochastic, seed: seed + i, maxSteps }),
      );
      const path = output ?? join(run, "episode.html");
      writeFileAtomic(
        path,
        episodePage(
          `${environmentName(source.env)}: ${episodes === 1 ? "an episode" : `${episodes} episodes`} of a trained policy`,
          recorded,
        ),
      );
      const { size } = statSync(path);
      const returns = recorded.map((episode) => episode.return);
      if (context.json) {
        const lengths = recorded.map(({ length }) => length);
        return context.printJson({ path, bytes: size, returns, lengths, policy: description, checkpoint: from, environmentSteps });
      }
      context.print(`policy: ${description}: ${context.phrase(from)}`);
      context.print(`page: ${context.phrase(path)} (${formatBytes(size)}; return ${returns.map(formatMetric).join(", ")})`);
    } finally {
      environment.dispose?.();
    }
  },
});
