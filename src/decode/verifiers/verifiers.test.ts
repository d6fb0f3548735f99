// Verifiers against exact laws: golden ones computed in rationals elsewhere, and enumeration over random tables. Wrong rules must fail.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { uniforms } from "../../tensor/testing/reference.ts";
import { Distribution } from "../sampling/distribution.ts";
import { type TokenTree, TreeShape } from "../token-tree.ts";
import { blockVerifier } from "./block.ts";
import { deterministicVerifier } from "./deterministic.ts";
import { greedyVerifier } from "./greedy.ts";
import { rejectionVerifier } from "./rejection.ts";
import { enumerate, lawOfSequences } from "./testing/enumerate.ts";
import { argmaxOf, block, drawnChain, fixedChain, fixedTree, lawOf, type Table, targetOf } from "./testing/laws.ts";
import { tokenMatchVerifier } from "./token-match.ts";
import { typicalVerifier } from "./typical.ts";
import type { Chance, TargetView, Verifier } from "./verifier.ts";

interface Law {
  emitted: Record<string, number>;
  lossless?: boolean;
}
interface LawCase {
  kind: string;
  p: Table;
  q: Table;
  tree: Record<string, number[]>;
  chain: number[];
  laws: Record<string, Law>;
  negativeControls: Record<string, Law>;
}
const golden = JSON.parse(readFileSync("test/golden/speculative/exact-laws.json", "utf8")) as { cases: LawCase[] };
const depth = 2;

function expectSameLaw(own: ReadonlyMap<string, number>, expected: Readonly<Record<string, number>>): void {
  for (const key of new Set([...own.keys(), ...Object.keys(expected)])) expect(own.get(key) ?? 0, key).toBeCloseTo(expected[key] ?? 0, 12);
}

/** Largest difference to the target's law of sequences one token longer than a block can be. */
function lossOf(emitted: ReadonlyMap<string, number>, p: Table, length = depth + 1): number {
  const own = lawOfSequences(emitted, (context) => p[context], length);
  const target = new Map<string, number>();
  const go = (tokens: readonly number[], probability: number): void => {
    if (tokens.length === length) target.set(tokens.join(), probability);
    else for (const [id, x] of p[tokens.join()].entries()) if (x > 0) go([...tokens, id], probability * x);
  };
  go([], 1);
  let most = 0;
  for (const key of new Set([...own.keys(), ...target.keys()]))
    most = Math.max(most, Math.abs((own.get(key) ?? 0) - (target.get(key) ?? 0)));
  return most;
}

describe.each(golden.cases.map((fields) => [fields.kind, fields] as const))(
  "golden laws, %s",
  (_, { p, q, tree, chain, laws, negativeControls }) => {
    test.each(Object.keys(laws))("%s", (name) => {
      const rule = lawOf(name, { p, q, tree, chain });
      expect(rule).toBeDefined();
      const own = enumerate(rule as (chance: Chance) => string);
      expectSameLaw(own, laws[name].emitted);
      expect(lossOf(own, p)).toBeLessThan(1e-12);
    });

    test("chains of argmaxes pass through rejection and token match with the same law", () => {
      expectSameLaw(
        enumerate((chance) => block(rejectionVerifier, fixedChain(chain), p, chance)),
        laws.oneHotChain.emitted,
      );
      expectSameLaw(
        enumerate((chance) => block(tokenMatchVerifier, fixedTree(tree), p, chance)),
        laws.oneHotTree.emitted,
      );
    });

    test("wrong rules give the wrong laws, and are found out", () => {
      const softmaxOfGreedy = enumerate((chance) => {
        const distributions = [undefined, ...chain.map((_, i) => new Distribution().setDense(q[chain.slice(0, i).join()]))];
        return block(rejectionVerifier, { ...fixedChain(chain), distributions }, p, chance);
      });
      expectSameLaw(softmaxOfGreedy, negativeControls.softmaxOfGreedyDraft.emitted);
      const alwaysAccept = enumerate((chance) =>
        block(rejectionVerifier, drawnChain(q, chance, true), p, { ...chance, accept: () => true }),
      );
      expectSameLaw(alwaysAccept, negativeControls.alwaysAccept.emitted);
      const resample = enumerate((chance) => block(resampleFromTarget, drawnChain(q, chance, true), p, chance));
      expectSameLaw(resample, negativeControls.resampleFromTarget.emitted);
      for (const [name, law] of Object.entries({ softmaxOfGreedyDraft: softmaxOfGreedy, alwaysAccept, resampleFromTarget: resample }))
        expect(lossOf(law, p) < 1e-12, name).toBe(negativeControls[name].lossless === true);
    });
  },
);

/** The mistake of drawing from p itself after a rejection. */
const resampleFromTarget: Verifier = {
  ...rejectionVerifier,
  verify(tree, target, chance) {
    for (let node = 0; ; node++) {
      const p = target.distribution(node);
      const draft = tree.ids[node + 1];
      const q = tree.distributions?.[node + 1];
      if (node + 1 < tree.shape.size && q && chance.accept(Math.min(1, p.probability(draft) / q.probability(draft)))) continue;
      return { node, token: chance.draw(p, node) };
    }
  },
};

describe("random tables of 5 tokens, depth 3", () => {
  const next = uniforms(11);
  const vocabulary = [0, 1, 2, 3, 4];
  /** Sharp and flat rows, some with zeros. */
  const row = (): number[] => {
    const weights: number[] = vocabulary.map(() => (next() < 0.2 ? 0 : next() ** 3));
    if (!weights.some((w) => w > 0)) weights[0] = 1;
    const total = weights.reduce((a, b) => a + b);
    return weights.map((w) => w / total);
  };
  const table = (): Table => {
    const contexts = [""];
    for (const context of contexts)
      if (context.split(",").length < 3 || context === "")
        for (const id of vocabulary) contexts.push(context === "" ? `${id}` : `${context},${id}`);
    return Object.fromEntries(contexts.map((context) => [context, row()]));
  };
  const trees: Record<string, TokenTree> = {
    chain: fixedChain([2, 0, 4]),
    branches: fixedTree({ "": [3, 1], "3": [0, 2, 4], "1": [1], "3,2": [2, 3] }),
    "all tokens": fixedTree({ "": vocabulary, "4": vocabulary }),
    twins: { shape: new TreeShape([-1, 0, 0, 1]), ids: Int32Array.of(-1, 2, 2, 1) },
    "a root alone": fixedChain([]),
  };
  for (let round = 0; round < 3; round++) {
    const p = table();
    test.each(Object.keys(trees))(`deterministic and token match, %s, table ${round}`, (name) => {
      for (const verifier of [deterministicVerifier, tokenMatchVerifier]) {
        const law = enumerate((chance) => block(verifier, trees[name], p, chance));
        expect(lossOf(law, p, 4), verifier.name).toBeLessThan(1e-12);
      }
    });
    test(`rejection, drawn chains, table ${round}`, () => {
      for (const q of [table(), p]) {
        const law = enumerate((chance) => block(rejectionVerifier, drawnChain(q, chance, true, 3), p, chance));
        expect(lossOf(law, p, 4)).toBeLessThan(1e-12);
        const together = enumerate((chance) => block(blockVerifier, drawnChain(q, chance, true, 3), p, chance));
        expect(lossOf(together, p, 4)).toBeLessThan(1e-12);
        const meanOf = (blocks: ReadonlyMap<string, number>): number =>
          Array.from(blocks).reduce((sum, [tokens, probability]) => sum + probability * tokens.split(",").length, 0);
        expect(meanOf(together)).toBeGreaterThan(meanOf(law) - 1e-12);
        // The draft model is the target: everything is accepted.
        if (q === p) for (const key of law.keys()) expect(key.split(",").length).toBe(4);
      }
    });
    test(`greedy follows the argmax, table ${round}`, () => {
      for (const tree of Object.values(trees)) {
        const tokens = block(greedyVerifier, tree, p, { accept: () => false, draw: () => -1 })
          .split(",")
          .map(Number);
        for (const [i, id] of tokens.entries()) expect(id).toBe(argmaxOf(p[tokens.slice(0, i).join()]));
      }
    });
  }
});

interface AcceptanceCase {
  tree: string;
  nodeLogits: number[][];
  nodeTokens: number[];
  temperature: number;
  posteriorThreshold: number;
  posteriorAlpha: number;
  bestCandidate: number;
  acceptLength: number;
}

// Medusa pads short paths with token 0 and may accept the padding: cases in which it does are left out.
describe("acceptance as Medusa has it", () => {
  const read = (name: string) => JSON.parse(readFileSync(`test/golden/speculative/${name}.json`, "utf8"));
  const trees = read("medusa-trees") as { cases: { name: string; choices: number[][]; retrieveIndices: number[][] }[] };
  test.each(
    (read("medusa-acceptance").cases as AcceptanceCase[]).map(
      (fields, i) => [`${i} ${fields.tree} at ${fields.temperature}`, fields] as const,
    ),
  )("%s", (_, { tree, nodeLogits, nodeTokens, temperature, posteriorThreshold, posteriorAlpha, bestCandidate, acceptLength }) => {
    const { choices, retrieveIndices } = trees.cases.find(({ name }) => name === tree) as (typeof trees.cases)[number];
    const softmax = (logits: readonly number[]): number[] => {
      const weights = logits.map((x) => Math.exp((x - Math.max(...logits)) / (temperature || 1)));
      const total = weights.reduce((a, b) => a + b);
      return weights.map((w) => w / total);
    };
    const target: TargetView = {
      distribution: (node) => new Distribution().setDense(softmax(nodeLogits[node])),
      argmax: (node) => argmaxOf(nodeLogits[node]),
    };
    const tokens: TokenTree = { shape: TreeShape.fromChoices(choices), ids: Int32Array.from(nodeTokens) };
    const verifier = temperature === 0 ? greedyVerifier : typicalVerifier({ threshold: posteriorThreshold, alpha: posteriorAlpha });
    const { node, token } = verifier.verify(tokens, target, { accept: () => false, draw: () => -1 });
    const path = new Int32Array(tokens.shape.size);
    const accepted = Array.from(path.subarray(0, tokens.shape.pathTo(node, path)));
    const expected = retrieveIndices[bestCandidate].slice(0, acceptLength + 1);
    expect(accepted.length).toBe(expected.length);
    // Siblings that hold the same token have logits of their own here, which no model has: either path is as good.
    if (temperature > 0) expect(accepted).toEqual(expected);
    else for (const [i, at] of accepted.slice(1).entries()) expect(nodeTokens[at]).toBe(argmaxOf(nodeLogits[accepted[i]]));
    expect(token).toBe(argmaxOf(nodeLogits[node]));
    expect(verifier.lossless).toBe(temperature === 0);
  });
});

test("what a verifier cannot take is refused", () => {
  const tree = fixedTree({ "": [0, 1] });
  expect(() => blockVerifier.verify(tree, targetOf({}, tree), { accept: () => true, draw: () => 0 })).toThrow("expected a chain");
  const drawn = { ...tree, distributions: [undefined, new Distribution().setOneHot(0), undefined] };
  expect(() => deterministicVerifier.verify(drawn, targetOf({}, drawn), { accept: () => true, draw: () => 0 })).toThrow("without chance");
});
