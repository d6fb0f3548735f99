// Reward functions that a name stands for, for the command line and for first tries: `contains:cat`, `ends-with-sentence`, `complete`,
// `length:60`, `soft-overlong:100:20`, `repetition:3`.
import { nearest, UsageError } from "../../base/errors.ts";
import type { Reward, RewardSample } from "./rewards.ts";

interface NamedReward {
  readonly usage: string;
  /** @param values what follows the name, split at colons. */
  make(values: readonly string[]): NonNullable<Reward["score"]>;
}

const number = (text: string | undefined, usage: string, fallback?: number): number => {
  const value = text === undefined ? fallback : Number(text);
  if (value === undefined || !Number.isFinite(value)) throw new UsageError(`reward: expected ${usage}, got ${text ?? "no number"}`);
  return value;
};

const namedRewards: Readonly<Record<string, NamedReward>> = {
  contains: {
    usage: "contains:<word>, 1 when the completion has the word",
    make(values) {
      const word = values.join(":");
      if (word === "") throw new UsageError("reward: expected contains:<word>, got no word");
      // A word of its own, whatever the case: "cat" is not in "catch".
      const pattern = new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "iu");
      return ({ completion }) => (pattern.test(completion) ? 1 : 0);
    },
  },
  "ends-with-sentence": {
    usage: "ends-with-sentence, 1 when the completion ends with a full sentence within its length",
    make: () => (sample) => (endsWithSentence(sample) ? 1 : 0),
  },
  complete: {
    usage: "complete, 1 when the completion ended by itself",
    make:
      () =>
      ({ isComplete }) =>
        isComplete ? 1 : 0,
  },
  length: {
    usage: "length:<tokens>, 1 at that length, falling to 0 at none or twice as many",
    make([text]) {
      const target = number(text, "length:<tokens>");
      return ({ completionIds }) => Math.max(0, 1 - Math.abs(completionIds.length - target) / target);
    },
  },
  "soft-overlong": {
    usage: "soft-overlong:<max>:<cache>, 0 up to max - cache tokens, then falling to -1 at max (DAPO)",
    make([first, second]) {
      const [max, cache] = [number(first, "soft-overlong:<max>:<cache>"), number(second, "soft-overlong:<max>:<cache>")];
      return ({ completionIds: { length } }) => (length <= max - cache ? 0 : length >= max ? -1 : (max - cache - length) / cache);
    },
  },
  repetition: {
    usage: "repetition:<n>[:<penalty>], the penalty (default -1) times the share of n-grams of words that repeat another",
    make([first, second]) {
      const [size, penalty] = [number(first, "repetition:<n>"), number(second, "repetition:<n>:<penalty>", -1)];
      return ({ completion }) => {
        const words = completion.toLowerCase().split(/\s+/).filter(Boolean);
        const count = words.length - size + 1;
        if (count <= 0) return 0;
        const seen = new Set(Array.from({ length: count }, (_, i) => words.slice(i, i + size).join(" ")));
        return penalty * (1 - seen.size / count);
      };
    },
  },
};

/** How the names are used, one line each. */
export const namedRewardUsages: readonly string[] = Object.values(namedRewards).map(({ usage }) => usage);

const endsWithSentence = ({ completion }: RewardSample): boolean => /[.!?]["'”’)]*$/u.test(completion.trimEnd());

/** The reward that a text stands for. @throws UsageError naming the nearest. */
export function namedReward(text: string): Reward {
  const [name, ...values] = text.split(":");
  if (Object.hasOwn(namedRewards, name)) return { name: text, score: namedRewards[name].make(values) };
  const guess = nearest(name, Object.keys(namedRewards));
  throw new UsageError(
    `reward: expected the path of a .js or .mjs module, or one of ${Object.keys(namedRewards).join(", ")}, got "${text}"`,
    {
      hint: guess === undefined ? undefined : `Did you mean "${guess}"?`,
    },
  );
}
