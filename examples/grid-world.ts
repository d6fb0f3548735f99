// The policy gradient theorem in a grid world: the exact gradient climbs to the best policy; REINFORCE sees only episodes and gets
// there too, with a baseline; without one the same step size is too much for the variance of its estimates. Draws the policy as arrows, and as a picture when given a path:
//   npm run example -- grid-world grid-world.svg
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import {
  addReinforceGradient,
  drawPolicy,
  drawValues,
  type GridWorld,
  gridWorld,
  sampleEpisode,
  softmaxPolicy,
  startValue,
  startValueGradient,
  stateValues,
  valueIteration,
} from "longwave/rl";
import { Random } from "longwave/runtime";

export function main({ iterations = 300, episodesPerStep = 8, picture = "", print = console.log as (line: string) => void } = {}) {
  const world = gridWorld({ map: ["...#.", ".#...", "...#.", ".#...", "...#T"], gamma: 0.95, stepReward: -0.02 });
  const { mdp } = world;
  const size = mdp.numStates * mdp.numActions;
  // Episodes start anywhere, so that every cell is learnt about.
  const best = valueIteration(mdp).values.reduce((sum, value, state) => sum + mdp.start[state] * value, 0);
  const worth = (theta: Float64Array): number => startValue(mdp, softmaxPolicy(mdp, theta));

  // 1. The exact gradient, by linear algebra.
  const theta = new Float64Array(size);
  for (let i = 0; i < iterations; i++) {
    const gradient = startValueGradient(mdp, theta);
    for (let k = 0; k < size; k++) theta[k] += 10 * gradient[k];
  }
  const exact = worth(theta);

  // 2. The same gradient estimated from episodes, without and with the policy's own values as a baseline.
  const sampled = (withBaseline: boolean): number => {
    const random = new Random(1);
    const preferences = new Float64Array(size);
    for (let i = 0; i < iterations; i++) {
      const policy = softmaxPolicy(mdp, preferences);
      const options = withBaseline ? { baseline: stateValues(mdp, policy) } : {};
      const gradient = new Float64Array(size);
      for (let episode = 0; episode < episodesPerStep; episode++)
        addReinforceGradient(mdp, policy, sampleEpisode(mdp, policy, random, 200), gradient, options);
      for (let k = 0; k < size; k++) preferences[k] += (5 / episodesPerStep) * gradient[k];
    }
    return worth(preferences);
  };
  const [plain, baseline] = [sampled(false), sampled(true)];

  const policy = softmaxPolicy(mdp, theta);
  const values = stateValues(mdp, policy);
  print(`Value of the start: best ${best.toFixed(3)}, exact gradient ${exact.toFixed(3)}`);
  print(`REINFORCE ${plain.toFixed(3)}, with a baseline ${baseline.toFixed(3)} after ${iterations * episodesPerStep} episodes`);
  print(`\n${drawPolicy(world, policy)}\n\n${drawValues(world, values)}`);
  if (picture) writeFileSync(picture, svgOf(world, policy, values));
  return { best, exact, plain, baseline };
}

/** Cells coloured by their value, an arrow for each action as long as it is probable. */
function svgOf({ mdp, rows, columns, map }: GridWorld, policy: Float64Array, values: Float64Array): string {
  const cell = 60;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const parts: string[] = [];
  for (let state = 0; state < mdp.numStates; state++) {
    const [x, y] = [(state % columns) * cell, Math.floor(state / columns) * cell];
    const share = (values[state] - low) / (high - low || 1);
    const kind = map[Math.floor(state / columns)][state % columns];
    const fill = kind === "T" ? "#2a9d5c" : `hsl(${kind === "#" ? 15 : 210} 70% ${92 - 40 * share}%)`;
    parts.push(`<rect x="${x}" y="${y}" width="${cell}" height="${cell}" fill="${fill}" stroke="#fff"/>`);
    for (const [action, [dx, dy]] of [
      [0, -1],
      [1, 0],
      [0, 1],
      [-1, 0],
    ].entries()) {
      const length = (cell / 2 - 4) * policy[state * mdp.numActions + action];
      const [cx, cy] = [x + cell / 2, y + cell / 2];
      if (length > 2 && kind !== "T")
        parts.push(
          `<line x1="${cx}" y1="${cy}" x2="${(cx + dx * length).toFixed(1)}" y2="${(cy + dy * length).toFixed(1)}" stroke="#123" stroke-width="3" stroke-linecap="round"/>`,
        );
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${columns * cell} ${rows * cell}" width="${columns * cell}">${parts.join("")}</svg>\n`;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) main({ picture: process.argv[2] ?? "" });
