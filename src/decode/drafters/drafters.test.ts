// What each drafter proposes, and that texts stay those of the model whatever it proposes.
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { loadDecoder } from "../../models/decoder/checkpoint.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { Random } from "../../runtime/rng.ts";
import { loadTokenizer } from "../../text/index.ts";
import type { DraftContext, Drafter } from "../drafter.ts";
import { complete, type GenerationRequest } from "../generate.ts";
import { DecoderRunner } from "../runner.ts";
import type { GrammarStep } from "../sampling/context.ts";
import type { Distribution } from "../sampling/distribution.ts";
import { createProcessor } from "../sampling/processor.ts";
import { StepCosts } from "../step-costs.ts";
import { lawDeviation, tinyDecoder } from "../testing/joint-law.ts";
import { blockVerifier } from "../verifiers/block.ts";
import { deterministicVerifier } from "../verifiers/deterministic.ts";
import { rejectionVerifier } from "../verifiers/rejection.ts";
import { tokenMatchVerifier } from "../verifiers/token-match.ts";
import { VocabularyMap } from "../vocabulary-map.ts";
import { DraftModelDrafter } from "./draft-model.ts";
import { LookupDrafter } from "./lookup.ts";
import { SuffixDrafter, suffixSchema } from "./suffix.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const prompt = [...tokenizer.encode("Once upon a time")];
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const processor = createProcessor({ doSample: false }, { vocabularySize: 100 });
function contextOf(ids: readonly number[], more: Partial<DraftContext> = {}): DraftContext {
  const array = new Int32Array(ids.length + 64);
  array.set(ids);
  return {
    ids: array,
    numIds: ids.length,
    promptLength: 1,
    maxNodes: 64,
    maxDepth: 63,
    processor,
    key: { seed: 0 },
    cache: undefined as never,
    row: 0,
    costs: new StepCosts(),
    ...more,
  };
}
const draftsOf = (drafter: Drafter, context: DraftContext): number[] => {
  const { shape, ids } = drafter.propose(context);
  expect(ids[0]).toBe(context.ids[context.numIds - 1]);
  expect(shape.isChain).toBe(true);
  return [...ids.subarray(1, shape.size)];
};
const begin = (drafter: Drafter): void => drafter.begin({ config: stories.config });

describe("lookup", () => {
  const make = (options = {}) => {
    const drafter = new LookupDrafter({ adaptive: false, numTokens: 3, ...options });
    begin(drafter);
    return drafter;
  };
  test("drafts what followed the longest match", () => {
    //                         0  1  2  3  4  5  6  7  8
    expect(draftsOf(make(), contextOf([1, 2, 3, 7, 2, 3, 8, 9, 1, 2, 3]))).toEqual([7, 2, 3]);
    expect(draftsOf(make({ maxNgram: 2 }), contextOf([1, 2, 3, 7, 2, 3, 8, 9, 1, 2, 3]))).toEqual([8, 9, 1]);
    expect(draftsOf(make({ maxNgram: 2, match: "first" }), contextOf([1, 2, 3, 7, 2, 3, 8, 9, 1, 2, 3]))).toEqual([7, 2, 3]);
    expect(draftsOf(make(), contextOf([1, 2, 3, 4]))).toEqual([]);
    expect(draftsOf(make({ minNgram: 2 }), contextOf([1, 2, 3, 2]))).toEqual([]);
    expect(draftsOf(make(), contextOf([5, 5, 5]))).toEqual([5]);
  });
  test("refuses lengths that nothing could match", () => {
    expect(() => new LookupDrafter({ minNgram: 9 })).toThrow("minNgram: expected at most maxNgram, 8, got 9");
  });
  test("stays within what is asked for", () => {
    const ids = [1, 2, 3, 4, 5, 6, 1, 2];
    expect(draftsOf(make(), contextOf(ids, { maxDepth: 2 }))).toEqual([3, 4]);
    expect(draftsOf(make(), contextOf(ids, { maxNodes: 2 }))).toEqual([3]);
    expect(draftsOf(make(), contextOf(ids, { maxDepth: 0 }))).toEqual([]);
  });
  test("indexing as tokens come finds what indexing all at once finds", () => {
    const text = Array.from({ length: 300 }, (_, i) => (i * i) % 7);
    const growing = make({ numTokens: 5 });
    for (let n = 1; n <= text.length; n++) {
      const once = make({ numTokens: 5 });
      expect(draftsOf(growing, contextOf(text.slice(0, n)))).toEqual(draftsOf(once, contextOf(text.slice(0, n))));
    }
  });
  test("learns from tokens that it never drafted", () => {
    // A match of one token is hardly ever right here: after a while none is drafted. Then each is, and drafts come back.
    const drafter = make({ adaptive: true, maxNgram: 1, numTokens: 4 });
    const costs = new StepCosts();
    const random = new Random(1);
    const text = [0];
    const sizes: number[] = [];
    for (let i = 0; i < 400; i++) {
      sizes.push(draftsOf(drafter, contextOf(text, { costs })).length);
      text.push(i < 200 ? random.integer(40) : i % 5);
    }
    // Longer matches are too rare to have told anything yet.
    expect(sizes.slice(150, 200).filter((size) => size > 0).length).toBeLessThan(8);
    expect(Math.min(...sizes.slice(380))).toBe(4);
  });
});

describe("suffix", () => {
  const make = (options = {}) => {
    const drafter = new SuffixDrafter({ adaptive: false, ...options });
    begin(drafter);
    return drafter;
  };
  test("drafts the most frequent continuation", () => {
    const drafter = make({ numTokens: 2, minProbability: 0 });
    expect(draftsOf(drafter, contextOf([1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 4, 0, 1, 2]))).toEqual([3, 0]);
  });
  test("remembers earlier requests, and forgets the oldest", () => {
    const drafter = make({ numTokens: 4, maxRequests: 1 });
    draftsOf(drafter, contextOf([10, 11, 12, 13, 14, 15]));
    begin(drafter);
    expect(draftsOf(drafter, contextOf([99, 10, 11, 12]))).toEqual([13, 14, 15]);
    begin(drafter);
    expect(drafter.rememberedTokens).toBe(4);
    expect(draftsOf(drafter, contextOf([98, 12]))).toEqual([]);
    // Another vocabulary: nothing of the old one is left.
    drafter.begin({ config: { ...stories.config, vocabSize: 7 } });
    expect(drafter.rememberedTokens).toBe(0);
  });
  test("keeps within its tokens: the oldest request leaves first, of a long one the end stays", () => {
    const drafter = make({ numTokens: 3, maxTokens: 10 });
    const request = (ids: number[]): void => {
      draftsOf(drafter, contextOf(ids));
      begin(drafter);
      expect(drafter.rememberedTokens).toBeLessThanOrEqual(10);
    };
    request([10, 11, 12, 13]);
    request([20, 21, 22, 23]);
    expect(drafter.rememberedTokens).toBe(8);
    expect(draftsOf(drafter, contextOf([10, 11]))).toEqual([12, 13]);
    begin(drafter);
    expect(drafter.rememberedTokens).toBe(10);
    request([30, 31, 32]);
    // The first request is gone, its beginning as it came again as well.
    expect(draftsOf(drafter, contextOf([20, 21]))).toEqual([22, 23]);
    drafter.forget();
    begin(drafter);
    request(Array.from({ length: 30 }, (_, i) => 40 + i));
    expect(drafter.rememberedTokens).toBe(10);
    expect(draftsOf(drafter, contextOf([65]))).toEqual([66, 67]);
    expect(draftsOf(make(), contextOf([45]))).toEqual([]);
  });
  test("takes at most 1.2 KB a token, and gives the memory back", () => {
    const drafter = make({ maxTokens: 4000 });
    const random = new Random(5);
    const empty = drafter.memoryBytes;
    // Nothing repeats: every token makes as many nodes as it can.
    for (let request = 1; request <= 12; request++) {
      draftsOf(drafter, contextOf(Array.from({ length: 500 }, () => random.integer(49_152))));
      begin(drafter);
      expect(drafter.rememberedTokens).toBe(Math.min(4000, 500 * request));
      expect(drafter.memoryBytes).toBeLessThan(1200 * drafter.rememberedTokens + empty);
    }
    // With the default number of tokens: 60 MB.
    expect(suffixSchema.parse({}).maxTokens * 1200).toBeLessThan(64e6);
    drafter.forget();
    begin(drafter);
    expect(drafter.memoryBytes).toBe(empty);
  });
  test("goes on beyond the depth that is counted", () => {
    const text = Array.from({ length: 40 }, (_, i) => i);
    const drafter = make({ maxDepth: 6, numTokens: 20, factor: 10 });
    expect(draftsOf(drafter, contextOf([...text, 3, 4, 5]))).toEqual(text.slice(6, 26));
  });
});

describe("texts stay the model's", () => {
  const request: GenerationRequest = { ids: prompt, sampling: { doSample: false }, maxNewTokens: 120, eosTokenIds: [] };
  const draftModel = (options = {}, map?: VocabularyMap) =>
    new DraftModelDrafter(backend, stories, options, { map, runner: { weights: "shared" } });

  test.each<[string, () => Drafter]>([
    ["lookup", () => new LookupDrafter()],
    ["lookup, always", () => new LookupDrafter({ adaptive: false })],
    ["suffix", () => new SuffixDrafter()],
    ["suffix, always", () => new SuffixDrafter({ adaptive: false })],
    ["draft model", () => draftModel()],
    ["draft model, always", () => draftModel({ adaptive: false, numTokens: 5 })],
  ])("%s", async (_, make) => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    using drafter = make();
    const sampled: GenerationRequest = { ...request, sampling: { temperature: 0.9, topP: 0.95 }, seed: 3 };
    const bounded: GenerationRequest = { ...request, sampling: { doSample: false, repetitionPenalty: 1.2 }, maxNewTokens: 700 };
    for (const each of [request, sampled, bounded, request]) {
      const plain = await complete(runner, each, { tokenizer });
      const drafted = await complete(runner, each, { tokenizer, drafter });
      expect(drafted.ids).toEqual(plain.ids);
      expect(drafted.text).toBe(plain.text);
    }
  });

  test("a model that drafts for itself is always right", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    using drafter = draftModel({ adaptive: false, numTokens: 5 });
    const { speculation } = await complete(runner, request, { tokenizer, drafter });
    expect(speculation?.numAcceptedTokens).toBe(speculation?.numDraftTokens);
    expect(speculation?.numSteps).toBe(20);
  });

  test("a second request finds the first in a suffix trie", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    using drafter = new SuffixDrafter({ adaptive: false });
    await complete(runner, request, { tokenizer, drafter });
    const { speculation } = await complete(runner, request, { tokenizer, drafter });
    expect(speculation?.tokensPerStep).toBeGreaterThan(4);
  });

  test("through another vocabulary", async () => {
    // The same model under renumbered ids: everything maps, nothing is equal by number.
    const size = stories.config.vocabSize;
    const bytesOf = (id: number): Uint8Array | undefined => (id < 3 ? undefined : Uint8Array.of(id & 255, id >> 8, 7));
    const target = { size, bytesOf };
    const full = new VocabularyMap({ target, draft: target, encodeDraft: () => [], special: [[1, 1]] });
    expect(full.size).toBe(size - 2);
    // Half of the tokens are missing: those are spelt with others, and never drafted.
    const half = new VocabularyMap({
      target,
      draft: { size, bytesOf: (id) => (id % 2 === 0 ? bytesOf(id) : Uint8Array.of(1, 2, 3, 4, id & 255, id >> 8)) },
      encodeDraft: (bytes) => [bytes[0] + 256 * bytes[1] - 1, 4],
    });
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const plain = await complete(runner, request, { tokenizer });
    for (const map of [full, half]) {
      using drafter = draftModel({ adaptive: false }, map);
      const drafted = await complete(runner, request, { tokenizer, drafter });
      expect(drafted.ids).toEqual(plain.ids);
      if (map === full) expect(drafted.speculation?.numAcceptedTokens).toBe(drafted.speculation?.numDraftTokens);
    }
    expect(() => new VocabularyMap({ target, draft: { size, bytesOf: () => Uint8Array.of(0) }, encodeDraft: () => [] })).toThrow(
      "shares tokens",
    );
  });

  test("tokens that the draft model does not have end a draft, not the text", async () => {
    const size = stories.config.vocabSize;
    const bytesOf = (id: number): Uint8Array | undefined => (id < 3 ? undefined : Uint8Array.of(id & 255, id >> 8, 7));
    // Even ids alone are shared, and the beginning of a text is nothing to the draft model.
    const map = new VocabularyMap({
      target: { size, bytesOf },
      draft: { size, bytesOf: (id) => (id % 2 === 0 ? bytesOf(id) : undefined) },
      encodeDraft: () => [4],
    });
    const onlyOdd: GrammarStep = {
      apply: (logits) => {
        for (let id = 0; id < logits.length; id += 2) logits[id] = Number.NEGATIVE_INFINITY;
      },
      forced: () => [],
    };
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    for (const sampling of [{ doSample: false }, { temperature: 1 }]) {
      using drafter = draftModel({ adaptive: false, draw: "sample" }, map);
      for (const each of [{ ids: [1] }, { ids: prompt, grammar: onlyOdd }]) {
        const few = { ...request, ...each, sampling, maxNewTokens: 12 };
        const drafted = await complete(runner, few, { tokenizer, drafter });
        expect(drafted.ids).toEqual((await complete(runner, few, { tokenizer })).ids);
        if (each.grammar) expect(drafted.speculation?.numDraftTokens).toBe(0);
      }
    }
  });

  test("a draft model does not read again what it holds", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    using drafter = draftModel({ adaptive: false, numTokens: 2 });
    const { ids } = await complete(runner, { ...request, maxNewTokens: 60 }, { tokenizer, drafter });
    const append = vi.spyOn(DecoderRunner.prototype, "append");
    try {
      await complete(runner, { ...request, ids: [...prompt, ...ids, 20, 21], maxNewTokens: 6 }, { tokenizer, drafter });
      expect(Math.max(...append.mock.calls.map(([, read]) => read.length))).toBeLessThan(8);
    } finally {
      append.mockRestore();
    }
  });

  test("a model of another vocabulary is refused", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    using other = new DraftModelDrafter(backend, tinyDecoder());
    await expect(complete(runner, request, { tokenizer, drafter: other })).rejects.toThrow("vocabulary of 512");
    using foreign = new DraftModelDrafter(backend, stories, {}, { tokenizerHash: "other", runner: { weights: "shared" } });
    await expect(complete(runner, request, { tokenizer, drafter: foreign })).rejects.toThrow("another one of the same size");
  });
});

describe("sampled texts have the model's law", () => {
  const drawn = { draw: "sample", adaptive: false, numTokens: 3 } as const;
  const guessed = { adaptive: false, numTokens: 3 } as const;
  test.each([
    ["drawn drafts, rejection", drawn, rejectionVerifier],
    ["drawn drafts, block", drawn, blockVerifier],
    ["drawn drafts, token match", drawn, tokenMatchVerifier],
    ["likeliest drafts, deterministic", guessed, deterministicVerifier],
  ] as const)("%s", async (_, options, verifier) => {
    using drafter = new DraftModelDrafter(backend, tinyDecoder(6), options, { runner: { weights: "shared" } });
    expect(await lawDeviation(backend, tinyDecoder(5), drafter, verifier)).toBeLessThan(4);
  });

  test("and likeliest drafts that are said to be drawn have not", async () => {
    using drafter = new DraftModelDrafter(backend, tinyDecoder(6), drawn, { runner: { weights: "shared" } });
    const { propose } = drafter;
    drafter.propose = (context) => {
      const tree = propose.call(drafter, context);
      for (let node = 1; node < tree.shape.size; node++) {
        const { ids, probabilities, count } = (tree.distributions ?? [])[node] as Distribution;
        tree.ids[node] = ids[probabilities.subarray(0, count).indexOf(Math.max(...probabilities.subarray(0, count)))];
      }
      return tree;
    };
    expect(await lawDeviation(backend, tinyDecoder(5), drafter, rejectionVerifier)).toBeGreaterThan(8);
  });
});
