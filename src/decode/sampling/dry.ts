// DRY, "don't repeat yourself" (p-e-w 2024, as in llama.cpp): a token is penalised by multiplier · base^(n − allowed) when it would continue
// a repetition of n ids, the longest one that it continues. The lengths of all repetitions of the text's end come from one pass of the
// Z algorithm over the reversed text: O(n), whatever the text.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

export interface DryOptions {
  dryMultiplier: number;
  dryBase: number;
  /** Repetitions shorter than this cost nothing. */
  dryAllowedLength: number;
  /** How many of the last ids count; −1: all. */
  dryPenaltyLastN: number;
  drySequenceBreakers: readonly (readonly number[])[];
}

export function dryProcessor(options: DryOptions): LogitsProcessor {
  const { dryMultiplier, dryBase, dryAllowedLength, dryPenaltyLastN, drySequenceBreakers } = options;
  const breakers = new Map<number, (readonly number[])[]>();
  for (const ids of drySequenceBreakers) breakers.set(ids[ids.length - 1], [...(breakers.get(ids[ids.length - 1]) ?? []), ids]);
  // The penalty stays a finite float32.
  const maxExponent = dryBase > 1 ? Math.log(3e38 / Math.max(1, dryMultiplier)) / Math.log(dryBase) : Number.POSITIVE_INFINITY;
  let lengths = new Int32Array(256);
  return (logits_V, { ids, ...context }) => {
    const numIds = numIdsOf({ ids, ...context });
    const length = dryPenaltyLastN < 0 ? numIds : Math.min(numIds, dryPenaltyLastN);
    if (length <= dryAllowedLength) return;
    /** The i-th id from the end. */
    const back = (i: number): number => ids[numIds - 1 - i];
    const limit = untilBreaker(back, length, breakers);
    if (limit < dryAllowedLength) return;
    if (lengths.length < length) lengths = new Int32Array(2 * length);
    zLengths(back, length, lengths);
    const longest = new Map<number, number>();
    for (let i = 1; i < length; i++) {
      const repeated = Math.min(lengths[i], limit);
      if (repeated < dryAllowedLength) continue;
      // The id that followed the repetition then.
      const next = back(i - 1);
      if (repeated > (longest.get(next) ?? 0)) longest.set(next, repeated);
    }
    for (const [id, repeated] of longest) logits_V[id] -= dryMultiplier * dryBase ** Math.min(repeated - dryAllowedLength, maxExponent);
  };
}

/** How many ids at the end lie behind the last breaker. */
function untilBreaker(back: (i: number) => number, length: number, breakers: ReadonlyMap<number, readonly (readonly number[])[]>): number {
  for (let i = 0; i < length; i++) {
    for (const ids of breakers.get(back(i)) ?? []) {
      let matched = 0;
      while (matched < ids.length && i + matched < length && back(i + matched) === ids[ids.length - 1 - matched]) matched++;
      if (matched === ids.length) return i;
    }
  }
  return length;
}

/** z[i]: how far the sequence from i on equals the sequence from 0 on (Gusfield 1997, section 1.3). */
function zLengths(at: (i: number) => number, length: number, z: Int32Array): void {
  z[0] = length;
  for (let i = 1, left = 0, right = 0; i < length; i++) {
    let matched = i < right ? Math.min(right - i, z[i - left]) : 0;
    while (i + matched < length && at(i + matched) === at(matched)) matched++;
    z[i] = matched;
    if (i + matched > right) [left, right] = [i, i + matched];
  }
}

/**
 * Breakers for texts: every token whose text holds one of them ("\n", ":", "\"", "*" by default). A breaker that is several tokens only is
 * not found.
 * @param tokenBytes by id, as `tokenBytes` gives them.
 */
export function drySequenceBreakersOf(
  tokenBytes: readonly (Uint8Array | undefined)[],
  breakers: readonly string[] = ["\n", ":", '"', "*"],
): number[][] {
  const found: number[][] = [];
  for (const [id, bytes] of tokenBytes.entries()) {
    if (bytes && breakers.some((breaker) => Buffer.from(bytes).includes(breaker, 0, "utf8"))) found.push([id]);
  }
  return found;
}
