// Texts that a model writes itself, for training what imitates it: openings drawn at temperature 1, so that texts differ, gone on with at the
// temperature asked for. Low temperatures teach drafters most, because what they imitate is then hardly random.
import { generate } from "../decode/generate.ts";
import { DecoderRunner } from "../decode/runner.ts";
import { deriveSeed } from "../engine/index.ts";
import type { InferenceModel } from "../models/decoder/quantise.ts";
import type { Backend } from "../runtime/backend.ts";

export interface SelfDistillationOptions {
  /** First ids of every text, at least one: begin-of-text, mostly. */
  start: readonly number[];
  /** Tokens of all texts together, about. */
  tokens: number;
  /** Tokens of one text at most, start and opening included. */
  textLength: number;
  /** Tokens of an opening: between half as many and this many. */
  openingTokens: number;
  /** Of what follows the opening; 0: greedy. */
  temperature: number;
  /** Ids that end a text. */
  eosTokenIds: readonly number[];
  seed: number;
  /** Texts at a time. Default 32. */
  batch?: number;
  signal?: AbortSignal;
  onProgress?: (tokens: number) => void;
}

export interface SelfDistilledText {
  readonly ids: readonly number[];
  /** How many of them are start and opening. */
  readonly openingLength: number;
}

/** The same texts for the same options and model. @throws the signal's reason when aborted. */
export async function selfDistil(backend: Backend, model: InferenceModel, options: SelfDistillationOptions): Promise<SelfDistilledText[]> {
  const { start, tokens, textLength, openingTokens, temperature, eosTokenIds, seed, batch = 32, signal, onProgress } = options;
  const numTexts = Math.max(1, Math.ceil(tokens / textLength));
  using runner = new DecoderRunner(backend, model, { batch: Math.min(batch, numTexts), capacity: Math.max(textLength, start.length + 1) });
  // Short openings are alike, and so would be all that follows at a low temperature.
  const shortest = Math.ceil(openingTokens / 2);
  const openings = Array.from({ length: numTexts }, (_, i) => ({
    ids: start,
    // All lengths equally often.
    maxNewTokens: Math.min(shortest + (i % (openingTokens - shortest + 1)), Math.max(1, textLength - start.length - 1)),
    sampling: { temperature: 1 },
    eosTokenIds,
    seed: deriveSeed(seed, "openings"),
  }));
  const opened: number[][] = [];
  for await (const event of generate(runner, openings, { signal }))
    if (event.kind === "finish") opened[event.request] = [...start, ...event.ids];
  const texts: SelfDistilledText[] = [];
  let written = 0;
  const requests = opened.map((ids) => ({
    ids,
    maxNewTokens: textLength - ids.length,
    sampling: { temperature },
    eosTokenIds,
    seed: deriveSeed(seed, "texts"),
  }));
  for await (const event of generate(runner, requests, { signal })) {
    if (event.kind === "token") onProgress?.(++written);
    if (event.kind !== "finish") continue;
    const opening = opened[event.request];
    texts[event.request] = { ids: [...opening, ...event.ids], openingLength: opening.length };
  }
  return texts;
}
