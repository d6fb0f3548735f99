// Positions that depend on the length of a sequence: whatever way a runner came to a sequence, it computes what the whole sequence at once
// gives, on both sides of the length at which the factors change.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { decoderConfig } from "../models/decoder/config.ts";
import { referenceLogits } from "../models/decoder/testing/reference.ts";
import { randomDecoder, randomIds } from "../models/decoder/testing/variants.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { Random } from "../runtime/rng.ts";
import type { Drafter } from "./drafter.ts";
import { complete, type GenerationRequest, generate } from "./generate.ts";
import { DecoderRunner } from "./runner.ts";
import { TreeShape } from "./token-tree.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const base = { vocabSize: 13, width: 16, layers: 2, heads: 2, headWidth: 16, mlpWidth: 24, contextLength: 24, initStd: 0.35 };
const original = 8;
const longrope = decoderConfig({
  ...base,
  rotaryScaling: {
    kind: "longrope",
    shortFactors: [1, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
    longFactors: [2, 3, 4, 5, 6, 7, 8, 9],
    originalLength: original,
    attentionFactor: 1.2,
  },
});
const dynamic = decoderConfig({ ...base, rotaryScaling: { kind: "dynamic", factor: 3, originalLength: original } });
const ids = randomIds(longrope, 20);

/** Logits after the last of the first `length` tokens, all at once. */
const whole = (decoder: ReturnType<typeof randomDecoder>, length: number, tokens = ids): number[] =>
  referenceLogits(decoder.config, decoder.parameters.leaves, tokens.slice(0, length)).at(-1) as number[];

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i] - expected[i]), what).toBeLessThan(1e-4);
}

describe.each(["fused", "composed"] as const)("longrope, %s", (emission) => {
  const decoder = randomDecoder(longrope);
  const open = (options = {}) => new DecoderRunner(backend, decoder, { emission, weights: "bound", ...options });

  test("token by token over the original length, and back", () => {
    using runner = open();
    runner.append(0, ids.slice(0, 5));
    for (let length = 6; length <= 12; length++)
      expectNear(runner.append(0, [ids[length - 1]]), whole(decoder, length), `${length} tokens`);
    // The keys that are left were rotated for a longer sequence.
    runner.cache.truncate(0, 4);
    expectNear(runner.append(0, [ids[4]]), whole(decoder, 5), "5 tokens again");
  });

  test("chunks of a prompt take the factors of its end", () => {
    using runner = open({ prefillChunk: 3 });
    expectNear(runner.append(0, ids.slice(0, 11)), whole(decoder, 11), "11 tokens");
    runner.reset(0);
    expectNear(runner.append(0, ids.slice(0, 7)), whole(decoder, 7), "7 tokens");
    expectNear(runner.append(0, ids.slice(7, 13)), whole(decoder, 13), "13 tokens");
  });

  test("a tree beyond the original length, and what follows the path that is kept", () => {
    using runner = open();
    runner.append(0, ids.slice(0, original));
    const tree = new TreeShape([-1, 0, 0, 2]);
    const wrong = (ids[original + 1] + 1) % base.vocabSize;
    const rows = runner.appendTree(0, tree, [ids[original], wrong, ids[original + 1], ids[original + 2]]).logits.slice();
    const row = (node: number) => rows.subarray(node * base.vocabSize, (node + 1) * base.vocabSize);
    expectNear(row(0), whole(decoder, original + 1), "root");
    expectNear(row(1), whole(decoder, original + 2, [...ids.slice(0, original + 1), wrong]), "wrong branch");
    expectNear(row(3), whole(decoder, original + 3), "leaf");
    runner.cache.gatherRows(0, original, [0, 2, 3]);
    expectNear(runner.append(0, [ids[original + 3]]), whole(decoder, original + 4), "after the tree");
    // The tokens went the way of their rows: going back below the original length computes them again.
    runner.cache.truncate(0, 6);
    expectNear(runner.append(0, [ids[6]]), whole(decoder, 7), "7 tokens again");
  });

  test("a batch whose sequences lie on both sides", () => {
    using runner = open({ batch: 2 });
    runner.append(0, ids.slice(0, 7));
    runner.append(1, ids.slice(0, 3));
    for (let step = 0; step < 4; step++) {
      const logits = runner.step([ids[7 + step], ids[3 + step]]);
      expectNear(logits.subarray(0, base.vocabSize), whole(decoder, 8 + step), `row 0, step ${step}`);
      expectNear(logits.subarray(base.vocabSize), whole(decoder, 4 + step), `row 1, step ${step}`);
    }
  });

  test("restored rows go on with their tokens, and cannot be computed again without them", () => {
    using runner = open();
    runner.append(0, ids.slice(0, original));
    const snapshot = runner.cache.snapshot(0);
    runner.reset(0);
    runner.cache.restore(0, snapshot);
    expectNear(runner.append(0, [ids[original]]), whole(decoder, original + 1), "over the original length");
    runner.reset(0);
    runner.cache.restore(0, { length: snapshot.length, data: snapshot.data });
    expect(() => runner.append(0, [ids[original]])).toThrow(UsageError);
  });
});

/** Right in about half of its drafts, in trees and chains of any depth; reads the prompt's rows where it says so. */
function drafterOf(truth: readonly number[], promptLength: number, prompt = false): Drafter & { rows: number[][] } {
  const random = new Random(11);
  const shapes = [TreeShape.chain(5), TreeShape.chain(2), new TreeShape([-1, 0, 0, 1, 2, 4]), TreeShape.chain(0)];
  const rows: number[][] = [];
  return {
    name: "half right",
    rows,
    needs: { prompt },
    begin() {},
    observePrompt: (_, { logits }) => {
      for (let at = 0; at < logits.length; at += base.vocabSize) rows.push([...logits.slice(at, at + base.vocabSize)]);
    },
    propose: ({ ids, numIds }) => {
      const shape = shapes[random.integer(shapes.length)];
      const drafts = Int32Array.from({ length: shape.size }, (_, node) => {
        const right = truth[numIds - promptLength + shape.depths[node] - 1] ?? 0;
        return random.uniform() < 0.7 ? right : random.integer(base.vocabSize);
      });
      drafts[0] = ids[numIds - 1];
      return { shape, ids: drafts };
    },
    observe() {},
    dispose() {},
    [Symbol.dispose]() {},
  };
}

const request = (length: number): GenerationRequest => ({
  ids: ids.slice(0, length),
  sampling: { doSample: false },
  maxNewTokens: 9,
  eosTokenIds: [],
});

describe.each([
  ["longrope", longrope],
  ["dynamic", dynamic],
] as const)("%s: greedy text over the original length is one text", (kind, config) => {
  const decoder = randomDecoder(config);
  const lengths = [1, 3, original - 1, original, original + 1, 13];
  const open = (options = {}) => new DecoderRunner(backend, decoder, { weights: "bound", prefillChunk: 6, ...options });
  const texts = new Map<number, number[]>();
  beforeAll(async () => {
    using runner = open();
    for (const length of lengths) {
      runner.reset(0);
      texts.set(length, (await complete(runner, request(length))).ids);
    }
  });
  const plainOf = (length: number): number[] => texts.get(length) as number[];

  test.runIf(kind === "longrope")("every token is that of the whole text at once", () => {
    for (const length of [original - 1, 13]) {
      const plain = plainOf(length);
      for (let i = 0; i < plain.length; i++) {
        const row = whole(decoder, length + i, [...ids.slice(0, length), ...plain] as never);
        expect(row.indexOf(Math.max(...row)), `${length} + ${i}`).toBe(plain[i]);
      }
    }
  });

  test.each([{ prefillChunk: 24 }, { exactBlock: 3 }, { emission: "composed" }])(
    "in whatever calls its tokens come: %o",
    async (options) => {
      using runner = open(options);
      for (const length of lengths) {
        expect((await complete(runner, request(length))).ids, `${length}`).toEqual(plainOf(length));
        expect((await complete(runner, request(length), { drafter: drafterOf(plainOf(length), length) })).ids, `${length}, drafts`).toEqual(
          plainOf(length),
        );
      }
    },
  );

  test("in a batch of unequal lengths", async () => {
    using runner = open({ batch: 3 });
    for await (const event of generate(runner, lengths.map(request)))
      if (event.kind === "finish") expect(event.ids).toEqual(plainOf(lengths[event.request]));
  });

  test("behind whatever the cache holds of another text", async () => {
    using runner = open();
    for (const before of [3, original, 13])
      for (const length of [3, original - 1, original + 1])
        for (const drafter of [undefined, drafterOf(plainOf(length), length)]) {
          await complete(runner, { ...request(before), maxNewTokens: 5 });
          const cachedLength = runner.heldLength(0, request(length).ids);
          expect(cachedLength).toBeLessThan(length);
          const { ids: text } = await complete(runner, { ...request(length), cachedLength }, { drafter });
          expect(text, `${length} after ${before}`).toEqual(plainOf(length));
        }
    // Within the original length what is there is not read again.
    runner.reset(0);
    await complete(runner, { ...request(5), maxNewTokens: 2 });
    expect(runner.heldLength(0, request(5).ids)).toBe(4);
  });

  test("rows of a prompt that drafters read are those of the whole prompt", async () => {
    using runner = open();
    const drafter = drafterOf([], 13, true);
    await complete(runner, { ...request(13), maxNewTokens: 1 }, { drafter });
    expect(drafter.rows.length).toBe(12);
    const rows = referenceLogits(decoder.config, decoder.parameters.leaves, ids.slice(0, 13));
    for (const [i, row] of drafter.rows.entries()) expectNear(row, rows[i], `token ${i}`);
  });
});

test("longrope: paths over the original length are refused, where plain decoding would change the root", () => {
  const decoder = randomDecoder(longrope);
  using runner = new DecoderRunner(backend, decoder, { weights: "bound" });
  runner.append(0, ids.slice(0, 5));
  expect(runner.maxTreeDepth(0)).toBe(2);
  expect(() => runner.appendTree(0, TreeShape.chain(3), ids.slice(5, 9))).toThrow(UsageError);
  expect(runner.cache.lengths[0]).toBe(5);
  runner.appendTree(0, TreeShape.chain(2), ids.slice(5, 8));
  expect(runner.maxTreeDepth(0)).toBe(Number.POSITIVE_INFINITY);
});

test("dynamic: a prompt has the base of its length", () => {
  const decoder = randomDecoder(dynamic);
  for (const length of [6, original, 11, 17]) {
    using runner = new DecoderRunner(backend, decoder, { weights: "bound", prefillChunk: 4 });
    expectNear(runner.append(0, ids.slice(0, length)), whole(decoder, length), `${length} tokens`);
  }
});
