import { describe, expect, test } from "vitest";
import { TreeShape } from "../token-tree.ts";
import { relaxedVerifier } from "./relaxed.ts";
import { block, fixedChain } from "./testing/laws.ts";
import type { Chance } from "./verifier.ts";

const p = { "": [0.5, 0.3, 0.15, 0.05], "1": [0.1, 0.2, 0.3, 0.4], "0": [0.25, 0.25, 0.25, 0.25], "1,0": [0, 0, 1, 0] };
/** The most probable token. */
const chance: Chance = {
  accept: () => false,
  draw: ({ ids, probabilities, count }) => ids[probabilities.subarray(0, count).indexOf(Math.max(...probabilities.subarray(0, count)))],
};
const emitted = (tokens: number[], options: { topK?: number; delta?: number }): string =>
  block(relaxedVerifier(options), fixedChain(tokens), p, chance);

describe("relaxed acceptance", () => {
  test("takes drafts that are near enough to the top", () => {
    expect(emitted([1], { delta: 0.2 })).toBe("1,3");
    expect(emitted([1], { delta: 0.19 })).toBe("0");
    expect(emitted([1, 0], { delta: 0.31 })).toBe("1,0,2");
    expect(emitted([1, 0], { delta: 0.31, topK: 3 })).toBe("1,3");
    expect(emitted([2], { delta: 1, topK: 2 })).toBe("0");
    expect(emitted([0], { delta: 0 })).toBe("0,0");
  });
  test("of siblings the most probable", () => {
    const tree = { shape: new TreeShape([-1, 0, 0]), ids: Int32Array.of(-1, 2, 1) };
    expect(block(relaxedVerifier({ delta: 1 }), tree, p, chance)).toBe("1,3");
  });
  test("says that it is lossy", () => {
    expect(relaxedVerifier().lossless).toBe(false);
  });
});
