// A tree of drafts in one run against each of its paths token by token, in every emission; rows that drafters read.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "../models/decoder/config.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { Backend } from "../runtime/backend.ts";
import { openBackend } from "../runtime/open.ts";
import { DecoderRunner, type RunnerOptions } from "./runner.ts";
import { TreeShape } from "./token-tree.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const base: DecoderOptions = { vocabSize: 40, width: 32, layers: 3, heads: 4, kvHeads: 2, headWidth: 16, contextLength: 48 };
const prompt = [1, 7, 3, 22, 5, 9];
/** Two children, one of them with two children, of which one has one. */
const shape = new TreeShape([-1, 0, 0, 1, 1, 2, 3]);
const ids = [11, 4, 30, 17, 8, 29, 2];

function model(options: Partial<DecoderOptions>) {
  const decoder = allocateDecoder(decoderConfig({ ...base, initStd: 0.3, ...options }));
  initializeParameters(decoder.specs as never, decoder.parameters, 3);
  return decoder;
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
};

describe.each<[string, Partial<DecoderOptions>, RunnerOptions]>([
  ["fused, rotation in the kernel", {}, {}],
  ["fused, rotation outside", { headWidth: 8 }, {}],
  ["fused, normed queries and keys", { qkNorm: "head" }, { weights: "shared" }],
  ["fused, learned positions", { position: "learned" }, {}],
  ["composed", {}, { emission: "composed" }],
  ["composed, no positions", { position: "none" }, { emission: "composed" }],
  ["composed, odd head width", { headWidth: 6 }, { weights: "bound" }],
  ["sliding windows", { window: 4, layerTypes: ["sliding", "full", "sliding"] }, {}],
])("%s", (_, options, runnerOptions) => {
  test("every node's rows are those of its path", () => {
    const decoder = model(options);
    using runner = new DecoderRunner(backend, decoder, runnerOptions);
    runner.provide({ hidden: true, layers: [0, 2] });
    runner.append(0, prompt);
    const tree = runner.appendTree(0, shape, ids);
    expect(runner.cache.lengths[0]).toBe(prompt.length + shape.size);
    const { vocabSize, width } = decoder.config;
    const rowsOf = (array: Float32Array | undefined, node: number, size: number) => array?.slice(node * size, (node + 1) * size) ?? [];
    const path = new Int32Array(shape.size);
    const nodes = Array.from({ length: shape.size }, (_, node) => ({
      logits: rowsOf(tree.logits, node, vocabSize),
      hidden: rowsOf(tree.hidden, node, width),
      layers: [0, 2].map((layer) => rowsOf(tree.layers?.get(layer), node, width)),
    }));
    // The same token by token, by another runner.
    using plain = new DecoderRunner(backend, decoder, runnerOptions);
    plain.provide({ hidden: true, layers: [0, 2] });
    for (const [node, expected] of nodes.entries()) {
      plain.reset(0);
      plain.append(0, prompt);
      const length = shape.pathTo(node, path);
      for (let i = 0; i < length; i++) {
        const rows = plain.appendTree(0, TreeShape.chain(0), [ids[path[i]]]);
        if (i + 1 < length) continue;
        expect(distance(rows.logits, expected.logits)).toBeLessThan(2e-5);
        expect(distance(rows.hidden as Float32Array, expected.hidden)).toBeLessThan(2e-5);
        for (const [at, layer] of [0, 2].entries())
          expect(distance(rows.layers?.get(layer) as Float32Array, expected.layers[at])).toBeLessThan(2e-5);
      }
    }
  });

  test("keeping the rows of a path leaves the cache as if only the path had been there", () => {
    const decoder = model(options);
    using runner = new DecoderRunner(backend, decoder, runnerOptions);
    runner.append(0, prompt);
    runner.appendTree(0, shape, ids);
    runner.cache.gatherRows(0, prompt.length, [0, 1, 3, 6]);
    using fresh = new DecoderRunner(backend, decoder, runnerOptions);
    fresh.append(0, [...prompt, ...[0, 1, 3, 6].map((node) => ids[node])]);
    expect(runner.cache.lengths[0]).toBe(fresh.cache.lengths[0]);
    expect(distance(runner.cache.snapshot(0).data, fresh.cache.snapshot(0).data)).toBeLessThan(2e-5);
  });
});

test("what does not fit is refused before anything runs", () => {
  using runner = new DecoderRunner(backend, model({}), { capacity: 8, prefillChunk: 6 });
  runner.append(0, [1, 2, 3]);
  expect(() => runner.appendTree(0, shape, ids)).toThrow("at most 6 tokens");
  expect(() => runner.appendTree(0, shape.within(6, 9), ids)).toThrow("at most 8 tokens in a sequence");
  expect(() => runner.provide({ layers: [3] })).toThrow("layers 0 to 2");
  expect(runner.cache.lengths[0]).toBe(3);
});
