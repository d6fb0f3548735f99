// Positions at which there is no choice: the token after a prompt of one id, and the last token before the length limit.
import { type LogitsProcessor, numIdsOf } from "./context.ts";

/** Forces `tokenId` when the text so far is one id (the decoder's start token). */
export function forcedBosProcessor(tokenId: number): LogitsProcessor {
  return (logits_V, context) => {
    if (numIdsOf(context) === 1) force(logits_V, [tokenId]);
  };
}

/** Forces one of `tokenIds` as the last of `maxLength` ids, prompt included. */
export function forcedEosProcessor(tokenIds: readonly number[], maxLength: number): LogitsProcessor {
  return (logits_V, context) => {
    if (numIdsOf(context) === maxLength - 1) force(logits_V, tokenIds);
  };
}

function force(logits_V: Float32Array, tokenIds: readonly number[]): void {
  logits_V.fill(Number.NEGATIVE_INFINITY);
  for (const id of tokenIds) logits_V[id] = 0;
}
