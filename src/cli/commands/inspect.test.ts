import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { bufferedOutput } from "../io.ts";
import { groupOf, type ModelDescription } from "../model-description.ts";
import { runCli } from "../run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-inspect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = async (argv: string[]) => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  const io = { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
  return { code: await runCli(argv, io), out: stdout.text(), err: stderr.text() };
};

/** The bytes of a safetensors file, written here by hand: 8-byte length, JSON header, data. */
function safetensors(tensors: Record<string, { dtype: string; shape: number[]; bytes: number }>): Buffer {
  let at = 0;
  const header = Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => {
    const begin = at;
    at += bytes;
    return [name, { dtype, shape, data_offsets: [begin, at] }];
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(at)]);
}

/** A llama2.c file: seven i32, then float32 weights and the two rotary tables. */
function llama2c(
  width: number,
  mlp: number,
  layers: number,
  heads: number,
  kvHeads: number,
  vocabulary: number,
  positions: number,
): Buffer {
  const headWidth = width / heads;
  const perLayer = 2 * width + width * (heads + 2 * kvHeads) * headWidth + width * width + 3 * width * mlp;
  const count = vocabulary * width + layers * perLayer + width + positions * headWidth;
  const header = Buffer.from(Int32Array.of(width, mlp, layers, heads, kvHeads, vocabulary, positions).buffer);
  return Buffer.concat([header, Buffer.alloc(count * 4)]);
}

const write = (name: string, data: Buffer | string): string => {
  const path = join(folder, name);
  writeFileSync(path, data);
  return path;
};

describe("inspect", () => {
  it("counts parameters and bytes of a safetensors checkpoint with its configuration", async () => {
    write(
      "model.safetensors",
      safetensors({
        "model.embed_tokens.weight": { dtype: "BF16", shape: [10, 4], bytes: 80 },
        "model.layers.0.self_attn.q_proj.weight": { dtype: "F32", shape: [4, 4], bytes: 64 },
        "model.layers.1.self_attn.q_proj.weight": { dtype: "F32", shape: [4, 4], bytes: 64 },
        "model.layers.0.mlp.up_proj.weight": { dtype: "F32", shape: [8, 4], bytes: 128 },
        "model.norm.weight": { dtype: "F32", shape: [4], bytes: 16 },
      }),
    );
    write(
      "config.json",
      JSON.stringify({ architectures: ["LlamaForCausalLM"], num_hidden_layers: 2, hidden_size: 4, num_attention_heads: 2 }),
    );
    const { code, out } = await run(["inspect", folder, "--json"]);
    expect(code).toBe(0);
    const model = JSON.parse(out) as ModelDescription;
    expect(model).toMatchObject({
      format: "safetensors",
      numParameters: 40 + 32 + 32 + 4,
      bytes: 352,
      architecture: { name: "LlamaForCausalLM", numLayers: 2, width: 4, numHeads: 2 },
      dtypes: [
        { dtype: "BF16", numTensors: 1, bytes: 80 },
        { dtype: "F32", numTensors: 4, bytes: 272 },
      ],
    });
    expect(Object.fromEntries(model.groups.map(({ name, numParameters }) => [name, numParameters]))).toEqual({
      embedding: 40,
      attention: 32,
      mlp: 32,
      norm: 4,
    });
    const text = (await run(["inspect", join(folder, "model.safetensors")])).out;
    expect(text).toMatch(/^model\.layers\.\*\.self_attn\.q_proj\.weight {2}F32 +\[4, 4] +x 2 +32$/m);
    expect(text).toContain("LlamaForCausalLM, 2 layers, width 4, 2 heads");
    expect((await run(["inspect", folder, "--all"])).out).toContain("model.layers.1.self_attn.q_proj.weight");
  });

  it("reads a llama2.c file", async () => {
    const path = write("tiny.bin", llama2c(8, 16, 2, 2, 1, 32, 5));
    const { code, out, err } = await run(["inspect", path, "--json"]);
    expect(err).toBe("");
    expect(code).toBe(0);
    // Attention: q 8 x 8, k and v 4 x 8 each, o 8 x 8; MLP: three of 16 x 8; two norms a layer and the last one.
    expect(JSON.parse(out)).toMatchObject({
      format: "llama2.c",
      numParameters: 32 * 8 + 2 * (64 + 32 + 32 + 64 + 384 + 16) + 8,
      architecture: { numLayers: 2, numKeyValueHeads: 1, vocabularySize: 32, maxPositions: 5, tiedEmbeddings: true },
    });
  });

  it("cannot be made to command the terminal by a tensor's name", async () => {
    const path = write("evil.safetensors", safetensors({ "a\u001b[2J": { dtype: "F32", shape: [1], bytes: 4 } }));
    const { out } = await run(["inspect", path]);
    expect(out).toContain("a\ufffd[2J");
    expect(out).not.toContain("\u001b");
  });

  it.each([
    ["none.safetensors", undefined],
    ["cut.safetensors", Buffer.alloc(5)],
    ["cut.bin", llama2c(8, 16, 2, 2, 1, 32, 5).subarray(0, -4)],
    ["model.pt", "PK"],
  ])("refuses %s with exit code 1", async (name, data) => {
    const path = data === undefined ? join(folder, name) : write(name, data);
    const { code, out, err } = await run(["inspect", path]);
    expect(code).toBe(1);
    expect(out).toBe("");
    expect(err).toMatch(/^error: .*expected/);
  });
});

describe("families", () => {
  const golden = (name: string): string => fileURLToPath(new URL(`../../../test/golden/decoder/${name}`, import.meta.url));

  it("tells what the decoder is like, with experts of all layers on one line", async () => {
    const { code, out } = await run(["inspect", golden("mixtral")]);
    expect(code).toBe(0);
    expect(out).toContain("4 experts of width 64, 2 a token by softmax");
    expect(out).toMatch(/model\.layers\.\*\.block_sparse_moe\.experts\.\*\.w1\.weight .* x 8/);
    expect(out).not.toMatch(/missing|not in the model/);
  });

  it("names tensors that are missing or have no place, and families that are not supported", async () => {
    const copy = (name: string, change: object): string => {
      const path = join(folder, name);
      cpSync(golden("qwen2-window"), path, { recursive: true });
      const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
      writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, ...change }));
      return path;
    };
    const asLlama = await run(["inspect", copy("as-llama", { model_type: "llama" })]);
    expect(asLlama.out).toMatch(/not in the model +6: model.layers.0.self_attn.k_proj.bias/);
    const deeper = await run(["inspect", copy("deeper", { num_hidden_layers: 3, layer_types: null })]);
    expect(deeper.out).toMatch(/missing +12: model.layers.2/);
    const foreign = await run(["inspect", copy("foreign", { model_type: "qwen2_vl" })]);
    expect(foreign.code).toBe(0);
    expect(foreign.out).toMatch(/not supported +.*Nearest supported: qwen2/);
  });
});

describe("groupOf", () => {
  it.each([
    ["transformer.wte.weight", "embedding"],
    ["transformer.wpe.weight", "embedding"],
    ["transformer.h.0.ln_1.weight", "norm"],
    ["transformer.h.0.attn.c_attn.weight", "attention"],
    ["transformer.h.0.mlp.c_fc.weight", "mlp"],
    ["transformer.ln_f.bias", "norm"],
    ["model.embed_tokens.weight", "embedding"],
    ["model.layers.3.self_attn.q_norm.weight", "norm"],
    ["model.layers.3.self_attn.o_proj.weight", "attention"],
    ["model.layers.3.post_attention_layernorm.weight", "norm"],
    ["model.layers.3.mlp.down_proj.weight", "mlp"],
    ["lm_head.weight", "head"],
    ["scale", "other"],
  ])("%s is of %s", (name, group) => expect(groupOf(name)).toBe(group));
});
