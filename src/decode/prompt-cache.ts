// Keys and values of a prompt on disk: what was read once need not be read again by a later process. A safetensors file with the ids, the rows
// and a fingerprint of the model, because rows of another model would be taken for this one's without any sign of it.
import { createHash } from "node:crypto";
import { CheckpointError, FormatError, UsageError } from "../base/errors.ts";
import { openSafetensors, type SafetensorsSource } from "../formats/safetensors.ts";
import { writeSafetensors } from "../formats/safetensors-write.ts";
import type { InferenceModel } from "../models/decoder/quantise.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import { flatten } from "../tensor/tree.ts";
import type { DecoderRunner } from "./runner.ts";

/** Bytes of each tensor that enter a fingerprint. */
const sampledBytes = 4096;

/** A hash of the configuration and of the beginning and end of every tensor: enough to tell two models apart, cheap for large ones. */
export function modelFingerprint({ config, parameters }: InferenceModel): string {
  const hash = createHash("sha256").update(JSON.stringify(config));
  for (const [path, { data }] of flatten<TensorBuffer>(parameters.tree as never)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    hash
      .update(path)
      .update(bytes.subarray(0, sampledBytes))
      .update(bytes.subarray(Math.max(0, bytes.length - sampledBytes)));
  }
  return hash.digest("hex").slice(0, 32);
}

/**
 * Writes what a row of the cache holds.
 * @param ids the tokens of that row, as many as it holds.
 * @throws CheckpointError when the disk refuses; UsageError for ids that are not the row's.
 */
export function savePromptCache(path: string, runner: DecoderRunner, row: number, ids: ArrayLike<number>, fingerprint: string): void {
  const { length, data, stage } = runner.cache.snapshot(row);
  if (ids.length !== length) throw new UsageError(`prompt cache: expected the ${length} ids of row ${row}, got ${ids.length}`);
  const { layers, kvHeads, headWidth } = runner.cache.shape;
  writeSafetensors(
    path,
    [
      { name: "ids", dtype: "i32", shape: [length], data: Int32Array.from(ids) },
      { name: "rows", dtype: "f32", shape: [layers, 2, kvHeads, length, headWidth], data },
    ],
    { metadata: { format: "longwave-prompt-cache", model: fingerprint, stage: String(stage ?? 0) } },
  );
}

export interface RestoredPrompt {
  /** Leading tokens of `ids` that the row now holds; at most all but the last, whose logits are still wanted. */
  readonly length: number;
}

/**
 * Fills a row with the part of a saved prompt that `ids` begin with.
 * @throws FormatError for a file that is none or is damaged, CheckpointError for that of another model.
 */
export function loadPromptCache(
  path: string,
  runner: DecoderRunner,
  row: number,
  ids: ArrayLike<number>,
  fingerprint: string,
): RestoredPrompt {
  const source = openSafetensors(path);
  try {
    return fill(source, path, runner, row, ids, fingerprint);
  } finally {
    source.close();
  }
}

function fill(
  source: SafetensorsSource,
  path: string,
  runner: DecoderRunner,
  row: number,
  ids: ArrayLike<number>,
  fingerprint: string,
): RestoredPrompt {
  const hint = "Delete the file: it is made anew.";
  const [idsEntry, rowsEntry] = [source.entries.get("ids"), source.entries.get("rows")];
  const { layers, kvHeads, headWidth, capacity } = runner.cache.shape;
  if (source.metadata.get("format") !== "longwave-prompt-cache" || !idsEntry || !rowsEntry)
    throw new FormatError(`${path}: expected a prompt cache, got another safetensors file`, { hint });
  if (source.metadata.get("model") !== fingerprint)
    throw new CheckpointError(`${path}: expected the prompt cache of this model, got that of another`, { hint });
  const length = idsEntry.shape[0];
  const shape = [layers, 2, kvHeads, length, headWidth];
  if (idsEntry.dtype !== "I32" || rowsEntry.dtype !== "F32" || idsEntry.shape.length !== 1 || rowsEntry.shape.join() !== shape.join())
    throw new FormatError(`${path}: expected rows of shape [${shape}], got [${rowsEntry.shape}]`, { hint });
  const saved = allocate("i32", [length]);
  source.readInto("ids", saved);
  let shared = 0;
  while (shared < Math.min(length, ids.length - 1, capacity) && saved.data[shared] === ids[shared]) shared++;
  // Rows of a longer prompt than fits here are of no use in one piece.
  if (length > capacity) return { length: 0 };
  if (shared > 0) {
    const rows = allocate("f32", shape);
    source.readInto("rows", rows);
    // How positions are encoded, where that depends on the length; files of before do not tell.
    const stage = Number(source.metadata.get("stage") ?? 0);
    runner.cache.restore(row, { length, data: rows.data, tokens: saved.data as Int32Array, stage });
    runner.cache.truncate(row, shared);
  }
  return { length: shared };
}
