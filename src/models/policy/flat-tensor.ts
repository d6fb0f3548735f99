// A tree of parameters as one tensor, inside a program: cut into its leaves once, and gradients joined again. A program that takes and
// gives the flat tensor reads its parameters in one place, so that the new values may overwrite the old ones in the same run.

import type { FlatLayout } from "../../runtime/flat.ts";
import { full, reshape } from "../../tensor/core.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { concat, split } from "../../tensor/shape.ts";
import { flatten, type MapTree, unflatten } from "../../tensor/tree.ts";

/** Leaves of `like` (paths as in the layout) as parts of `flat` [layout.length]. */
export function leavesOf<T>(layout: FlatLayout, flat: Tensor, like: T): MapTree<T, Tensor> {
  const sizes: number[] = [];
  const places = new Map<string, { index: number; shape: readonly number[] }>();
  let at = 0;
  for (const { path, offset, length, shape } of layout.leaves) {
    if (offset > at) sizes.push(offset - at);
    places.set(path, { index: sizes.length, shape });
    sizes.push(length);
    at = offset + length;
  }
  if (layout.length > at) sizes.push(layout.length - at);
  const parts = split(flat, sizes, 0);
  return unflatten(like, new Map([...places].map(([path, { index, shape }]) => [path, reshape(parts[index], shape)])));
}

/** The inverse: leaves joined into [layout.length], zeros between them. */
export function joinLeaves(layout: FlatLayout, tree: unknown): Tensor {
  const leaves = new Map(flatten<Tensor>(tree as never));
  const parts: Tensor[] = [];
  let at = 0;
  const fill = (anchor: Tensor, until: number): void => {
    if (until > at) parts.push(full(anchor.graph, anchor.dtype, [until - at], 0));
  };
  let last: Tensor | undefined;
  for (const { path, offset, length } of layout.leaves) {
    const leaf = leaves.get(path) as Tensor;
    fill(leaf, offset);
    parts.push(reshape(leaf, [length]));
    at = offset + length;
    last = leaf;
  }
  if (last) fill(last, layout.length);
  return parts.length === 1 ? parts[0] : concat(parts, 0);
}
