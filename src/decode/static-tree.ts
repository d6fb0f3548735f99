// Static trees grown greedily (Cai et al. 2024, Sec. 2.3.3): the next node is the one whose path is accepted most often, so that the first n
// nodes are the best tree of n, and its expected number of accepted tokens is the sum of their probabilities. Its size follows from what
// verifying n nodes costs here.
import { UsageError } from "../base/errors.ts";

/** How often all guesses of a path are right. A path's value is at most that of its beginning. */
export type PathProbability = (path: readonly number[]) => number;

/** Heads taken as independent (Medusa): the product of the accuracies [K][j] of guess j of head k. */
export function independentPaths(accuracies: readonly (readonly number[])[]): PathProbability {
  return (path) => path.reduce((product, guess, head) => product * (accuracies[head]?.[guess] ?? 0), 1);
}

/**
 * Counted together, as verification will see them: heads are right and wrong at the same places.
 * @param ranks [positions, K]: which guess of each head was right, −1 for none.
 */
export function jointPaths(ranks: ArrayLike<number>, numHeads: number): PathProbability {
  const numPositions = ranks.length / numHeads;
  const counts = new Map<string, number>();
  for (let position = 0; position < numPositions; position++) {
    let key = "";
    for (let head = 0; head < numHeads; head++) {
      const rank = ranks[position * numHeads + head];
      if (rank < 0) break;
      key = head === 0 ? String(rank) : `${key},${rank}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return (path) => (numPositions === 0 ? 0 : (counts.get(path.join()) ?? 0) / numPositions);
}

export interface GrowOptions {
  /** Drafted nodes, the root excluded. */
  maxNodes: number;
  /** Guesses after each other. */
  maxDepth: number;
  /** Guesses of one head. */
  maxChildren: number;
}

export interface GrownTree {
  /** Paths in the order in which they were added: any first n of them are a tree. */
  readonly choices: readonly (readonly number[])[];
  /** [n]: expected accepted tokens of the first n nodes; [0] is 0. */
  readonly expected: readonly number[];
}

/** Stops early when no path that is left was ever right. */
export function growTree(probabilityOf: PathProbability, { maxNodes, maxDepth, maxChildren }: GrowOptions): GrownTree {
  interface Candidate {
    path: readonly number[];
    probability: number;
  }
  const childrenOf = (path: readonly number[]): Candidate[] =>
    Array.from({ length: path.length < maxDepth ? maxChildren : 0 }, (_, guess) => {
      const child = [...path, guess];
      return { path: child, probability: probabilityOf(child) };
    });
  const candidates = childrenOf([]);
  const choices: (readonly number[])[] = [];
  const expected = [0];
  while (choices.length < maxNodes) {
    let best = -1;
    for (const [i, { probability }] of candidates.entries())
      if (probability > 0 && (best < 0 || probability > candidates[best].probability)) best = i;
    if (best < 0) break;
    const [{ path, probability }] = candidates.splice(best, 1);
    choices.push(path);
    expected.push(expected[expected.length - 1] + probability);
    candidates.push(...childrenOf(path));
  }
  return { choices, expected };
}

/** What a step of so many nodes (root included) costs. */
export interface CostPoint {
  readonly tokens: number;
  readonly milliseconds: number;
}

/** v at any number of tokens: straight lines between the measured ones. */
export function costAt(curve: readonly CostPoint[], tokens: number): number {
  if (curve.length === 0) throw new UsageError("cost curve: expected at least one measured size, got none");
  const at = curve.findIndex((point) => point.tokens >= tokens);
  if (at === 0 || curve.length === 1) return curve[0].milliseconds;
  // Beyond the last size the last slope goes on.
  const [a, b] = at < 0 ? curve.slice(-2) : [curve[at - 1], curve[at]];
  return a.milliseconds + ((tokens - a.tokens) * (b.milliseconds - a.milliseconds)) / (b.tokens - a.tokens);
}

export interface TreeSizeOptions {
  /** Milliseconds of drafting, paid by every step that drafts. Default 0. */
  draftMilliseconds?: number;
  /** Milliseconds that every step costs besides the target, drafting or not. Default 0. */
  stepMilliseconds?: number;
}

export interface TreeSize {
  /** Drafted nodes; 0: drafting does not pay. */
  readonly numNodes: number;
  /** Expected tokens a second over those of plain decoding. */
  readonly speedup: number;
}

/** The number of nodes with the most expected tokens a second: (1 + expected[n]) / (cost of n + 1 nodes). */
export function chooseTreeSize({ expected }: GrownTree, curve: readonly CostPoint[], options: TreeSizeOptions = {}): TreeSize {
  const { draftMilliseconds = 0, stepMilliseconds = 0 } = options;
  const plain = costAt(curve, 1) + stepMilliseconds;
  let best: TreeSize = { numNodes: 0, speedup: 1 };
  for (let numNodes = 1; numNodes < expected.length; numNodes++) {
    const cost = costAt(curve, numNodes + 1) + stepMilliseconds + draftMilliseconds;
    const speedup = ((1 + expected[numNodes]) * plain) / cost;
    if (speedup > best.speedup) best = { numNodes, speedup };
  }
  return best;
}
