// Checkpoints as they are found, with the logits and greedy tokens of transformers: every face of the decoder, through every load.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { complete } from "../../src/decode/generate.ts";
import { DecoderRunner } from "../../src/decode/runner.ts";
import { TreeShape } from "../../src/decode/token-tree.ts";
import { openSafetensors } from "../../src/formats/index.ts";
import { type LoadedDecoder, loadDecoder, saveDecoder } from "../../src/models/decoder/checkpoint.ts";
import { type DecoderTensors, decoderForward, decoderLogits } from "../../src/models/decoder/decoder.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../src/runtime/buffer.ts";
import { openBackend } from "../../src/runtime/open.ts";
import { compile, spec } from "../../src/runtime/program.ts";
import { mapTree } from "../../src/tensor/tree.ts";

const temporary = mkdtempSync(join(tmpdir(), "longwave-golden-decoder-"));
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(temporary, { recursive: true, force: true });
});

interface Expected {
  prompts: { ids: number[]; greedy: number[] }[];
  long?: { ids: number[] };
}

function parallelLogits({ config, specs, parameters }: LoadedDecoder, ids: readonly number[]): Float32Array {
  const program = compile(
    backend,
    ({ parameters: tensors, ids: ids_BT }) => {
      const { hidden } = decoderForward(config, tensors as unknown as DecoderTensors, ids_BT);
      return decoderLogits(config, tensors as unknown as DecoderTensors, hidden);
    },
    { parameters: mapTree(specs, (leaf) => spec("f32", leaf.shape)), ids: spec("i32", [1, ids.length]) },
    { threads: 1 },
  );
  const logits = program.run({ parameters: parameters.tree, ids: bufferFrom("i32", [1, ids.length], ids) } as never);
  program.dispose();
  return (logits as unknown as TensorBuffer<"f32">).data;
}

/** 1e-4 of the largest logit: what float32 in another order of summation gives. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  const limit = 1e-4 * Math.max(...Array.from(expected, Math.abs));
  let worst = 0;
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  expect(worst).toBeLessThan(limit);
}

/** A copy of a checkpoint with another file as config.json. */
function withConfig(folder: string, config: string): string {
  const copy = mkdtempSync(join(temporary, "config-"));
  for (const name of readdirSync(folder)) if (name.startsWith("model")) cpSync(join(folder, name), join(copy, name));
  cpSync(join(folder, config), join(copy, "config.json"));
  return copy;
}

const folders = [
  "checkpoints/gpt2-prefixed",
  ...readdirSync(fileURLToPath(new URL("decoder", import.meta.url))).map((name) => `decoder/${name}`),
];

describe.each(folders)("%s", (name) => {
  const folder = fileURLToPath(new URL(name, import.meta.url));
  const { prompts, long } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;
  const decoder = loadDecoder(folder);
  using source = openSafetensors(join(folder, "expected.safetensors"));
  const read = (tensor: string) => source.read(tensor).data as Float32Array;
  const logits = prompts.map((_, k) => read(`logits.${k}`));
  const longLogits = long && read("long.logits");
  const { vocabSize } = decoder.config;

  test("every tensor of the file has a place, and transformers 5 writes the same configuration", () => {
    expect(decoder.unused).toEqual([]);
    if (!existsSync(join(folder, "config.v5.json"))) return;
    expect(loadDecoder(withConfig(folder, "config.v5.json")).config).toEqual(decoder.config);
  });

  test("logits of whole sequences", () => {
    for (const [k, { ids }] of prompts.entries()) expectClose(parallelLogits(decoder, ids), logits[k]);
    if (long && longLogits) expectClose(parallelLogits(decoder, long.ids).subarray(-longLogits.length), longLogits);
  });

  test("greedy tokens over the cache, whose logits are the same in chunks, token by token and in a tree", async () => {
    using runner = new DecoderRunner(backend, decoder, { prefillChunk: 64 });
    for (const [k, { ids, greedy }] of [...prompts.entries()].slice(-1)) {
      expectClose(runner.appendAll(0, ids), logits[k]);
      runner.reset(0);
      runner.append(0, ids.slice(0, 5));
      expectClose(runner.appendAll(0, ids.slice(5, -1)), logits[k].subarray(5 * vocabSize, -vocabSize));
      // The last token, a wrong one after it, the right one, and what comes after that.
      const start = ids.length - 1;
      const tree = new TreeShape([-1, 0, 0, 2]);
      const nodes = runner.appendTree(0, tree, [ids[start], (greedy[0] + 1) % vocabSize, greedy[0], greedy[1]]).logits.slice();
      expectClose(nodes.subarray(0, vocabSize), logits[k].subarray(-vocabSize));
      runner.cache.gatherRows(0, start, [0, 2]);
      expectClose(runner.append(0, [greedy[1]]), nodes.subarray(3 * vocabSize));
      const result = await complete(runner, { ids, sampling: { doSample: false }, maxNewTokens: greedy.length, eosTokenIds: [] });
      expect(result.ids).toEqual(greedy);
    }
  });

  test("written and read again it is the same file, but for what has no meaning", () => {
    const copy = mkdtempSync(join(temporary, "copy-"));
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    const dtype = ({ float32: "f32", bfloat16: "bf16", float16: "f16" } as const)[config.torch_dtype as "float32"];
    saveDecoder(copy, decoder, { dtype });
    expect(JSON.parse(readFileSync(join(copy, "config.json"), "utf8"))).toEqual(config);
    using before = openSafetensors(folder);
    using after = openSafetensors(copy);
    const kept = [...before.entries.keys()].filter((key) => !/\.attn\.bias$/.test(key) || decoder.config.norm !== "layer");
    const own = kept.filter((key) => !(decoder.config.latent && key.startsWith(`model.layers.${decoder.config.layers}.`)));
    expect([...after.entries.keys()].sort()).toEqual(own.sort());
    for (const key of own) {
      const [was, is] = [before.entries.get(key), after.entries.get(key)];
      expect(is).toMatchObject({ dtype: was?.dtype, shape: was?.shape });
      const [x, y] = [before.read(key).data as Float32Array, after.read(key).data as Float32Array];
      // Norms that are stored as w of 1 + w lose what float32 cannot hold beside the 1.
      const exact = !(decoder.config.normPlace === "both" && x.length < 100);
      for (let i = 0; i < x.length; i++) if (exact ? x[i] !== y[i] : Math.abs(x[i] - y[i]) > 1.2e-7) expect(y[i], key).toBe(x[i]);
    }
    // The weights themselves come back bit by bit, also when nothing is known of the file that they came from.
    const anew = mkdtempSync(join(temporary, "anew-"));
    saveDecoder(anew, { config: decoder.config, specs: decoder.specs, parameters: decoder.parameters });
    for (const path of [copy, anew]) {
      const again = loadDecoder(path);
      expect(again.config).toEqual(decoder.config);
      expect(again.parameters.buffer.data).toEqual(decoder.parameters.buffer.data);
    }
  });
});

/** A setting of each family that its logits must depend on: without it the comparison above would fail. */
const settings: Record<string, object> = {
  "deepseek-v3": { routed_scaling_factor: 1 },
  gemma2: { attn_logit_softcapping: null },
  gemma3: { rope_local_base_freq: 1_000_000 },
  gpt2: { activation_function: "relu" },
  "llama2-linear": { rope_scaling: null },
  llama3: { rope_scaling: null },
  mistral: { sliding_window: null },
  mixtral: { num_experts_per_tok: 1 },
  olmo2: { rope_theta: 10_000 },
  phi3: { sliding_window: 10 },
  "phi3-longrope": { original_max_position_embeddings: 32 },
  "qwen2-window": { max_window_layers: 0 },
  qwen3: { rope_theta: 10_000 },
  "qwen3-moe": { norm_topk_prob: false },
  "qwen3-yarn": { rope_scaling: null },
  smollm2: { rope_theta: 10_000 },
  smollm3: { no_rope_layers: [1, 1, 1, 1] },
};

test("every folder has a setting below", () => {
  expect(folders.slice(1).map((name) => name.slice("decoder/".length)).sort()).toEqual(Object.keys(settings).sort());
});

test.each(Object.entries(settings))("%s: %j changes the logits", (name, change) => {
  const folder = fileURLToPath(new URL(`decoder/${name}`, import.meta.url));
  const copy = withConfig(folder, "config.json");
  const config = JSON.parse(readFileSync(join(copy, "config.json"), "utf8"));
  writeFileSync(join(copy, "config.json"), JSON.stringify({ ...config, ...change }));
  const { prompts } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;
  using source = openSafetensors(join(folder, "expected.safetensors"));
  const last = prompts.length - 1;
  const expected = source.read(`logits.${last}`).data as Float32Array;
  const actual = parallelLogits(loadDecoder(copy), prompts[last].ids);
  const largest = Math.max(...Array.from(expected, Math.abs));
  expect(Math.max(...Array.from(expected, (value, i) => Math.abs(value - actual[i])))).toBeGreaterThan(1e-3 * largest);
});
