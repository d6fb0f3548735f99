// Grammars that a vocabulary cannot spell to their end: with drafts or without, a text is the same, and fails at the same token or not at all.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { Random } from "../runtime/rng.ts";
import type { Drafter } from "./drafter.ts";
import { DraftModelDrafter } from "./drafters/draft-model.ts";
import { GrammarDrafter } from "./drafters/grammar.ts";
import { type GenerationRequest, generate } from "./generate.ts";
import { GrammarConstraint } from "./grammar/constraint.ts";
import { Grammar } from "./grammar/grammar.ts";
import { GrammarVocabulary } from "./grammar/vocabulary.ts";
import { DecoderRunner } from "./runner.ts";
import { tinyDecoder } from "./testing/joint-law.ts";
import { TreeShape } from "./token-tree.ts";
import { blockVerifier } from "./verifiers/block.ts";
import { deterministicVerifier } from "./verifiers/deterministic.ts";
import { rejectionVerifier } from "./verifiers/rejection.ts";
import type { Verifier } from "./verifiers/verifier.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

// Token 0 is the end. After "c" (token 3) the grammar wants a "z", which no token spells.
const words = ["", "a", "b", "c", "d", "ab", "e", "!"];
const vocabulary = new GrammarVocabulary(words.map((word) => Buffer.from(word)));
const grammar = Grammar.parse('root ::= ("a" | "b" | "d" "e" | "cz")* "!"');
const deadEnd = 3;
const tokenizer = { specialIds: { eos: 0 }, stream: () => ({ push: (id: number) => words[id], end: () => "" }) };

interface Outcome {
  ids: number[];
  end: string;
}

async function run(runner: DecoderRunner, request: Partial<GenerationRequest>, drafter?: Drafter, verifier?: Verifier): Promise<Outcome> {
  const ids: number[] = [];
  const constraint = new GrammarConstraint(grammar, vocabulary, { eosTokenIds: [0] });
  const whole: GenerationRequest = { ids: [1, 2], maxNewTokens: 10, eosTokenIds: [0], grammar: constraint, ...request };
  try {
    for await (const event of generate(runner, [whole], { tokenizer: tokenizer as never, drafter, verifier })) {
      if (event.kind === "token") ids.push(event.id);
      if (event.kind === "finish") return { ids: event.ids, end: `${event.reason} ${event.text}` };
    }
  } catch (error) {
    return { ids, end: (error as Error).message };
  }
  throw new Error("no end");
}

/** Drafts by chance, with many dead ends among them. */
function randomDrafter(): Drafter {
  const random = new Random(3);
  const tree = TreeShape.fromChoices([[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0], [1, 0, 0]]);
  return {
    name: "random",
    needs: {},
    begin() {},
    propose: ({ ids, numIds }) => {
      const shape = random.uniform() < 0.5 ? tree : TreeShape.chain(3);
      const drafts = Int32Array.from({ length: shape.size }, () => (random.uniform() < 0.5 ? deadEnd : 1 + random.integer(7)));
      drafts[0] = ids[numIds - 1];
      return { shape, ids: drafts };
    },
    observe() {},
    dispose() {},
    [Symbol.dispose]() {},
  };
}

/** One branch alone, for verifiers of chains. */
const chainOf = (drafter: Drafter): Drafter => ({
  ...drafter,
  propose: (context) => {
    const { ids } = drafter.propose(context);
    return { shape: TreeShape.chain(2), ids };
  },
});

describe.each<[string, GenerationRequest["sampling"]]>([
  ["greedy", { doSample: false }],
  ["sampled", { temperature: 1.5 }],
])("%s", (_, sampling) => {
  test("plain decoding's text and end", async () => {
    const ends = new Set<string>();
    for (let model = 0; model < 2; model++) {
      using runner = new DecoderRunner(backend, tinyDecoder(20 + model), { weights: "shared" });
      using own = new DraftModelDrafter(
        backend,
        tinyDecoder(40 + model),
        { adaptive: false, numTokens: 4 },
        { runner: { weights: "shared" } },
      );
      const drafters = [randomDrafter(), own, new GrammarDrafter({ otherwise: randomDrafter() })];
      for (const more of [{}, { stop: ["c"] }, { maxNewTokens: 1 }, { maxNewTokens: 3 }]) {
        for (let seed = 0; seed < 5; seed++) {
          const request = { sampling, seed, ...more };
          const plain = await run(runner, request);
          for (const drafter of drafters)
            expect(await run(runner, request, drafter), `${drafter.name}, ${JSON.stringify(request)}`).toEqual(plain);
          ends.add(plain.end.split(/[ :]/)[0]);
        }
      }
    }
    // All ways to end occur.
    if (sampling?.temperature) expect([...ends].sort()).toEqual(["eos", "grammar", "length", "stop"]);
  });
});

test.each<[Verifier, (drafter: Drafter) => Drafter]>([
  [deterministicVerifier, (drafter) => drafter],
  [rejectionVerifier, (drafter) => drafter],
  [blockVerifier, chainOf],
])("$name: a text fails where its last token leads nowhere, and only there", async (verifier, shaped) => {
  using runner = new DecoderRunner(backend, tinyDecoder(21), { weights: "shared" });
  const drafter = shaped(randomDrafter());
  let numFailed = 0;
  for (let seed = 0; seed < 30; seed++) {
    const { ids, end } = await run(runner, { sampling: { temperature: 1.5 }, seed }, drafter, verifier);
    const failed = end.startsWith("grammar: expected a token");
    if (failed) numFailed++;
    expect(ids.indexOf(deadEnd)).toBe(failed || (ids.at(-1) === deadEnd && end.startsWith("length")) ? ids.length - 1 : -1);
  }
  expect(numFailed).toBeGreaterThan(0);
  expect(numFailed).toBeLessThan(30);
});
