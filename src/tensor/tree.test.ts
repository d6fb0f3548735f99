import { describe, expect, test } from "vitest";
import { flatten, mapTree, unflatten } from "./tree.ts";

const leaf = (dtype: string) => ({ dtype, shape: [] });
const tree = { layers: [{ w: leaf("a"), b: undefined }, { w: leaf("b") }], head: leaf("c"), none: [], empty: {} };

describe("trees", () => {
  test("flatten in the order of keys, without undefined entries", () => {
    expect(flatten(tree as never).map(([path]) => path)).toEqual(["layers.0.w", "layers.1.w", "head"]);
    expect(flatten(leaf("x") as never)).toEqual([["", leaf("x")]]);
  });
  test("map keeps the structure", () => {
    expect(mapTree(tree, ({ dtype }, path) => `${path}:${dtype}`)).toEqual({
      layers: [{ w: "layers.0.w:a" }, { w: "layers.1.w:b" }],
      head: "head:c",
      none: [],
      empty: {},
    });
  });
  test("unflatten undoes flatten, and says which leaf is missing", () => {
    const leaves = new Map(flatten<ReturnType<typeof leaf>>(tree as never));
    expect(unflatten(tree, leaves)).toEqual({ layers: [{ w: leaf("a") }, { w: leaf("b") }], head: leaf("c"), none: [], empty: {} });
    leaves.delete("layers.1.w");
    expect(() => unflatten(tree, leaves)).toThrow('unflatten: expected a leaf at "layers.1.w", got none');
  });
  test("anything else is refused with its path", () => {
    for (const bad of [3, "x", null, true]) {
      expect(() => flatten({ a: [bad] } as never)).toThrow(`tree: expected tensors in nested objects and arrays, got ${bad} at "a.0"`);
      expect(() => mapTree({ a: [bad] }, () => 0)).toThrow(`got ${bad} at "a.0"`);
    }
  });
});
