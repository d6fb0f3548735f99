// Texts of a target as rows for the training of a draft model: in the draft model's ids, with what the target said of each place of an answer.
import { DataError } from "../base/errors.ts";
import type { BatchWriter } from "../data/index.ts";
import type { TrimmedVocabulary } from "../decode/trimmed-vocabulary.ts";
import type { DistillationRows } from "../train/draft-model.ts";
import type { WrittenText } from "./written-texts.ts";

export interface DraftRowsOptions {
  /** T */
  readonly length: number;
  /** Most probable tokens that each place of an answer was stored with, K of the rows. */
  readonly top: number;
  /** Weight of the target's distribution against the token that it said: 0 to 1. */
  readonly distillation: number;
  /** Weight of tokens of prompts, which count in no evaluation. Default 0. */
  readonly promptWeight?: number;
}

/** A text that goes into a row: its tokens from 0 to `count`, each but the last an input. */
interface Piece {
  readonly text: WrittenText;
  readonly count: number;
}

/**
 * Rows of whole texts, as many as fit, those that are too long cut at the end. Places of prompts do not count (but see `promptWeight`). Where the draft
 * model does not have what was said there is nothing to learn, but the place counts: the draft is wrong.
 * @throws DataError when there is no answer in any text.
 */
export function draftRows(texts: readonly WrittenText[], vocabulary: TrimmedVocabulary, options: DraftRowsOptions): DistillationRows {
  const { length, top, distillation, promptWeight = 0 } = options;
  const rows = fitted(texts, length);
  if (rows.length === 0)
    throw new DataError("texts: expected answers to learn from, got none", { hint: "Let the model write more texts." });
  let memory: Parameters<DistillationRows["bind"]>[0] | undefined;

  /** What the place after token `at` of a text is told of, written at `offset`. False where it is no answer's. */
  const tell = ({ ids, promptLength, topIds, topLogProbs }: WrittenText, at: number, offset: number): boolean => {
    const isAnswer = at + 1 >= promptLength;
    const said = vocabulary.toDraft[ids[at + 1]];
    if (said < 0 || !memory) return isAnswer;
    if (!isAnswer) {
      memory.ids[offset] = said;
      memory.weights[offset] = promptWeight;
      return false;
    }
    const from = (at + 1 - promptLength) * top;
    let total = 0;
    for (let k = 0; k < top; k++) total += Math.exp(topLogProbs[from + k]);
    let slot = -1;
    for (let k = 0; k < top; k++) {
      const id = vocabulary.toDraft[topIds[from + k]];
      const probability = id < 0 ? 0 : Math.exp(topLogProbs[from + k]);
      memory.ids[offset + k] = Math.max(0, id);
      memory.weights[offset + k] = (distillation * probability) / total;
      if (memory.probabilities) memory.probabilities[offset + k] = probability;
      if (id === said) slot = k;
    }
    // A token that was drawn from further down takes the last place.
    if (slot < 0) {
      slot = top - 1;
      memory.ids[offset + slot] = said;
      memory.weights[offset + slot] = 0;
      if (memory.probabilities) memory.probabilities[offset + slot] = 0;
    }
    memory.weights[offset + slot] += 1 - distillation;
    return true;
  };

  return {
    length,
    top,
    numRows: rows.length,
    numPairs: rows.flat().reduce((sum, { count }) => sum + count - 1, 0),
    padding: vocabulary.size,
    canShift: false,
    bind(given) {
      memory = given;
    },
    fill(row: number, writer: BatchWriter, slot: number) {
      const first = slot * length * top;
      memory?.ids.fill(0, first, first + length * top);
      memory?.weights.fill(0, first, first + length * top);
      memory?.probabilities?.fill(0, first, first + length * top);
      let t = 0;
      for (const [document, { text, count }] of rows[row].entries()) {
        for (let at = 0; at + 1 < count; at++, t++) {
          const counts = tell(text, at, first + t * top);
          const [input, target] = [vocabulary.draftId(text.ids[at]), vocabulary.draftId(text.ids[at + 1])];
          writer.set(slot, t, input, target, counts ? 1 : 0, document, at);
        }
      }
      writer.pad(slot, t, vocabulary.size);
    },
  };
}

/** Texts put into rows of T inputs, first fit, the longest first. */
function fitted(texts: readonly WrittenText[], length: number): Piece[][] {
  const pieces = texts
    .map((text): Piece => ({ text, count: Math.min(text.ids.length, length + 1) }))
    .filter(({ text, count }) => count > text.promptLength)
    .sort((a, b) => b.count - a.count || a.text.index - b.text.index);
  const rows: { pieces: Piece[]; room: number }[] = [];
  for (const piece of pieces) {
    const size = piece.count - 1;
    let row = rows.find(({ room }) => room >= size);
    if (!row) {
      row = { pieces: [], room: length };
      rows.push(row);
    }
    row.pieces.push(piece);
    row.room -= size;
  }
  return rows.map(({ pieces: all }) => all);
}

/**
 * The ids that a draft model of `size` tokens has: those that the target said or thought probable most often, then those that prompts hold,
 * then the first ones of the vocabulary, which tokenizers give to frequent tokens. Ascending.
 */
export function frequentIds(texts: readonly WrittenText[], size: number, targetSize: number): Int32Array {
  const score = new Float64Array(targetSize);
  for (const { ids, promptLength, topIds, topLogProbs } of texts) {
    for (const [i, id] of ids.entries()) score[id] += i < promptLength ? 0.1 : 1;
    for (let k = 0; k < topIds.length; k++) score[topIds[k]] += 0.5 * Math.exp(topLogProbs[k]);
  }
  const order = Array.from(score, (_, id) => id).sort((a, b) => score[b] - score[a] || a - b);
  return Int32Array.from(order.slice(0, Math.min(size, targetSize))).sort();
}
