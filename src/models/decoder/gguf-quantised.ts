// A GGUF model for inference with its matrices in blocks: as they are stored, or quantised anew. Tensors are read once, one at a time;
// the whole model is never in memory as float32.
import { z } from "zod";
import { FormatError } from "../../base/errors.ts";
import { type GgufSource, openGguf } from "../../formats/gguf.ts";
import type { HfConfig } from "../../formats/hf-config.ts";
import { isQuantised, type LinearWeight } from "../../nn/linear.ts";
import type { ParameterSpec } from "../../nn/parameter.ts";
import { packQ4, packQ8 } from "../../nn/quantise.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";
import { flatten, mapTree } from "../../tensor/tree.ts";
import { checkSize, familyOf, fillLeaves } from "./checkpoint.ts";
import { decoderConfig } from "./config.ts";
import type { KeyMapping } from "./families/family.ts";
import { type GgufCheckpoint, ggufCheckpoint, rowOfPair } from "./gguf.ts";
import { ggufHfConfig } from "./gguf-config.ts";
import { type RowSource, repackedFormat, repackRows } from "./gguf-repack.ts";
import { type DecoderParameters, decoderParameters } from "./parameters.ts";
import { bytesOfTree, type InferenceModel } from "./quantise.ts";

export const ggufLoadSchema = z
  .strictObject({
    weights: z
      .enum(["stored", "q8", "q4"])
      .default("stored")
      .describe("Matrices in the blocks of the file, level by level, or quantised anew to 8 or 4 bits"),
    blockSize: z.int().min(16).default(32).describe("Values that share a scale when quantising anew: a power of two"),
  })
  .describe("How a GGUF model is held in memory");

export interface QuantisedGguf extends InferenceModel {
  readonly hfConfig: HfConfig;
  /** Memory of the whole tree. */
  readonly bytes: number;
}

/** Matrices of linear layers; experts are not among them. */
const isMatrix = (path: string, { shape }: ParameterSpec): boolean =>
  shape.length === 2 && (path === "head.weight" || /^layers\.\d+\.(attention|mlp)\.(.+\.)?\w+\.weight$/.test(path));

/**
 * Loads a GGUF file for inference. With `weights: "stored"` levels and scales are those of the file (see gguf-repack.ts); matrices that are
 * stored as floats stay float32. Norms, biases and experts are float32 in any case, token embeddings where matrices are quantised anew.
 * @param model path, or a file that is open already; it stays open.
 * @throws FormatError as `loadDecoder`.
 */
export function loadQuantisedGguf(model: string | GgufSource, options: z.input<typeof ggufLoadSchema> = {}): QuantisedGguf {
  const { weights, blockSize } = ggufLoadSchema.parse(options);
  if (typeof model === "string") {
    using opened = openGguf(model);
    return loadQuantisedGguf(opened, options);
  }
  const file = model;
  const { path } = file;
  const hfConfig = ggufHfConfig(file);
  const family = familyOf(hfConfig);
  const config = decoderConfig(family.read(hfConfig));
  const source = ggufCheckpoint(file, hfConfig);
  checkSize(source, config, path);
  const specs = decoderParameters(config);
  const mappings = new Map<string, KeyMapping[]>();
  for (const mapping of family.keys(config)) mappings.set(mapping.path, [...(mappings.get(mapping.path) ?? []), mapping]);

  const leaves = new Map<string, LinearWeight<TensorBuffer>>();
  const floats = new Map<string, TensorBuffer>();
  const readFloat = (leafPath: string, { shape }: ParameterSpec): TensorBuffer => {
    const leaf = allocate("f32", shape);
    fillLeaves(source, hfConfig, { config, specs }, new Map([[leafPath, leaf]]), path);
    return leaf;
  };
  const anew = (matrix: TensorBuffer): LinearWeight<TensorBuffer> =>
    weights === "q8" ? packQ8(matrix, { blockSize }) : weights === "q4" ? packQ4(matrix, { blockSize }) : matrix;
  for (const [leafPath, spec] of flatten<ParameterSpec>(specs)) {
    // Rows of the table of tokens are gathered from its blocks; a tied output matrix is the same memory.
    const table =
      leafPath === "embedding.tokens" && weights === "stored" ? fromBlocks(source, mappings.get(leafPath) ?? [], spec) : undefined;
    if (table !== undefined) {
      leaves.set(leafPath, table);
      continue;
    }
    if (!isMatrix(leafPath, spec)) {
      const leaf = allocate("f32", spec.shape);
      floats.set(leafPath, leaf);
      leaves.set(leafPath, leaf);
      continue;
    }
    const stored = weights === "stored" ? fromBlocks(source, mappings.get(leafPath) ?? [], spec) : undefined;
    leaves.set(leafPath, stored ?? anew(readFloat(leafPath, spec)));
  }
  fillLeaves(source, hfConfig, { config, specs }, floats, path);
  const tree = mapTree(specs, (_, leafPath) => leaves.get(leafPath)) as unknown as DecoderParameters<
    TensorBuffer,
    LinearWeight<TensorBuffer>
  >;
  // A tied output matrix is read whole for every token: quantised anew, it gets blocks of its own.
  const { tokens } = tree.embedding;
  if (tree.head === undefined && weights !== "stored" && !isQuantised(tokens)) tree.head = { weight: anew(tokens) };
  return { config, hfConfig, parameters: { tree }, bytes: bytesOfTree(tree) };
}

/** A matrix in the blocks of the file, or undefined when one of its parts is stored in another way. */
function fromBlocks(source: GgufCheckpoint, mappings: readonly KeyMapping[], spec: ParameterSpec): LinearWeight<TensorBuffer> | undefined {
  const [, inner] = spec.shape;
  const parts = spec.parts?.map(({ name }) => mappings.find(({ part }) => part === name)) ?? mappings;
  const whole = mappings.length === 1 && mappings[0].part === undefined ? mappings : parts;
  const rows: RowSource[] = [];
  const types: string[] = [];
  for (const mapping of whole) {
    // Anything else that a mapping may say is left to the reader of floats.
    const { path: _path, part: _part, key, transposed = false, ...others } = mapping ?? { path: "", key: "" };
    const entry = source.entries.get(key);
    if (entry === undefined || Object.values(others).some((value) => value !== undefined)) return undefined;
    const { name, shape, index = 0, change, dtype } = entry;
    if (transposed !== (change?.kind === "transposed") || change?.kind === "minusOne") return undefined;
    const count = transposed ? shape[1] : shape[0];
    types.push(dtype);
    rows.push({
      name,
      firstRow: index * count,
      rows: count,
      ...(change?.kind === "pairs" ? { rowOf: (row: number) => rowOfPair(row, change.headWidth) } : {}),
    });
  }
  const format = repackedFormat(types);
  if (format === undefined) return undefined;
  const total = rows.reduce((sum, part) => sum + part.rows, 0);
  if (total !== spec.shape[0]) {
    throw new FormatError(`${source.file.path}: expected ${spec.shape[0]} rows of "${whole[0]?.key}", got ${total}`, {
      hint: "The weights and the metadata do not belong together.",
    });
  }
  return repackRows(source.file, rows, inner, format);
}
