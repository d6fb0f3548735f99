// The kinds of reinforcement learning: stored cases pass, and copies with one altered number fail.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CaseResult, readCoverage, runGolden } from "../../scripts/golden/run.ts";

const folder = fileURLToPath(new URL("./rl/", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "longwave-rl-core-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

// biome-ignore lint/suspicious/noExplicitAny: test data of many shapes, altered by path.
type Json = any;

async function run(path: string): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  await runGolden(path, { onResult: (result) => results.push(result) });
  return results;
}

const files = ["estimators.json", "policy_losses_verl.json", "preference.json", "policy_extras_verl.json"];
const isOurs = (kind: string): boolean =>
  /^rl\/(estimators\/(groupAdvantages|trlGroupAdvantages|trlRloo|processSupervision|whitening)|policy_|preference)/.test(kind);

test.each(files)("%s", async (file) => {
  const results = await run(join(folder, file));
  expect(results.filter(({ status }) => status === "failed")).toEqual([]);
  expect(results.filter(({ status }) => status === "passed").length).toBeGreaterThan(15);
});

const nudge = (list: Json): void => {
  const owner = Array.isArray(list[0]) ? list[0] : list;
  owner[0] = owner[0] === 0 ? 1e-3 : owner[0] * (1 + 1e-7);
};

/** Kind, file, and what to alter in its first case. */
const alterations: [kind: string, file: string, alter: (content: Json) => void][] = [
  ...["groupAdvantages", "trlGroupAdvantages", "trlRloo", "processSupervision", "whitening"].map(
    (section): [string, string, (content: Json) => void] => [
      `rl/estimators/${section}`,
      "estimators.json",
      (content) => {
        const [first] = content[section].slice(-1);
        nudge(section === "whitening" ? first.moss.whiten : section === "groupAdvantages" ? first.advantages.opo : first.advantages);
      },
    ],
  ),
  ...["vanilla", "gspo", "cispo", "sapo", "gpg", "reinforce"].map((name): [string, string, (content: Json) => void] => [
    `rl/policy_losses_verl/${name}`,
    "policy_losses_verl.json",
    ({ cases }) => {
      cases.find((item: Json) => item.loss_fn === name).loss *= 1 + 1e-7;
    },
  ]),
  ["rl/preference/groupPolicyLosses", "preference.json", ({ groupPolicyLosses: [first] }) => nudge(first.gradNewLogProb)],
  ["rl/preference/klEstimators", "preference.json", ({ klEstimators: [first] }) => nudge(first.k3.grad)],
  ["rl/policy_extras_verl/klEstimators", "policy_extras_verl.json", ({ klEstimators: [first] }) => nudge(first.perToken)],
  [
    "rl/policy_extras_verl/policyKlEntropyFromLogits",
    "policy_extras_verl.json",
    ({ policyKlEntropyFromLogits: [first] }) => nudge(first.gradLogits[0]),
  ],
  [
    "rl/policy_extras_verl/aggregation",
    "policy_extras_verl.json",
    ({ aggregation: [first] }) => {
      first.result *= 1 + 1e-7;
    },
  ],
  ["rl/policy_extras_verl/tokenRewards", "policy_extras_verl.json", ({ tokenRewards: [first] }) => nudge(first.tokenRewards)],
  [
    "rl/policy_extras_verl/adaptiveKl",
    "policy_extras_verl.json",
    ({ adaptiveKl: [first] }) => {
      first.updates[3].coefficient *= 1 + 1e-7;
    },
  ],
];

test.each(alterations)("%s fails when a number is altered", async (kind, file, alter) => {
  const content = JSON.parse(readFileSync(join(folder, file), "utf8"));
  alter(content);
  const place = join(temporary, kind.replaceAll("/", "-"), "rl");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, file), JSON.stringify(content));
  const failed = (await run(join(place, file))).filter(({ status }) => status === "failed");
  expect(failed.map((result) => result.kind)).toEqual([kind]);
});

test("every covered kind has an altered copy above", () => {
  const covered = [...readCoverage()].filter(([kind, { covered }]) => covered && isOurs(kind)).map(([kind]) => kind);
  expect(covered.filter((kind) => !alterations.some(([known]) => known === kind))).toEqual([]);
});
