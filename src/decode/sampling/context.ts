// What a logits processor may look at besides the logits, and the two kinds of steps that a processor is composed of.
import type { Candidates } from "./candidates.ts";

/** The sequence to which the next token will be appended. */
export interface SamplingContext {
  /** Token ids so far, prompt included. */
  readonly ids: ArrayLike<number>;
  /** How many of `ids` count (a preallocated array may be longer). Default: all. */
  readonly numIds?: number;
  /** How many of them are the prompt. */
  readonly promptLength: number;
}

/**
 * A step that depends on the sequence: biases, penalties and bans. Changes logits [V] in place; -Infinity forbids a token.
 * Pure for the caller: whatever scratch it owns is clean again when it returns.
 */
export type LogitsProcessor = (logits_V: Float32Array, context: SamplingContext) => void;

/** A step that depends on the distribution alone: temperature and truncations. Works on the tokens that are left. */
export type CandidateStep = (candidates: Candidates) => void;

/** A grammar, as a step: it depends on the ids behind the prompt alone. */
export interface GrammarStep {
  /** Forbids the tokens that would leave the language. @throws NoTokenLeftError when none is left. */
  apply(logits_V: Float32Array, context: SamplingContext): void;
  /** Tokens that follow whatever the logits say, at most `limit` of them. */
  forced(context: SamplingContext, limit: number): readonly number[];
}

/** Number of ids that count. */
export const numIdsOf = (context: SamplingContext): number => context.numIds ?? context.ids.length;

/** True when the sequence ends with the first `length` ids of `pattern`. */
export function endsWith(context: SamplingContext, pattern: ArrayLike<number>, length: number): boolean {
  const start = numIdsOf(context) - length;
  if (start < 0) return false;
  for (let i = 0; i < length; i++) if (context.ids[start + i] !== pattern[i]) return false;
  return true;
}
