// Generation: prompts in, tokens out, one request a row of the batch; a finished row takes the next request of the queue.
// The text of a request depends on its own ids, options, seed and number only, not on what runs beside it.
import { setImmediate as nextTurn } from "node:timers/promises";
import { UsageError } from "../base/errors.ts";
import type { StreamDecoder, Tokenizer } from "../text/index.ts";
import type { DecoderRunner } from "./runner.ts";
import { tokenLogProbability, topLogProbabilities } from "./sampling/log-probabilities.ts";
import type { SamplingOptionsInput } from "./sampling/options.ts";
import { createProcessor, type Processor } from "./sampling/processor.ts";
import { tokenUniform } from "./sampling/sample.ts";
import { createStopStringMatcher, type StopStringMatcher } from "./stop-strings.ts";

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
  /** Seed of this request. Default 0. */
  seed?: number;
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

/** eos: an end token (not part of `ids`); stop: a stop string; length: maxNewTokens; context: the cache is full. */
export type FinishReason = "eos" | "stop" | "length" | "context";

export interface FinishEvent {
  kind: "finish";
  request: number;
  reason: FinishReason;
  /** All new tokens. */
  ids: number[];
  /** All emitted text. */
  text: string;
}

export type GenerationEvent = TokenEvent | FinishEvent;

export interface GenerateOptions {
  /** Turns ids into text. Without it events carry empty text. */
  tokenizer?: Pick<Tokenizer, "stream" | "specialIds">;
  signal?: AbortSignal;
}

/** Longest time between two turns of the event loop, in milliseconds. */
const turnMilliseconds = 25;

/**
 * Generates for all requests. Events of one request come in order; requests interleave.
 * @throws UsageError for an empty or too long prompt; the signal's reason when aborted (between two steps).
 */
export async function* generate(
  runner: DecoderRunner,
  requests: readonly GenerationRequest[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerationEvent> {
  const { signal } = options;
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
        runner.reset(row);
        yield* sequence.take(runner.append(row, sequence.prompt));
        if (!sequence.finished) slots[row] = sequence;
      }
    }
    if (slots.every((slot) => !slot)) return;
    await breathe();
    for (const [row, sequence] of slots.entries()) {
      active[row] = sequence ? 1 : 0;
      ids[row] = sequence ? sequence.last : 0;
    }
    const logits = runner.step(ids, active);
    const { vocabSize } = runner.config;
    for (const [row, sequence] of slots.entries()) {
      if (!sequence) continue;
      yield* sequence.take(logits.subarray(row * vocabSize, (row + 1) * vocabSize));
      if (sequence.finished) slots[row] = undefined;
    }
  }
}

/** Runs one request to its end. */
export async function complete(runner: DecoderRunner, request: GenerationRequest, options: GenerateOptions = {}): Promise<FinishEvent> {
  for await (const event of generate(runner, [request], options)) if (event.kind === "finish") return event;
  throw new UsageError("complete: the request ended without a result");
}

class Sequence {
  readonly prompt: Int32Array;
  finished = false;
  readonly #request: GenerationRequest;
  readonly #index: number;
  readonly #processor: Processor;
  readonly #decoder: StreamDecoder | undefined;
  readonly #stop: StopStringMatcher;
  readonly #eos: ReadonlySet<number>;
  readonly #limit: number;
  readonly #maxNewTokens: number;
  /** Prompt and new tokens. */
  readonly #ids: Int32Array;
  #count: number;
  #text = "";

  constructor(runner: DecoderRunner, request: GenerationRequest, index: number, { tokenizer }: GenerateOptions) {
    const { vocabSize } = runner.config;
    this.prompt = Int32Array.from(request.ids);
    if (this.prompt.length === 0)
      throw new UsageError("generate: expected a prompt of at least one token, got none", {
        hint: "Begin with the beginning-of-sequence token.",
      });
    const wrong = this.prompt.find((id) => id < 0 || id >= vocabSize);
    if (wrong !== undefined)
      throw new UsageError(`generate: expected token ids below ${vocabSize}, got ${wrong}`, {
        hint: "The tokenizer and the model do not belong together.",
      });
    if (this.prompt.length >= runner.capacity) {
      throw new UsageError(`generate: expected a prompt shorter than the context of ${runner.capacity} tokens, got ${this.prompt.length}`, {
        hint: "Shorten the prompt, or use a model with a longer context.",
      });
    }
    if ((request.stop?.length ?? 0) > 0 && !tokenizer)
      throw new UsageError("generate: expected a tokenizer to find stop strings, got none");
    this.#request = request;
    this.#index = index;
    const eos = request.eosTokenIds ?? eosOf(tokenizer);
    this.#eos = new Set(eos);
    this.#processor = createProcessor({ eosTokenId: [...eos], ...request.sampling }, { vocabularySize: vocabSize });
    this.#decoder = tokenizer?.stream();
    this.#stop = createStopStringMatcher(request.stop ?? [], { includeStopString: request.includeStop ?? false });
    this.#maxNewTokens = request.maxNewTokens ?? 128;
    this.#limit = Math.min(runner.capacity, this.prompt.length + this.#maxNewTokens);
    this.#ids = new Int32Array(Math.max(this.#limit, this.prompt.length + 1));
    this.#ids.set(this.prompt);
    this.#count = this.prompt.length;
  }

  get last(): number {
    return this.#ids[this.#count - 1];
  }

  /** Chooses the next token from the logits after the last one. */
  *take(logits: Float32Array): Generator<GenerationEvent> {
    if (this.#maxNewTokens === 0) return yield* this.#finish("length");
    const { seed = 0, logProbs } = this.#request;
    const context = { ids: this.#ids, numIds: this.#count, promptLength: this.prompt.length };
    const id = this.#processor.select(logits, context, tokenUniform({ seed, request: this.#index }, this.#count));
    if (this.#eos.has(id)) return yield* this.#finish("eos");
    this.#ids[this.#count++] = id;
    const text = this.#stop.push(this.#decoder?.push(id) ?? "");
    this.#text += text;
    const event: TokenEvent = { kind: "token", request: this.#index, id, text };
    if (logProbs !== undefined) {
      event.logProb = tokenLogProbability(logits, id);
      const top = topLogProbabilities(logits, logProbs);
      event.top = Array.from(top.ids, (topId, i) => ({ id: topId, logProb: top.logProbabilities[i] }));
    }
    yield event;
    if (this.#stop.match) yield* this.#finish("stop");
    else if (this.#count >= this.#limit) yield* this.#finish(this.#count - this.prompt.length >= this.#maxNewTokens ? "length" : "context");
  }

  *#finish(reason: FinishReason): Generator<GenerationEvent> {
    this.finished = true;
    let rest = this.#decoder?.end() ?? "";
    if (!this.#stop.match) rest = this.#stop.push(rest) + this.#stop.finish();
    if (rest && !this.#stop.match) {
      this.#text += rest;
    }
    yield {
      kind: "finish",
      request: this.#index,
      reason,
      ids: Array.from(this.#ids.subarray(this.prompt.length, this.#count)),
      text: this.#text,
    };
  }
}

function eosOf(tokenizer: GenerateOptions["tokenizer"]): readonly number[] {
  const eos = tokenizer?.specialIds.eos;
  return eos === undefined ? [] : Array.isArray(eos) ? eos : [eos];
}
