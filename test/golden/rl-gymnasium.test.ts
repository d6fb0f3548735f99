// Environments of classic control and toy text, and running statistics: stored cases pass, and copies with one altered entry fail.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CaseResult, readCoverage, runGolden } from "../../scripts/golden/run.ts";

const folder = fileURLToPath(new URL("./rl/", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "longwave-rl-gymnasium-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: test data of many shapes, altered by path.
type Json = any;

async function run(path: string): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  await runGolden(path, { onResult: (result) => results.push(result) });
  return results;
}

const physics = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];
const toyText = ["FrozenLake-v1", "CliffWalking-v1", "Taxi", "Blackjack-v1"];
const statistics = ["runningStatistics", "vecNormalize", "gymnasiumNormalizeReward"];
const environmentFile = (name: string): string => `environments/${name}.json`;
const statisticsFile = "statistics/estimators.json";

test.each([...[...physics, ...toyText].map(environmentFile), statisticsFile])("%s", async (file) => {
  const results = await run(join(folder, file));
  expect(results.filter(({ status }) => status !== "passed")).toEqual([]);
  expect(results.length).toBeGreaterThan(2);
});

/** Kind, file, what is altered, and how. */
type Alteration = [kind: string, what: string, file: string, alter: (content: Json) => void];

const ofEnvironment = (name: string, what: string, alter: (content: Json) => void): Alteration => [
  `rl/environments/${name}`,
  what,
  environmentFile(name),
  alter,
];
const flip = (list: Json, at = 0): void => {
  list[at] = 1 - list[at];
};

const alterations: Alteration[] = [
  ...physics.flatMap((name) => [
    ofEnvironment(name, "a state", ({ trajectories: [first] }) => {
      first.states.at(-1)[1] += 2e-5;
    }),
    ofEnvironment(name, "an observation", ({ trajectories: [first] }) => {
      first.observations[0][0] += 2e-5;
    }),
    ofEnvironment(name, "a reward", ({ trajectories: [first] }) => {
      first.rewards[3] += 1e-6;
    }),
    ofEnvironment(name, "the end", ({ trajectories: [first] }) => flip(first.terminated, first.terminated.length - 1)),
    ofEnvironment(name, "the sum of a long run", ({ trajectories }) => {
      trajectories.at(-1).returnSum += 1;
    }),
    ofEnvironment(name, "a truncation", ({ trajectories }) => flip(trajectories.at(-1).truncated, trajectories.at(-1).truncated.length - 1)),
    ofEnvironment(name, "a constant", ({ constants }) => {
      const key = Object.keys(constants)[0];
      constants[key] = Array.isArray(constants[key]) ? [] : constants[key] * 1.01;
    }),
    ofEnvironment(name, "the time limit", ({ constants }) => {
      constants.maxEpisodeSteps += 1;
    }),
  ]),
  ofEnvironment("CartPole-v1", "a refused action", (content) => {
    content.invalidActions = [{ action: 1, error: "AssertionError" }];
  }),
  ofEnvironment("CartPole-v1", "a state of the other integrator", ({ semiImplicitEuler: [first] }) => {
    first.states[3][2] += 1e-6;
  }),
  ofEnvironment("Acrobot-v1", "a state of the paper's dynamics", ({ nipsDynamics: [first] }) => {
    first.states[3][2] += 1e-6;
  }),
  ofEnvironment("MountainCarContinuous-v0", "a state in float64", ({ trajectories: [first] }) => {
    first.float64.states[5][0] += 1e-8;
  }),
  ofEnvironment("FrozenLake-v1", "a probability", ({ maps }) => {
    maps[1].transitions[1][2][0][0] += 1e-6;
  }),
  ofEnvironment("FrozenLake-v1", "a next state", ({ maps: [first] }) => {
    first.transitions[2][1][0][1] += 1;
  }),
  ofEnvironment("FrozenLake-v1", "a letter of the map", ({ maps: [first] }) => {
    first.map[1] = "FFFH";
  }),
  ofEnvironment("FrozenLake-v1", "a sample", ({ categoricalSample: [first] }) => {
    first.index -= 1;
  }),
  ofEnvironment("CliffWalking-v1", "a reward", ({ tables }) => {
    tables[1].transitions[25][2][0][2] = -1.5;
  }),
  ofEnvironment("CliffWalking-v1", "a step of a walk", ({ tables: [first] }) => {
    first.walks[1].states[4] += 1;
  }),
  ofEnvironment("Taxi", "a next state", ({ nextState }) => {
    nextState[123][2] += 1;
  }),
  ofEnvironment("Taxi", "a mask", ({ actionMask }) => flip(actionMask[Object.keys(actionMask)[2]])),
  ofEnvironment("Taxi", "a way in the rain", ({ rainyTransitions: [first] }) => {
    first.transitions[4][0][1][1] += 20;
  }),
  ofEnvironment("Taxi", "a first state", ({ initialStates }) => initialStates.pop()),
  ofEnvironment("Taxi", "a reward of a walk", ({ walks: [first] }) => {
    first.rewards[1] = -10;
  }),
  ofEnvironment("Blackjack-v1", "a reward", ({ cases: [first] }) => {
    first.steps.at(-1).reward += 0.5;
  }),
  ofEnvironment("Blackjack-v1", "an option", ({ cases }) => {
    const natural = cases.find((item: Json) => item.steps.at(-1).reward === 1.5);
    natural.options.natural = false;
  }),
  ofEnvironment("Blackjack-v1", "a card", ({ cases: [first] }) => {
    first.cards[0] = (first.cards[0] % 10) + 1;
  }),
  ...statistics.flatMap((name): Alteration[] => {
    const change = (alter: (item: Json) => void) => (content: Json) => alter(content[name].at(-1));
    const kind = `rl/estimators/${name}`;
    if (name === "runningStatistics")
      return ["sb3", "welford", "moss"].map((library) => [
        kind,
        `a mean of ${library}`,
        statisticsFile,
        change((item) => {
          item.updates[2][library].mean[0] *= 1 + 1e-7;
        }),
      ]);
    const alterStep = (key: string): Alteration => [
      kind,
      key,
      statisticsFile,
      change((item) => {
        const owner = Array.isArray(item.steps[2][key]) ? item.steps[2][key].flat() : undefined;
        if (owner) item.steps[2][key] = nudgeFirst(item.steps[2][key]);
        else item.steps[2][key] *= 1 + 1e-7;
      }),
    ];
    return (name === "vecNormalize" ? ["obs", "rewards", "obsVar", "returnVar", "returns"] : ["reward", "var", "discounted"]).map(alterStep);
  }),
];

/** The largest entry of nested lists, moved a little. */
function nudgeFirst(list: Json): Json {
  const largest = Math.max(...list.flat().map(Math.abs));
  const move = (item: Json): Json => (Array.isArray(item) ? item.map(move) : Math.abs(item) === largest ? item * (1 + 1e-7) : item);
  return move(list);
}

test.each(alterations)("%s fails after altering %s", async (kind, what, file, alter) => {
  const content = JSON.parse(readFileSync(join(folder, file), "utf8"));
  alter(content);
  const path = join(temporary, `${kind}-${what}`.replaceAll(/\W+/g, "-"), file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify(content));
  const failed = (await run(path)).filter(({ status }) => status === "failed");
  expect(new Set(failed.map((result) => result.kind))).toEqual(new Set([kind]));
});

test("every covered kind has an altered copy above", () => {
  const isOurs = (kind: string): boolean => [...physics, ...toyText, ...statistics].includes(kind.split("/").at(-1) as string);
  const covered = [...readCoverage()].filter(([kind, { covered }]) => covered && isOurs(kind)).map(([kind]) => kind);
  expect(covered).toHaveLength(physics.length + toyText.length + statistics.length);
  expect(covered.filter((kind) => !alterations.some(([known]) => known === kind))).toEqual([]);
});
