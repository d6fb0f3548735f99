// The kinds of control: stored cases pass, and copies with one altered number fail.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CaseResult, readCoverage, runGolden } from "../../scripts/golden/run.ts";

const folder = fileURLToPath(new URL("./rl/control/", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "longwave-rl-control-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: test data of many shapes, altered by path.
type Json = any;

async function run(path: string): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  await runGolden(path, { onResult: (result) => results.push(result) });
  return results;
}

const files = ["estimators.json", "distributions.json", "ppo.json", "a2c.json", "trpo.json"];

test.each(files)("%s", async (file) => {
  const results = await run(join(folder, file));
  expect(results.filter(({ status }) => status === "failed")).toEqual([]);
  expect(results.filter(({ status }) => status === "passed").length).toBeGreaterThan(1);
});

/** Moves the first number of nested lists by a ten-millionth. */
const nudge = (list: Json): void => {
  const owner = Array.isArray(list[0]) ? list[0] : list;
  owner[0] = owner[0] === 0 ? 1e-3 : owner[0] * (1 + 1e-7);
};
const nudgeField = (owner: Json, name: string): void => {
  owner[name] *= 1 + 1e-7;
};
const nudgeParameters = ({ parametersAfter }: Json): void => nudge(parametersAfter["action_net.weight"][0]);

const alterations: [kind: string, file: string, what: string, alter: (content: Json) => void][] = [
  ["rl/estimators/gae", "estimators.json", "an advantage", ({ gae }) => nudge(gae[0].advantages[0])],
  ["rl/estimators/spinningUpGae", "estimators.json", "a return", ({ spinningUpGae: [first] }) => nudge(first.paths[0].rewardsToGo)],
  ["rl/estimators/discountedReturns", "estimators.json", "a return", ({ discountedReturns: [first] }) => nudge(first.returnsPlain[0])],
  ["rl/estimators/nStepReturns", "estimators.json", "a return", ({ nStepReturns: [first] }) => nudge(first.nStepReturns[3][0])],
  ...["categorical", "maskedCategorical", "multiCategorical", "bernoulli", "diagonalGaussian", "squashedGaussian", "gsde"].map(
    (name): [string, string, string, (content: Json) => void] => [
      `rl/distributions/${name}`,
      "distributions.json",
      "a log-probability",
      (content) => nudge(content[name][0].logProb),
    ],
  ),
  ["rl/distributions/gsde", "distributions.json", "a derivative", ({ gsde: [first] }) => nudge(first.gradLogProbLogStd[0])],
  ["rl/ppo/cases", "ppo.json", "a parameter", ({ cases: [first] }) => nudgeParameters(first)],
  ["rl/ppo/cases", "ppo.json", "a minibatch", ({ cases: [first] }) => nudgeField(first.minibatches[2], "approxKl")],
  ["rl/a2c/cases", "a2c.json", "a parameter", ({ cases: [first] }) => nudgeParameters(first.updates[1])],
  ["rl/trpo/cases", "trpo.json", "a parameter", ({ cases: [first] }) => nudgeParameters(first)],
  ["rl/trpo/cases", "trpo.json", "a Fisher product", ({ cases: [first] }) => nudge(first.fisherVectorProducts[0].product)],
  [
    "rl/trpo/cases",
    "trpo.json",
    "a decision",
    ({ cases: [first] }) => {
      first.lineSearch[0].klBelow = !first.lineSearch[0].klBelow;
    },
  ],
];

test.each(alterations)("%s fails (%s) when %s is altered", async (kind, file, what, alter) => {
  const content = JSON.parse(readFileSync(join(folder, file), "utf8"));
  alter(content);
  const place = join(temporary, `${kind}-${what}`.replaceAll(/[/ ]/g, "-"), "rl");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, file), JSON.stringify(content));
  const failed = (await run(join(place, file))).filter(({ status }) => status === "failed");
  expect(failed.map((result) => result.kind)).toEqual([kind]);
});

test("every covered kind has an altered copy above", () => {
  const isOurs = (kind: string): boolean =>
    /^rl\/(distributions|ppo|a2c|trpo)\//.test(kind) ||
    ["gae", "spinningUpGae", "discountedReturns", "nStepReturns"].some((name) => kind === `rl/estimators/${name}`);
  const covered = [...readCoverage()].filter(([kind, { covered }]) => covered && isOurs(kind)).map(([kind]) => kind);
  expect(covered).toHaveLength(14);
  expect(covered.filter((kind) => !alterations.some(([known]) => known === kind))).toEqual([]);
});
