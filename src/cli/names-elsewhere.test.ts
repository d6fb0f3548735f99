import { expect, it } from "vitest";
import { calledElsewhere, knownElsewhere } from "../base/names-elsewhere.ts";
import { listOptions } from "../base/schema.ts";
import { commonSchema } from "./command.ts";
import { commands } from "./registry.ts";

const loaded = await Promise.all(commands.map((entry) => entry.load()));
const names = new Map(loaded.map(({ name, options }) => [name, options.map((option) => option.name)]));

it("every option that has other names is one of a command", () => {
  const all = new Set([...names.values(), listOptions(commonSchema).map(({ name }) => name)].flat());
  expect(knownElsewhere.filter((name) => !all.has(name))).toEqual([]);
});

it.each([
  ["rl", "--n-steps", "numSteps"],
  ["rl", "ent_coef", "entropyCoefficient"],
  ["rl", "policy_kwargs.net_arch", "hidden"],
  ["pretrain", "--lr", "learningRate"],
  ["pretrain", "--grad-clip", "maxGradientNorm"],
  ["generate", "--n-predict", "maxNewTokens"],
  ["generate", "--temp", "temperature"],
  ["generate", "-md", "speculate"],
  ["generate", "--n-steps", undefined],
])("%s: %s is %s", (command, name, ours) => {
  expect(calledElsewhere(name, names.get(command)!)).toBe(ours);
});
