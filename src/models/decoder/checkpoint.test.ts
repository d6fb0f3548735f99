// Checkpoints written and read back: every family, every variant, every type of storage; and files that are not what they should be.
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { FormatError } from "../../base/errors.ts";
import { openSafetensors, writeSafetensors } from "../../formats/index.ts";
import { familyOf, loadDecoder, saveDecoder, toHfConfig } from "./checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "./config.ts";
import { decoderPresets } from "./presets.ts";
import { randomDecoder, variants } from "./testing/variants.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-decoder-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const newFolder = (): string => mkdtempSync(join(root, "checkpoint-"));

const valuesOf = ({ parameters }: ReturnType<typeof randomDecoder>) =>
  [...parameters.leaves].map(([path, { shape, data }]) => ({ path, shape, data: Array.from(data as Float32Array) }));

const small = { vocabSize: 17, width: 16, layers: 2, heads: 4, kvHeads: 2, mlpWidth: 24, contextLength: 8 };
const families: Record<string, Partial<DecoderOptions>> = {
  llama: {},
  qwen2: { qkvBias: true, normEpsilon: 1e-6, tieEmbeddings: false },
  qwen3: { qkNorm: "head", headWidth: 6, rotaryBase: 1e6 },
  gpt2: {
    kvHeads: 4,
    norm: "layer",
    position: "learned",
    mlp: "plain",
    activation: "geluTanh",
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
  },
  mistral: { window: 4 },
  smollm3: { noRotaryLayers: [1] },
  olmo2: { normPlace: "after", qkNorm: "projection", tieEmbeddings: false },
  olmo3: {
    normPlace: "after",
    qkNorm: "projection",
    window: 4,
    layerTypes: ["sliding", "full"],
    rotaryScaling: { kind: "yarn", factor: 8, originalLength: 4, attentionFactor: 1.2 },
    slidingRotaryBase: 10_000,
  },
  gemma: { embeddingScale: 4, activation: "geluTanh" },
  gemma2: {
    normPlace: "both",
    embeddingScale: 4,
    activation: "geluTanh",
    attentionScale: 1 / Math.sqrt(20),
    attentionSoftCap: 50,
    logitSoftCap: 30,
    window: 4,
    layerTypes: ["sliding", "full"],
  },
  gemma3_text: {
    normPlace: "both",
    qkNorm: "head",
    embeddingScale: 4,
    activation: "geluTanh",
    attentionScale: 1 / Math.sqrt(24),
    rotaryBase: 1e6,
    rotaryScaling: { kind: "linear", factor: 8 },
    slidingRotaryBase: 10_000,
    window: 4,
    layerTypes: ["sliding", "full"],
  },
  phi3: {
    headWidth: 8,
    rotaryFraction: 0.5,
    rotaryScaling: { kind: "longrope", shortFactors: [1, 2], longFactors: [3, 4], originalLength: 4, attentionFactor: 1.1 },
  },
  mixtral: { experts: { count: 4, chosen: 2, width: 24 } },
  qwen3_moe: { qkNorm: "head", experts: { count: 4, chosen: 2, width: 8, denseLayers: [0] } },
  qwen2_moe: { qkvBias: true, experts: { count: 4, chosen: 2, width: 8, sharedWidth: 12, sharedGate: true, normalise: false } },
  deepseek_v3: {
    kvHeads: 4,
    latent: { queryRank: 6, keyValueRank: 5, plainWidth: 4, rotaryWidth: 4, valueWidth: 6 },
    experts: {
      count: 6,
      chosen: 2,
      width: 8,
      denseLayers: [0],
      score: "sigmoid",
      scale: 2.5,
      selectionBias: true,
      groups: 3,
      chosenGroups: 2,
      sharedWidth: 8,
    },
    tieEmbeddings: false,
  },
  "longwave-decoder": { window: 4, logitSoftCap: 30, qkNorm: "projection" },
};

describe.each(Object.entries(families))("%s", (modelType, options) => {
  const decoder = randomDecoder(decoderConfig({ ...small, ...options }));

  test("is the family that the configuration is written in, and comes back equal", () => {
    expect(toHfConfig(decoder.config).family.modelType).toBe(modelType);
    const folder = newFolder();
    saveDecoder(folder, decoder, { fields: { bos_token_id: 3 } });
    const loaded = loadDecoder(folder);
    expect(loaded.hfConfig).toMatchObject({ model_type: modelType, bos_token_id: 3, torch_dtype: "float32" });
    expect(loaded.unused).toEqual([]);
    expect(valuesOf(loaded)).toEqual(valuesOf(decoder));
    // Where random weights start is no property of trained ones.
    const { initStd, scaleResidualInit } = loaded.config;
    expect(loaded.config).toEqual({ ...decoder.config, initStd, scaleResidualInit });
  });

  test.each([
    ["bf16", "bfloat16", 2 ** -8],
    ["f16", "float16", 2 ** -11],
  ] as const)("as %s every weight is the nearest one", (dtype, torchName, relative) => {
    const folder = newFolder();
    saveDecoder(folder, decoder, { dtype });
    const loaded = loadDecoder(folder);
    expect(loaded.hfConfig.torch_dtype).toBe(torchName);
    const [before, after] = [valuesOf(decoder), valuesOf(loaded)];
    for (const [i, { path, data }] of before.entries())
      for (const [j, value] of data.entries())
        expect(Math.abs(after[i].data[j] - value), path).toBeLessThanOrEqual(Math.abs(value) * relative + 1e-7);
    // Written again they stay as they are.
    saveDecoder(folder, loaded, { dtype });
    expect(valuesOf(loadDecoder(folder))).toEqual(after);
  });
});

test.each(variants)("$name comes back equal", ({ config }) => {
  const decoder = randomDecoder(config);
  const folder = newFolder();
  saveDecoder(folder, decoder);
  const loaded = loadDecoder(folder);
  expect(valuesOf(loaded)).toEqual(valuesOf(decoder));
  const { initStd, scaleResidualInit } = loaded.config;
  expect(loaded.config).toEqual({ ...config, initStd, scaleResidualInit });
});

test("the sizes are of the families that their names promise", () => {
  const familyOfSize = (name: keyof typeof decoderPresets): string =>
    toHfConfig(decoderConfig({ ...decoderPresets[name].options, vocabSize: 100 })).family.modelType;
  expect(familyOfSize("gpt2-124m")).toBe("gpt2");
  for (const name of ["nano", "micro", "mini", "smollm2-135m"] as const) expect(familyOfSize(name)).toBe("llama");
});

describe("a checkpoint that is not whole", () => {
  const folder = newFolder();
  saveDecoder(folder, randomDecoder(decoderConfig({ ...small })));
  const damaged = (damage: (path: string) => void): string => {
    const copy = newFolder();
    cpSync(folder, copy, { recursive: true });
    damage(copy);
    return copy;
  };
  const expectError = (path: string, message: RegExp, hint: RegExp): void => {
    let error: unknown;
    try {
      loadDecoder(path);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toMatch(message);
    expect((error as FormatError).hint).toMatch(hint);
  };

  test("is refused with what is wrong", () => {
    const configOf = (path: string, change: object): void => {
      const file = join(path, "config.json");
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...change }));
    };
    expectError(join(root, "nowhere"), /expected a checkpoint folder or a model file, got nothing/, /path/);
    expectError(newFolder(), /expected config.json in it, got none/, /checkpoint folder/);
    expectError(
      damaged((path) => rmSync(join(path, "model.safetensors"))),
      /expected model.safetensors/,
      /./,
    );
    expectError(
      damaged((path) => truncateSync(join(path, "model.safetensors"), 4000)),
      /bytes of tensors after the header/,
      /cut short/,
    );
    expectError(
      damaged((path) => truncateSync(join(path, "model.safetensors"), 5)),
      /expected at least 8 bytes/,
      /cut short/,
    );
    expectError(
      damaged((path) => writeFileSync(join(path, "model.safetensors"), "PK\u0003\u0004".repeat(100))),
      /expected a header/,
      /no safetensors/,
    );
    expectError(
      damaged((path) => configOf(path, { model_type: "lama" })),
      /expected model_type llama/,
      /Nearest supported: llama/,
    );
    expectError(
      damaged((path) => configOf(path, { num_hidden_layers: 3 })),
      /are missing: model.layers.2/,
      /does not match its config/,
    );
    expectError(
      damaged((path) => configOf(path, { hidden_size: 32 })),
      /expected shape/,
      /belong together/,
    );
    expectError(
      damaged((path) => writeFileSync(join(path, "config.json"), "{")),
      /expected JSON/,
      /damaged/,
    );
  });

  test("of which a shard or a tensor is gone names it", () => {
    const path = damaged((copy) => {
      using source = openSafetensors(folder);
      const tensors = [...source.entries.keys()]
        .filter((name) => name !== "model.norm.weight")
        .map((name) => ({ name, ...source.read(name) }));
      writeSafetensors(join(copy, "model.safetensors"), tensors);
    });
    expectError(path, /1 are missing: model.norm.weight/, /does not match/);
  });

  test("families are told apart by model_type alone, and the nearest one is named", () => {
    const hintOf = (config: Parameters<typeof familyOf>[0]): string | undefined => {
      try {
        familyOf(config);
      } catch (error) {
        if (error instanceof FormatError) return error.hint;
      }
      return undefined;
    };
    expect(hintOf({ model_type: "mamba" })).toMatch(/not supported/);
    expect(hintOf({ model_type: "qwen2_5_vl" })).toMatch(/Nearest supported: qwen2 \(Qwen2ForCausalLM\)/);
    expect(hintOf({ model_type: "gemma3" })).toMatch(/Nearest supported: gemma3_text|Nearest supported: gemma/);
    expect(hintOf({ model_type: "mistral4" })).toMatch(/Nearest supported: mistral /);
    expect(hintOf({ model_type: "phi" })).toMatch(/Nearest supported: phi3 /);
    expect(hintOf({ architectures: ["LlamaForCausalLM"] })).toMatch(/Nearest supported: llama /);
    expect(hintOf({})).toMatch(/not supported/);
  });

  test("tensors under other names are listed beside the missing ones, and superfluous ones when nothing is missing", () => {
    const renamed = (rename: (name: string) => string, more: string[] = []): string =>
      damaged((copy) => {
        using source = openSafetensors(folder);
        const tensors = [...source.entries.keys()].map((name) => ({ ...source.read(name), name: rename(name) }));
        const extra = more.map((name) => ({ name, dtype: "f32" as const, shape: [1], data: new Float32Array(1) }));
        writeSafetensors(join(copy, "model.safetensors"), [...tensors, ...extra]);
      });
    expectError(
      renamed((name) => name.replace("q_proj", "query_proj")),
      /2 are missing: model.layers.0.self_attn.q_proj.weight, model.layers.1.self_attn.q_proj.weight; the file has instead: .*query_proj/,
      /does not match/,
    );
    const path = renamed((name) => name, ["model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"]);
    expect(loadDecoder(path).unused).toEqual(["model.layers.0.self_attn.q_proj.bias"]);
  });

  test("without an output matrix of its own has the embedding as one, whatever config.json says", () => {
    const path = damaged((copy) => {
      const file = join(copy, "config.json");
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), tie_word_embeddings: false }));
    });
    expect(loadDecoder(path).config.tieEmbeddings).toBe(true);
  });
});
