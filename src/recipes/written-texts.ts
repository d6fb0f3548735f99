// Texts that a model writes itself, many at a time, for training what imitates it. A text has an opening drawn at temperature 1, so that texts
// differ, and what the model then says at the temperature asked for, which alone is learnt from. Of a model with a chat template the opening
// is the question of a user, which the model draws as well (Xu et al. 2024, "Magpie"); prompts of one's own take its place. What the model
// gave other tokens is kept with each token, for distillation (Hinton et al. 2015).
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FinishEvent, GenerationRequest } from "../decode/generate.ts";
import type { DecoderRunner } from "../decode/runner.ts";
import { topLogProbabilities } from "../decode/sampling/log-probabilities.ts";
import { Sequence } from "../decode/sequence.ts";

/** Where a text begins, and how its opening becomes a prompt. */
export interface TextPlan {
  /** Ids before the opening, at least one unless there is no opening. */
  readonly start: readonly number[];
  /** Tokens of the opening at most; 0: there is none, and `promptOf` gets nothing. */
  readonly openingTokens: number;
  /** What the model goes on from; undefined where the opening is of no use. */
  promptOf(opening: readonly number[], ended: boolean): ArrayLike<number> | undefined;
}

export interface WrittenText {
  readonly index: number;
  /** The whole text; empty where the opening was of no use. */
  readonly ids: readonly number[];
  /** How many of them are not the answer: prompt or opening. */
  readonly promptLength: number;
  /** Most probable ids of each answer token's place, [answer tokens, top], and their log-probabilities. */
  readonly topIds: Int32Array;
  readonly topLogProbs: Float32Array;
}

export interface WriteTextsOptions {
  readonly planOf: (index: number) => TextPlan;
  /** Numbers of the texts to write, in order; asked for one more whenever there is room. */
  readonly indices: Iterator<number>;
  /** Tokens of an answer at most. */
  readonly answerTokens: number;
  /** Of answers; 0: greedy. */
  readonly temperature: number;
  readonly eosTokenIds: readonly number[];
  readonly seed: number;
  /** Most probable tokens kept with each token of an answer. */
  readonly top: number;
  readonly signal?: AbortSignal;
  /** Called for every token that was computed. */
  readonly onToken?: () => void;
}

/** Openings are drawn from the whole distribution but its far tail, from which small models do not find back. */
const openingSampling = { temperature: 1, minP: 0.02 };

/** A text on its way: its opening or its answer. */
interface Row {
  readonly index: number;
  readonly plan: TextPlan;
  readonly sequence: Sequence;
  readonly isAnswer: boolean;
  readonly topIds: number[];
  readonly topLogProbs: number[];
}

const unused = (index: number): WrittenText => ({
  index,
  ids: [],
  promptLength: 0,
  topIds: new Int32Array(0),
  topLogProbs: new Float32Array(0),
});

/**
 * Texts as they are finished, not in order. A text depends on its index, the seed and the model only, up to rounding.
 * @param runner its batch is how many texts are written at a time.
 * @throws the signal's reason when aborted; UsageError for prompts that do not fit.
 */
export async function* writeTexts(runner: DecoderRunner, options: WriteTextsOptions): AsyncGenerator<WrittenText> {
  const { planOf, indices, top, signal, onToken } = options;
  const { vocabSize } = runner.config;
  const rows: (Row | undefined)[] = new Array(runner.batch).fill(undefined);
  const ids = new Int32Array(runner.batch);
  const active = new Uint8Array(runner.batch);
  const done: WrittenText[] = [];
  let isExhausted = false;

  const rowOf = (
    { index, plan }: Pick<Row, "index" | "plan">,
    part: { prompt: ArrayLike<number>; maxNewTokens: number; sampling: GenerationRequest["sampling"]; isAnswer: boolean },
  ): Row => {
    const { eosTokenIds, seed } = options;
    const { prompt, maxNewTokens, sampling, isAnswer } = part;
    const request = { ids: Int32Array.from(prompt), maxNewTokens, sampling, eosTokenIds, seed };
    return { index, plan, isAnswer, sequence: new Sequence(runner, request, index, {}), topIds: [], topLogProbs: [] };
  };
  const answer = (of: Pick<Row, "index" | "plan">, opening: readonly number[], ended: boolean): Row | undefined => {
    const prompt = of.plan.promptOf(opening, ended);
    if (!prompt || prompt.length >= runner.capacity) return undefined;
    const { temperature, answerTokens } = options;
    const sampling = temperature === 0 ? { doSample: false } : { temperature };
    return rowOf(of, { prompt, maxNewTokens: answerTokens, sampling, isAnswer: true });
  };
  const begin = (index: number): Row | undefined => {
    const plan = planOf(index);
    const { start, openingTokens } = plan;
    if (openingTokens === 0) return answer({ index, plan }, [], true);
    return rowOf({ index, plan }, { prompt: start, maxNewTokens: openingTokens, sampling: openingSampling, isAnswer: false });
  };
  /** One token for a row. What is returned takes the row's place: itself, its answer, or nothing. */
  const take = (row: Row, logits: Float32Array): Row | undefined => {
    const { sequence, index } = row;
    if (row.isAnswer && top > 0) {
      const best = topLogProbabilities(logits, top);
      for (let i = 0; i < top; i++) {
        row.topIds.push(best.ids[i]);
        row.topLogProbs.push(best.logProbabilities[i]);
      }
    }
    const events = sequence.take(logits);
    onToken?.();
    if (!sequence.finished) return row;
    const { reason } = events.at(-1) as FinishEvent;
    const written = Array.from(sequence.ids.subarray(0, sequence.count));
    const ended = reason === "eos";
    if (!row.isAnswer) {
      const next = answer(row, written.slice(sequence.prompt.length), ended);
      if (!next) done.push(unused(index));
      return next;
    }
    // The end is what the model said, too.
    if (ended) written.push(options.eosTokenIds.reduce((best, id) => (logits[id] > logits[best] ? id : best)));
    done.push({
      index,
      ids: written,
      promptLength: sequence.prompt.length,
      topIds: Int32Array.from(row.topIds),
      topLogProbs: Float32Array.from(row.topLogProbs),
    });
    return undefined;
  };
  /** Reads a prompt, but for what the row holds of it already; rows of one template begin alike. */
  const read = (at: number, { sequence: { prompt } }: Row): Float32Array => {
    const shared = runner.heldLength(at, prompt);
    runner.cache.truncate(at, shared);
    return runner.append(at, prompt.subarray(shared));
  };
  /** Reads on until a row is within a text, or there are no more of them. */
  const fill = (at: number): void => {
    let row = rows[at];
    while (!isExhausted || row) {
      if (!row) {
        const next = indices.next();
        if (next.done) {
          isExhausted = true;
          break;
        }
        row = begin(next.value);
        if (!row) {
          done.push(unused(next.value));
          continue;
        }
      }
      const before: Row = row;
      row = take(before, read(at, before));
      if (row === before) break;
    }
    rows[at] = row;
  };

  for (;;) {
    for (let at = 0; at < rows.length; at++) {
      if (rows[at]) continue;
      fill(at);
      await nextTurn();
      signal?.throwIfAborted();
    }
    yield* done.splice(0);
    if (rows.every((row) => !row)) return;
    for (const [at, row] of rows.entries()) {
      active[at] = row ? 1 : 0;
      ids[at] = row?.sequence.last ?? 0;
    }
    const logits = runner.step(ids, active);
    for (const [at, row] of rows.entries()) {
      if (!row) continue;
      const next = take(row, logits.subarray(at * vocabSize, (at + 1) * vocabSize));
      rows[at] = next;
      // A new prompt: it is read before the next step.
      if (next && next !== row) fill(at);
    }
    yield* done.splice(0);
    await nextTurn();
    signal?.throwIfAborted();
  }
}
