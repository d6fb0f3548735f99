// What a model would become in another type, from the headers of its files alone: bytes before and after, and what must not be done unasked.
import { statSync } from "node:fs";
import { UsageError } from "../../base/errors.ts";
import { openGguf } from "../../formats/gguf.ts";
import { type GgufTypeName, ggufTensorBytes, ggufTensorTypes } from "../../formats/gguf-types.ts";
import { openLlama2c } from "../../formats/llama2c.ts";
import { bitsPerSafetensorsElement, isSafetensorsDType } from "../../formats/safetensors-dtype.ts";
import type { TensorEntry, TensorSource } from "../../formats/tensor-source.ts";
import { openWeights } from "../../formats/weights.ts";
import { ggufSavedType } from "../../models/decoder/gguf-save.ts";
import type { StoredType } from "./convert-model.ts";
import { isGgufFile } from "./load-model.ts";

export interface ConversionPlan {
  /** Bytes of all tensors as they are stored now. */
  readonly sourceBytes: number;
  /** The same, of what would be written, to a few per cent: tensors are counted by the names that they have now. */
  readonly bytes: number;
  /** Types that tensors are stored in now, the one with most bytes first, in lower case: `["q4_1", "f32"]`. */
  readonly sourceTypes: readonly string[];
  /** Those of them that are quantised. */
  readonly quantisedTypes: readonly string[];
  readonly dtype: StoredType;
}

const isBlocks = (dtype: string): boolean => dtype in ggufTensorTypes && ggufTensorTypes[dtype as GgufTypeName].values > 1;

/** @param path what `resolveModel` gives. @throws FormatError for damaged files. */
export function planConversion(path: string, dtype: StoredType): ConversionPlan {
  using source = openSource(path);
  const bytesByType = new Map<string, number>();
  let bytes = 0;
  for (const { name, dtype: stored, shape } of source.entries.values()) {
    bytesByType.set(stored, (bytesByType.get(stored) ?? 0) + storedBytes({ name, dtype: stored, shape }));
    bytes += ggufTensorBytes(ggufSavedType(ggufName(name), shape, dtype.toUpperCase() as "F16"), shape);
  }
  const types = [...bytesByType].sort(([, a], [, b]) => b - a).map(([type]) => type);
  return {
    sourceBytes: [...bytesByType.values()].reduce((sum, count) => sum + count, 0),
    bytes,
    sourceTypes: types.map((type) => type.toLowerCase()),
    quantisedTypes: types.filter(isBlocks).map((type) => type.toLowerCase()),
    dtype,
  };
}

/**
 * Quantising what is quantised already adds the errors of both; quantising to more bits than there are only makes a file larger.
 * @throws UsageError for either.
 */
export function checkConversion(name: string, plan: ConversionPlan): void {
  const { dtype, quantisedTypes, sourceBytes, bytes } = plan;
  if (!isBlocks(dtype.toUpperCase())) return;
  const sizes = `${megabytes(sourceBytes)} now, ${megabytes(bytes)} then`;
  if (quantisedTypes.length > 0)
    throw new UsageError(
      `${name}: expected float weights to make ${dtype} of, got quantised ones (${quantisedTypes.join(", ")}; ${sizes})`,
      {
        hint: "The errors of both would add up: start from the float model, or set allowRequantize to do it all the same.",
      },
    );
  if (bytes >= sourceBytes)
    throw new UsageError(`${name}: expected a model that ${dtype} makes smaller, got one that it does not (${sizes})`, {
      hint: "Its rows are no whole blocks of 32 values. Set allowRequantize to do it all the same.",
    });
}

const megabytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 1)} MiB`;

function openSource(path: string): TensorSource {
  if (isGgufFile(path)) return openGguf(path);
  return path.endsWith(".bin") && statSync(path, { throwIfNoEntry: false })?.isFile() ? openLlama2c(path) : openWeights(path);
}

function storedBytes({ dtype, shape }: TensorEntry): number {
  if (dtype in ggufTensorTypes) return ggufTensorBytes(dtype as GgufTypeName, shape);
  const bits = isSafetensorsDType(dtype) ? bitsPerSafetensorsElement[dtype] : 32;
  return (shape.reduce((product, dimension) => product * dimension, 1) * bits) / 8;
}

/** Only what decides about a type: the matrices that stay in 8 bits, and those that stay floats. */
function ggufName(name: string): string {
  if (/(^|\.)(wte|embed_tokens|tok_embeddings|token_embedding_table|lm_head|embed_in)(\.|$)/.test(name)) return "token_embd.weight";
  if (/(^|\.)wpe\.|(mlp|block_sparse_moe)\.gate\.weight$/.test(name)) return "position_embd.weight";
  return name;
}
