// Where a draft model starts: random weights with token embeddings along the principal axes of its target's, or layers of the target itself with
// the rows of its embedding that the draft model knows. The latter are good after few texts; the former are cheaper a token.
import { UsageError } from "../base/errors.ts";
import type { TrimmedVocabulary } from "../decode/trimmed-vocabulary.ts";
import { deriveSeed } from "../engine/index.ts";
import { allocateDecoder, type LoadedDecoder, loadDecoder } from "../models/decoder/checkpoint.ts";
import { type DecoderConfig, decoderConfig } from "../models/decoder/config.ts";
import { initializeParameters } from "../nn/parameter.ts";
import type { TrainableDecoder } from "../train/index.ts";
import { projectedRows } from "./draft-embedding.ts";
import type { LoadedModel } from "./text-model/load-model.ts";
import type { TrainDrafterSettings } from "./train-drafter-options.ts";

/** Parameters that hold a row for each token. */
const tokenTables = ["embedding.tokens", "head.weight"];

/**
 * Sizes of the draft model.
 * @param numTokens that it knows; it has one id more at least, for all others.
 * @throws UsageError for sizes that do not fit each other, or layers that the target does not have.
 */
export function draftConfig(
  { draft }: TrainDrafterSettings,
  target: DecoderConfig,
  numTokens: number,
  contextLength: number,
): DecoderConfig {
  // Matrices of whole blocks are multiplied fastest.
  const vocabSize = 16 * Math.ceil((numTokens + 1) / 16);
  const { vocabSize: _, embedding: __, layersFrom, ...sizes } = draft;
  if (layersFrom.length === 0) return decoderConfig({ ...sizes, vocabSize, contextLength });
  const wrong = layersFrom.find((layer) => layer >= target.layers);
  if (wrong !== undefined) throw new UsageError(`draft.layersFrom: expected layers 0 to ${target.layers - 1} of the model, got ${wrong}`);
  if (target.experts || target.position === "learned")
    throw new UsageError("draft.layersFrom: expected a model with rotary positions and without experts, got another", {
      hint: "Leave draft.layersFrom out: the draft model then starts from random weights.",
    });
  const layerTypes = layersFrom.map((layer) => target.layerTypes[layer]);
  const noRotaryLayers = layersFrom.flatMap((layer, i) => (target.noRotaryLayers.includes(layer) ? [i] : []));
  return decoderConfig({ ...target, layers: layersFrom.length, layerTypes, noRotaryLayers, vocabSize });
}

/** The draft model before its first step. */
export function startDraft(
  config: DecoderConfig,
  { draft, seed }: Pick<TrainDrafterSettings, "draft" | "seed">,
  target: LoadedModel,
  { targetIds }: TrimmedVocabulary,
): TrainableDecoder {
  const decoder = allocateDecoder(config);
  initializeParameters(decoder.specs as never, decoder.parameters, deriveSeed(seed, "weights"));
  const source = target.decoder ?? loadDecoder(target.path);
  if (draft.layersFrom.length > 0) copyLayers(decoder, source, draft.layersFrom, targetIds);
  else if (draft.embedding === "target") projectEmbedding(decoder, source, targetIds);
  return decoder;
}

function copyLayers(decoder: TrainableDecoder, source: LoadedDecoder, layersFrom: readonly number[], targetIds: Int32Array): void {
  for (const [path, { data }] of decoder.parameters.leaves) {
    const from = path.replace(/^layers\.(\d+)\./, (_, layer: string) => `layers.${layersFrom[Number(layer)]}.`);
    const own = data as Float32Array;
    const theirs = source.parameters.leaves.get(from)?.data as Float32Array;
    if (!tokenTables.includes(path)) {
      own.set(theirs);
      continue;
    }
    const { width } = decoder.config;
    own.fill(0);
    for (const [draft, id] of targetIds.entries()) own.set(theirs.subarray(id * width, (id + 1) * width), draft * width);
    // All other tokens begin as their mean.
    const mean = own.subarray(targetIds.length * width, (targetIds.length + 1) * width);
    for (let id = 0; id < theirs.length / width; id++)
      for (let c = 0; c < width; c++) mean[c] += theirs[id * width + c] / (theirs.length / width);
  }
}

function projectEmbedding(decoder: TrainableDecoder, source: LoadedDecoder, targetIds: Int32Array): void {
  const { width, initStd } = decoder.config;
  const table = source.parameters.leaves.get("embedding.tokens")?.data as Float32Array;
  const projected = Math.min(width, source.config.width);
  const rows = projectedRows(table, source.config.width, targetIds, { width: projected, std: initStd });
  const own = decoder.parameters.leaves.get("embedding.tokens")?.data as Float32Array;
  for (let id = 0; id < targetIds.length; id++) own.set(rows.subarray(id * projected, (id + 1) * projected), id * width);
}
