// Prompts over 8-bit weights with float32 copies of the matrices: the numbers of the dequantised model, and one copy at a time.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allocateDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "../models/decoder/config.ts";
import { type InferenceModel, quantiseDecoder } from "../models/decoder/quantise.ts";
import { hasBytesAlone } from "../models/decoder/quantised-float.ts";
import type { QuantisedWeight } from "../nn/linear.ts";
import { initializeParameters } from "../nn/parameter.ts";
import { unpack } from "../nn/quantise.ts";
import type { Backend } from "../runtime/backend.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import { openBackend } from "../runtime/open.ts";
import { isLeaf } from "../tensor/tree.ts";
import { LookupDrafter } from "./drafters/lookup.ts";
import { floatPromptDefault } from "./float-prompt.ts";
import { complete, type GenerationRequest } from "./generate.ts";
import { DecoderRunner, type RunnerOptions } from "./runner.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const llama: DecoderOptions = { vocabSize: 80, width: 64, layers: 2, heads: 4, kvHeads: 2, mlpWidth: 96, contextLength: 64, initStd: 0.15 };
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
// Rows of the output projection of 3 · 24 values: the last block is padded.
const padded: DecoderOptions = { ...llama, heads: 3, kvHeads: 3, headWidth: 24 };

function quantised(options: DecoderOptions, bits: 4 | 8 = 8): InferenceModel {
  const model = allocateDecoder(decoderConfig(options));
  initializeParameters(model.specs as never, model.parameters, 3);
  return quantiseDecoder(model, { bits });
}

/** The same weights in float32. */
function dequantised(model: InferenceModel): InferenceModel {
  const { width, heads, headWidth, mlpWidth } = model.config;
  const inner = { qkv: width, output: heads * headWidth, up: width, down: mlpWidth, head: width };
  const convert = (node: unknown, key = ""): unknown => {
    if (isLeaf(node) || node === undefined) return node;
    if (Array.isArray(node)) return node.map((child) => convert(child));
    const { weight } = node as { weight?: QuantisedWeight<TensorBuffer> };
    if (weight?.packed) return { ...(node as object), weight: unpack(weight, inner[key as keyof typeof inner]) };
    return Object.fromEntries(Object.entries(node as object).map(([name, child]) => [name, convert(child, name)]));
  };
  return { config: model.config, parameters: { tree: convert(model.parameters.tree) as typeof model.parameters.tree } };
}

const prompt = Array.from({ length: 21 }, (_, i) => (i * 31 + 7) % 80);

/** Keys and values that a prompt leaves. */
function cacheOf(model: InferenceModel, options: RunnerOptions): Float32Array {
  using runner = new DecoderRunner(backend, model, options);
  runner.prefill(0, prompt);
  return Float32Array.from(runner.cache.snapshot(0).data);
}

function relativeError(got: Float32Array, expected: Float32Array): number {
  let [difference, size] = [0, 0];
  for (const [i, value] of expected.entries()) {
    difference += (got[i] - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(difference / size);
}

describe.each([
  ["llama", llama],
  ["gpt2", gpt2],
  ["padded blocks", padded],
] as const)("%s", (_, options) => {
  test.each([256, 8])("the cache is that of the dequantised weights, in chunks of %i", (prefillChunk) => {
    const model = quantised(options);
    const expected = cacheOf(dequantised(model), { prefillChunk });
    expect(relativeError(cacheOf(model, { prefillChunk, floatPromptFrom: 2 }), expected)).toBeLessThan(1e-5);
    // Without it activations are rounded to 8 bits.
    const rounded = relativeError(cacheOf(model, { prefillChunk, floatPromptFrom: Number.POSITIVE_INFINITY }), expected);
    expect(rounded).toBeGreaterThan(1e-4);
    expect(rounded).toBeLessThan(0.03);
  });

  test("logits after the prompt are those of the dequantised weights, up to the last token's activations of 8 bits", () => {
    const model = quantised(options);
    const logits = (of: InferenceModel, floatPromptFrom: number): Float32Array => {
      using runner = new DecoderRunner(backend, of, { floatPromptFrom });
      return Float32Array.from(runner.append(0, prompt));
    };
    expect(relativeError(logits(model, 2), logits(dequantised(model), 2))).toBeLessThan(0.03);
  });
});

test("one copy at a time: each is made just before its product", () => {
  using runner = new DecoderRunner(backend, quantised(llama), { floatPromptFrom: 2, profile: true });
  runner.prefill(0, prompt);
  const order = runner
    .endProfile()
    .map(({ operator }) => operator)
    .filter((operator) => operator === "DequantizeLinear" || operator === "MatMul" || operator === "Gemm" || operator === "FusedMatMul");
  // Nothing reads what the last layer does behind its attention.
  const products = 4 * (llama.layers as number) - 3;
  expect(order.length).toBe(2 * products);
  for (const [i, operator] of order.entries()) expect(operator === "DequantizeLinear").toBe(i % 2 === 0);
});

test("prompts keep no packed copy", () => {
  const model = quantised(llama);
  const memory = (floatPromptFrom: number) => {
    using runner = new DecoderRunner(backend, model, { floatPromptFrom });
    runner.append(0, prompt);
    return runner.memory;
  };
  expect(memory(2)).toEqual(memory(Number.POSITIVE_INFINITY));
});

test("exact decoding stays exact, in one chunk and in several", async () => {
  const model = quantised(llama);
  const request: GenerationRequest = {
    ids: Array.from({ length: 40 }, (_, i) => (i % 10) * 7),
    sampling: { doSample: false },
    maxNewTokens: 20,
    eosTokenIds: [],
    logProbs: 1,
  };
  for (const prefillChunk of [256, 16]) {
    const run = async (drafter?: LookupDrafter) => {
      using runner = new DecoderRunner(backend, model, { floatPromptFrom: 2, exactBlock: 6, prefillChunk });
      const { ids } = await complete(runner, request, { drafter });
      return { ids, cache: Array.from(runner.cache.snapshot(0).data) };
    };
    const plain = await run();
    const drafted = await run(new LookupDrafter({ numTokens: 5, adaptive: false }));
    expect(drafted.ids).toEqual(plain.ids);
    const shared = Math.min(plain.cache.length, drafted.cache.length);
    expect(drafted.cache.slice(0, shared)).toEqual(plain.cache.slice(0, shared));
  }
});

test("models with 4-bit matrices, experts or none in blocks do not have this form", () => {
  const plain = allocateDecoder(decoderConfig(llama));
  expect(hasBytesAlone(quantised(llama))).toBe(true);
  expect(hasBytesAlone(quantised(llama, 4))).toBe(false);
  expect(hasBytesAlone(plain)).toBe(false);
  expect(hasBytesAlone(quantised({ ...llama, experts: { count: 2, chosen: 1, width: 32 } }))).toBe(false);
  // Bits differ from layer to layer.
  const [eight, four] = [quantised(llama), quantised(llama, 4)];
  const layers = [eight.parameters.tree.layers[0], four.parameters.tree.layers[1]];
  expect(hasBytesAlone({ config: eight.config, parameters: { tree: { ...eight.parameters.tree, layers } } })).toBe(false);
});

test("only x86 with AVX2 alone computes prompts in float32 by default", () => {
  const from = (platform: string, ...vectorExtensions: string[]) => floatPromptDefault({ platform, vectorExtensions });
  expect(from("linux-x64", "avx2", "fma")).toBe(32);
  expect(from("linux-x64", "avx2", "fma", "avx_vnni")).toBe(Number.POSITIVE_INFINITY);
  expect(from("linux-x64", "avx2", "fma", "avx512f")).toBe(Number.POSITIVE_INFINITY);
  expect(from("linux-x64", "avx2", "fma", "avx512f", "avx512_vnni")).toBe(Number.POSITIVE_INFINITY);
  // Nothing is known of what is not told.
  expect(from("darwin-x64")).toBe(Number.POSITIVE_INFINITY);
  expect(from("linux-arm64", "asimd", "asimddp")).toBe(Number.POSITIVE_INFINITY);
});
