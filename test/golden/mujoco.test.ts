// The MuJoCo environments against gymnasium's: stored cases pass, and copies with one altered number fail.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CaseResult, readCoverage, runGolden } from "../../scripts/golden/run.ts";
import { mujocoTasks } from "../../src/rl/control/environments/mujoco/mujoco-environment.ts";

const folder = fileURLToPath(new URL("./rl/environments/", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "longwave-mujoco-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: test data of many shapes, altered by path.
type Json = any;

const names = Object.keys(mujocoTasks);

async function run(path: string): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  await runGolden(path, { onResult: (result) => results.push(result) });
  return results;
}

test.each(names)("%s as gymnasium has it", async (name) => {
  const results = await run(join(folder, `${name}.json`));
  expect(results.map(({ status }) => status)).toEqual(["passed", "passed"]);
  expect(readCoverage().get(`rl/environments/${name}`)?.covered).toBe(true);
});

/** Adds a little to the number at `key`. */
const nudge = (list: Json, key: string | number, amount: number): void => {
  list[key] += amount;
};

const alterations: Record<string, (content: Json) => void> = {
  "a mass": ({ model }) => nudge(model.bodyMass, 1, 1e-9),
  "an inertia": ({ model }) => nudge(model.bodyInertia[2], 1, 1e-9),
  "a joint's range": ({ model }) => nudge(model.jointRange[1], 0, 1e-9),
  "a damping": ({ model }) => nudge(model.dofDamping, 1, 1e-9),
  "a gear": ({ model }) => nudge(model.gear, 0, 1e-6),
  "the timestep": ({ model }) => nudge(model, "timestep", 1e-9),
  "the integrator": ({ model }) => nudge(model, "integrator", 1),
  "the time limit": ({ model }) => nudge(model, "maxEpisodeSteps", 1),
  "an action": ({ trajectories: [first] }) => nudge(first.actions[2], 0, 1e-4),
  "a position": ({ trajectories: [first] }) => nudge(first.qpos[3], 1, 1e-7),
  "a velocity": ({ trajectories: [first] }) => nudge(first.qvel[6], 0, 1e-7),
  "an observation": ({ trajectories: [first] }) => nudge(first.observations[4], 2, 1e-7),
  "a reward": ({ trajectories: [first] }) => nudge(first.rewards, 1, 1e-7),
  "a part of the reward": ({ trajectories: [first] }) => nudge(Object.values<Json>(first.infos).at(-1), 2, 1e-7),
  "an end": ({ trajectories: [first] }) => nudge(first.terminated, 5, 1),
  "a limit reached": ({ trajectories: [first] }) => nudge(first.truncated, 5, 1),
  "the first observation": ({ trajectories: [first] }) => nudge(first.initialObservation, 1, 1e-7),
  "a step missing": ({ trajectories: [first] }) => first.qvel.pop(),
  "an unknown option": ({ trajectories: [first] }) => {
    first.options.no_such_option = 1;
  },
};

test.each(names)("%s fails when it is altered", async (name) => {
  const path = join(temporary, `${name}.json`);
  for (const [what, alter] of Object.entries(alterations)) {
    const content = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
    alter(content);
    writeFileSync(path, JSON.stringify(content));
    const failed = (await run(path)).filter(({ status }) => status === "failed");
    expect(failed.length, what).toBe(1);
  }
}, 60_000);
