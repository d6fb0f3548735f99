import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, test } from "vitest";
import { openGguf } from "../../formats/gguf.ts";
import { ggufEntry } from "../../formats/gguf-write.ts";
import { initializeParameters } from "../../nn/parameter.ts";
import { allocateDecoder, type LoadedDecoder, loadDecoder } from "./checkpoint.ts";
import { type DecoderOptions, decoderConfig } from "./config.ts";
import { saveGguf } from "./gguf-save.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../../test/golden/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "longwave-gguf-save-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const path = join(directory, "model.gguf");

function create(options: DecoderOptions): Pick<LoadedDecoder, "config" | "specs" | "parameters"> {
  const decoder = allocateDecoder(decoderConfig(options));
  initializeParameters(decoder.specs, decoder.parameters, 3);
  return decoder;
}

const sizes = { vocabSize: 64, width: 32, layers: 2, heads: 2, mlpWidth: 64, contextLength: 48 } as const;

/** Largest difference of any parameter after writing and reading. */
function roundTrip(
  decoder: Pick<LoadedDecoder, "config" | "specs" | "parameters">,
  dtype: "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0",
): number {
  saveGguf(path, decoder, { dtype });
  const own = loadDecoder(path);
  expect(own.unused).toEqual([]);
  let largest = 0;
  for (const [name, { data }] of decoder.parameters.leaves) {
    const other = own.parameters.leaves.get(name)!.data;
    for (let i = 0; i < data.length; i++) largest = Math.max(largest, Math.abs(Number(data[i]) - Number(other[i])));
  }
  return largest;
}

test("a Llama has the names, shapes, keys and values of the file that gguf's own writer made", () => {
  saveGguf(path, loadDecoder(golden("formats/gguf/llama-Q4_1.gguf")), { dtype: "F32", name: "tiny llama" });
  using own = openGguf(path);
  using reference = openGguf(golden("formats/gguf/llama-Q4_1.gguf"));
  const shapes = (file: typeof own) => [...file.entries.values()].map(({ name, shape }) => `${name} [${shape}]`).sort();
  expect(shapes(own)).toEqual(shapes(reference));
  for (const name of own.entries.keys()) expect(own.read(name).data, name).toEqual(reference.read(name).data);
  for (const [key, entry] of reference.metadata) {
    if (!key.startsWith("tokenizer.") && key !== "general.file_type") expect(own.metadata.get(key), key).toEqual(entry);
  }
});

describe("reading back what was written", () => {
  it.each<[string, DecoderOptions]>([
    [
      "GPT-2",
      {
        ...sizes,
        norm: "layer",
        position: "learned",
        mlp: "plain",
        mlpBias: true,
        qkvBias: true,
        outputBias: true,
        activation: "geluTanh",
      },
    ],
    ["Qwen 2", { ...sizes, qkvBias: true, kvHeads: 1, tieEmbeddings: false }],
    ["Qwen 3 with YaRN", { ...sizes, qkNorm: "head", headWidth: 32, rotaryScaling: { kind: "yarn", factor: 4, originalLength: 16 } }],
    ["Mixtral", { ...sizes, experts: { count: 4, chosen: 2, width: 64 }, tieEmbeddings: false }],
    [
      "Llama 3.1",
      {
        ...sizes,
        rotaryScaling: { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 16 },
        tieEmbeddings: false,
      },
    ],
  ])("%s", (_, options) => {
    const decoder = create(options);
    expect(roundTrip(decoder, "F32")).toBe(0);
    expect(roundTrip(decoder, "Q8_0")).toBeLessThan(0.002);
  });

  it("each type is as close as its levels allow", () => {
    const decoder = create({ ...sizes, initStd: 1, scaleResidualInit: false });
    // Values reach about 4.5: half a float16 step is 2^-9 there, half a bfloat16 step 2^-6.
    expect(roundTrip(decoder, "F16")).toBeLessThan(2 ** -9);
    expect(roundTrip(decoder, "BF16")).toBeLessThanOrEqual(2 ** -6);
    expect(roundTrip(decoder, "Q8_0")).toBeLessThan(0.03);
    expect(roundTrip(decoder, "Q4_0")).toBeLessThan(0.7);
    expect(roundTrip(decoder, "Q4_0")).toBeGreaterThan(0.1);
  });
});

test("rows that are no whole blocks stay float16, norms float32; the output matrix is 8 bits at least", () => {
  saveGguf(path, create({ ...sizes, width: 48, mlpWidth: 64 }), { dtype: "Q4_0" }, [["tokenizer.ggml.model", ggufEntry.string("none")]]);
  using file = openGguf(path);
  const typeOf = (name: string): string | undefined => file.entries.get(name)?.dtype;
  expect([typeOf("blk.0.attn_q.weight"), typeOf("blk.0.ffn_down.weight"), typeOf("blk.1.ffn_norm.weight")]).toEqual(["F16", "Q4_0", "F32"]);
  saveGguf(path, create(sizes), { dtype: "Q4_0" });
  using whole = openGguf(path);
  expect(whole.entries.get("token_embd.weight")?.dtype).toBe("Q8_0");
  expect(file.value("tokenizer.ggml.model")).toBe("none");
  expect(whole.value("tokenizer.ggml.model")).toBe("no_vocab");
});

test("what GGUF has no key for is refused, and nothing is written", () => {
  const refused = join(directory, "refused.gguf");
  const save = (options: DecoderOptions) => () => saveGguf(refused, create(options));
  expect(save({ ...sizes, window: 8 })).toThrow(/saveGguf: expected/);
  expect(save({ ...sizes, activation: "squaredRelu", mlp: "plain" })).toThrow(/architecture that GGUF has/);
  expect(save({ ...sizes, rotaryScaling: { kind: "dynamic", factor: 2, originalLength: 16 } })).toThrow(/dynamic/);
  expect(existsSync(refused)).toBe(false);
});
