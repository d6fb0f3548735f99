// One flat buffer for a whole tree of tensors: leaves are 64-byte aligned slices of it, so that an optimiser step, clipping, averaging,
// a checkpoint or an all-reduce is one pass over contiguous memory. Leaves are ordered by group, then as in the tree.
import { invariant, ShapeError } from "../base/errors.ts";
import { bytesPerElement, type DType } from "../tensor/dtype.ts";
import { flatten, type Leaf, type MapTree, type Tree, unflatten } from "../tensor/tree.ts";
import { alignmentBytes, allocate, sizeOf, type TensorBuffer, viewOf } from "./buffer.ts";

export interface FlatLeaf {
  readonly path: string;
  readonly shape: readonly number[];
  /** First element in the flat buffer. */
  readonly offset: number;
  readonly length: number;
  readonly group: string;
}

/** A contiguous range [start, end) of elements whose leaves share a group. Padding between leaves belongs to it and stays 0. */
export interface FlatGroup {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export interface FlatLayout {
  readonly dtype: DType;
  readonly leaves: readonly FlatLeaf[];
  readonly groups: readonly FlatGroup[];
  /** Elements, padding included. */
  readonly length: number;
}

export interface FlatBuffer<T = Tree<Leaf>> {
  readonly layout: FlatLayout;
  /** All elements, rank 1. */
  readonly buffer: TensorBuffer;
  /** Views of the leaves, shaped as the tree that the layout was made from. */
  readonly tree: MapTree<T, TensorBuffer>;
  /** A view by path. */
  readonly leaves: ReadonlyMap<string, TensorBuffer>;
}

/**
 * Where each leaf of `tree` lies. `groupOf` names the group of a leaf (default: one group, "all"); groups come in order of first appearance.
 * @throws ShapeError for mixed dtypes or symbolic dimensions.
 */
export function layoutOf<T>(tree: T, groupOf: (path: string, leaf: Leaf) => string = () => "all"): FlatLayout {
  const leaves = flatten<Leaf>(tree as Tree<Leaf>).map(([path, leaf]) => ({ path, leaf, group: groupOf(path, leaf) }));
  const dtype = (leaves[0]?.leaf.dtype ?? "f32") as DType;
  const align = alignmentBytes / bytesPerElement[dtype];
  const result: FlatLeaf[] = [];
  const groups: FlatGroup[] = [];
  let offset = 0;
  for (const group of new Set(leaves.map((entry) => entry.group))) {
    const start = offset;
    for (const { path, leaf } of leaves.filter((entry) => entry.group === group)) {
      if (leaf.dtype !== dtype) throw new ShapeError(`layoutOf: expected one dtype, got ${dtype} and ${leaf.dtype} at "${path}"`);
      const shape = leaf.shape.map((dim) => {
        if (typeof dim !== "number")
          throw new ShapeError(`layoutOf: expected fixed dimensions, got [${leaf.shape.join(", ")}] at "${path}"`);
        return dim;
      });
      const length = sizeOf(shape);
      result.push({ path, shape, offset, length, group });
      offset += Math.ceil(length / align) * align;
    }
    groups.push({ name: group, start, end: offset });
  }
  return { dtype, leaves: result, groups, length: offset };
}

/** Zero-filled memory for `layout`, seen as `tree`. */
export function allocateFlat<T>(tree: T, layout: FlatLayout = layoutOf(tree)): FlatBuffer<T> {
  const buffer = allocate(layout.dtype, [layout.length]);
  const leaves = new Map(layout.leaves.map(({ path, shape, offset }) => [path, viewOf(buffer, shape, offset)]));
  invariant(leaves.size === layout.leaves.length, "two leaves share a path");
  return { layout, buffer, tree: unflatten(tree, leaves), leaves };
}
