// An environment of your own: land a rocket softly with an engine that is on or off. Spaces, `reset` and `step` are all that is needed;
// what they return is checked in every step of a batch. `npm run example -- custom-environment`
import { pathToFileURL } from "node:url";
import { Box, batchEnvironments, Discrete, type Environment, EpisodeMonitor, timeLimit } from "longwave/rl";
import { Random } from "longwave/runtime";

const step = 0.1;
const gravity = 1;
const thrust = 2.5;

/** Observes height and velocity; action 1 burns. The return is best when the rocket touches the ground slowly, with little fuel. */
function rocket(): Environment<Float32Array, number> {
  let random = new Random(0);
  const state = new Float32Array(2);
  return {
    observationSpace: Box([0, -10], [20, 10]),
    actionSpace: Discrete(2),
    reset({ seed } = {}) {
      if (seed !== undefined) random = new Random(seed);
      state[0] = 5 + 5 * random.uniform();
      state[1] = -2 * random.uniform();
      return state;
    },
    step(action) {
      state[1] += step * ((action === 1 ? thrust : 0) - gravity);
      state[0] = Math.max(state[0] + step * state[1], 0);
      const landed = state[0] === 0;
      const reward = landed ? 10 - 5 * Math.abs(state[1]) : action === 1 ? -0.02 : 0;
      return { observation: state, reward, terminated: landed, truncated: state[0] > 20 };
    },
  };
}

/** Mean return over 200 episodes of a policy that sees height and velocity. */
function meanReturn(policy: (height: number, velocity: number) => number): number {
  const rockets = batchEnvironments(() => timeLimit(rocket(), 200), 8, { name: "rocket" });
  const monitor = new EpisodeMonitor(200);
  const actions = new Int32Array(rockets.numEnvironments);
  rockets.reset(1);
  while (monitor.numEpisodes < 200) {
    for (let i = 0; i < actions.length; i++) actions[i] = policy(rockets.observations[2 * i], rockets.observations[2 * i + 1]);
    rockets.step(actions);
    monitor.record(rockets.finishedEpisodes);
  }
  return monitor.meanReturn;
}

export function main({ print = console.log }: { print?: (line: string) => void } = {}) {
  const random = new Random(2);
  const atRandom = meanReturn(() => random.integer(2));
  // Fall at a speed from which the engine can still stop: v² = 2 (thrust − gravity) height, with a margin.
  const byRule = meanReturn((height, velocity) => (velocity < -0.2 - Math.sqrt(2 * (thrust - gravity) * 0.6 * height) ? 1 : 0));
  print(`mean return: ${atRandom.toFixed(2)} at random, ${byRule.toFixed(2)} by a rule`);
  return { atRandom, byRule };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) main();
