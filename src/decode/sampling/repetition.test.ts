// DRY and XTC against plain definitions: every suffix compared with every place; the mixture of two distributions, and drawing itself.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fillNormal } from "../../runtime/rng-fill.ts";
import { drySequenceBreakersOf } from "./dry.ts";
import { ignoredSettings, samplingOptions } from "./options.ts";
import { createProcessor } from "./processor.ts";

const vocabularySize = 6;
const breakerLists: number[][][] = [
  [],
  [[3]],
  [
    [2, 3],
    [1, 1],
  ],
];

/** The penalty of each id, by trying every length at every place. */
function plainDry(ids: readonly number[], breakers: readonly number[][], multiplier: number, base: number, allowed: number): number[] {
  const penalties = new Array<number>(vocabularySize).fill(0);
  /** A breaker ends at this place of the text. */
  const endsBreaker = (at: number): boolean =>
    breakers.some((breaker) => breaker.every((id, k) => ids[at - breaker.length + 1 + k] === id));
  for (let id = 0; id < vocabularySize; id++) {
    let longest = 0;
    for (let length = 1; length < ids.length; length++) {
      const suffix = ids.slice(-length);
      if (endsBreaker(ids.length - length)) break;
      for (let end = length; end < ids.length; end++) {
        if (ids[end] === id && ids.slice(end - length, end).join() === suffix.join()) longest = length;
      }
    }
    if (longest >= allowed) penalties[id] = multiplier * base ** (longest - allowed);
  }
  return penalties;
}

test("DRY equals its definition", () => {
  const sequence = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 24 });
  fc.assert(
    fc.property(sequence, fc.constantFrom(...breakerLists), fc.integer({ min: 1, max: 3 }), (ids, breakers, allowed) => {
      const options = { dryMultiplier: 0.5, dryBase: 2, dryAllowedLength: allowed, drySequenceBreakers: breakers };
      const logits = new Float32Array(vocabularySize);
      createProcessor({ ...options, doSample: false }, { vocabularySize }).process(logits, { ids, promptLength: 0 });
      expect(Array.from(logits, (x) => 0 - x)).toEqual(plainDry(ids, breakers, 0.5, 2, allowed));
    }),
    { numRuns: 600 },
  );
});

describe("DRY", () => {
  const penalised = (ids: number[], options: object): number[] => {
    const logits = new Float32Array(vocabularySize);
    createProcessor({ doSample: false, dryMultiplier: 1, ...options }, { vocabularySize }).process(logits, { ids, promptLength: 2 });
    return [...logits.keys()].filter((id) => logits[id] < 0);
  };

  test("looks at the last ids alone when asked to", () => {
    const ids = [0, 1, 2, 4, 4, 0, 1];
    expect(penalised(ids, {})).toEqual([2]);
    expect(penalised(ids, { dryPenaltyLastN: 4 })).toEqual([]);
    expect(penalised(ids, { dryPenaltyLastN: 0 })).toEqual([]);
  });

  test("stays finite, and linear, however long the repetition is", () => {
    const ids = Array.from({ length: 40_000 }, (_, i) => i % 2);
    const logits = new Float32Array(vocabularySize);
    createProcessor({ dryMultiplier: 10, doSample: false }, { vocabularySize }).process(logits, { ids, promptLength: 0 });
    expect(logits[0]).toBeLessThan(-1e30);
    expect(Number.isFinite(logits[0])).toBe(true);
    expect(logits[1]).toBe(0);
  });

  test("breakers are the tokens that hold them", () => {
    const bytes = ["a", "b\n", ": ", undefined, "c"].map((text) => (text === undefined ? undefined : Buffer.from(text)));
    expect(drySequenceBreakersOf(bytes)).toEqual([[1], [2]]);
    expect(drySequenceBreakersOf(bytes, ["c"])).toEqual([[4]]);
  });
});

describe("XTC", () => {
  const row = Float32Array.from([0.5, 0.3, 0.15, 0.04, 0.01], Math.log);
  const law = (options: object) => [...createProcessor(options, { vocabularySize: 5 }).probabilities(row, { ids: [], promptLength: 0 })];
  const close = (actual: readonly number[], expected: readonly number[]): void => {
    for (const [i, p] of expected.entries()) expect(Math.abs(actual[i] - p)).toBeLessThan(1e-7);
  };

  test("is the mixture of the distribution with and without its top", () => {
    // 0.5 and 0.3 go, 0.15 is the least probable of those above the threshold.
    const without = [0, 0, 0.15, 0.04, 0.01].map((p) => p / 0.2);
    close(law({ xtcProbability: 1, xtcThreshold: 0.1 }), without);
    const mixed = [0.5, 0.3, 0.15, 0.04, 0.01].map((p, i) => 0.7 * p + 0.3 * without[i]);
    close(law({ xtcProbability: 0.3, xtcThreshold: 0.1 }), mixed);
  });

  test("a threshold of 0 leaves the least probable token alone", () => {
    close(law({ xtcProbability: 1, xtcThreshold: 0 }), [0, 0, 0, 0, 1]);
    const probabilities = createProcessor({ xtcProbability: 1, xtcThreshold: 0 }, { vocabularySize: 2 }).probabilities(
      Float32Array.of(0, -2000),
      { ids: [], promptLength: 0 },
    );
    expect(probabilities[0] + probabilities[1]).toBe(1);
  });

  test("does nothing to a single candidate, and comes last", () => {
    close(law({ xtcProbability: 1, xtcThreshold: 0.4 }), [0.5, 0.3, 0.15, 0.04, 0.01]);
    const { steps } = createProcessor({ xtcProbability: 0.5, minP: 0.1, temperature: 2, dryMultiplier: 1 }, { vocabularySize: 5 });
    expect(steps).toEqual(["dry", "temperature", "minP", "xtc"]);
  });

  test("probabilities stay a distribution on any row", () => {
    const processor = createProcessor({ xtcProbability: 0.6, xtcThreshold: 0.05, topP: 0.95 }, { vocabularySize: 40 });
    for (let seed = 0; seed < 50; seed++) {
      const logits = new Float32Array(40);
      fillNormal(logits, 0, 2, { seed });
      const total = processor.probabilities(logits, { ids: [], promptLength: 0 }).reduce((sum, p) => sum + p, 0);
      expect(Math.abs(total - 1)).toBeLessThan(1e-9);
    }
  });

  test("settings without effect are told", () => {
    const ignored = (options: object) => ignoredSettings(samplingOptions.parse(options));
    expect(ignored({ xtcProbability: 0.5, xtcThreshold: 0.6 })).toEqual(["xtcProbability"]);
    expect(ignored({ xtcProbability: 0.5, doSample: false })).toEqual(["xtcProbability"]);
    expect(ignored({ dryBase: 3 })).toEqual(["dryBase"]);
  });
});
