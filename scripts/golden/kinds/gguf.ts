// models/gguf: a zoo of tensor and value types, and tiny models with what transformers computes from their dequantised weights.
import { bytesOf } from "../../../src/base/file-io.ts";
import { type GgufSource, openGguf } from "../../../src/formats/gguf.ts";
import type { GgufValue } from "../../../src/formats/gguf-header.ts";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import { loadDecoder } from "../../../src/models/decoder/checkpoint.ts";
import { loadQuantisedGguf } from "../../../src/models/decoder/gguf-quantised.ts";
import { unpack } from "../../../src/nn/quantise.ts";
import { loadTokenizer } from "../../../src/text/load-tokenizer.ts";
import type { Comparison } from "../compare.ts";
import { cachedLogits, greedy, openRunner, sequenceOutputs } from "../decoder-outputs.ts";
import { asInteger, asIntegers, asList, asNumber, asObject, asObjects, asText, asTexts, type Fields } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy, type Unit } from "../kind.ts";

const tensorTolerance = { relative: 1e-4 };

export const kind: GoldenKind = {
  recognise(folder) {
    const stems = [...folder.files].flatMap((name) => (name.endsWith(".expected.json") ? [name.slice(0, -".expected.json".length)] : []));
    return stems.flatMap((stem) => {
      const expected = folder.peek(`${stem}.expected.json`);
      const isZoo = folder.has(`${stem}.gguf`) || (expected !== undefined && "keyValues" in expected);
      const isModel = expected !== undefined && "architecture" in expected && "files" in expected;
      if (!isZoo && !isModel && folder.name !== "gguf") return [];
      const files = [...folder.files].filter((name) => name.split(/[-.]/)[0] === stem);
      return [{ name: stem, files, cases: () => (isZoo ? zooCases(folder, stem) : modelCases(folder, stem)) } satisfies Unit];
    });
  },
};

function* zooCases(folder: Folder, stem: string): Generator<GoldenCase> {
  const expected = asObject(folder.json(`${stem}.expected.json`), `${stem}.expected.json`);
  const files = [...folder.files].filter((name) => name.endsWith(".gguf") && name.split(/[-.]/)[0] === stem);
  for (const name of files) {
    const item = (aspect: string, run: (comparison: Comparison, file: GgufSource) => void): GoldenCase => ({
      kind: "models/gguf/types",
      name: `${name} ${aspect}`,
      run: (comparison) => {
        using file = openGguf(folder.file(name));
        run(comparison, file);
      },
    });
    yield item("metadata", (comparison, file) => {
      for (const [key, stored] of Object.entries(asObject(expected.keyValues, "keyValues")))
        compareValue(comparison, expected, key, file, stored);
    });
    yield item("tensors", (comparison, file) => {
      const own = [...file.entries.values()].map((entry) => ({ ...entry, type: entry.dtype, offset: entry.begin }));
      comparison.exact("tensors", own, asObjects(expected.tensors, "tensors"));
    });
    yield item("values", (comparison, file) => {
      using reference = openSafetensors(folder.file(`${stem}.expected.safetensors`));
      for (const key of reference.entries.keys()) {
        const [own, stored] = [file.read(key).data as Float32Array, reference.read(key).data as Float32Array];
        comparison.numbers(key, own, stored, { absolute: 0 });
      }
      for (const { name: key, type, shape } of asObjects(expected.tensors, "tensors")) {
        if (reference.entries.has(asText(key, "name"))) continue;
        // The plain numbers −6 … 5; other types have no values of their own here.
        const size = asIntegers(shape, "shape").reduce((product, dimension) => product * dimension, 1);
        const numbers = Array.from(file.read(asText(key, "name")).data, Number);
        comparison.exact(
          `${asText(key, "name")} (${asText(type, "type")})`,
          numbers,
          Array.from({ length: size }, (_, i) => i - size / 2),
        );
      }
    });
  }
}

function compareValue(comparison: Comparison, expected: Fields, key: string, file: GgufSource, stored: unknown): void {
  const value = file.value(key);
  const short = key.slice(key.lastIndexOf(".") + 1);
  const asString = expected[`${short}AsString`];
  if (typeof asString === "string") comparison.exact(key, String(value), asString);
  else comparison.exact(key, plain(value), stored);
}

/** As JSON has it. */
function plain(value: GgufValue | undefined): unknown {
  if (typeof value !== "object") return typeof value === "bigint" ? Number(value) : (value ?? null);
  if (value.type === "array") return Array.from(value.values as readonly GgufValue[], plain);
  return Array.from(value.values as ArrayLike<string | number | bigint>, (item) =>
    value.type === "bool" ? item === 1 : typeof item === "bigint" ? Number(item) : item,
  );
}

function* modelCases(folder: Folder, stem: string): Generator<GoldenCase> {
  const expected = asObject(folder.json(`${stem}.expected.json`), `${stem}.expected.json`);
  const ids = asIntegers(expected.ids, "ids");
  const tensors = `${stem}.expected.safetensors`;
  const item = (name: string, run: GoldenCase["run"]): GoldenCase => ({ kind: "models/gguf/models", name, run });
  let first: string | undefined;
  for (const [type, value] of Object.entries(asObject(expected.files, "files"))) {
    const place = `files.${type}`;
    const fields = asObject(value, place);
    if (fields.file === null) continue;
    const fileName = asText(fields.file, `${place}.file`);
    first ??= fileName;
    const path = folder.file(fileName);
    const model = lazy(() => loadDecoder(path));
    const stored = () => {
      using source = openSafetensors(folder.file(tensors));
      const { data, shape } = source.read(`logits.${type}`);
      return { data: data as Float32Array, shape };
    };
    yield item(`${type} file`, (comparison) => {
      using file = openGguf(path);
      comparison.exact("architecture", file.value("general.architecture"), asText(expected.architecture, "architecture"));
      const types = [...new Set([...file.entries.values()].map(({ dtype }) => dtype))].sort();
      comparison.exact("tensorTypes", types, asTexts(fields.tensorTypes, `${place}.tensorTypes`).toSorted());
    });
    yield item(`${type} logits`, (comparison, { backend }) => {
      comparison.numbers("logits", sequenceOutputs(backend, model(), ids).logits, stored(), tensorTolerance);
      using runner = openRunner(backend, model(), ids.length);
      comparison.numbers("logits (over a cache)", cachedLogits(runner, 0, ids), stored(), tensorTolerance);
    });
    yield item(`${type} greedy`, async (comparison, { backend }) => {
      const tokens = asIntegers(fields.greedy, `${place}.greedy`);
      using runner = openRunner(backend, model(), ids.length + tokens.length);
      const [result] = await greedy(runner, [{ ids, maxNewTokens: tokens.length }]);
      comparison.exact("greedy", result.ids, tokens);
    });
    yield item(`${type} blocks as stored`, (comparison) => compareBlocks(comparison, path));
  }
  if (folder.has(`${stem}.dequantised.safetensors`)) {
    yield item("dequantised tensors", (comparison) => {
      using reference = openSafetensors(folder.file(`${stem}.dequantised.safetensors`));
      for (const key of reference.entries.keys())
        compareDequantised(comparison, folder, stem, key, reference.read(key).data as Float32Array);
    });
  }
  if (folder.has(`${stem}.config.json`) && first !== undefined) {
    const fileName = first;
    yield item("configuration", (comparison) => {
      const { config } = loadDecoder(folder.file(fileName));
      const reference = asObject(folder.json(`${stem}.config.json`), `${stem}.config.json`);
      comparison.exact("num_hidden_layers", config.layers, asInteger(reference.num_hidden_layers, "num_hidden_layers"));
      comparison.exact("num_attention_heads", config.heads, asInteger(reference.num_attention_heads, "num_attention_heads"));
      comparison.exact("num_key_value_heads", config.kvHeads, asInteger(reference.num_key_value_heads, "num_key_value_heads"));
      comparison.exact("vocab_size", config.vocabSize, asInteger(reference.vocab_size, "vocab_size"));
      comparison.exact("tie_word_embeddings", config.tieEmbeddings, reference.tie_word_embeddings);
      comparison.numbers("rms_norm_eps", [config.normEpsilon], [asNumber(reference.rms_norm_eps, "rms_norm_eps")], { relative: 1e-6 });
      comparison.numbers("rope_theta", [config.rotaryBase], [asNumber(reference.rope_theta, "rope_theta")], { relative: 1e-6 });
    });
  }
  if (expected.tokenizer !== undefined && first !== undefined) {
    const fileName = first;
    yield item("tokenizer", (comparison) => {
      const fields = asObject(expected.tokenizer, "tokenizer");
      const tokenizer = loadTokenizer(folder.file(fileName));
      const stored = asList(fields.llamaCppIds, "tokenizer.llamaCppIds");
      for (const [i, text] of asTexts(fields.texts, "tokenizer.texts").entries()) {
        const own = tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: false });
        comparison.exact(`llamaCppIds[${i}] ${JSON.stringify(text)}`, own, asIntegers(stored[i], `tokenizer.llamaCppIds[${i}]`));
      }
    });
  }
}

/** `TYPE/tensor` or `TYPE/tensor[:rows]`. */
function compareDequantised(comparison: Comparison, folder: Folder, stem: string, key: string, stored: Float32Array): void {
  const [, type, name] = /^([^/]+)\/([^[]+)(\[:\d+\])?$/.exec(key) ?? [];
  using file = openGguf(folder.file(`${stem}-${type}.gguf`));
  const own = file.read(name).data as Float32Array;
  comparison.exact(key, Buffer.compare(bytesOf(own.subarray(0, stored.length)), bytesOf(stored)), 0);
}

/** Quantised matrices in their own blocks mean the same values, up to the rounding of an offset. */
function compareBlocks(comparison: Comparison, path: string): void {
  const blocks = loadQuantisedGguf(path, { weights: "stored" });
  const plainModel = loadDecoder(path);
  const { embedding, layers, head } = blocks.parameters.tree;
  const whole = plainModel.parameters.tree as unknown as typeof blocks.parameters.tree;
  const pairs = layers.flatMap(({ attention, mlp }, i): [string, unknown, unknown][] => [
    [`layers.${i}.qkv`, attention.qkv?.weight, whole.layers[i].attention.qkv?.weight],
    [`layers.${i}.output`, attention.output.weight, whole.layers[i].attention.output.weight],
    [`layers.${i}.up`, mlp?.up.weight, whole.layers[i].mlp?.up.weight],
    [`layers.${i}.down`, mlp?.down.weight, whole.layers[i].mlp?.down.weight],
  ]);
  pairs.push(["embedding", embedding.tokens, whole.embedding.tokens], ["head", head?.weight, whole.head?.weight]);
  for (const [place, own, reference] of pairs) {
    if (own === undefined || reference === undefined) continue;
    const { data, shape } = reference as { data: Float32Array; shape: readonly number[] };
    const values =
      typeof own === "object" && own !== null && "packed" in own
        ? unpack(own as never, shape[1]).data
        : (own as { data: Float32Array }).data;
    comparison.numbers(place, values, { data, shape }, { relative: 1e-7 });
  }
}
