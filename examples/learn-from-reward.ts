// PPO in an environment of your own, from nothing to an ONNX file: learn, watch the metrics, ask the policy, save, export.
// The environment is a room of 5 by 5 with a goal that moves every episode; `longwave rl --env ./room.mjs` would take it too.
//   npm run example -- learn-from-reward
import { pathToFileURL } from "node:url";
import { Box, Discrete, type Environment, ppo } from "longwave/rl";

const size = 5;

/** Walk to the goal: 1 for reaching it, −0.05 for every other step, 20 steps at most. */
export function environment(): Environment {
  const at = [0, 0];
  const goal = [0, 0];
  let steps = 0;
  let state = 1;
  const draw = (): number => {
    state = (Math.imul(state, 48271) >>> 0) % 2147483647;
    return state % size;
  };
  const observation = (): number[] => [goal[0] - at[0], goal[1] - at[1]].map((distance) => distance / size);
  return {
    observationSpace: Box(-1, 1, [2]),
    actionSpace: Discrete(4),
    reset({ seed } = {}) {
      if (seed !== undefined) state = (seed % 2147483646) + 1;
      do [at[0], at[1], goal[0], goal[1]] = [draw(), draw(), draw(), draw()];
      while (at[0] === goal[0] && at[1] === goal[1]);
      steps = 0;
      return observation();
    },
    step(action) {
      const [dx, dy] = [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ][action as number];
      at[0] = Math.min(size - 1, Math.max(0, at[0] + dx));
      at[1] = Math.min(size - 1, Math.max(0, at[1] + dy));
      steps++;
      const reached = at[0] === goal[0] && at[1] === goal[1];
      return { observation: observation(), reward: reached ? 1 : -0.05, terminated: reached, truncated: !reached && steps >= 20 };
    },
  };
}

export async function main({ steps = 20_000, path = undefined as string | undefined, print = console.log } = {}) {
  const agent = ppo({
    env: environment,
    numEnvs: 8,
    numSteps: 64,
    batchSize: 128,
    numEpochs: 6,
    learningRate: 3e-3,
    gamma: 0.95,
    hidden: [32, 32],
  });
  try {
    const returns: number[] = [];
    for await (const event of agent.learn(steps)) {
      if (event.kind !== "step") continue;
      returns.push(event.metrics["rollout/ep_rew_mean"]);
      if (event.step % 10 === 0) print(`step ${event.totalTokens}: mean return ${returns.at(-1)?.toFixed(2)}`);
    }
    // The goal is two fields to the right: action 0.
    const { action, value } = agent.policy.predictFully([2 / size, 0]);
    print(`goal to the right: action ${action}, expected return ${value.toFixed(2)}`);
    const episodes = await agent.evaluate(100);
    const mean = episodes.reduce((sum, episode) => sum + episode.return, 0) / episodes.length;
    print(`mean return over 100 episodes: ${mean.toFixed(2)}`);
    if (path !== undefined) agent.policy.exportOnnx(path);
    return { returns, action, mean };
  } finally {
    agent.dispose();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main({ path: process.argv[2] });
