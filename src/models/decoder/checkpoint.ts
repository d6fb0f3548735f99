// Decoder checkpoints as Hugging Face has them: config.json and model.safetensors (or a llama2.c file) to one flat buffer, and back.
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { FormatError, invariant, nearest } from "../../base/errors.ts";
import { type HfConfig, readHfConfig, writeHfConfig } from "../../formats/hf-config.ts";
import { llama2cToHfConfig, openLlama2c } from "../../formats/llama2c.ts";
import { openSafetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors-write.ts";
import type { TensorSource } from "../../formats/tensor-source.ts";
import { decayGroup, type ParameterSpec } from "../../nn/parameter.ts";
import { allocate, type TensorBuffer, viewOf } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, layoutOf } from "../../runtime/flat.ts";
import { flatten } from "../../tensor/tree.ts";
import { type DecoderConfig, decoderConfig } from "./config.ts";
import type { Family, KeyMapping } from "./families/family.ts";
import { gpt2 } from "./families/gpt2.ts";
import { llama, qwen2, qwen3 } from "./families/llama.ts";
import { native } from "./families/native.ts";
import { type DecoderParameters, decoderParameters } from "./parameters.ts";

/** In the order in which a configuration is offered to them for writing. */
export const families: readonly Family[] = [llama, gpt2, qwen2, qwen3, native];

export interface LoadedDecoder {
  readonly config: DecoderConfig;
  /** The config.json it came from, or an equal one. */
  readonly hfConfig: HfConfig;
  readonly specs: DecoderParameters<ParameterSpec>;
  readonly parameters: FlatBuffer<DecoderParameters<ParameterSpec>>;
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
 * Loads a checkpoint folder (config.json and safetensors, possibly sharded) or a llama2.c `.bin` file. Weights of any float type become f32.
 * @throws FormatError naming what is missing, unknown or of the wrong shape.
 */
export function loadDecoder(path: string): LoadedDecoder {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status)
    throw new FormatError(`${path}: expected a checkpoint folder or a model file, got nothing there`, { hint: "Check the path." });
  if (!status.isDirectory()) {
    if (!path.endsWith(".bin"))
      throw new FormatError(`${path}: expected a checkpoint folder or a llama2.c .bin file, got another file`, {
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
  using source = openSafetensors(path);
  return fill(source, hfConfig, path);
}

/** @throws FormatError naming the nearest family that is supported. */
export function familyOf(hfConfig: HfConfig): Family {
  const family = families.find(({ modelType }) => modelType === hfConfig.model_type);
  if (family) return family;
  const names = families.map(({ modelType }) => modelType);
  const near = nearest(String(hfConfig.model_type), names);
  throw new FormatError(`config.json: expected model_type ${names.join(", ")}, got ${JSON.stringify(hfConfig.model_type ?? null)}`, {
    hint: near ? `Nearest supported: ${near}.` : "This architecture is not supported.",
  });
}

function fill(source: TensorSource, hfConfig: HfConfig, label: string): LoadedDecoder {
  const family = familyOf(hfConfig);
  const config = decoderConfig(family.read(hfConfig));
  const prefix = family.optionalPrefix ?? "";
  const prefixed = prefix !== "" && [...source.entries.keys()].some((key) => key.startsWith(prefix));
  const nameOf = ({ key }: KeyMapping): string => (prefixed ? prefix + key : key);
  const keys = family.keys(config);
  const missing = keys.filter((mapping) => !source.entries.has(nameOf(mapping))).map(nameOf);
  if (missing.length > 0) {
    const shown = missing.slice(0, 5).join(", ") + (missing.length > 5 ? ` and ${missing.length - 5} more` : "");
    throw new FormatError(`${label}: expected ${keys.length} tensors, ${missing.length} are missing: ${shown}`, {
      hint: `The file does not match its config.json (${family.modelType}).`,
    });
  }
  const decoder = allocateDecoder(config);
  for (const mapping of keys) {
    const slot = slotOf(decoder.specs, decoder.parameters, mapping);
    if (!mapping.transposed) source.readInto(nameOf(mapping), slot);
    else {
      const [out, inner] = slot.shape;
      const stored = allocate("f32", [inner, out]);
      source.readInto(nameOf(mapping), stored);
      transposeInto(stored, slot);
    }
  }
  const used = new Set(keys.map(nameOf));
  const unused = [...source.entries.keys()].filter((key) => !used.has(key) && !family.ignored?.test(key));
  return { ...decoder, hfConfig, unused };
}

/** The memory of a whole parameter or of one of its parts. */
function slotOf(specs: DecoderParameters<ParameterSpec>, parameters: FlatBuffer<unknown>, { path, part }: KeyMapping): TensorBuffer {
  const leaf = parameters.leaves.get(path);
  invariant(leaf, `no parameter "${path}"`);
  if (part === undefined) return leaf;
  const spec = specsByPath(specs).get(path);
  let row = 0;
  for (const { name, rows } of spec?.parts ?? []) {
    if (name === part) {
      const rowLength = leaf.shape.slice(1).reduce((product, dim) => product * dim, 1);
      return viewOf(leaf, [rows, ...leaf.shape.slice(1)], row * rowLength);
    }
    row += rows;
  }
  throw new FormatError(`no part "${part}" of parameter "${path}"`);
}

const pathCache = new WeakMap<object, Map<string, ParameterSpec>>();
function specsByPath(specs: DecoderParameters<ParameterSpec>): Map<string, ParameterSpec> {
  let map = pathCache.get(specs);
  if (!map) {
    map = new Map(flatten<ParameterSpec>(specs as never));
    pathCache.set(specs, map);
  }
  return map;
}

/** target [m, n] = source [n, m] transposed. */
function transposeInto(source: TensorBuffer, target: TensorBuffer): void {
  const [rows, columns] = target.shape;
  const [from, to] = [source.data as Float32Array, target.data as Float32Array];
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[i * columns + j] = from[j * rows + i];
}

export interface SaveOptions {
  /** Type of the stored weights. Default f32. */
  dtype?: "f32" | "bf16" | "f16";
  /** Extra fields of config.json, such as bos_token_id. */
  fields?: Readonly<Record<string, unknown>>;
}

/** The config.json of a configuration, in the first family that expresses it. */
export function toHfConfig(config: DecoderConfig): { family: Family; hfConfig: HfConfig } {
  for (const family of families) {
    const hfConfig = family.write(config);
    if (hfConfig) return { family, hfConfig };
  }
  invariant(false, "the native family expresses every configuration");
}

/** Writes config.json and model.safetensors into an existing directory. @throws CheckpointError when the disk refuses. */
export function saveDecoder(
  directory: string,
  decoder: Pick<LoadedDecoder, "config" | "specs" | "parameters">,
  options: SaveOptions = {},
): void {
  const { family, hfConfig } = toHfConfig(decoder.config);
  const dtype = options.dtype ?? "f32";
  const torchName = { f32: "float32", bf16: "bfloat16", f16: "float16" }[dtype];
  writeHfConfig(join(directory, "config.json"), { ...hfConfig, torch_dtype: torchName, ...options.fields });
  const prefix = family.optionalPrefix ?? "";
  const tensors = family.keys(decoder.config).map((mapping) => {
    const slot = slotOf(decoder.specs, decoder.parameters, mapping);
    if (!mapping.transposed) return { name: prefix + mapping.key, dtype, shape: slot.shape, data: slot.data };
    const stored = allocate("f32", [...slot.shape].reverse());
    transposeInto(slot, stored);
    return { name: prefix + mapping.key, dtype, shape: stored.shape, data: stored.data };
  });
  writeSafetensors(join(directory, "model.safetensors"), tensors);
}
