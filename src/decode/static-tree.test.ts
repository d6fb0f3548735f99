import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { chooseTreeSize, costAt, growTree, independentPaths, jointPaths } from "./static-tree.ts";
import { TreeShape } from "./token-tree.ts";

const { greedyGrowth } = JSON.parse(readFileSync("test/golden/speculative/medusa-trees.json", "utf8")) as {
  greedyGrowth: { accuracies: number[][]; maxDepth: number; maxChildren: number; nodes: number; order: number[][] };
};

test("greedy growth takes the reference's nodes in its order", () => {
  const { accuracies, maxDepth, maxChildren, nodes, order } = greedyGrowth;
  const grown = growTree(independentPaths(accuracies), { maxNodes: nodes, maxDepth, maxChildren });
  expect(grown.choices).toEqual(order);
  // Expected accepted tokens: the sum of the paths' products.
  const sum = order.reduce((total, path) => total + path.reduce((p, guess, head) => p * accuracies[head][guess], 1), 0);
  expect(grown.expected.at(-1)).toBeCloseTo(sum, 12);
});

describe("paths counted together", () => {
  // Heads that are right together at half of the places, and wrong together at the others.
  const ranks = [0, 0, 0, 0, -1, 2, 1, 0];
  test("tell what independence would not", () => {
    const joint = jointPaths(ranks, 2);
    expect([joint([0]), joint([0, 0]), joint([1]), joint([1, 0]), joint([0, 2])]).toEqual([0.5, 0.5, 0.25, 0.25, 0]);
    const grown = growTree(joint, { maxNodes: 9, maxDepth: 2, maxChildren: 3 });
    expect(grown).toEqual({ choices: [[0], [0, 0], [1], [1, 0]], expected: [0, 0.5, 1, 1.25, 1.5] });
    expect(TreeShape.fromChoices(grown.choices).size).toBe(5);
  });

  test("no positions, no tree", () => {
    expect(growTree(jointPaths([], 2), { maxNodes: 9, maxDepth: 2, maxChildren: 3 })).toEqual({ choices: [], expected: [0] });
  });
});

describe("size by cost", () => {
  const grown = { choices: [[0], [0, 0], [1]], expected: [0, 0.8, 1.3, 1.4] };
  test("costs between and beyond measured sizes lie on straight lines", () => {
    const curve = [1, 3, 4].map((tokens, i) => ({ tokens, milliseconds: [1, 2, 4][i] }));
    expect([0, 1, 2, 3, 3.5, 5].map((tokens) => costAt(curve, tokens))).toEqual([1, 1, 1.5, 2, 3, 6]);
    expect(costAt([{ tokens: 2, milliseconds: 3 }], 9)).toBe(3);
    expect(() => costAt([], 1)).toThrow("at least one");
  });

  test("the most expected tokens a second win", () => {
    const flat = [
      { tokens: 1, milliseconds: 1 },
      { tokens: 9, milliseconds: 1 },
    ];
    expect(chooseTreeSize(grown, flat)).toEqual({ numNodes: 3, speedup: 2.4 });
    const steep = [
      { tokens: 1, milliseconds: 1 },
      { tokens: 2, milliseconds: 1.2 },
      { tokens: 4, milliseconds: 3 },
    ];
    expect(chooseTreeSize(grown, steep)).toEqual({ numNodes: 1, speedup: 1.5 });
    // Leviathan's formula with v = n: nothing pays.
    const linear = [
      { tokens: 1, milliseconds: 1 },
      { tokens: 4, milliseconds: 4 },
    ];
    expect(chooseTreeSize(grown, linear)).toEqual({ numNodes: 0, speedup: 1 });
    expect(chooseTreeSize(grown, flat, { draftMilliseconds: 2 }).numNodes).toBe(0);
    // What each step costs anyway makes drafts cheaper.
    expect(chooseTreeSize(grown, linear, { stepMilliseconds: 9 }).numNodes).toBe(2);
  });
});
