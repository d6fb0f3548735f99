// Generation: prompts in, tokens out, one request a row of the batch; a finished row takes the next request of the queue.
// The text of a request depends on its own ids, options, seed and number only, not on what runs beside it.
import { setImmediate as nextTurn } from "node:timers/promises";
import { UsageError } from "../base/errors.ts";
import type { Tokenizer } from "../text/index.ts";
import type { Drafter } from "./drafter.ts";
import type { DecoderRunner } from "./runner.ts";
import type { GrammarStep } from "./sampling/context.ts";
import type { SamplingOptionsInput } from "./sampling/options.ts";
import { Sequence } from "./sequence.ts";
import { type SpeculationStep, speculate } from "./speculate.ts";
import type { SpeculationSummary } from "./speculation-metrics.ts";
import type { Verifier } from "./verifiers/verifier.ts";

export interface GenerationRequest {
  /** Token ids of the prompt; at least one. */
  ids: readonly number[] | Int32Array;
  /** Default: the model's own distribution. */
  sampling?: SamplingOptionsInput;
  /** Default 128. */
  maxNewTokens?: number;
  /** Text that ends the answer; needs a tokenizer. */
  stop?: readonly string[];
  /** Emit the stop string too. Default false. */
  includeStop?: boolean;
  /** Ids that end the answer. Default: the tokenizer's end of sequence. */
  eosTokenIds?: readonly number[];
  /** A grammar that the answer has to keep to (see `compileGrammar`). One object for each request that runs at the same time. */
  grammar?: GrammarStep;
  /** Seed of this request. Its number among the requests counts as well: those of one seed are different samples. Default 0. */
  seed?: number;
  /**
   * Leading tokens of the prompt that row 0 of the runner holds already (an earlier turn, a prompt from disk): they are not read again, unless
   * the model's positions depend on the length of the prompt. For one request over a runner of batch 1; at most all but the last token.
   * Default 0.
   */
  cachedLength?: number;
  /** Log-probabilities of the chosen tokens, and of this many most probable ones. Default: none. */
  logProbs?: number;
}

export interface TokenEvent {
  kind: "token";
  /** Index of the request. */
  request: number;
  id: number;
  /** Text that is now certain: whole characters, no part of a stop string. */
  text: string;
  /** log p under the model's own logits (temperature 1, nothing cut). */
  logProb?: number;
  top?: { id: number; logProb: number }[];
}

/** Text that was held back as part of a character or of a stop string, and turned out to be neither: the last before `finish`. */
export interface TextEvent {
  kind: "text";
  request: number;
  text: string;
}

/** eos: an end token (not part of `ids`); stop: a stop string; length: maxNewTokens; context: the cache is full. */
export type FinishReason = "eos" | "stop" | "length" | "context";

export interface FinishEvent {
  kind: "finish";
  request: number;
  reason: FinishReason;
  /** All new tokens. */
  ids: number[];
  /** All emitted text: that of the token and text events before, put together. */
  text: string;
  /** How the drafts fared, when there was a drafter. */
  speculation?: SpeculationSummary;
}

export type GenerationEvent = TokenEvent | TextEvent | FinishEvent;

export interface GenerateOptions {
  /** Turns ids into text. Without it events carry empty text. */
  tokenizer?: Pick<Tokenizer, "stream" | "specialIds"> & Partial<Pick<Tokenizer, "hash">>;
  signal?: AbortSignal;
  /** Speculative decoding: drafts several tokens, which the model verifies in one call. For a runner of batch 1. Default: none. */
  drafter?: Drafter;
  /** How drafts are verified. Default: `greedy` where decoding is, else `token-match`, which gives the same text as without drafts. */
  verifier?: Verifier;
  /** Called after each speculative step, before its tokens are emitted. */
  onStep?: (step: SpeculationStep) => void;
}

/** Longest time between two turns of the event loop, in milliseconds. */
const turnMilliseconds = 25;

/**
 * Generates for all requests. Events of one request come in order; requests interleave. Prompts are read in chunks (`prefillChunk`) while the
 * event loop goes on; a token is one call that holds it.
 * @throws UsageError for an empty or too long prompt, or a drafter of another model; the signal's reason when aborted (between two tokens, or
 *   at any time while a prompt is read).
 */
export async function* generate(
  runner: DecoderRunner,
  requests: readonly GenerationRequest[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerationEvent> {
  const { signal, drafter } = options;
  if (drafter && runner.batch !== 1)
    throw new UsageError(`generate: expected a runner of batch 1 for a drafter, got ${runner.batch}`, {
      hint: "Drafts pay for one sequence; decode several without a drafter.",
    });
  if (requests.some(({ cachedLength = 0 }) => cachedLength > 0) && (requests.length > 1 || runner.batch > 1))
    throw new UsageError(
      `generate: expected one request and batch 1 to go on from cached tokens, got ${requests.length} and ${runner.batch}`,
    );
  const states = requests.map((request, index) => new Sequence(runner, request, index, options));
  const slots: (Sequence | undefined)[] = new Array(runner.batch).fill(undefined);
  const ids = new Int32Array(runner.batch);
  const active = new Uint8Array(runner.batch);
  let next = 0;
  let lastTurn = performance.now();
  const breathe = async (): Promise<void> => {
    if (performance.now() - lastTurn >= turnMilliseconds) {
      await nextTurn();
      lastTurn = performance.now();
    }
    signal?.throwIfAborted();
  };
  for (;;) {
    for (let row = 0; row < slots.length; row++) {
      while (!slots[row] && next < states.length) {
        const sequence = states[next++];
        await breathe();
        const { prompt } = sequence;
        const cachedLength = runner.isReusable(row, prompt.length) ? Math.min(sequence.cachedLength, runner.cache.lengths[row]) : 0;
        runner.cache.truncate(row, cachedLength);
        if (drafter) {
          for await (const event of speculate(runner, sequence, drafter, { ...options, breathe })) yield event;
          continue;
        }
        const logits = await runner.appendAsync(row, prompt.subarray(cachedLength), { promptLength: prompt.length, signal });
        lastTurn = performance.now();
        for (const event of sequence.take(logits)) yield event;
        if (!sequence.finished) slots[row] = sequence;
      }
    }
    if (slots.every((slot) => !slot)) return;
    await breathe();
    for (const [row, sequence] of slots.entries()) {
      active[row] = sequence ? 1 : 0;
      ids[row] = sequence ? sequence.last : 0;
      const prepared = sequence && runner.prepare(row, { signal });
      if (prepared) await prepared;
    }
    const logits = runner.step(ids, active);
    const { vocabSize } = runner.config;
    for (const [row, sequence] of slots.entries()) {
      if (!sequence) continue;
      for (const event of sequence.take(logits.subarray(row * vocabSize, (row + 1) * vocabSize))) yield event;
      if (sequence.finished) slots[row] = undefined;
    }
  }
}

/** Runs one request to its end. */
export async function complete(runner: DecoderRunner, request: GenerationRequest, options: GenerateOptions = {}): Promise<FinishEvent> {
  for await (const event of generate(runner, [request], options)) if (event.kind === "finish") return event;
  throw new UsageError("complete: the request ended without a result");
}
