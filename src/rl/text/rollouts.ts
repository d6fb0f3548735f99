// Rollouts: G completions of each prompt, with the log-probability of every sampled token under softmax(logits / temperature).
// A prompt runs once and its keys and values are copied to the rows of its group. With a small model the rows are shared out among lanes
// that run side by side, one a thread: small products gain little from sharing threads. What a row samples depends on its own number, the seed and the
// weights, through the counter-based generator; not on the rows beside it, except for the rounding of products of another size.
import { UsageError } from "../../base/errors.ts";
import { createProcessor } from "../../decode/index.ts";
import type { Backend } from "../../runtime/backend.ts";
import { RolloutLane } from "./rollout-lane.ts";
import type { PolicyDecoder, RolloutWeights } from "./rollout-programs.ts";

export interface RolloutOptions {
  /** Completions of each prompt, G. */
  numGenerations: number;
  /** Tokens of a completion at most, the end token included. */
  maxNewTokens: number;
  /** Longest prompt in tokens; sets the size of the cache. */
  maxPromptLength: number;
  /** Divides the logits. Default 1. */
  temperature?: number;
  /** Ids that end a completion and are part of it. */
  endTokenIds: readonly number[];
  /** Rows at once, at most. Default 64. */
  maxRows?: number;
  /** Truncated sampling. The recorded `samplingLogProbs` are those of the truncated distribution. Default: none. */
  topK?: number;
  topP?: number;
  minP?: number;
  /** Default: packed for larger models, bound for small ones (docs/log.md, "Rollouts"). */
  weights?: RolloutWeights;
}

export interface Completion {
  /** The end token included. */
  readonly ids: Int32Array;
  /** log p of each token under the temperature alone. */
  readonly logProbs: Float64Array;
  /** log p under the distribution that was sampled from; `logProbs` itself without truncation. */
  readonly samplingLogProbs: Float64Array;
  /** end: an end token; length: maxNewTokens; context: the model's context is full. */
  readonly finish: "end" | "length" | "context";
}

/** Floating-point operations of a step of all rows below which the threads of one program mostly wait for each other. */
const smallOperations = 4e8;
/** A lane pays from about so many rows on. */
const minLaneRows = 8;

export class Rollouts {
  readonly options: Required<RolloutOptions>;
  readonly #decoder: PolicyDecoder;
  readonly #lanes: readonly RolloutLane[];
  readonly #laneRows: number;

  /** @throws UsageError for options that do not fit the model. */
  constructor(backend: Backend, decoder: PolicyDecoder, options: RolloutOptions) {
    const defaults = { temperature: 1, maxRows: 64, topK: 0, topP: 1, minP: 0 };
    const operations = 2 * decoder.parameters.layout.length * (options.maxRows ?? defaults.maxRows);
    const isSmall = operations <= smallOperations;
    this.options = { ...defaults, weights: isSmall ? "bound" : "packed", ...options };
    const { maxNewTokens, maxPromptLength, temperature, topK, topP, minP, weights, maxRows, endTokenIds } = this.options;
    const { contextLength, vocabSize } = decoder.config;
    if (!(temperature > 0))
      throw new UsageError(`temperature: expected a positive number for rollouts, got ${temperature}`, {
        hint: "Greedy completions of one prompt are all the same: there is nothing to compare.",
      });
    this.#decoder = decoder;
    const numLanes = isSmall ? Math.max(1, Math.min(backend.threads, Math.floor(maxRows / minLaneRows))) : 1;
    this.#laneRows = Math.floor(maxRows / numLanes);
    const isTruncated = topK > 0 || topP < 1 || minP > 0;
    this.#lanes = Array.from(
      { length: numLanes },
      () =>
        new RolloutLane(backend, decoder, {
          rows: this.#laneRows,
          // The last token of a completion is never run, so its keys and values need no room.
          capacity: Math.min(contextLength, maxPromptLength + maxNewTokens),
          maxNewTokens,
          temperature,
          ends: new Set(endTokenIds),
          weights,
          threads: numLanes > 1 ? 1 : undefined,
          processor: isTruncated ? createProcessor({ temperature, topK, topP, minP }, { vocabularySize: vocabSize }) : undefined,
        }),
    );
  }

  /**
   * Completes all prompts with the weights as they are now.
   * @param prompts token ids, each of at least one. @param seed of this rollout; the same seed and weights give the same completions.
   * @param options.numGenerations other than that of the constructor.
   * @returns [prompt][generation].
   * @throws UsageError for a prompt that is empty or does not fit, AbortedError between two tokens.
   */
  async run(
    prompts: readonly ArrayLike<number>[],
    seed: number,
    { numGenerations = this.options.numGenerations, signal }: { numGenerations?: number; signal?: AbortSignal } = {},
  ): Promise<Completion[][]> {
    for (const [index, prompt] of prompts.entries()) this.#check(prompt, index);
    for (const lane of this.#lanes) lane.refresh();
    const tasks = prompts.flatMap((prompt, p) => this.#tasksOf(prompt, p * numGenerations, numGenerations));
    // Shared out beforehand, not taken by who is free: the same thread count gives the same batches, and so the same rounding.
    const shares = this.#lanes.map((_, lane) =>
      tasks.slice(Math.round((lane * tasks.length) / this.#lanes.length), Math.round(((lane + 1) * tasks.length) / this.#lanes.length)),
    );
    const outcomes = await Promise.allSettled(this.#lanes.map((lane, i) => lane.run(shares[i], seed, signal)));
    // A failed lane is told when all have stopped, so that none still writes.
    const groups = outcomes.flatMap((outcome) => {
      if (outcome.status === "rejected") throw outcome.reason;
      return outcome.value;
    });
    const completions = groups.flat();
    return prompts.map((_, p) => completions.slice(p * numGenerations, (p + 1) * numGenerations));
  }

  dispose(): void {
    for (const lane of this.#lanes) lane.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The rows of one prompt, in parts that a lane can hold. */
  #tasksOf(prompt: ArrayLike<number>, firstRequest: number, count: number): { prompt: ArrayLike<number>; requests: number[] }[] {
    const numParts = Math.ceil(count / this.#laneRows);
    return Array.from({ length: numParts }, (_, part) => {
      const [start, end] = [part, part + 1].map((place) => Math.round((place * count) / numParts));
      return { prompt, requests: Array.from({ length: end - start }, (_, i) => firstRequest + start + i) };
    });
  }

  #check(prompt: ArrayLike<number>, index: number): void {
    const { contextLength, vocabSize } = this.#decoder.config;
    if (prompt.length === 0) throw new UsageError(`prompt ${index}: expected at least one token, got none`);
    if (prompt.length >= contextLength || prompt.length > this.options.maxPromptLength)
      throw new UsageError(
        `prompt ${index}: expected fewer tokens than the context of ${contextLength} and at most ${this.options.maxPromptLength}, got ${prompt.length}`,
      );
    for (let i = 0; i < prompt.length; i++) {
      if (prompt[i] < 0 || prompt[i] >= vocabSize)
        throw new UsageError(`prompt ${index}: expected token ids below ${vocabSize}, got ${prompt[i]}`, {
          hint: "The tokenizer and the model do not belong together.",
        });
    }
  }
}
