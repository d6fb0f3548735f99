import { expect, test } from "vitest";
import { algorithmDefaults, controlAlgorithms, controlSettings, ignoredControlOptions } from "./options.ts";
import { zoo } from "./zoo.ts";

test("options that the algorithm does not read are told, with those that would", () => {
  expect(ignoredControlOptions(controlSettings({ algo: "trpo", clipRange: 0.1, gamma: 0.9 }))).toEqual([
    "clipRange has no effect: trpo does not read it, ppo would",
  ]);
  expect(ignoredControlOptions(controlSettings({ algo: "ppo", cgDamping: 0.2, lineSearchMaxIterations: 3 }))).toEqual([
    "cgDamping has no effect: ppo does not read it, trpo, npg would",
    "lineSearchMaxIterations has no effect: ppo does not read it, trpo would",
  ]);
});

test("usual and tuned settings are no changes", () => {
  for (const algo of controlAlgorithms) expect(ignoredControlOptions(controlSettings({ algo }), algorithmDefaults[algo])).toEqual([]);
  for (const { algo, options } of zoo)
    expect(ignoredControlOptions(controlSettings({ algo, ...options }), { ...algorithmDefaults[algo], ...options })).toEqual([]);
});
