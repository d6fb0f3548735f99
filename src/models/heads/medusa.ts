// Medusa heads (Cai et al. 2024): head k guesses the token k + 2 places after the row it reads, from the target's final hidden row alone
// (after the final norm): ResBlock(x) = x + SiLU(W x + b), as many times as there are layers, then a matrix to the vocabulary, its own
// (published layout v1) or the target's (v2). Different from the published code: layers of one head do not share their weights.
// Letters: N rows, C width, V vocabulary, K heads.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { isQuantised, type LinearWeight, linearLayer } from "../../nn/linear.ts";
import { decayGroup, type ParameterSpec, parameter } from "../../nn/parameter.ts";
import type { TensorBuffer } from "../../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, layoutOf } from "../../runtime/flat.ts";
import { silu } from "../../tensor/activation.ts";
import { add } from "../../tensor/elementwise.ts";
import { scope, type Tensor } from "../../tensor/graph.ts";
import { linear } from "../../tensor/matmul.ts";
import { concat, split } from "../../tensor/shape.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import { outputMatrix, unembed } from "../decoder/decoder.ts";
import type { InferenceModel } from "../decoder/quantise.ts";

export const medusaSchema = z
  .strictObject({
    heads: z.int().positive().max(16).default(4).describe("Number of heads, K: tokens guessed beyond the next one (published: 3 to 5)"),
    layers: z.int().positive().max(16).default(1).describe("Residual blocks of a head"),
    unembedding: z
      .enum(["own", "shared"])
      .default("own")
      .describe("Matrix to the vocabulary: one for each head (layout v1), or the target's for all (v2: fewer parameters)"),
  })
  .describe("Medusa heads");
export type MedusaOptions = z.input<typeof medusaSchema>;

export interface MedusaConfig extends z.output<typeof medusaSchema> {
  /** C of the target. */
  readonly width: number;
  /** V of the target. */
  readonly vocabSize: number;
}

export interface MedusaHead<T> {
  blocks: { weight: T; bias: T }[];
  unembedding?: { weight: T };
}

/** The tree, with leaves of any kind. */
export interface MedusaParameters<T> {
  heads: MedusaHead<T>[];
}

export interface MedusaHeads {
  readonly config: MedusaConfig;
  readonly specs: MedusaParameters<ParameterSpec>;
  readonly parameters: FlatBuffer<MedusaParameters<ParameterSpec>>;
}

/** @throws UsageError for wrong options. */
export const medusaConfig = (
  { width, vocabSize }: Pick<DecoderConfig, "width" | "vocabSize">,
  options: MedusaOptions = {},
): MedusaConfig => ({
  ...parseOptions(medusaSchema, options),
  width,
  vocabSize,
});

/** Blocks start at zero, so that a head starts as its unembedding alone. */
export function medusaParameters({ heads, layers, unembedding, width, vocabSize }: MedusaConfig): MedusaParameters<ParameterSpec> {
  const zeros = { kind: "zeros" } as const;
  const block = () => ({ weight: parameter([width, width], zeros), bias: parameter([width], zeros) });
  const head = (): MedusaHead<ParameterSpec> => ({
    blocks: Array.from({ length: layers }, block),
    ...(unembedding === "own" ? { unembedding: { weight: parameter([vocabSize, width], zeros) } } : {}),
  });
  return { heads: Array.from({ length: heads }, head) };
}

/** Memory for heads, all zero. */
export function allocateMedusa(config: MedusaConfig): MedusaHeads {
  const specs = medusaParameters(config);
  return { config, specs, parameters: allocateFlat(specs, layoutOf(specs, decayGroup)) };
}

/** Heads as training starts them: blocks of zeros, unembeddings copied from the target's output matrix. @throws UsageError when that is quantised. */
export function createMedusa(target: InferenceModel, options: MedusaOptions = {}): MedusaHeads {
  const medusa = allocateMedusa(medusaConfig(target.config, options));
  const matrix = outputMatrix<TensorBuffer, LinearWeight<TensorBuffer>>(target.parameters.tree);
  if (isQuantised(matrix))
    throw new UsageError("medusa: expected a float32 output matrix to start heads from, got a quantised one", {
      hint: "Train heads on the model before it is quantised.",
    });
  for (const { unembedding } of medusa.parameters.tree.heads as MedusaHead<TensorBuffer>[])
    (unembedding?.weight.data as Float32Array | undefined)?.set(matrix.data as Float32Array);
  return medusa;
}

/**
 * Logits of every head, K times [N, V], for rows [N, C] (N a number) after the target's final norm.
 * @param target the output matrix, for heads without one of their own.
 */
export function medusaLogits(
  { heads }: MedusaParameters<Tensor>,
  rows: Tensor,
  target?: { config: DecoderConfig; matrix: LinearWeight<Tensor> },
): Tensor[] {
  const last = heads.map(({ blocks }, k) =>
    scope(rows, `medusa.${k}`, () => blocks.reduce((x, { weight, bias }) => add(x, silu(linear(x, weight, bias))), rows)),
  );
  if (heads.every(({ unembedding }) => unembedding)) return last.map((x, k) => linearLayer(x, heads[k].unembedding as { weight: Tensor }));
  if (!target) throw new UsageError("medusa: expected the target's output matrix for heads that share it, got none");
  // One product: the matrix, which is most of what a small head reads, is read once.
  const joined = unembed(target.config, target.matrix, concat(last, 0));
  return split(
    joined,
    last.map((x) => x.shape[0] as number),
    0,
  );
}

/**
 * @throws UsageError unless these heads fit the target: its width, its vocabulary, its tokenizer.
 * @param hashes of the tokenizers, compared where both are known
 */
export function checkMedusaTarget(
  { width, vocabSize }: MedusaConfig,
  target: DecoderConfig,
  hashes: { heads?: string; target?: string } = {},
): void {
  const hint = "Train heads for this model: longwave train-drafter <model> --kind medusa.";
  if (width !== target.width)
    throw new UsageError(`medusa: expected heads for a model of width ${target.width}, got heads of width ${width}`, { hint });
  if (vocabSize !== target.vocabSize)
    throw new UsageError(`medusa: expected heads for a vocabulary of ${target.vocabSize} tokens, got ${vocabSize}`, { hint });
  if (hashes.heads !== undefined && hashes.target !== undefined && hashes.heads !== hashes.target)
    throw new UsageError(
      `medusa: expected heads of this model's tokenizer (${hashes.target.slice(0, 12)}…), got those of another (${hashes.heads.slice(0, 12)}…)`,
      { hint },
    );
}
