// Verifiers over tables of p and q by context instead of models: small enough that every outcome has an exact probability.
import { Distribution } from "../../sampling/distribution.ts";
import { type TokenTree, TreeShape } from "../../token-tree.ts";
import { blockVerifier } from "../block.ts";
import { deterministicVerifier } from "../deterministic.ts";
import { rejectionVerifier } from "../rejection.ts";
import { tokenMatchVerifier } from "../token-match.ts";
import type { Chance, TargetView, Verifier } from "../verifier.ts";

/** Probabilities [V] by context, ids joined by commas; "" is the empty one. */
export type Table = Readonly<Record<string, readonly number[]>>;
/** The target of a table over contexts, at the nodes of a tree. */
export function targetOf(p: Table, { shape, ids }: TokenTree): TargetView {
  const contextOf = (node: number): string => {
    const tokens: number[] = [];
    for (let at = node; at > 0; at = shape.parents[at]) tokens.unshift(ids[at]);
    return tokens.join();
  };
  return {
    distribution: (node) => new Distribution().setDense(p[contextOf(node)]),
    argmax: (node) => p[contextOf(node)].indexOf(Math.max(...p[contextOf(node)])),
  };
}

export const argmaxOf = (values: readonly number[]): number => values.indexOf(Math.max(...values));

/** The block that a verifier emits: tokens of the path and the one after it. */
export function block(verifier: Verifier, tree: TokenTree, p: Table, chance: Chance): string {
  const { node, token } = verifier.verify(tree, targetOf(p, tree), chance);
  const path = new Int32Array(tree.shape.size);
  const length = tree.shape.pathTo(node, path);
  return [...Array.from(path.subarray(1, length), (at) => tree.ids[at]), token].join();
}

/** A chain drawn from q, token by token. `known`: the drafts tell their distribution. */
export function drawnChain(q: Table, chance: Chance, known: boolean, length = 2): TokenTree {
  const ids = new Int32Array(length + 1);
  const distributions: (Distribution | undefined)[] = [undefined];
  for (let i = 1; i <= length; i++) {
    const from = new Distribution().setDense(q[Array.from(ids.subarray(1, i)).join()]);
    ids[i] = chance.draw(from, i - 1);
    distributions.push(known ? from : undefined);
  }
  return { shape: TreeShape.chain(length), ids, distributions };
}

export function fixedChain(tokens: readonly number[]): TokenTree {
  return { shape: TreeShape.chain(tokens.length), ids: Int32Array.of(-1, ...tokens) };
}

/** Siblings drawn from q in turn, level by level, with or without replacement. */
export function drawnTree(q: Table, widths: readonly number[], replace: boolean, chance: Chance): TokenTree {
  const parents = [-1];
  const ids = [-1];
  const distributions: (Distribution | undefined)[] = [undefined];
  let level: { node: number; context: string }[] = [{ node: 0, context: "" }];
  for (const [depth, width] of widths.entries()) {
    const next: typeof level = [];
    for (const { node, context } of level) {
      const row = [...q[context]];
      for (let i = 0; i < width; i++) {
        const total = row.reduce((a, b) => a + b);
        // Without replacement nothing may be left.
        if (total === 0) break;
        const from = new Distribution().setDense(row.map((x) => x / total));
        const id = chance.draw(from, depth);
        next.push({ node: parents.length, context: context === "" ? String(id) : `${context},${id}` });
        parents.push(node);
        ids.push(id);
        distributions.push(from);
        if (!replace) row[id] = 0;
      }
    }
    level = next;
  }
  return { shape: new TreeShape(parents), ids: Int32Array.from(ids), distributions };
}

/** Children by context, level by level. */
export function fixedTree(children: Readonly<Record<string, readonly number[]>>): TokenTree {
  const parents = [-1];
  const ids = [-1];
  let level: [number, string][] = [[0, ""]];
  while (level.length > 0) {
    const next: [number, string][] = [];
    for (const [parent, context] of level) {
      for (const id of children[context] ?? []) {
        next.push([parents.length, context === "" ? String(id) : `${context},${id}`]);
        parents.push(parent);
        ids.push(id);
      }
    }
    level = next;
  }
  return { shape: new TreeShape(parents), ids: Int32Array.from(ids) };
}

/** The step of a named rule of the golden laws: what it emits, ids joined by commas. Undefined for a rule that is not known. */
export function lawOf(
  name: string,
  { p, q, tree, chain }: { p: Table; q: Table; tree: Readonly<Record<string, readonly number[]>>; chain: readonly number[] },
): ((chance: Chance) => string) | undefined {
  const [rule, widths] = name.split(":");
  switch (rule) {
    case "leviathan":
      return (chance) => block(rejectionVerifier, drawnChain(q, chance, true), p, chance);
    case "tokenMatch":
      return (chance) => block(tokenMatchVerifier, drawnChain(q, chance, false), p, chance);
    case "oneHotChain":
      return (chance) => block(deterministicVerifier, fixedChain(chain), p, chance);
    case "oneHotTree":
      return (chance) => block(deterministicVerifier, fixedTree(tree), p, chance);
    case "block":
      return (chance) => block(blockVerifier, drawnChain(q, chance, true), p, chance);
    case "multiDraftWithReplacement":
    case "multiDraftWithoutReplacement":
      return (chance) =>
        block(rejectionVerifier, drawnTree(q, widths.split(",").map(Number), rule === "multiDraftWithReplacement", chance), p, chance);
    default:
      return undefined;
  }
}
