// One request on its way: its ids, how tokens are chosen, and when it ends. Plain and speculative decoding share it, so that end of
// sequence, stop strings and limits mean the same in both.
import { UsageError } from "../base/errors.ts";
import type { StreamDecoder } from "../text/index.ts";
import type { FinishReason, GenerateOptions, GenerationEvent, GenerationRequest, TokenEvent } from "./generate.ts";
import type { DecoderRunner } from "./runner.ts";
import { tokenLogProbability, topLogProbabilities } from "./sampling/log-probabilities.ts";
import { listOf } from "./sampling/options.ts";
import { createProcessor, type Processor } from "./sampling/processor.ts";
import { type SamplingKey, tokenUniform } from "./sampling/sample.ts";
import { createStopStringMatcher, type StopStringMatcher } from "./stop-strings.ts";

export class Sequence {
  readonly prompt: Int32Array;
  readonly processor: Processor;
  readonly key: SamplingKey;
  /** Prompt and new tokens; `count` of them count, what lies behind is scratch. */
  readonly ids: Int32Array;
  count: number;
  /** Leading tokens of the prompt that the cache holds. */
  readonly cachedLength: number;
  /** Count at which it ends. */
  readonly limit: number;
  finished = false;
  readonly #request: GenerationRequest;
  readonly #index: number;
  readonly #decoder: StreamDecoder | undefined;
  readonly #stop: StopStringMatcher;
  readonly #eos: ReadonlySet<number>;
  readonly #maxNewTokens: number;
  #text = "";

  /** @throws UsageError for a prompt that is empty, does not fit or has ids of another model. */
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
        hint: "Shorten the prompt, or give a larger context where the model allows it.",
      });
    }
    this.cachedLength = request.cachedLength ?? 0;
    const most = Math.min(this.prompt.length - 1, runner.cache.lengths[0]);
    if (this.cachedLength > 0 && !(this.cachedLength <= most))
      throw new UsageError(`generate: expected at most ${most} cached tokens of this prompt, got ${this.cachedLength}`);
    if ((request.stop?.length ?? 0) > 0 && !tokenizer)
      throw new UsageError("generate: expected a tokenizer to find stop strings, got none");
    this.#request = request;
    this.#index = index;
    this.key = { seed: request.seed ?? 0, request: index };
    const eos = request.eosTokenIds ?? eosOf(tokenizer);
    this.#eos = new Set(eos);
    this.processor = createProcessor(
      // Options that were parsed say [] where nothing was given.
      { ...request.sampling, eosTokenId: hasEnd(request.sampling?.eosTokenId) ? request.sampling?.eosTokenId : [...eos] },
      {
        vocabularySize: vocabSize,
        ...(request.grammar && { grammar: request.grammar }),
      },
    );
    this.#decoder = tokenizer?.stream();
    this.#stop = createStopStringMatcher(request.stop ?? [], { includeStopString: request.includeStop ?? false });
    this.#maxNewTokens = request.maxNewTokens ?? 128;
    this.limit = Math.min(runner.capacity, this.prompt.length + this.#maxNewTokens);
    this.ids = new Int32Array(Math.max(this.limit, this.prompt.length + 1));
    this.ids.set(this.prompt);
    this.count = this.prompt.length;
  }

  get last(): number {
    return this.ids[this.count - 1];
  }

  /** Chooses the next token from the logits after the last one, and commits it. */
  take(logits: Float32Array): readonly GenerationEvent[] {
    if (this.#maxNewTokens === 0) return this.end();
    const context = { ids: this.ids, numIds: this.count, promptLength: this.prompt.length };
    return this.commit(this.processor.select(logits, context, tokenUniform(this.key, this.count)), logits);
  }

  /** The next token is this one. `logits` are those that it was chosen from. Events: the token, and the end where it ends the text. */
  commit(id: number, logits: Float32Array): readonly GenerationEvent[] {
    const { logProbs } = this.#request;
    if (this.#eos.has(id)) return this.#finish("eos");
    this.ids[this.count++] = id;
    const text = this.#stop.push(this.#decoder?.push(id) ?? "");
    this.#text += text;
    const event: TokenEvent = { kind: "token", request: this.#index, id, text };
    if (logProbs !== undefined) {
      event.logProb = tokenLogProbability(logits, id);
      const top = topLogProbabilities(logits, logProbs);
      event.top = Array.from(top.ids, (topId, i) => ({ id: topId, logProb: top.logProbabilities[i] }));
    }
    if (this.#stop.match) return [event, ...this.#finish("stop")];
    if (this.count >= this.limit) return [event, ...this.end()];
    return [event];
  }

  /** There is no room for more. */
  end(): readonly GenerationEvent[] {
    return this.#finish(this.count - this.prompt.length >= this.#maxNewTokens ? "length" : "context");
  }

  /** What was held back, if anything, and the end. */
  #finish(reason: FinishReason): readonly GenerationEvent[] {
    this.finished = true;
    let rest = "";
    if (!this.#stop.match) {
      // What the decoder held back may complete a stop string.
      rest = this.#stop.push(this.#decoder?.end() ?? "");
      if (!this.#stop.match) rest += this.#stop.finish();
    }
    this.#text += rest;
    const finish: GenerationEvent = {
      kind: "finish",
      request: this.#index,
      reason: this.#stop.match ? "stop" : reason,
      ids: Array.from(this.ids.subarray(this.prompt.length, this.count)),
      text: this.#text,
    };
    return rest === "" ? [finish] : [{ kind: "text", request: this.#index, text: rest }, finish];
  }
}

function eosOf(tokenizer: GenerateOptions["tokenizer"]): readonly number[] {
  const eos = tokenizer?.specialIds.eos;
  return eos === undefined ? [] : Array.isArray(eos) ? eos : [eos];
}

const hasEnd = (ids: number | readonly number[] | null | undefined): boolean => listOf(ids ?? null).length > 0;
