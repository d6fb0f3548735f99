// Losslessness of the whole loop on real models: greedy text with any drafter, wherever a sequence ends; the joint law of two sampled tokens;
// the cache after every step. And what has to fail, fails.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadDecoder } from "../models/decoder/checkpoint.ts";
import { createMedusa } from "../models/heads/medusa.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { Random } from "../runtime/rng.ts";
import { loadTokenizer } from "../text/index.ts";
import type { DraftContext, Drafter, DrafterNeeds } from "./drafter.ts";
import { MedusaDrafter } from "./drafters/medusa.ts";
import { complete, type FinishEvent, type GenerationEvent, type GenerationRequest, generate } from "./generate.ts";
import { DecoderRunner } from "./runner.ts";
import { Distribution } from "./sampling/distribution.ts";
import { lawDeviation, tinyDecoder } from "./testing/joint-law.ts";
import { type TokenTree, TreeShape } from "./token-tree.ts";
import { deterministicVerifier } from "./verifiers/deterministic.ts";
import { greedyVerifier } from "./verifiers/greedy.ts";
import { rejectionVerifier } from "./verifiers/rejection.ts";
import { tokenMatchVerifier } from "./verifiers/token-match.ts";
import { typicalVerifier } from "./verifiers/typical.ts";
import type { Verifier } from "./verifiers/verifier.ts";

const stories = loadDecoder("assets/stories260k/stories260K.bin");
const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
const prompt = [...tokenizer.encode("Once upon a time")];
const greedy = { doSample: false } as const;

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

/** A drafter that a function makes: it proposes and needs nothing. */
function drafterOf(name: string, propose: (context: DraftContext) => TokenTree, needs: DrafterNeeds = {}): Drafter {
  return { name, needs, begin() {}, propose, observe() {}, dispose() {}, [Symbol.dispose]() {} };
}

const tree = TreeShape.fromChoices([[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0], [0, 0, 0, 0]]);
const fill = (shape: TreeShape, context: DraftContext, choose: (node: number, path: number[]) => number): TokenTree => {
  const ids = new Int32Array(shape.size);
  ids[0] = context.ids[context.numIds - 1];
  for (let node = 1; node < shape.size; node++) {
    const path: number[] = [];
    for (let at = shape.parents[node]; at > 0; at = shape.parents[at]) path.unshift(ids[at]);
    ids[node] = choose(node, path);
  }
  return { shape, ids };
};

/** Drafters that are right always, never, by chance, and about half of the time. */
function drafters(truth: readonly number[]): Drafter[] {
  const random = new Random(7);
  const next = ({ numIds }: DraftContext, depth: number): number => truth[numIds - prompt.length + depth] ?? 0;
  const depthOf = (shape: TreeShape, node: number): number => shape.depths[node] - 1;
  const chain = TreeShape.chain(5);
  return [
    drafterOf("none", (context) => fill(TreeShape.chain(0), context, () => 0)),
    drafterOf("random tree", (context) => fill(tree, context, () => random.integer(512))),
    drafterOf("always wrong", (context) => fill(tree, context, (node) => (next(context, depthOf(tree, node)) + node) % 512)),
    drafterOf("oracle chain", (context) => fill(chain, context, (node) => next(context, depthOf(chain, node)))),
    // Asks for the prompt's rows and does not look at them.
    drafterOf("blind to the prompt", (context) => fill(chain, context, () => 0), { prompt: true }),
    // The truth lies on the last branch, so that rows have to move.
    drafterOf("oracle tree", (context) =>
      fill(tree, context, (node) => (node === 3 || node === 6 || node === 1 ? next(context, depthOf(tree, node)) : node)),
    ),
    drafterOf("now and then", (context) =>
      fill(random.uniform() < 0.3 ? TreeShape.chain(random.integer(4)) : tree, context, (node) =>
        random.uniform() < 0.6 ? next(context, depthOf(tree, node)) : random.integer(512),
      ),
    ),
  ];
}

async function events(
  runner: DecoderRunner,
  request: GenerationRequest,
  drafter?: Drafter,
  verifier?: Verifier,
): Promise<GenerationEvent[]> {
  const all: GenerationEvent[] = [];
  for await (const event of generate(runner, [request], { tokenizer, drafter, verifier })) all.push(event);
  return all;
}

/** Without what only speculation tells. */
const plainOf = (all: readonly GenerationEvent[]) =>
  all.map((event) => (event.kind === "finish" ? { ...event, speculation: undefined } : event));

describe("greedy text is that of plain decoding", () => {
  const requests: Record<string, GenerationRequest> = {
    "token limit": { ids: prompt, sampling: greedy, maxNewTokens: 61, eosTokenIds: [] },
    "one token": { ids: prompt, sampling: greedy, maxNewTokens: 1, eosTokenIds: [] },
    "no token": { ids: prompt, sampling: greedy, maxNewTokens: 0 },
    "end of sequence inside a block": {
      ids: prompt,
      sampling: greedy,
      maxNewTokens: 80,
      eosTokenIds: [tokenizer.encode(".").at(-1) as number],
    },
    "stop string inside a block": { ids: prompt, sampling: greedy, maxNewTokens: 80, stop: ["named Lily", "park"], eosTokenIds: [] },
    "penalties that depend on the text": {
      ids: prompt,
      sampling: { ...greedy, repetitionPenalty: 1.3, noRepeatNgramSize: 3 },
      maxNewTokens: 60,
      eosTokenIds: [],
    },
    "a prompt of one token": { ids: [1], sampling: greedy, maxNewTokens: 40, eosTokenIds: [] },
    "log-probabilities": { ids: prompt, sampling: greedy, maxNewTokens: 30, logProbs: 2, eosTokenIds: [] },
  };
  test.each(Object.entries(requests))("%s", async (_, request) => {
    using plain = new DecoderRunner(backend, stories, { weights: "shared" });
    const expected = plainOf(await events(plain, request));
    const truth = (expected.at(-1) as FinishEvent).ids;
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    for (const drafter of drafters(truth)) {
      const all = await events(runner, request, drafter);
      if (request.logProbs === undefined) expect(plainOf(all), drafter.name).toEqual(expected);
      else expect((all.at(-1) as FinishEvent).ids, drafter.name).toEqual(truth);
    }
  });

  test("the context fills up inside a block", async () => {
    using plain = new DecoderRunner(backend, stories, { weights: "shared", capacity: 40 });
    const request: GenerationRequest = { ids: prompt, sampling: greedy, maxNewTokens: 200, eosTokenIds: [] };
    const expected = plainOf(await events(plain, request));
    expect((expected.at(-1) as FinishEvent).reason).toBe("context");
    using runner = new DecoderRunner(backend, stories, { weights: "shared", capacity: 40 });
    for (const drafter of drafters((expected.at(-1) as FinishEvent).ids))
      expect(plainOf(await events(runner, request, drafter)), drafter.name).toEqual(expected);
  });

  test("log-probabilities are those of the rows that the tokens came from", async () => {
    const request: GenerationRequest = { ids: prompt, sampling: greedy, maxNewTokens: 30, logProbs: 2, eosTokenIds: [] };
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const expected = await events(runner, request);
    const all = await events(runner, request, drafters((expected.at(-1) as FinishEvent).ids)[4]);
    for (const [i, event] of all.entries()) {
      const other = expected[i];
      if (event.kind === "token" && other.kind === "token") expect(event.logProb).toBeCloseTo(other.logProb as number, 4);
    }
  });

  test("an oracle is accepted whole, and is counted so", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const request: GenerationRequest = { ids: prompt, sampling: greedy, maxNewTokens: 61, eosTokenIds: [] };
    const plain = await complete(runner, request);
    const { speculation } = await complete(runner, request, { drafter: drafters(plain.ids)[3] });
    // 61 tokens in blocks of 6: ten whole ones, and the last step has room for none.
    expect(speculation).toMatchObject({ numSteps: 11, numTokens: 61, numDrafts: 10, numDraftTokens: 50, numAcceptedTokens: 50 });
    expect(speculation?.acceptanceByPosition).toEqual([1, 1, 1, 1, 1]);
    expect(speculation?.meanAcceptanceLength).toBe(6);
    const none = await complete(runner, request, { drafter: drafters(plain.ids)[2] });
    expect(none.speculation).toMatchObject({ numAcceptedTokens: 0, numSteps: 61, tokensPerStep: 1 });
  });
});

test("the cache after every step is that of a fresh prefill", async () => {
  using runner = new DecoderRunner(backend, stories, { weights: "shared" });
  const request: GenerationRequest = { ids: prompt, sampling: greedy, maxNewTokens: 40, eosTokenIds: [] };
  const truth = (await complete(runner, request)).ids;
  using fresh = new DecoderRunner(backend, stories, { weights: "shared" });
  let steps = 0;
  for (const drafter of drafters(truth)) {
    await complete(runner, request, {
      drafter,
      onStep: ({ tree: { ids: drafted }, path, numAccepted, ids, numIds }) => {
        if (steps++ % 5 !== 0) return;
        const committed = [...ids.subarray(0, numIds), ...Array.from(path.subarray(1, numAccepted + 1), (node) => drafted[node])];
        fresh.reset(0);
        fresh.append(0, committed);
        expect(runner.cache.lengths[0]).toBe(committed.length);
        const [own, expected] = [runner.cache.snapshot(0).data, fresh.cache.snapshot(0).data];
        let most = 0;
        for (let i = 0; i < own.length; i++) most = Math.max(most, Math.abs(own[i] - expected[i]));
        expect(most).toBeLessThan(1e-4);
      },
    });
  }
  expect(steps).toBeGreaterThan(50);
});

test("Medusa heads draft for the model that they were made for", async () => {
  const heads = createMedusa(stories, { heads: 3 });
  using drafter = new MedusaDrafter(backend, heads, stories, { choices: [[0], [1], [0, 0], [0, 1], [0, 0, 0]] });
  using runner = new DecoderRunner(backend, stories, { weights: "shared" });
  const request: GenerationRequest = { ids: prompt, sampling: greedy, maxNewTokens: 60, eosTokenIds: [] };
  const plain = await complete(runner, request);
  const result = await complete(runner, request, { drafter, tokenizer });
  expect(result.ids).toEqual(plain.ids);
  // Untrained heads guess what the model says next itself: the token that is already there.
  expect(result.speculation?.numDraftTokens).toBeGreaterThan(100);
});

// ---- sampling

/** Drafts from a distribution of its own, and says so; or keeps it to itself. */
function randomChain(known: boolean): Drafter {
  const random = new Random(99);
  const q = new Distribution().setDense([0.4, 0.05, 0.25, 0.02, 0.08, 0.1, 0.05, 0.05]);
  return drafterOf("random chain", (context) => ({
    ...fill(TreeShape.chain(2), context, () => q.sample(random.uniform())),
    ...(known ? { distributions: [undefined, q, q] } : {}),
  }));
}

const topTree: Drafter = drafterOf("fixed tree", (context) =>
  fill(TreeShape.fromChoices([[0], [1], [0, 0], [0, 1]]), context, (node) => [0, 2, 0, 5, 1][node]),
);

describe("sampled tokens have the model's joint law", () => {
  const decoder = tinyDecoder();
  const deviation = (drafter: Drafter, verifier: Verifier): Promise<number> => lawDeviation(backend, decoder, drafter, verifier);
  test.each<[string, Drafter, Verifier]>([
    ["fixed tree, deterministic", topTree, deterministicVerifier],
    ["fixed tree, token match", topTree, tokenMatchVerifier],
    ["random chain, rejection", randomChain(true), rejectionVerifier],
    ["random chain, token match", randomChain(false), tokenMatchVerifier],
  ])("%s", async (_, drafter, verifier) => {
    expect(await deviation(drafter, verifier)).toBeLessThan(4);
  });

  test("and verifiers that are wrong have not", async () => {
    const wrong: Verifier = {
      ...rejectionVerifier,
      verify: (drafted, target, chance) =>
        rejectionVerifier.verify(drafted, target, { ...chance, draw: chance.draw.bind(chance), accept: () => true }),
    };
    expect(await deviation(randomChain(true), wrong)).toBeGreaterThan(8);
    // A greedy-looking claim about how drafts were drawn.
    const claimed = drafterOf("claims", (context) => ({
      ...fill(TreeShape.chain(2), context, () => 0),
      distributions: [undefined, ...[0, 0].map(() => new Distribution().setDense(new Array(8).fill(0.125)))],
    }));
    expect(await deviation(claimed, rejectionVerifier)).toBeGreaterThan(8);
    expect(await deviation(topTree, typicalVerifier())).toBeGreaterThan(8);
  });

  test("token match gives the very text of plain sampling with the same seed", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const request: GenerationRequest = {
      ids: prompt,
      sampling: { temperature: 0.8, topP: 0.9 },
      maxNewTokens: 50,
      eosTokenIds: [],
      seed: 4,
    };
    const plain = await complete(runner, request);
    for (const drafter of drafters(plain.ids)) expect((await complete(runner, request, { drafter })).ids, drafter.name).toEqual(plain.ids);
  });
});

describe("what does not fit is refused", () => {
  const request: GenerationRequest = { ids: prompt, maxNewTokens: 4 };
  test("batches, and greedy verification of samples", async () => {
    const [drafter] = drafters([]);
    using pair = new DecoderRunner(backend, stories, { weights: "shared", batch: 2 });
    await expect(complete(pair, request, { drafter })).rejects.toThrow("runner of batch 1");
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    await expect(complete(runner, request, { drafter, verifier: greedyVerifier })).rejects.toThrow("expected greedy decoding");
  });

  test("heads of another model", async () => {
    const heads = createMedusa(stories, { heads: 2 });
    const other = tinyDecoder();
    expect(() => new MedusaDrafter(backend, heads, other, { choices: [[0]] })).toThrow("model of width 16");
    expect(() => new MedusaDrafter(backend, heads, stories, { choices: [[0], [0, 0], [0, 0, 0]] })).toThrow("at most 2 guesses");
    using drafter = new MedusaDrafter(backend, heads, stories, { choices: [[0]], tokenizerHash: "another" });
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    await expect(complete(runner, request, { drafter, tokenizer })).rejects.toThrow("tokenizer");
  });

  test("an abort ends it between two steps", async () => {
    using runner = new DecoderRunner(backend, stories, { weights: "shared" });
    const controller = new AbortController();
    const drafter = drafterOf("aborting", (context) => {
      if (context.numIds > prompt.length + 3) controller.abort(new Error("enough"));
      return fill(TreeShape.chain(0), context, () => 0);
    });
    await expect(complete(runner, { ids: prompt, sampling: greedy }, { drafter, signal: controller.signal })).rejects.toThrow("enough");
  });
});
