import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "../models/decoder/config.ts";
import { type InferenceModel, quantiseDecoder } from "../models/decoder/quantise.ts";
import { isQuantised, type LinearWeight } from "../nn/linear.ts";
import { initializeParameters } from "../nn/parameter.ts";
import { unpack } from "../nn/quantise.ts";
import type { Backend } from "../runtime/backend.ts";
import { type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { isLeaf } from "../tensor/tree.ts";
import { DecoderRunner, type RunnerOptions } from "./runner.ts";
import { TreeShape } from "./token-tree.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const llama: DecoderOptions = { vocabSize: 80, width: 64, layers: 2, heads: 4, kvHeads: 2, mlpWidth: 96, contextLength: 32, initStd: 0.15 };
const gpt2: DecoderOptions = {
  ...llama,
  kvHeads: 4,
  norm: "layer",
  position: "learned",
  mlp: "plain",
  activation: "geluTanh",
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  tieEmbeddings: false,
};
const postNorm: DecoderOptions = { ...llama, normPlace: "after", qkNorm: "projection" };

function decoder(options: DecoderOptions) {
  const model = allocateDecoder(decoderConfig(options));
  initializeParameters(model.specs as never, model.parameters, 3);
  return model;
}

/** The same weights in float32. */
function dequantised({ config, parameters: { tree } }: InferenceModel): InferenceModel {
  const weight = (value: LinearWeight<TensorBuffer>, inner: number) => (isQuantised(value) ? unpack(value, inner) : value);
  const { width, heads, headWidth, mlpWidth } = config;
  const layers = tree.layers.map(({ attention, mlp, ...norms }) => ({
    ...norms,
    attention: {
      ...attention,
      qkv: attention.qkv && { ...attention.qkv, weight: weight(attention.qkv.weight, width) },
      output: { ...attention.output, weight: weight(attention.output.weight, heads * headWidth) },
    },
    mlp: mlp && {
      up: { ...mlp.up, weight: weight(mlp.up.weight, width) },
      down: { ...mlp.down, weight: weight(mlp.down.weight, mlpWidth) },
    },
  }));
  const head = tree.head && { weight: weight(tree.head.weight, width) };
  return { config, parameters: { tree: { ...tree, layers, ...(head ? { head } : {}) } } };
}

const prompt = [5, 17, 42, 3, 61, 8, 79];

function logitsOf(model: InferenceModel, options: RunnerOptions = {}): Float32Array[] {
  using runner = new DecoderRunner(backend, model, options);
  const all = Float32Array.from(runner.appendAll(0, prompt));
  return [all, Float32Array.from(runner.append(0, [12])), Float32Array.from(runner.append(0, [30]))];
}

/** Root mean square of the difference over that of the reference. */
function relativeError(got: readonly Float32Array[], expected: readonly Float32Array[]): number {
  let [difference, size] = [0, 0];
  for (const [i, reference] of expected.entries()) {
    for (const [j, value] of reference.entries()) {
      difference += (got[i][j] - value) ** 2;
      size += value ** 2;
    }
  }
  return Math.sqrt(difference / size);
}

/** As `dequantised`, for any decoder: experts and latent attention too. */
function dequantisedTree(model: InferenceModel): InferenceModel {
  const convert = (node: unknown): unknown => {
    if (isLeaf(node)) return node;
    if (Array.isArray(node)) return node.map(convert);
    const weight = node as { packed?: TensorBuffer; scales?: TensorBuffer };
    if (!weight.packed || !weight.scales)
      return Object.fromEntries(Object.entries(node as object).map(([key, child]) => [key, convert(child)]));
    const { packed, scales } = weight;
    const [out, inner] = packed.shape.slice(-2);
    // Stacks keep the bytes of a row together.
    if (scales.shape.length === 2) return unpack({ packed, scales }, packed.shape[1] * 32);
    const count = packed.shape[0];
    const flat = { packed: viewOf(packed, [count * out, inner / 32, 32]), scales: viewOf(scales, [count * out, inner / 32]) };
    return viewOf(unpack(flat, inner), [count, out, inner]);
  };
  return { config: model.config, parameters: { tree: convert(model.parameters.tree) as typeof model.parameters.tree } };
}

test.each<[string, Partial<DecoderOptions>]>([
  ["experts with a shared one", { experts: { count: 4, chosen: 2, width: 32, sharedWidth: 32 } }],
  ["latent attention", { kvHeads: 4, latent: { queryRank: 32, keyValueRank: 32, plainWidth: 8, rotaryWidth: 8, valueWidth: 16 } }],
  ["norms on both sides", { normPlace: "both" }],
])("%s: 8 bits compute with the dequantised weights", (_, change) => {
  const quantised = quantiseDecoder(decoder({ ...llama, ...change }), { bits: 8 });
  expect(relativeError(logitsOf(quantised), logitsOf(dequantisedTree(quantised)))).toBeLessThan(0.03);
});

test("NaN among the weights is refused with the name of its tensor", () => {
  const model = decoder({ ...llama, experts: { count: 2, chosen: 1, width: 32, denseLayers: [0] } });
  for (const path of ["layers.0.mlp.down.weight", "layers.1.experts.up.weight", "embedding.tokens"]) {
    const { data } = model.parameters.leaves.get(path) as TensorBuffer<"f32">;
    const before = data[5];
    data[5] = Number.NaN;
    expect(() => quantiseDecoder(model)).toThrow(`expected finite weights in ${path}`);
    data[5] = before;
  }
});

describe.each([
  ["llama", llama],
  ["gpt2", gpt2],
  ["norm after, queries and keys normed", postNorm],
] as const)("%s", (_, options) => {
  test.each([4, 8] as const)("%i bits: logits are those of the dequantised weights, up to activations of 8 bits", (bits) => {
    const quantised = quantiseDecoder(decoder(options), { bits });
    const expected = logitsOf(dequantised(quantised));
    expect(relativeError(logitsOf(quantised), expected)).toBeLessThan(0.03);
    expect(relativeError(logitsOf(quantised, { emission: "composed" }), expected)).toBeLessThan(0.03);
  });

  test("8 bits are closer to the original than 4, and both are near it", () => {
    const original = decoder(options);
    const expected = logitsOf(original);
    const [four, eight] = ([4, 8] as const).map((bits) => relativeError(logitsOf(quantiseDecoder(original, { bits })), expected));
    expect(eight).toBeLessThan(0.05);
    expect(four).toBeLessThan(0.3);
    expect(eight).toBeLessThan(four / 4);
  });

  test("a quantised batch of unequal lengths decodes each sequence as it does alone", () => {
    const quantised = quantiseDecoder(decoder(options), { bits: 8 });
    using batch = new DecoderRunner(backend, quantised, { batch: 2 });
    using alone = new DecoderRunner(backend, quantised);
    batch.append(0, prompt);
    batch.append(1, prompt.slice(0, 3));
    const step = Float32Array.from(batch.step([9, 11]));
    for (const [row, [ids, id]] of (
      [
        [prompt, 9],
        [prompt.slice(0, 3), 11],
      ] as const
    ).entries()) {
      alone.reset(0);
      alone.append(0, ids);
      const expected = Float32Array.from(alone.append(0, [id]));
      expect(relativeError([step.subarray(row * 80, (row + 1) * 80)], [expected])).toBeLessThan(1e-3);
    }
  });
});

/** Our own kernels give a row the same bits whatever comes beside it. */
test.each([
  ["llama", llama],
  ["gpt2", gpt2],
  ["norm after, queries and keys normed", postNorm],
] as const)("%s: with our own kernels logits are the same bytes token by token, in chains and in batches", (_, options) => {
  for (const threads of [1, 2]) {
    using backend = openBackend({ threads, ownKernels: true }).backend;
    if (!backend.operators.has("GroupedAttention") || !backend.operators.has("MatMulBlocks")) return;
    for (const bits of [4, 8] as const) {
      const quantised = quantiseDecoder(decoder(options), { bits });
      const vocabulary = options.vocabSize;
      const ids = Array.from({ length: 20 }, (_, i) => (7 * i + 3) % vocabulary);
      using alone = new DecoderRunner(backend, quantised);
      const expected = ids.map((id) => Float32Array.from(alone.append(0, [id])));
      for (const sizes of [[20], [1, 2, 3, 4, 10], [9, 11]]) {
        using chained = new DecoderRunner(backend, quantised);
        for (let start = 0; sizes.length > 0; ) {
          const size = sizes.shift() as number;
          const { logits } = chained.appendTree(0, TreeShape.chain(size - 1), ids.slice(start, start + size));
          for (let i = 0; i < size; i++) expect(logits.subarray(i * vocabulary, (i + 1) * vocabulary)).toEqual(expected[start + i]);
          start += size;
        }
        expect(chained.cache.snapshot(0)).toEqual(alone.cache.snapshot(0));
      }
      using batch = new DecoderRunner(backend, quantised, { batch: 2 });
      batch.append(0, ids.slice(0, 19));
      batch.append(1, ids.slice(0, 5));
      const step = batch.step([ids[19], ids[5]]);
      expect(step.subarray(0, vocabulary)).toEqual(expected[19]);
      expect(step.subarray(vocabulary)).toEqual(expected[5]);
    }
  }
});

test("memory: matrices take their bits and a scale a block, everything else float32, and nothing is shared with the original", () => {
  const original = decoder(llama);
  const { width: C, layers, vocabSize: V } = original.config;
  // qkv, output, gate and up, down, and the copy of the tied output matrix.
  const weights = layers * (C * (4 + 2 * 2) * 16 + C * 64 + C * 2 * 96 + C * 96) + V * C;
  const rest = 4 * (V * C + C * (2 * layers + 1));
  for (const bits of [4, 8] as const) {
    const quantised = quantiseDecoder(original, { bits });
    expect(quantised.bytes).toBe((weights * bits) / 8 + (weights / 32) * 4 + rest);
    const memories = new Set([...original.parameters.leaves.values()].map(({ data }) => data.buffer));
    const { tree } = quantised.parameters;
    expect(memories.has(tree.norm.scale.data.buffer) || memories.has((tree.embedding.tokens as TensorBuffer).data.buffer)).toBe(false);
    for (const ownKernels of [false, true]) {
      using backend = openBackend({ threads: 1, ownKernels }).backend;
      using runner = new DecoderRunner(backend, quantised, { batch: 2, capacity: 16 });
      runner.append(0, [1]);
      const one = runner.memory;
      // Our own kernel keeps levels alone; what is gathered from and norms are never packed.
      const packedCopies = (weights * bits) / 8 + (backend.operators.has("MatMulBlocks") ? 0 : (weights / 32) * 4);
      expect(one).toEqual({ weights: quantised.bytes, packedCopies, cache: 2 * layers * 2 * 2 * 16 * 16 * 4 });
      runner.append(1, [1]);
      runner.step([2, 3]);
      expect(runner.memory).toEqual({ ...one, packedCopies: 2 * one.packedCopies });
    }
  }
});

test("a profile names the operators of a step", () => {
  using runner = new DecoderRunner(backend, quantiseDecoder(decoder(llama), { bits: 4 }), { profile: true });
  runner.append(0, prompt);
  const events = runner.endProfile().filter(({ name }) => name.includes("layers.0"));
  const count = (operator: string) => events.filter((event) => event.operator === operator).length;
  expect(count(backend.operators.has("MatMulBlocks") ? "MatMulBlocks" : "MatMulNBits")).toBe(4);
  expect(count(backend.operators.has("GroupedAttention") ? "GroupedAttention" : "GroupQueryAttention")).toBe(1);
  // Norms, the gate and the residual sums besides: nothing that only moves data but the split of gate and up.
  expect(events.length).toBeLessThanOrEqual(10);
});
