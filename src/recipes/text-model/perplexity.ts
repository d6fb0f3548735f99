// Perplexity of a model as it decodes, quantised or not: windows of a text, each scored behind the beginning that it shares with nothing.

import { UsageError } from "../../base/errors.ts";
import { DecoderRunner } from "../../decode/runner.ts";
import { tokenLogProbability } from "../../decode/sampling/log-probabilities.ts";
import type { InferenceModel } from "../../models/decoder/quantise.ts";
import type { Backend } from "../../runtime/backend.ts";

export interface PerplexityOptions {
  /** Tokens of a window. Default 256. */
  window?: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export interface PerplexityResult {
  /** Nats a token. */
  readonly loss: number;
  readonly perplexity: number;
  /** Tokens that were scored. */
  readonly tokens: number;
}

/** @throws UsageError for a text of fewer than two tokens. */
export async function measurePerplexity(
  backend: Backend,
  model: InferenceModel,
  ids: Int32Array,
  { window = 256, signal, onProgress }: PerplexityOptions = {},
): Promise<PerplexityResult> {
  if (ids.length < 2) throw new UsageError(`perplexity: expected a text of at least 2 tokens, got ${ids.length}`);
  const size = Math.min(window, model.config.contextLength);
  const { vocabSize } = model.config;
  using runner = new DecoderRunner(backend, model, { capacity: size, prefillChunk: Math.min(64, size) });
  let total = 0;
  let tokens = 0;
  for (let from = 0; from + 1 < ids.length; from += size) {
    const end = Math.min(from + size, ids.length);
    runner.reset(0);
    for (let at = from; at < end; at += runner.prefillChunk) {
      signal?.throwIfAborted();
      const chunk = ids.subarray(at, Math.min(at + runner.prefillChunk, end));
      const logits = runner.appendAll(0, chunk);
      for (let i = 0; i < chunk.length && at + i + 1 < end; i++) {
        total -= tokenLogProbability(logits.subarray(i * vocabSize, (i + 1) * vocabSize), ids[at + i + 1]);
        tokens++;
      }
      onProgress?.(at + chunk.length, ids.length);
      await new Promise(setImmediate);
    }
  }
  const loss = total / tokens;
  return { loss, perplexity: Math.exp(loss), tokens };
}
