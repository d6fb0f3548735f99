// What programs over a decoder's live parameters share: the declaration of a batch [B, T] and its memory.
import type { DecoderConfig } from "../models/decoder/config.ts";
import type { DecoderTensors, SequenceOptions } from "../models/decoder/decoder.ts";
import type { DecoderParameters } from "../models/decoder/parameters.ts";
import type { ParameterSpec } from "../nn/parameter.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { spec, type TensorSpec } from "../runtime/program.ts";
import type { Tensor } from "../tensor/graph.ts";
import { type MapTree, mapTree } from "../tensor/tree.ts";

/** A decoder whose parameters are trained in place. */
export interface TrainableDecoder {
  readonly config: DecoderConfig;
  readonly specs: DecoderParameters<ParameterSpec>;
  readonly parameters: FlatBuffer<DecoderParameters<ParameterSpec>>;
}

/** Inputs of a program that computes a loss. All but the parameters have shape [B, T]. */
export interface StepInputs {
  parameters: DecoderParameters<TensorSpec>;
  ids: TensorSpec;
  labels: TensorSpec;
  /** 1 where the label counts, else 0. Absent: everywhere. */
  weights?: TensorSpec;
  documents?: TensorSpec;
  positions?: TensorSpec;
}

/** Memory of a batch, as a bound program holds it. */
export interface BatchBuffers {
  ids: TensorBuffer<"i32">;
  labels: TensorBuffer<"i32">;
  weights?: TensorBuffer<"f32">;
  documents?: TensorBuffer<"i32">;
  positions?: TensorBuffer<"i32">;
}

export interface BatchKind {
  /** The loss is a mean over the positions that count. Default false: over all. */
  weighted?: boolean;
  /** Packed documents do not see each other, and positions restart. */
  isolateDocuments: boolean;
}

export function stepInputs({ specs }: TrainableDecoder, batchSize: number, length: number, kind: BatchKind): StepInputs {
  const ids = spec("i32", [batchSize, length]);
  return {
    parameters: mapTree(specs, ({ dtype, shape }) => spec(dtype as "f32", shape)) as unknown as DecoderParameters<TensorSpec>,
    ids,
    labels: ids,
    ...(kind.weighted ? { weights: spec("f32", [batchSize, length]) } : {}),
    ...(kind.isolateDocuments ? { documents: ids, positions: ids } : {}),
  };
}

/** The arguments of `languageModelLoss` after the configuration. */
export function lossArguments(
  inputs: MapTree<StepInputs, Tensor>,
): [DecoderTensors, { ids: Tensor; labels: Tensor; weights?: Tensor } & SequenceOptions] {
  const { parameters, ...batch } = inputs as unknown as { parameters: DecoderTensors; ids: Tensor; labels: Tensor };
  return [parameters, batch];
}
