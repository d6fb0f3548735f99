// Trees: nested objects and arrays whose leaves are tensors, buffers or specifications. Paths read `layers.3.attention.query`.
import { LongwaveError } from "../base/errors.ts";

/** A leaf is anything with a dtype and a shape: Tensor, TensorBuffer, TensorSpec. */
export interface Leaf {
  readonly dtype: string;
  readonly shape: readonly (number | string)[];
}

export type Tree<T> = T | readonly Tree<T>[] | { readonly [key: string]: Tree<T> | undefined };

/** The same tree with other leaves. */
export type MapTree<T, To> = T extends Leaf ? To : { [K in keyof T]: MapTree<T[K], To> };

export const isLeaf = (value: unknown): value is Leaf =>
  typeof value === "object" && value !== null && "dtype" in value && "shape" in value;

/** Leaves with their paths, in the order of the keys. @throws LongwaveError for something that is neither leaf, array nor object. */
export function flatten<T>(tree: Tree<T>, prefix = ""): [path: string, leaf: T][] {
  const result: [string, T][] = [];
  visit(tree, prefix, (path, leaf) => result.push([path, leaf as T]));
  return result;
}

function visit(tree: unknown, path: string, found: (path: string, leaf: unknown) => void): void {
  if (isLeaf(tree)) {
    found(path, tree);
  } else if (Array.isArray(tree)) {
    for (const [index, child] of tree.entries()) visit(child, join(path, String(index)), found);
  } else if (typeof tree === "object" && tree !== null) {
    for (const [key, child] of Object.entries(tree)) if (child !== undefined) visit(child, join(path, key), found);
  } else {
    throw new LongwaveError(`tree: expected tensors in nested objects and arrays, got ${String(tree)} at "${path}"`);
  }
}

/** The tree with `transform` applied to each leaf. */
export function mapTree<T, To>(tree: T, transform: (leaf: Leaf, path: string) => To, prefix = ""): MapTree<T, To> {
  const recurse = (node: unknown, path: string): unknown => {
    if (isLeaf(node)) return transform(node, path);
    if (Array.isArray(node)) return node.map((child, index) => recurse(child, join(path, String(index))));
    if (typeof node === "object" && node !== null) {
      return Object.fromEntries(
        Object.entries(node).flatMap(([key, child]) => (child === undefined ? [] : [[key, recurse(child, join(path, key))]])),
      );
    }
    throw new LongwaveError(`tree: expected tensors in nested objects and arrays, got ${String(node)} at "${path}"`);
  };
  return recurse(tree, prefix) as MapTree<T, To>;
}

/** A tree shaped like `like` with leaves taken from a map by path. */
export function unflatten<T, To>(like: T, leaves: ReadonlyMap<string, To>): MapTree<T, To> {
  return mapTree(like, (_, path) => {
    const leaf = leaves.get(path);
    if (leaf === undefined) throw new LongwaveError(`unflatten: expected a leaf at "${path}", got none`);
    return leaf;
  });
}

export const join = (path: string, key: string): string => (path ? `${path}.${key}` : key);
