// A layered layout for token trees: depth runs to the right, leaves take one row each, a parent stands amid its children.

export interface TreeNode {
  readonly id: string;
  /** Undefined for the root. */
  readonly parent: string | undefined;
}

export interface Placed<N> {
  readonly node: N;
  readonly depth: number;
  /** In rows of leaves from the top; parents lie between rows. */
  readonly row: number;
  readonly parent: number | undefined;
}

/**
 * Places every node that hangs together with a root; children keep the order in which they are given.
 * Nodes whose parent is missing become roots themselves; nodes on a cycle have no root and are left out.
 */
export function layoutTree<N extends TreeNode>(nodes: readonly N[]): { placed: Placed<N>[]; depth: number; rows: number } {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const children = new Map<string, N[]>();
  const roots: N[] = [];
  for (const node of byId.values()) {
    if (node.parent === undefined || !byId.has(node.parent)) roots.push(node);
    else children.set(node.parent, [...(children.get(node.parent) ?? []), node]);
  }
  // Preorder with a stack of its own: a chain of ten thousand tokens must not overflow the call stack.
  const placed: { node: N; depth: number; row: number; parent: number | undefined }[] = [];
  const stack = roots.toReversed().map((node) => ({ node, depth: 0, parent: undefined as number | undefined }));
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { node, depth, parent } = next;
    const index = placed.push({ node, depth, row: Number.NaN, parent }) - 1;
    for (const child of (children.get(node.id) ?? []).toReversed()) stack.push({ node: child, depth: depth + 1, parent: index });
  }
  let rows = 0;
  const extent = placed.map(() => ({ first: Number.POSITIVE_INFINITY, last: Number.NEGATIVE_INFINITY }));
  placed.forEach(({ node }, i) => {
    if (!children.has(node.id)) extent[i] = { first: rows, last: rows++ };
  });
  // Children follow their parents in preorder, so going backwards every row is known before it is asked for.
  for (let i = placed.length - 1; i >= 0; i--) {
    placed[i].row = (extent[i].first + extent[i].last) / 2;
    const { parent, row } = placed[i];
    if (parent !== undefined) extent[parent] = { first: Math.min(extent[parent].first, row), last: Math.max(extent[parent].last, row) };
  }
  return { placed, depth: placed.reduce((deepest, { depth }) => Math.max(deepest, depth), 0), rows };
}
