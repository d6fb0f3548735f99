// Reward functions from what a user names: built-in names, and modules of his own.
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { UsageError } from "../base/errors.ts";
import { namedReward, type Reward, type RewardInput } from "../rl/index.ts";

const isModule = (text: string): boolean => /\.(js|mjs|cjs|ts|mts)$/.test(text);

/** @throws UsageError for names that are unknown, and modules that cannot be loaded or export no reward. */
export async function openRewards(inputs: readonly (string | RewardInput)[]): Promise<RewardInput[]> {
  const rewards: RewardInput[] = [];
  for (const input of inputs) {
    if (typeof input !== "string") rewards.push(input);
    else if (isModule(input)) rewards.push(...(await loadModule(input)));
    else rewards.push(namedReward(input));
  }
  return rewards;
}

/** Every exported function is a reward under its name; so is every exported object with score or scoreBatch (name and weight as it says). */
async function loadModule(path: string): Promise<Reward[]> {
  const file = resolve(path);
  if (!existsSync(file)) throw new UsageError(`reward module ${path}: expected a file, got nothing there`, { hint: "Check the path." });
  let exported: Readonly<Record<string, unknown>>;
  try {
    exported = (await import(/* @vite-ignore */ pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new UsageError(
      `reward module ${path}: expected a module that loads, got ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
        hint: "Write it as an ES module (.mjs, or .js beside a package.json with type module).",
      },
    );
  }
  const rewards = Object.entries(exported).flatMap(([name, value]): Reward[] => {
    if (typeof value === "function") return [{ name, score: value as NonNullable<Reward["score"]> }];
    if (typeof value !== "object" || value === null || !("score" in value || "scoreBatch" in value)) return [];
    return [{ name, ...(value as Omit<Reward, "name">) }];
  });
  if (rewards.length > 0) return rewards;
  throw new UsageError(`reward module ${path}: expected exported functions, got ${Object.keys(exported).join(", ") || "no exports"}`, {
    hint: "export function myReward({ prompt, completion }) { return 1; }",
  });
}
