import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { clipTree, sortChoices, TreeShape } from "./token-tree.ts";

interface GoldenTree {
  name: string;
  choices: number[][];
  attentionMask: number[][];
  positionIds: number[];
  retrieveIndices: number[][];
}
const golden = JSON.parse(readFileSync("test/golden/speculative/medusa-trees.json", "utf8")) as { cases: GoldenTree[] };

describe.each(golden.cases.map((fields) => [fields.name, fields] as const))("static tree %s", (_, fields) => {
  const shape = TreeShape.fromChoices(fields.choices.toReversed());
  test("mask, depths and paths are those of Medusa", () => {
    expect(Array.from(shape.depths)).toEqual(fields.positionIds);
    const { size } = shape;
    const seen = Array.from({ length: size }, (_, i) =>
      Array.from(shape.bias.data.subarray(i * size, (i + 1) * size), (x) => (x === 0 ? 1 : 0)),
    );
    expect(seen).toEqual(fields.attentionMask);
    const path = new Int32Array(size);
    const paths = shape.leaves.map((leaf) => Array.from(path.subarray(0, shape.pathTo(leaf, path))).join());
    expect(paths.sort()).toEqual(fields.retrieveIndices.map((nodes) => nodes.filter((node) => node >= 0).join()).sort());
  });

  test("siblings are walked in their order", () => {
    const sorted = sortChoices(fields.choices);
    for (let node = 0; node < shape.size; node++) {
      const children: number[] = [];
      for (let child = shape.firstChild[node]; child >= 0; child = shape.nextSibling[child]) children.push(child);
      const path = node === 0 ? [] : sorted[node - 1];
      const expected = sorted.flatMap((other, i) =>
        other.length === path.length + 1 && path.every((step, at) => other[at] === step) ? [i + 1] : [],
      );
      expect(children).toEqual(expected);
    }
  });
});

test("chains and what is left of trees are the same objects every time", () => {
  expect(TreeShape.chain(3)).toBe(TreeShape.chain(3));
  expect(TreeShape.chain(3).isChain).toBe(true);
  const shape = TreeShape.fromChoices([[0], [1], [0, 0], [0, 1], [1, 0], [0, 0, 0]]);
  expect(shape.isChain).toBe(false);
  expect(shape.within(99, 99)).toBe(shape);
  expect(shape.within(4, 99)).toBe(shape.within(4, 2));
  expect(Array.from(shape.within(99, 1).parents)).toEqual([-1, 0, 0]);
  expect(shape.within(99, 0)).toBe(shape.within(0, -1));
  expect(shape.within(2, 1).isChain).toBe(true);
  const tree = { shape, ids: new Int32Array(7) };
  expect(clipTree(tree, 7, 3)).toBe(tree);
  expect(clipTree(tree, 3, 3).shape.size).toBe(3);
});

test("what is no tree is refused", () => {
  expect(() => new TreeShape([])).toThrow("expected a root");
  expect(() => new TreeShape([0])).toThrow("expected a root");
  expect(() => new TreeShape([-1, 1])).toThrow("among nodes 0 to 0");
  expect(() => new TreeShape([-1, 0, 1, 0])).toThrow("order of their depth");
  expect(() => TreeShape.fromChoices([[0, 1]])).toThrow("after its beginning");
  expect(() => TreeShape.fromChoices([[0], [0]])).toThrow("each path once");
});
