import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FormatError } from "../base/errors.ts";
import { allocate } from "../runtime/buffer.ts";
import { type Llama2cSource, llama2cToHfConfig, openLlama2c } from "./llama2c.ts";
import { openSafetensors } from "./safetensors.ts";

const model = new URL("../../assets/stories260k/stories260K.bin", import.meta.url).pathname;
const golden = new URL("../../test/golden/formats/stories260k/", import.meta.url).pathname;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-llama2c-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A plain Llama in Hugging Face's conventions, one position after another: logits [T, V] in float64. */
function logitsOf(source: Llama2cSource, ids: number[]): number[][] {
  const { width: C, numHeads: H, numKeyValueHeads: K, numLayers, vocabularySize: V } = source.config;
  const D = C / H;
  const weights = new Map([...source.entries.keys()].map((name) => [name, source.read(name).data as Float32Array]));
  const get = (layer: number, name: string) => weights.get(`model.layers.${layer}.${name}.weight`)!;
  const apply = (matrix: Float32Array, x: number[]) =>
    Array.from({ length: matrix.length / x.length }, (_, row) => x.reduce((sum, value, i) => sum + value * matrix[row * x.length + i], 0));
  const norm = (x: number[], scale: Float32Array) => {
    const inverse = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + 1e-5);
    return x.map((value, i) => value * inverse * scale[i]);
  };
  const rotate = (x: number[], position: number) =>
    x.map((value, i) => {
      const d = i % D;
      const half = D / 2;
      const angle = position * 10000 ** (-(2 * (d % half)) / D);
      const partner = d < half ? -x[i + half] : x[i - half];
      return value * Math.cos(angle) + partner * Math.sin(angle);
    });
  const keys: number[][][] = Array.from({ length: numLayers }, () => []);
  const values: number[][][] = Array.from({ length: numLayers }, () => []);
  const embedding = weights.get("model.embed_tokens.weight")!;
  return ids.map((id, position) => {
    let x = [...embedding.subarray(id * C, (id + 1) * C)];
    for (let layer = 0; layer < numLayers; layer++) {
      const a = norm(x, get(layer, "input_layernorm"));
      const q = rotate(apply(get(layer, "self_attn.q_proj"), a), position);
      keys[layer].push(rotate(apply(get(layer, "self_attn.k_proj"), a), position));
      values[layer].push(apply(get(layer, "self_attn.v_proj"), a));
      const mixed: number[] = [];
      for (let head = 0; head < H; head++) {
        const from = Math.floor(head / (H / K)) * D;
        const scores = keys[layer].map((k) => {
          let dot = 0;
          for (let d = 0; d < D; d++) dot += q[head * D + d] * k[from + d];
          return Math.exp(dot / Math.sqrt(D));
        });
        const total = scores.reduce((sum, score) => sum + score, 0);
        for (let d = 0; d < D; d++) mixed.push(scores.reduce((sum, score, t) => sum + (score / total) * values[layer][t][from + d], 0));
      }
      const attended = apply(get(layer, "self_attn.o_proj"), mixed);
      x = x.map((value, i) => value + attended[i]);
      const b = norm(x, get(layer, "post_attention_layernorm"));
      const gate = apply(get(layer, "mlp.gate_proj"), b);
      const up = apply(get(layer, "mlp.up_proj"), b);
      const down = apply(
        get(layer, "mlp.down_proj"),
        gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]),
      );
      x = x.map((value, i) => value + down[i]);
    }
    const final = norm(x, weights.get("model.norm.weight")!);
    const logits = apply(embedding, final);
    expect(logits).toHaveLength(V);
    return logits;
  });
}

/** A tiny file of the format with consecutive numbers as weights. */
function tinyFile(edit: (header: Int32Array) => void = () => undefined, extraFloats = 0): { path: string; floats: Float32Array } {
  // C 8, F 3, L 2, H 2, K 1, V 5 (own output matrix), T 4; D 4
  const header = new Int32Array([8, 3, 2, 2, 1, -5, 4]);
  const count = 5 * 8 + 2 * (8 + 64 + 32 + 32 + 64 + 8 + 24 + 24 + 24) + 8 + 4 * 4 + 5 * 8;
  edit(header);
  const floats = Float32Array.from({ length: count + extraFloats }, (_, i) => i);
  const path = join(root, "tiny.bin");
  writeFileSync(path, Buffer.concat([Buffer.from(header.buffer), Buffer.from(floats.buffer)]));
  return { path, floats };
}

describe("stories260K", () => {
  it("gives the logits that transformers computes from it", () => {
    const { cases } = JSON.parse(readFileSync(join(golden, "expected.json"), "utf8"));
    using source = openLlama2c(model);
    using expected = openSafetensors(join(golden, "expected.safetensors"));
    expect(source.config).toEqual({
      width: 64,
      mlpWidth: 172,
      numLayers: 5,
      numHeads: 8,
      numKeyValueHeads: 4,
      vocabularySize: 512,
      maxPositions: 512,
      tiedEmbeddings: true,
    });
    for (const [k, { ids }] of cases.entries()) {
      const logits = logitsOf(source, ids).flat();
      const { data } = expected.read(`logits.${k}`);
      expect(logits).toHaveLength(data.length);
      const scale = Math.max(...[...data].map((value) => Math.abs(Number(value))));
      const worst = logits.reduce((most, value, i) => Math.max(most, Math.abs(value - Number(data[i]))), 0);
      expect(worst).toBeLessThan(1e-4 * scale);
    }
  });
});

describe("layout", () => {
  it("finds every tensor where the format puts it", () => {
    const { path, floats } = tinyFile();
    using source = openLlama2c(path);
    const first = (name: string) => source.read(name).data[0];
    expect(first("model.embed_tokens.weight")).toBe(0);
    expect(first("model.layers.1.input_layernorm.weight")).toBe(48);
    expect(first("model.layers.1.self_attn.q_proj.weight")).toBe(56 + 64);
    expect(first("model.layers.0.self_attn.v_proj.weight")).toBe(56 + 128 + 64);
    expect(source.read("lm_head.weight").data.at(-1)).toBe(floats.length - 1);
    expect(source.read("model.norm.weight").data[0]).toBe(floats.length - 40 - 16 - 8);
    expect(source.config.tiedEmbeddings).toBe(false);
    expect(llama2cToHfConfig(source.config)).toMatchObject({ hidden_size: 8, head_dim: 4, tie_word_embeddings: false });
  });

  it("puts rows 0 2 1 3 of every head of width 4 together, in f32 and f64", () => {
    using source = openLlama2c(tinyFile().path);
    for (const dtype of ["f32", "f64"] as const) {
      const q = allocate(dtype, [8, 8]);
      source.readInto("model.layers.0.self_attn.q_proj.weight", q);
      const rows = [0, 2, 1, 3, 4, 6, 5, 7].map((row) => 56 + row * 8);
      expect(Array.from({ length: 8 }, (_, row) => q.data[row * 8])).toEqual(rows);
      const v = allocate(dtype, [4, 8]);
      source.readInto("model.layers.0.self_attn.v_proj.weight", v);
      expect([...v.data]).toEqual(Array.from({ length: 32 }, (_, i) => 248 + i));
    }
  });

  it("refuses other shapes, types and names", () => {
    using source = openLlama2c(tinyFile().path);
    expect(() => source.readInto("model.norm.weight", allocate("f32", [9]))).toThrow(FormatError);
    expect(() => source.readInto("model.norm.weight", allocate("i32", [8]))).toThrow(FormatError);
    expect(() => source.read("model.layers.2.input_layernorm.weight")).toThrow(/one of its 21 tensors/);
  });
});

describe("damaged files", () => {
  it("are refused before anything is allocated", () => {
    const refuse = (edit: (header: Int32Array) => void, message: RegExp, extra = 0) =>
      expect(() => openLlama2c(tinyFile(edit, extra).path)).toThrow(message);
    refuse(() => undefined, /expected 2684 bytes .* got 2688/, 1);
    refuse(() => undefined, /expected 2684 bytes .* got 2680/, -1);
    refuse((h) => (h[0] = 0), /not zero/);
    refuse((h) => (h[2] = -2), /not zero/);
    refuse((h) => (h[3] = 3), /divides into heads/);
    refuse((h) => (h[3] = 8), /even width/);
    refuse((h) => (h[4] = 3), /divide among/);
    refuse((h) => (h[2] = 2 ** 31 - 1), /expected Infinity bytes/);
    refuse((h) => (h[5] = 2 ** 31 - 1), /bytes for the model/);
    refuse((h) => (h[5] = -(2 ** 31)), /bytes for the model/);
    refuse((h) => (h[0] = 0x616b3432), /version 0|original/);
    writeFileSync(join(root, "short.bin"), "1234");
    expect(() => openLlama2c(join(root, "short.bin"))).toThrow(FormatError);
    expect(() => openLlama2c(join(root, "none.bin"))).toThrow(FormatError);
  });
});
