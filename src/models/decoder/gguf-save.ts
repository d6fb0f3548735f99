// A decoder as a GGUF file that llama.cpp and its relatives read: the metadata of its config.json, and its tensors in their names, row
// order and types. The inverse of gguf-config.ts and gguf.ts.
import { z } from "zod";
import { FormatError, invariant } from "../../base/errors.ts";
import type { GgufMetadataEntry } from "../../formats/gguf-header.ts";
import { type GgufTypeName, ggufTensorTypes } from "../../formats/gguf-types.ts";
import { type GgufTensor, ggufEntry, writeGguf } from "../../formats/gguf-write.ts";
import type { ParameterSpec } from "../../nn/parameter.ts";
import { inverseFrequencies } from "../../nn/rotary.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { flatten } from "../../tensor/tree.ts";
import { familyOf, type LoadedDecoder, toHfConfig } from "./checkpoint.ts";
import { type DecoderConfig, decoderConfig, rotaryOptions } from "./config.ts";
import { rowOfPair } from "./gguf.ts";
import { ggufHfConfig } from "./gguf-config.ts";
import { architectureOfModelType, type GgufPlace, ggufPlaces } from "./gguf-names.ts";
import { Scratch, storedTensor } from "./mapping.ts";

/** Types that models are written in, with llama.cpp's number of each as `general.file_type`. */
const fileTypes = { F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q8_0: 7, Q5_0: 8, Q5_1: 9, BF16: 32 } as const;
type WrittenType = keyof typeof fileTypes;

export const ggufSaveSchema = z
  .strictObject({
    dtype: z
      .enum(Object.keys(fileTypes) as [WrittenType, ...WrittenType[]])
      .default("F16")
      .describe(
        "Type of the matrices. Rows that are no whole blocks stay F16; norms, biases and routers F32; the output matrix at least Q8_0",
      ),
    name: z.string().optional().describe("Name of the model in the file"),
  })
  .describe("How a model is written as GGUF");

/**
 * Writes a GGUF file, atomically.
 * @param tokenizer metadata of the tokenizer, as `tokenizerGgufEntries` gives them. Without it llama.cpp loads the weights alone.
 * @throws FormatError for architectures that GGUF has no name for; CheckpointError when the disk refuses.
 */
export function saveGguf(
  path: string,
  decoder: Pick<LoadedDecoder, "config" | "specs" | "parameters"> & Partial<Pick<LoadedDecoder, "hfConfig">>,
  options: z.input<typeof ggufSaveSchema> = {},
  tokenizer: Iterable<readonly [string, GgufMetadataEntry]> = [["tokenizer.ggml.model", ggufEntry.string("no_vocab")]],
): void {
  const { dtype, name = "longwave" } = ggufSaveSchema.parse(options);
  const { family, hfConfig } = toHfConfig(decoder.config, decoder.hfConfig);
  const architecture = architectureOfModelType(String(hfConfig.model_type));
  if (architecture === undefined) {
    throw new FormatError(`saveGguf: expected an architecture that GGUF has, got ${JSON.stringify(hfConfig.model_type)}`, {
      hint: "Save the model as a Hugging Face checkpoint.",
    });
  }
  const specs = new Map(flatten<ParameterSpec>(decoder.specs));
  const stored = new Map(
    family.keys(decoder.config).map((mapping) => {
      const [leaf, spec] = [decoder.parameters.leaves.get(mapping.path), specs.get(mapping.path)];
      invariant(leaf && spec, `no parameter "${mapping.path}"`);
      return [mapping.key, storedTensor(mapping, leaf, spec)];
    }),
  );
  const tensors = new Map<string, { places: GgufPlace[] }>();
  for (const place of ggufPlaces(architecture, { ...hfConfig, head_dim: decoder.config.headWidth }, () => true)) {
    // Experts have two names; the stacked one is today's.
    if (!stored.has(place.key) || /\.ffn_\w+\.\d+\.weight$/.test(place.name)) continue;
    const tensor = tensors.get(place.name) ?? { places: [] };
    tensor.places.push(place);
    tensors.set(place.name, tensor);
  }
  const placed = new Set([...tensors.values()].flatMap(({ places }) => places.map(({ key }) => key)));
  const lost = [...stored.keys()].find((key) => !placed.has(key));
  if (lost !== undefined) throw new FormatError(`saveGguf: expected a place in ${architecture.name} for "${lost}", got none`);

  const scratch = new Scratch();
  const list: GgufTensor[] = rotaryTensors(decoder.config);
  for (const [tensorName, { places }] of tensors) {
    const own = stored.get(places[0].key)!.shape;
    const matrix = places[0].change?.kind === "transposed" ? own.toReversed() : own;
    const shape = places[0].index === undefined ? matrix : [places.length, ...matrix];
    list.push({
      name: tensorName,
      dtype: ggufSavedType(tensorName, shape, dtype),
      shape,
      data: () => {
        const size = matrix.reduce((product, dimension) => product * dimension, 1);
        const values = new Float32Array(places.length * size);
        for (const [i, place] of places.entries()) {
          const { data, shape: storedShape } = stored.get(place.key)!;
          writePlace(values.subarray(i * size, (i + 1) * size), data(scratch), storedShape, place);
        }
        return values;
      },
    });
  }
  const metadata: [string, GgufMetadataEntry][] = [
    ["general.architecture", ggufEntry.string(architecture.name)],
    ["general.type", ggufEntry.string("model")],
    ["general.name", ggufEntry.string(name)],
    ["general.file_type", ggufEntry.u32(fileTypes[dtype])],
    ["general.quantization_version", ggufEntry.u32(2)],
    ...modelEntries(architecture.name, decoder.config),
    ...[...tokenizer].map(([key, entry]): [string, GgufMetadataEntry] => [key, entry]),
  ];
  checkExpressed(decoder.config, list, new Map(metadata));
  writeGguf(path, list, { metadata });
}

/** Reads the configuration back before anything is written. @throws FormatError naming what GGUF or llama.cpp has no key for. */
function checkExpressed(config: DecoderConfig, tensors: readonly GgufTensor[], metadata: ReadonlyMap<string, GgufMetadataEntry>): void {
  const entries = new Map(tensors.map(({ name, dtype, shape }) => [name, { name, dtype, shape, begin: 0, bytes: 0 }]));
  const read = (name: string): TensorBuffer => {
    const data = tensors.find((tensor) => tensor.name === name)?.data as Float32Array;
    return bufferFrom("f32", [data.length], data);
  };
  const hfConfig = ggufHfConfig({ path: "saveGguf", entries, metadata, read, value: (key) => metadata.get(key)?.value });
  const own = decoderConfig(familyOf(hfConfig).read(hfConfig));
  for (const key of Object.keys({ ...own, ...config }) as (keyof DecoderConfig)[]) {
    if (key === "initStd" || key === "scaleResidualInit" || alike(own[key], config[key])) continue;
    throw new FormatError(`saveGguf: expected ${key} = ${JSON.stringify(own[key])} as GGUF has it, got ${JSON.stringify(config[key])}`, {
      hint: "Save the model as a Hugging Face checkpoint.",
    });
  }
  // llama.cpp has experts in every layer of these models.
  if (config.experts && config.experts.denseLayers.length > 0) {
    throw new FormatError("saveGguf: expected experts in every layer, got layers without", {
      hint: "Save the model as a Hugging Face checkpoint.",
    });
  }
}

/** Equal up to the rounding of numbers to float32. */
function alike(a: unknown, b: unknown): boolean {
  if (typeof a === "number" && typeof b === "number") return Math.abs(a - b) <= 1e-6 * Math.abs(b);
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return (a ?? null) === (b ?? null);
  const keys = Object.keys({ ...a, ...b });
  return keys.every((key) => alike((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]));
}

/** Copies a tensor of the checkpoint with the change that GGUF makes. */
function writePlace(target: Float32Array, source: Float32Array, shape: readonly number[], { change }: GgufPlace): void {
  switch (change?.kind) {
    case undefined:
      target.set(source.subarray(0, target.length));
      break;
    case "minusOne":
      for (let i = 0; i < target.length; i++) target[i] = source[i] + 1;
      break;
    case "transposed": {
      const [rows, columns] = shape;
      for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) target[j * rows + i] = source[i * columns + j];
      break;
    }
    case "pairs": {
      const width = shape[1] ?? 1;
      for (let row = 0; row < shape[0]; row++) {
        const from = rowOfPair(row, change.headWidth) * width;
        target.set(source.subarray(from, from + width), row * width);
      }
    }
  }
}

/** The type that a tensor is written in, by its name in GGUF, where the matrices are wanted in `wanted`. */
export function ggufSavedType(name: string, shape: readonly number[], wanted: WrittenType): GgufTypeName {
  if (shape.length < 2 || /ffn_gate_inp|position_embd/.test(name)) return "F32";
  if (wanted === "F32") return "F32";
  const blocks = ggufTensorTypes[wanted].values;
  if ((shape.at(-1) as number) % blocks !== 0) return "F16";
  // The output matrix decides the token; tied, it is the embedding.
  return blocks > 1 && (name === "output.weight" || name === "token_embd.weight") ? "Q8_0" : wanted;
}

/** Llama 3's scaling and its like are divisors of the frequencies here; Phi's are two lists. */
function rotaryTensors(config: DecoderConfig): GgufTensor[] {
  const scaling = config.rotaryScaling;
  const list = (name: string, values: ArrayLike<number>): GgufTensor => ({
    name,
    dtype: "F32",
    shape: [values.length],
    data: Float32Array.from(values),
  });
  if (scaling?.kind === "longrope")
    return [list("rope_factors_long.weight", scaling.longFactors), list("rope_factors_short.weight", scaling.shortFactors)];
  if (scaling?.kind !== "llama3" && scaling?.kind !== "divisors") return [];
  const options = rotaryOptions(config, Math.max(0, config.layerTypes.indexOf("full")));
  const plain = inverseFrequencies({ ...options, scaling: undefined });
  const scaled = inverseFrequencies(options);
  return [
    list(
      "rope_freqs.weight",
      plain.map((frequency, i) => frequency / scaled[i]),
    ),
  ];
}

/** @throws FormatError for scalings that GGUF does not have. */
function modelEntries(architecture: string, config: DecoderConfig): [string, GgufMetadataEntry][] {
  const entries: [string, GgufMetadataEntry][] = [];
  const count = (key: string, value: unknown): void => {
    if (typeof value === "number") entries.push([`${architecture}.${key}`, ggufEntry.u32(value)]);
  };
  const real = (key: string, value: unknown): void => {
    if (typeof value === "number") entries.push([`${architecture}.${key}`, ggufEntry.f32(value)]);
  };
  count("context_length", config.contextLength);
  count("embedding_length", config.width);
  count("block_count", config.layers);
  count("feed_forward_length", config.mlpWidth);
  count("attention.head_count", config.heads);
  count("attention.head_count_kv", config.kvHeads);
  real(config.norm === "layer" ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", config.normEpsilon);
  count("vocab_size", config.vocabSize);
  if (config.position === "rotary") {
    count("attention.key_length", config.headWidth);
    count("attention.value_length", config.headWidth);
    count("rope.dimension_count", rotaryOptions(config, 0).width);
    real("rope.freq_base", config.rotaryBase);
    real("rope.freq_base_swa", config.slidingRotaryBase);
  }
  count("attention.sliding_window", config.window);
  if (config.attentionSoftCap) real("attn_logit_softcapping", config.attentionSoftCap);
  if (config.logitSoftCap) real("final_logit_softcapping", config.logitSoftCap);
  if (architecture === "gemma3") {
    const full = config.layerTypes.indexOf("full");
    count("attention.sliding_window_pattern", full < 0 ? config.layers + 1 : full + 1);
  }
  if (config.experts) {
    count("expert_count", config.experts.count);
    count("expert_used_count", config.experts.chosen);
    if (architecture !== "llama") count("expert_feed_forward_length", config.experts.width);
    if (config.experts.sharedWidth > 0) count("expert_shared_feed_forward_length", config.experts.sharedWidth);
  }
  const scaling = config.rotaryScaling;
  if (scaling?.kind === "dynamic") {
    throw new FormatError("saveGguf: expected a scaling of rotary positions that GGUF has, got dynamic", {
      hint: "Save the model as a Hugging Face checkpoint.",
    });
  }
  if (scaling?.kind === "linear" || scaling?.kind === "yarn") {
    entries.push([`${architecture}.rope.scaling.type`, ggufEntry.string(scaling.kind)]);
    real("rope.scaling.factor", scaling.factor);
  }
  if (scaling?.kind === "yarn" || scaling?.kind === "longrope") {
    count("rope.scaling.original_context_length", scaling.originalLength);
    real("rope.scaling.attn_factor", scaling.attentionFactor);
  }
  return entries;
}
