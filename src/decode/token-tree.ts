// A tree of drafted tokens below the last committed token, its root. Nodes come by depth, parents before children, so that a node's
// index is also its place in the program's rows, and leaving out what lies deepest leaves a prefix. A chain is a tree of one branch;
// plain decoding is a tree of one node. Shape and tokens are apart: a static tree has one shape for all steps.
import { invariant, UsageError } from "../base/errors.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { Distribution } from "./sampling/distribution.ts";

/** Additive bias of a node that is no ancestor. Finite, because a row of infinities has no softmax. */
const masked = -1e30;

/** Which node follows which. N nodes, node 0 is the root. Immutable. */
export class TreeShape {
  /** N, root included. */
  readonly size: number;
  /** [N]; −1 for the root. */
  readonly parents: Int32Array;
  /** [N]; 0 for the root. */
  readonly depths: Int32Array;
  readonly maxDepth: number;
  /** Every node but the root follows the one before it. */
  readonly isChain: boolean;
  /** [N]: the first child of each node, −1 where there is none. */
  readonly firstChild: Int32Array;
  /** [N]: the next child of the same parent, −1 where there is none. Siblings are tried in this order. */
  readonly nextSibling: Int32Array;
  #bias: TensorBuffer<"f32"> | undefined;
  readonly #prefixes = new Map<number, TreeShape>();

  /**
   * @param parents [N]: the parent of each node; −1 for the root, which is node 0.
   * @throws UsageError unless parents come before their children and depths never fall.
   */
  constructor(parents: ArrayLike<number>) {
    const size = parents.length;
    this.size = size;
    this.parents = Int32Array.from(parents);
    this.depths = new Int32Array(size);
    this.firstChild = new Int32Array(size).fill(-1);
    this.nextSibling = new Int32Array(size).fill(-1);
    const lastChild = new Int32Array(size).fill(-1);
    if (size === 0 || parents[0] !== -1)
      throw new UsageError(`token tree: expected a root with parent -1 as the first node, got ${size === 0 ? "no node" : parents[0]}`);
    let isChain = true;
    for (let node = 1; node < size; node++) {
      const parent = this.parents[node];
      if (!(parent >= 0 && parent < node))
        throw new UsageError(`token tree: expected the parent of node ${node} among nodes 0 to ${node - 1}, got ${parents[node]}`);
      this.depths[node] = this.depths[parent] + 1;
      if (this.depths[node] < this.depths[node - 1])
        throw new UsageError(`token tree: expected nodes in the order of their depth, got node ${node} above node ${node - 1}`);
      if (lastChild[parent] < 0) this.firstChild[parent] = node;
      else this.nextSibling[lastChild[parent]] = node;
      lastChild[parent] = node;
      isChain &&= parent === node - 1;
    }
    this.isChain = isChain;
    this.maxDepth = this.depths[size - 1];
  }

  /** A root and `length` tokens after each other. The same object for the same length. */
  static chain(length: number): TreeShape {
    let shape = chains.get(length);
    if (!shape) {
      shape = new TreeShape(Int32Array.from({ length: length + 1 }, (_, i) => i - 1));
      chains.set(length, shape);
    }
    return shape;
  }

  /**
   * A static tree from its paths: `[0, 2]` is the third guess of the second head under the first guess of the first. Medusa's
   * `medusa_choices`: nodes are ordered by depth, then by their path.
   * @throws UsageError when a path's beginning is missing.
   */
  static fromChoices(choices: readonly (readonly number[])[]): TreeShape {
    const sorted = sortChoices(choices);
    const places = new Map<string, number>([["", 0]]);
    const parents = [-1];
    for (const [i, path] of sorted.entries()) {
      const parent = places.get(path.slice(0, -1).join());
      if (parent === undefined || path.length === 0 || places.has(path.join()))
        throw new UsageError(`token tree: expected each path once and after its beginning, got [${path.join(", ")}]`, {
          hint: "List [0] before [0, 1].",
        });
      places.set(path.join(), i + 1);
      parents.push(parent);
    }
    return new TreeShape(parents);
  }

  /** [1, 1, N, N]: 0 where the column is the row's node or an ancestor of it, else a large negative number. */
  get bias(): TensorBuffer<"f32"> {
    if (!this.#bias) {
      const { size, parents } = this;
      const bias = allocate("f32", [1, 1, size, size]);
      bias.data.fill(masked);
      for (let node = 0; node < size; node++) for (let at = node; at >= 0; at = parents[at]) bias.data[node * size + at] = 0;
      this.#bias = bias;
    }
    return this.#bias;
  }

  /** What is left within so many nodes and so deep: the first nodes. The same object when nothing is left out, and for the same limits. */
  within(maxNodes: number, maxDepth: number): TreeShape {
    let size = Math.max(1, Math.min(this.size, maxNodes));
    while (this.depths[size - 1] > Math.max(0, maxDepth)) size--;
    if (size === this.size) return this;
    let prefix = this.#prefixes.get(size);
    if (!prefix) {
      prefix = this.isChain ? TreeShape.chain(size - 1) : new TreeShape(this.parents.subarray(0, size));
      this.#prefixes.set(size, prefix);
    }
    return prefix;
  }

  /** Nodes from the root to `node`, root included, into `out`; returns how many. */
  pathTo(node: number, out: Int32Array): number {
    const length = this.depths[node] + 1;
    for (let at = node, i = length - 1; at >= 0; at = this.parents[at]) out[i--] = at;
    return length;
  }

  /** Nodes without children. */
  get leaves(): number[] {
    return Array.from({ length: this.size }, (_, node) => node).filter((node) => this.firstChild[node] < 0);
  }
}

const chains = new Map<number, TreeShape>();

/** Paths in the order of {@link TreeShape.fromChoices}. */
export const sortChoices = (choices: readonly (readonly number[])[]): (readonly number[])[] =>
  choices.toSorted((a, b) => {
    if (a.length !== b.length) return a.length - b.length;
    const i = a.findIndex((step, at) => step !== b[at]);
    return i < 0 ? 0 : a[i] - b[i];
  });

/** The shape of a step and its tokens. */
export interface TokenTree {
  readonly shape: TreeShape;
  /** [at least N]: node 0 is the last committed token. */
  readonly ids: Int32Array;
  /**
   * By node, the distribution that its token was drawn from, after temperature and everything else; undefined where the token was
   * chosen without chance (argmax, lookup, a static tree). Absent: no token was drawn.
   */
  readonly distributions?: readonly (Distribution | undefined)[];
}

/** A tree of one node: plain decoding. `ids` is its memory. */
export function rootOnly(id: number, ids: Int32Array = new Int32Array(1)): TokenTree {
  ids[0] = id;
  return { shape: TreeShape.chain(0), ids };
}

/** The tree without what does not fit. */
export function clipTree(tree: TokenTree, maxNodes: number, maxDepth: number): TokenTree {
  const shape = tree.shape.within(maxNodes, maxDepth);
  if (shape === tree.shape) return tree;
  invariant(shape.size <= tree.ids.length, "a tree has fewer tokens than nodes");
  return { ...tree, shape };
}
