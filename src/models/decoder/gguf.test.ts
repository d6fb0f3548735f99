import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import { greedy, openRunner, sequenceOutputs } from "../../../scripts/golden/decoder-outputs.ts";
import { FormatError } from "../../base/errors.ts";
import { openGguf } from "../../formats/gguf.ts";
import type { GgufMetadataEntry } from "../../formats/gguf-header.ts";
import { type GgufTensor, ggufEntry, writeGguf } from "../../formats/gguf-write.ts";
import { openSafetensors } from "../../formats/safetensors.ts";
import { isQuantised, linearLayer, type QuantisedWeight } from "../../nn/linear.ts";
import { unpack } from "../../nn/quantise.ts";
import type { Backend } from "../../runtime/backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import { roundedSum, roundsProducts } from "../../runtime/testing/kernel-forms.ts";
import { loadDecoder } from "./checkpoint.ts";
import { ggufCheckpoint, rowOfPair } from "./gguf.ts";
import { ggufHfConfig, llama3Scaling } from "./gguf-config.ts";
import { loadQuantisedGguf } from "./gguf-quantised.ts";
import { repackedFormat, repackRows } from "./gguf-repack.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../../test/golden/formats/gguf/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "longwave-gguf-model-"));
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(directory, { recursive: true, force: true });
});

const expected = JSON.parse(readFileSync(golden("llama.expected.json"), "utf8"));

test("a quantised Llama gives the logits and tokens of its dequantised weights in transformers", async () => {
  const model = loadDecoder(golden("llama-Q4_1.gguf"));
  expect(model.unused).toEqual([]);
  const { logits } = sequenceOutputs(backend, model, expected.ids);
  using source = openSafetensors(golden("llama.expected.safetensors"));
  const stored = source.read("logits.Q4_1").data as Float32Array;
  const largest = stored.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expect(Math.max(...logits.map((value, i) => Math.abs(value - stored[i])))).toBeLessThan(1e-4 * largest);
  using runner = openRunner(backend, model, 64);
  const [result] = await greedy(runner, [{ ids: expected.ids, maxNewTokens: 20 }]);
  expect(result.ids).toEqual(expected.files.Q4_1.greedy);
});

describe("blocks as they are stored", () => {
  const zooTypes = [
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
    "iq4_nl",
    "iq4_xs",
    "tq1_0",
    "tq2_0",
    "mxfp4",
  ];
  const repack = (name: string): { weight: QuantisedWeight<TensorBuffer>; dense: Float32Array } => {
    using file = openGguf(golden("zoo.gguf"));
    const { dtype } = file.entries.get(`zoo.${name}`)!;
    const weight = repackRows(file, [{ name: `zoo.${name}`, firstRow: 0, rows: 3 }], 512, repackedFormat([dtype])!);
    return { weight, dense: file.read(`zoo.${name}`).data as Float32Array };
  };

  it.each(zooTypes)("%s means the same float32 values", (name) => {
    const { weight, dense } = repack(name);
    const values = unpack(weight, 512).data;
    // A level is never rounded. Only an offset may be, once: minimum + centre * scale.
    for (const [i, value] of values.entries()) {
      const offset = Number(weight.offsets?.data[Math.floor(i / (512 / weight.scales.shape[1]))] ?? 0);
      expect(Math.abs(value - dense[i])).toBeLessThanOrEqual(
        Math.abs(offset) * 2 ** -24 + Math.abs(dense[i]) * (weight.offsets ? 2 ** -23 : 0),
      );
    }
    const narrow = ["q4_0", "q4_1", "q2_k", "q3_k", "q4_k", "tq1_0", "tq2_0"];
    expect(weight.packed.shape[2] / (512 / weight.packed.shape[1])).toBe(narrow.includes(name) ? 0.5 : 1);
    // Levels of 8 bits fill the byte, however few there are.
    const fromMiddle = Array.from(weight.packed.data as Uint8Array, (level) => Math.abs(level - 128));
    if (!narrow.includes(name)) expect(Math.max(...fromMiddle)).toBeGreaterThan(63);
  });

  it.each(zooTypes)("%s gives the products of the dequantised matrix", (name) => {
    const { weight, dense } = repack(name);
    // Whole numbers up to 127 in every block of 16: the kernel's rounding of x to 8 bits changes nothing, that of products is known.
    const x = Float32Array.from({ length: 2 * 512 }, (_, i) => (i % 16 === 3 ? 127 : ((i * 37) % 255) - 127));
    using program = compile(
      backend,
      ({ x, weight }) => ({ y: linearLayer(x, { weight }) }),
      { x: spec("f32", [2, 512]), weight: mapShapes(weight) },
      { name: "stored blocks" },
    );
    const bound = program.bind({ x: bufferFrom("f32", [2, 512], x), weight } as never);
    bound.run();
    const own = (bound.outputs as { y: TensorBuffer }).y.data as Float32Array;
    for (let row = 0; row < 2; row++) {
      for (let column = 0; column < 3; column++) {
        let [sum, size] = [0, 0];
        for (let i = 0; i < 512; i++) {
          sum += x[row * 512 + i] * dense[column * 512 + i];
          size += Math.abs(x[row * 512 + i] * dense[column * 512 + i]);
        }
        const [, blocks, bytes] = weight.packed.shape;
        for (let start = 0; roundsProducts && bytes === 32 && start < 512; start += 32) {
          const w = (i: number): number => Number(weight.packed.data[column * 512 + start + i]) - 128;
          const level = (i: number): number => x[row * 512 + start + i];
          const exact = Array.from({ length: 32 }, (_, i) => w(i) * level(i)).reduce((a, b) => a + b);
          sum += Number(weight.scales.data[column * blocks + start / 32]) * (roundedSum(w, level) - exact);
        }
        expect(Math.abs(own[row * 3 + column] - sum)).toBeLessThan(1e-5 * size);
      }
    }
  });

  const mapShapes = (weight: QuantisedWeight<TensorBuffer>) =>
    Object.fromEntries(
      Object.entries(weight).map(([key, leaf]) => [key, spec((leaf as TensorBuffer).dtype, (leaf as TensorBuffer).shape)]),
    ) as never;

  it("parts of different types share the tightest layout that holds them", () => {
    expect(repackedFormat(["Q4_0", "Q4_1"])).toEqual({ bits: 4, blockSize: 32, hasOffsets: true });
    expect(repackedFormat(["Q4_K", "Q6_K"])).toEqual({ bits: 8, blockSize: 16, hasOffsets: true });
    expect(repackedFormat(["Q4_0", "F16"])).toBeUndefined();
    using file = openGguf(golden("zoo.gguf"));
    const parts = ["zoo.q4_0", "zoo.q6_k"].map((name) => ({ name, firstRow: 1, rows: 2, rowOf: (row: number) => 1 - row }));
    const joined = unpack(repackRows(file, parts, 512, repackedFormat(["Q4_0", "Q6_K"])!), 512).data;
    for (const [part, { name }] of parts.entries()) {
      const dense = file.read(name).data as Float32Array;
      for (let row = 0; row < 2; row++) {
        expect(joined.subarray((2 * part + row) * 512, (2 * part + row + 1) * 512)).toEqual(
          dense.subarray((2 - row) * 512, (3 - row) * 512),
        );
      }
    }
  });

  it("a whole model: its matrices mean what the float32 model has", () => {
    const blocks = loadQuantisedGguf(golden("llama-Q4_1.gguf"));
    const { parameters } = loadDecoder(golden("llama-Q4_1.gguf"));
    const { layers, head, embedding } = blocks.parameters.tree;
    for (const [own, path, inner] of [
      [layers[1].attention.qkv?.weight, "layers.1.attention.qkv.weight", 64],
      [layers[0].attention.output.weight, "layers.0.attention.output.weight", 64],
      [layers[1].mlp?.up.weight, "layers.1.mlp.up.weight", 64],
      [layers[0].mlp?.down.weight, "layers.0.mlp.down.weight", 96],
      [embedding.tokens, "embedding.tokens", 64],
      [head?.weight, "head.weight", 64],
    ] as const) {
      expect(own && isQuantised(own), path).toBe(true);
      expect(
        closeness(unpack(own as QuantisedWeight<TensorBuffer>, inner).data, parameters.leaves.get(path)!.data as Float32Array),
        path,
      ).toBeLessThan(1e-7);
    }
    const anew = loadQuantisedGguf(golden("llama-Q4_1.gguf"), { weights: "q8" });
    const output = anew.parameters.tree.layers[0].attention.output.weight as QuantisedWeight<TensorBuffer>;
    expect(output.offsets).toBeUndefined();
    expect(
      closeness(unpack(output, 64).data, parameters.leaves.get("layers.0.attention.output.weight")!.data as Float32Array),
    ).toBeLessThan(0.01);
  });

  it("generates with the blocks of the file much like the float32 model", () => {
    using plain = openRunner(backend, loadDecoder(golden("llama-Q4_1.gguf")), 32);
    using stored = openRunner(backend, loadQuantisedGguf(golden("llama-Q4_1.gguf")) as never, 32);
    const ids = Int32Array.from(expected.ids);
    plain.reset(0);
    stored.reset(0);
    const [a, b] = [plain.appendAll(0, ids).slice(), stored.appendAll(0, ids).slice()];
    // Activations are rounded to 8 bits: llama.cpp, which does the same, is up to 1.3 away from float32 here; logits reach 20.
    expect(Math.max(...a.map((value, i) => Math.abs(value - b[i])))).toBeLessThan(2);
  });
});

const closeness = (own: Float32Array, reference: Float32Array): number => {
  const largest = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return Math.max(...own.map((value, i) => Math.abs(value - reference[i]))) / largest;
};

describe("how checkpoints are kept in GGUF", () => {
  const numbered = (shape: number[]): Float32Array => Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i);
  const file = (architecture: string, keys: Record<string, GgufMetadataEntry>, tensors: GgufTensor[]): string => {
    const path = join(directory, `${architecture}.gguf`);
    const metadata: [string, GgufMetadataEntry][] = [["general.architecture", ggufEntry.string(architecture)]];
    for (const [key, entry] of Object.entries(keys)) metadata.push([key.includes("tokenizer") ? key : `${architecture}.${key}`, entry]);
    writeGguf(path, tensors, { metadata });
    return path;
  };
  const tensor = (name: string, shape: number[], data: Float32Array = numbered(shape)): GgufTensor => ({ name, dtype: "F32", shape, data });
  const sizes = (heads: number, kvHeads = heads): Record<string, GgufMetadataEntry> => ({
    embedding_length: ggufEntry.u32(8),
    block_count: ggufEntry.u32(1),
    feed_forward_length: ggufEntry.u32(16),
    context_length: ggufEntry.u32(32),
    "attention.head_count": ggufEntry.u32(heads),
    "attention.head_count_kv": ggufEntry.u32(kvHeads),
    "attention.layer_norm_rms_epsilon": ggufEntry.f32(1e-5),
  });

  it("rows of heads in pairs: the inverse of llama.cpp's permutation", () => {
    // The converter splits a head into halves and interleaves them: stored row 2i is row i, stored row 2i + 1 is row i + D/2.
    expect(Array.from({ length: 8 }, (_, row) => rowOfPair(row, 8))).toEqual([0, 4, 1, 5, 2, 6, 3, 7]);
    expect(rowOfPair(13, 8)).toBe(8 + 6);
    const path = file("llama", sizes(2), [
      tensor("token_embd.weight", [4, 8]),
      tensor("blk.0.attn_q.weight", [8, 8]),
      tensor("blk.0.attn_q.bias", [8]),
      tensor("blk.0.attn_v.weight", [8, 8]),
    ]);
    using gguf = openGguf(path);
    const view = ggufCheckpoint(gguf, ggufHfConfig(gguf));
    const stored = view.read("model.layers.0.self_attn.q_proj.weight").data as Float32Array;
    const rows = stored.filter((_, i) => i % 8 === 0);
    expect(Array.from(rows, (value) => value / 8)).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
    expect(Array.from(view.read("model.layers.0.self_attn.q_proj.bias").data as Float32Array)).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
    expect(Array.from(view.read("model.layers.0.self_attn.v_proj.weight").data as Float32Array)).toEqual(Array.from(numbered([8, 8])));
    expect(() => view.readInto("model.layers.0.self_attn.v_proj.weight", allocate("f32", [4, 8]))).toThrow(/expected shape/);
    expect(() => view.read("lm_head.weight")).toThrow(FormatError);
  });

  it("Gemma's norms hold 1 + w, GPT-2's matrices are turned, experts are stacked", () => {
    const gemma = file("gemma2", sizes(1), [tensor("token_embd.weight", [4, 8]), tensor("blk.0.attn_norm.weight", [8])]);
    using one = openGguf(gemma);
    expect(Array.from(ggufCheckpoint(one, ggufHfConfig(one)).read("model.layers.0.input_layernorm.weight").data as Float32Array)).toEqual([
      -1, 0, 1, 2, 3, 4, 5, 6,
    ]);
    const gpt2 = file("gpt2", { ...sizes(1), "attention.layer_norm_epsilon": ggufEntry.f32(1e-5) }, [
      tensor("token_embd.weight", [4, 8]),
      tensor("blk.0.ffn_up.weight", [16, 8]),
    ]);
    using two = openGguf(gpt2);
    const turned = ggufCheckpoint(two, ggufHfConfig(two)).read("h.0.mlp.c_fc.weight");
    expect(turned.shape).toEqual([8, 16]);
    expect(Array.from(turned.data.subarray(0, 3) as Float32Array)).toEqual([0, 8, 16]);
    const keys = { ...sizes(1), expert_count: ggufEntry.u32(3), expert_used_count: ggufEntry.u32(2) };
    const mixtral = file("llama", keys, [tensor("token_embd.weight", [4, 8]), tensor("blk.0.ffn_down_exps.weight", [3, 8, 16])]);
    using three = openGguf(mixtral);
    const config = ggufHfConfig(three);
    expect(config).toMatchObject({ model_type: "mixtral", num_local_experts: 3, num_experts_per_tok: 2, tie_word_embeddings: true });
    const expert = ggufCheckpoint(three, config).read("model.layers.0.block_sparse_moe.experts.2.w2.weight");
    expect([expert.shape, expert.data[0]]).toEqual([[8, 16], 256]);
  });

  it("settings of Gemma 3, YaRN, end tokens", () => {
    const path = file(
      "gemma3",
      {
        ...sizes(1),
        "attention.sliding_window": ggufEntry.u32(4),
        "attention.key_length": ggufEntry.u32(16),
        "attention.value_length": ggufEntry.u32(16),
      },
      [tensor("token_embd.weight", [4, 8])],
    );
    using gguf = openGguf(path);
    expect(ggufHfConfig(gguf)).toMatchObject({
      model_type: "gemma3_text",
      head_dim: 16,
      query_pre_attn_scalar: 16,
      sliding_window: 4,
      rope_local_base_freq: 10_000,
      layer_types: ["sliding_attention"],
    });
    const scaled = file(
      "qwen3",
      {
        ...sizes(1),
        "rope.scaling.type": ggufEntry.string("yarn"),
        "rope.scaling.factor": ggufEntry.f32(4),
        "rope.scaling.original_context_length": ggufEntry.u32(16),
        "tokenizer.ggml.eos_token_id": ggufEntry.u32(3),
        "tokenizer.ggml.eot_token_id": ggufEntry.u32(2),
      },
      [tensor("token_embd.weight", [4, 8]), tensor("output.weight", [4, 8])],
    );
    using second = openGguf(scaled);
    expect(ggufHfConfig(second)).toMatchObject({
      rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 },
      eos_token_id: [3, 2],
      tie_word_embeddings: false,
    });
  });

  it("rotary divisors are told apart as Llama 3's scaling", () => {
    const [factor, length] = [8, 8192];
    const divisors = Array.from({ length: 32 }, (_, i) => {
      const turns = (length * 500_000 ** ((-2 * i) / 64)) / (2 * Math.PI);
      const kept = Math.min(1, Math.max(0, (turns - 1) / 3));
      return Math.fround(1 / (kept + (1 - kept) / factor));
    });
    expect(llama3Scaling(divisors, 500_000, 64)).toEqual({
      rope_type: "llama3",
      factor,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: length,
    });
    expect(llama3Scaling(divisors.with(20, 3), 500_000, 64)).toBeUndefined();
    expect(llama3Scaling([1, 1, 1, 1], 10_000, 8)).toBeUndefined();
  });

  it("says which architecture, key or part is missing", () => {
    expect(() => loadDecoder(file("rwkv7", {}, [tensor("token_embd.weight", [4, 8])]))).toThrow(
      /general.architecture llama, .* got "rwkv7"/,
    );
    expect(() => loadDecoder(file("qwen2", {}, [tensor("token_embd.weight", [4, 8])]))).toThrow(
      /expected a number at qwen2.attention.head_count/,
    );
    expect(() =>
      loadDecoder(
        file("llama", { ...sizes(1), "attention.head_count": ggufEntry.i32s(Int32Array.of(1, 2)) }, [tensor("token_embd.weight", [4, 8])]),
      ),
    ).toThrow(/differ/);
    expect(() => loadDecoder(file("llama", sizes(1), [tensor("token_embd.weight", [4, 8])]))).toThrow(/are missing/);
    expect(() => loadDecoder(golden("zoo.gguf"))).toThrow(/token_embd.weight/);
  });

  it("sizes beyond the file are refused before memory is taken", () => {
    const load = (changes: Record<string, GgufMetadataEntry>) => () =>
      loadDecoder(file("llama", { ...sizes(1), ...changes }, [tensor("token_embd.weight", [4, 8])]));
    expect(load({ block_count: ggufEntry.u32(4e9) })).toThrow(/at most 1 at llama.block_count, got 4000000000/);
    expect(load({ expert_count: ggufEntry.u32(4e9), expert_used_count: ggufEntry.u32(2) })).toThrow(/at most 4096 at llama.expert_count/);
    expect(load({ feed_forward_length: ggufEntry.u32(4e9) })).toThrow(/parameters, got 32 in the file/);
    expect(load({ embedding_length: ggufEntry.u32(2 ** 30) })).toThrow(/parameters, got 32 in the file/);
  });
});
