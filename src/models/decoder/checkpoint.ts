// Decoder checkpoints as Hugging Face has them: config.json and model.safetensors (or a GGUF or llama2.c file) to one flat buffer, and back.
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { FormatError, invariant, nearest, UsageError } from "../../base/errors.ts";
import { type GgufSource, openGguf } from "../../formats/gguf.ts";
import { type HfConfig, readHfConfig, writeHfConfig } from "../../formats/hf-config.ts";
import { llama2cToHfConfig, openLlama2c } from "../../formats/llama2c.ts";
import { SafetensorsWriter } from "../../formats/safetensors-write.ts";
import type { TensorSource } from "../../formats/tensor-source.ts";
import { openWeights } from "../../formats/weights.ts";
import { countParameters, decayGroup, type ParameterSpec } from "../../nn/parameter.ts";
import { sizeOf, type TensorBuffer } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, layoutOf } from "../../runtime/flat.ts";
import { flatten } from "../../tensor/tree.ts";
import { type DecoderConfig, decoderConfig } from "./config.ts";
import { families } from "./families/all.ts";
import type { Family, KeyMapping } from "./families/family.ts";
import { native } from "./families/native.ts";
import { ggufCheckpoint } from "./gguf.ts";
import { ggufHfConfig } from "./gguf-config.ts";
import { readMapped, Scratch, storedTensor } from "./mapping.ts";
import { type DecoderParameters, decoderParameters } from "./parameters.ts";

export { families };

export interface LoadedDecoder {
  readonly config: DecoderConfig;
  /** The config.json it came from, or an equal one. */
  readonly hfConfig: HfConfig;
  readonly specs: DecoderParameters<ParameterSpec>;
  readonly parameters: FlatBuffer<DecoderParameters<ParameterSpec>>;
  /** What the file puts before every key: saved again, keys have it too. */
  readonly prefix: string;
  /** Tensors of the file that have no place in the model. */
  readonly unused: readonly string[];
}

/** Memory for the parameters of a configuration, in groups (see {@link groupOf}); all zero. */
export function allocateDecoder(config: DecoderConfig): Pick<LoadedDecoder, "config" | "specs" | "parameters"> {
  const specs = decoderParameters(config);
  return { config, specs, parameters: allocateFlat(specs, layoutOf(specs, groupOf)) };
}

/** "embedding": token embedding and output matrix, which Muon leaves to AdamW. "decay": the other matrices. "plain": what is not decayed. */
const groupOf = (path: string, leaf: unknown): string =>
  path === "embedding.tokens" || path === "head.weight" ? "embedding" : decayGroup(path, leaf);

/**
 * Loads a checkpoint folder (config.json with safetensors or pytorch_model.bin, possibly in parts), a GGUF file or a llama2.c `.bin` file. Weights of any float or
 * quantised type become f32.
 * @throws FormatError naming what is missing, unknown or of the wrong shape.
 */
export function loadDecoder(path: string): LoadedDecoder {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status)
    throw new FormatError(`${path}: expected a checkpoint folder or a model file, got nothing there`, { hint: "Check the path." });
  if (!status.isDirectory()) {
    if (path.endsWith(".gguf")) {
      using file = openGguf(path);
      return loadGgufDecoder(file);
    }
    if (!path.endsWith(".bin"))
      throw new FormatError(`${path}: expected a checkpoint folder, a .gguf file or a llama2.c .bin file, got another file`, {
        hint: "Name the folder that holds config.json.",
      });
    using source = openLlama2c(path);
    return fill(source, llama2cToHfConfig(source.config), path);
  }
  if (!existsSync(join(path, "config.json"))) {
    throw new FormatError(`${path}: expected config.json in it, got none`, {
      hint: "Name a checkpoint folder, for example runs/<id>/checkpoints/step-00000100.",
    });
  }
  const hfConfig = readHfConfig(path);
  familyOf(hfConfig);
  using source = openWeights(path);
  return fill(source, hfConfig, path);
}

/** `loadDecoder` of a GGUF file that is open already; it stays open. */
export function loadGgufDecoder(file: GgufSource): LoadedDecoder {
  const hfConfig = ggufHfConfig(file);
  return fill(ggufCheckpoint(file, hfConfig), hfConfig, file.path);
}

/** @throws FormatError naming the nearest family that is supported. */
export function familyOf(hfConfig: HfConfig): Family {
  const family = families.find(({ modelType }) => modelType === hfConfig.model_type);
  if (family) return family;
  const names = families.map(({ modelType }) => modelType);
  const near = nearestFamily(String(hfConfig.model_type ?? "")) ?? nearestFamily(hfConfig.architectures?.[0] ?? "");
  throw new FormatError(`config.json: expected model_type ${names.join(", ")}, got ${JSON.stringify(hfConfig.model_type ?? null)}`, {
    hint: near ? `Nearest supported: ${near.modelType} (${near.architecture}).` : "This architecture is not supported.",
  });
}

/** By a small number of edits, or by what the names begin with (`qwen2_5_vl` is a kind of `qwen2`). */
function nearestFamily(name: string): Family | undefined {
  const named = (modelType: string | undefined) => families.find((family) => family.modelType === modelType);
  const byArchitecture = families.find(({ architecture }) => architecture === name);
  if (byArchitecture) return byArchitecture;
  const word = name.toLowerCase();
  const begins = families.filter(({ modelType }) => word.startsWith(modelType)).sort((a, b) => b.modelType.length - a.modelType.length);
  const stem = /^[a-z]+/.exec(word)?.[0] ?? word;
  return (
    begins[0] ??
    named(
      nearest(
        word,
        families.map(({ modelType }) => modelType),
      ),
    ) ??
    families.find(({ modelType }) => stem.length > 2 && modelType.startsWith(stem))
  );
}

function fill(source: TensorSource, hfConfig: HfConfig, label: string): LoadedDecoder {
  const family = familyOf(hfConfig);
  const stated = decoderConfig(family.read(hfConfig));
  checkSize(source, stated, label);
  const prefix = prefixOf(source, family);
  // A file without an output matrix of its own means the embedding, whatever its config.json says or forgets to say.
  const hasHead = family.keys(stated).every(({ path, key }) => path !== "head.weight" || source.entries.has(nameIn(prefix, key)));
  const decoder = allocateDecoder(hasHead ? stated : { ...stated, tieEmbeddings: true });
  const unused = fillLeaves(source, hfConfig, decoder, decoder.parameters.leaves, label);
  return { ...decoder, hfConfig, prefix, unused };
}

/**
 * Compares what a configuration asks for with what the file holds, before memory is taken for it: a wrong number could ask for any amount.
 * @throws FormatError.
 */
export function checkSize({ entries }: TensorSource, config: DecoderConfig, label: string): void {
  const refuse = (expected: string, got: string): FormatError =>
    new FormatError(`${label}: expected ${expected}, got ${got}`, { hint: "The weights and the configuration do not belong together." });
  if (config.layers > entries.size) throw refuse(`weights of ${config.layers} layers`, `${entries.size} tensors`);
  // A tensor that is missing is named later: it makes the file smaller by itself alone.
  const wanted = countParameters(decoderParameters({ ...config, tieEmbeddings: true }));
  const stored = [...entries.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  if (wanted > 16 * Math.max(stored, 2 ** 20)) throw refuse(`${wanted} parameters`, `${stored} in the file`);
}

/** The output matrix stands beside the model that the prefix names. */
const nameIn = (prefix: string, key: string): string => (key === "lm_head.weight" ? key : prefix + key);

/** What this file puts before every key. */
function prefixOf(source: Pick<TensorSource, "entries">, { optionalPrefix = "" }: Family): string {
  return optionalPrefix !== "" && [...source.entries.keys()].some((key) => key.startsWith(optionalPrefix)) ? optionalPrefix : "";
}

/**
 * Reads those parameters that `leaves` has memory for, by path.
 * @returns tensors of the file that have no place in the model.
 * @throws FormatError naming what is missing, unknown or of the wrong shape.
 */
export function fillLeaves(
  source: TensorSource,
  hfConfig: HfConfig,
  { config, specs }: Pick<LoadedDecoder, "config" | "specs">,
  leaves: ReadonlyMap<string, TensorBuffer>,
  label: string,
): string[] {
  const family = familyOf(hfConfig);
  const prefix = prefixOf(source, family);
  const nameOf = ({ key }: KeyMapping): string => nameIn(prefix, key);
  const keys = family.keys(config);
  const { missing, unexpected } = compareNames(source, hfConfig, config);
  if (missing.length > 0) {
    const others = unexpected.length > 0 ? `; the file has instead: ${someOf(unexpected)}` : "";
    throw new FormatError(`${label}: expected ${keys.length} tensors, ${missing.length} are missing: ${someOf(missing)}${others}`, {
      hint: `The file does not match its config.json (${family.modelType}).`,
    });
  }
  const scratch = new Scratch();
  for (const mapping of keys) {
    const leaf = leaves.get(mapping.path);
    if (leaf) readMapped(source, nameOf(mapping), mapping, leaf, specOf(specs, mapping.path), scratch);
  }
  return unexpected;
}

const someOf = (names: readonly string[]): string =>
  names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");

/** Names of tensors that a configuration needs and the file lacks, and of those in the file that have no place in the model. */
export function compareNames(
  source: Pick<TensorSource, "entries">,
  hfConfig: HfConfig,
  config: DecoderConfig,
): { missing: string[]; unexpected: string[] } {
  const family = familyOf(hfConfig);
  const prefix = prefixOf(source, family);
  const names = new Set(family.keys(config).map(({ key }) => nameIn(prefix, key)));
  const means = (key: string): boolean => !family.ignored?.test(key) && !family.ignores?.(key, config);
  return {
    missing: [...names].filter((name) => !source.entries.has(name)),
    unexpected: [...source.entries.keys()].filter((key) => !names.has(key) && means(key)),
  };
}

const pathCache = new WeakMap<object, Map<string, ParameterSpec>>();
/** The specification of a parameter by its path. */
function specOf(specs: DecoderParameters<ParameterSpec>, path: string): ParameterSpec {
  const map = pathCache.get(specs) ?? new Map(flatten<ParameterSpec>(specs));
  pathCache.set(specs, map);
  const spec = map.get(path);
  invariant(spec, `no parameter "${path}"`);
  return spec;
}

export interface SaveOptions {
  /** Type of the stored weights. Default f32. */
  dtype?: "f32" | "bf16" | "f16";
  /** Extra fields of config.json, such as bos_token_id. */
  fields?: Readonly<Record<string, unknown>>;
}

/**
 * The config.json of a configuration: of the family that it came from, else of the first one that expresses it.
 * @param original the config.json that it came from, which is kept where it still says the same.
 */
export function toHfConfig(config: DecoderConfig, original?: HfConfig): { family: Family; hfConfig: HfConfig } {
  const own = families.find(({ modelType }) => modelType === original?.model_type);
  if (own && original && says(own, original, config)) {
    // A GGUF file does not name the class; tools that read the folder do.
    const named = (original.architectures ?? []).length > 0;
    return { family: own, hfConfig: named ? original : { ...original, architectures: [own.architecture] } };
  }
  for (const family of own ? [own, ...families] : families) {
    const hfConfig = family.write(config);
    if (hfConfig && (family === native || says(family, hfConfig, config))) return { family, hfConfig };
  }
  invariant(false, "the native family expresses every configuration");
}

/** Whether a config.json, read by a family, gives a configuration. Where random weights start is no property of trained ones. */
function says(family: Family, hfConfig: HfConfig, config: DecoderConfig): boolean {
  try {
    const { initStd, scaleResidualInit } = config;
    return isDeepStrictEqual(defined({ ...decoderConfig(family.read(hfConfig)), initStd, scaleResidualInit }), defined({ ...config }));
  } catch (error) {
    if (error instanceof FormatError || error instanceof UsageError) return false;
    throw error;
  }
}

/** Options that are undefined are absent. */
const defined = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** Writes config.json and model.safetensors into an existing directory. @throws CheckpointError when the disk refuses. */
export function saveDecoder(
  directory: string,
  decoder: Pick<LoadedDecoder, "config" | "specs" | "parameters"> & Partial<Pick<LoadedDecoder, "hfConfig" | "prefix">>,
  options: SaveOptions = {},
): void {
  const { family, hfConfig } = toHfConfig(decoder.config, decoder.hfConfig);
  const dtype = options.dtype ?? "f32";
  const torchName = { f32: "float32", bf16: "bfloat16", f16: "float16" }[dtype];
  // transformers 5 calls it dtype.
  const dtypeField = typeof hfConfig.dtype === "string" && hfConfig.torch_dtype === undefined ? "dtype" : "torch_dtype";
  writeHfConfig(join(directory, "config.json"), { ...hfConfig, [dtypeField]: torchName, ...options.fields });
  const sameFamily = family.modelType === decoder.hfConfig?.model_type;
  const prefix = sameFamily && decoder.prefix !== undefined ? decoder.prefix : (family.optionalPrefix ?? "");
  const tensors = new Map(
    family.keys(decoder.config).map((mapping) => {
      const leaf = decoder.parameters.leaves.get(mapping.path);
      invariant(leaf, `no parameter "${mapping.path}"`);
      return [nameIn(prefix, mapping.key), storedTensor(mapping, leaf, specOf(decoder.specs, mapping.path))];
    }),
  );
  const specs = Array.from(tensors, ([name, { shape }]) => ({ name, dtype, shape }));
  const writer = new SafetensorsWriter(join(directory, "model.safetensors"), specs);
  try {
    const scratch = new Scratch();
    for (const name of writer.names) writer.append(name, tensors.get(name)?.data(scratch) as Float32Array);
    writer.commit();
  } finally {
    writer.discard();
  }
}
