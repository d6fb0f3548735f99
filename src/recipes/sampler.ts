// Sample texts of a model in training: programs that read the live weights as inputs.
import { UsageError } from "../base/errors.ts";
import { complete } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import type { Backend } from "../runtime/backend.ts";
import type { Tokenizer } from "../text/index.ts";
import type { TrainableDecoder } from "../train/index.ts";

export interface SamplerOptions {
  prompt: string;
  /** Tokens of a text, at most. */
  maxNewTokens: number;
  seed: number;
}

export class Sampler {
  readonly #runner: DecoderRunner;
  readonly #tokenizer: Tokenizer;
  readonly #options: SamplerOptions;
  readonly #ids: number[];

  /** @throws UsageError for a prompt that is empty or does not fit the context. */
  constructor(backend: Backend, decoder: TrainableDecoder, tokenizer: Tokenizer, options: SamplerOptions) {
    const begin = tokenizer.specialIds.bos ?? tokenizer.specialIds.eos;
    const ids = tokenizer.encode(options.prompt, { addSpecialTokens: false });
    this.#ids = begin === undefined ? [...ids] : [begin, ...ids];
    this.#tokenizer = tokenizer;
    this.#options = options;
    const { contextLength } = decoder.config;
    if (this.#ids.length === 0) throw new UsageError("samplePrompt: expected some text, got none", { hint: "Or set sampleEvery to 0." });
    if (this.#ids.length >= contextLength)
      throw new UsageError(`samplePrompt: expected fewer tokens than the model's context of ${contextLength}, got ${this.#ids.length}`, {
        hint: "Shorten the prompt, or set sampleEvery to 0.",
      });
    this.#runner = new DecoderRunner(backend, decoder, { weights: "bound" });
  }

  /** The same seed every time: what changes between samples is the model. */
  async text(): Promise<string> {
    const { prompt, maxNewTokens, seed } = this.#options;
    const room = this.#runner.capacity - this.#ids.length;
    const result = await complete(
      this.#runner,
      { ids: this.#ids, maxNewTokens: Math.min(maxNewTokens, room), seed, sampling: { temperature: 0.8, topK: 50 } },
      { tokenizer: this.#tokenizer },
    );
    return prompt + result.text;
  }

  [Symbol.dispose](): void {
    this.#runner.dispose();
  }
}
