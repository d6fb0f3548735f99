// Whether a training step fits into the memory of the machine, said before anything is written.
import { UsageError } from "../base/errors.ts";
import type { DecoderEstimate } from "../models/decoder/estimate.ts";

/**
 * Less is never needed: weights and gradients are half of the state of AdamW, and of the activations that the estimate counts a part is not kept
 * (future scores, what is computed anew). Only what cannot fit is refused; 0.65 of the estimate was measured.
 */
const [minStateShare, minActivationShare] = [0.5, 0.2];
/** A suggested batch leaves room for everything else. */
const usableShare = 0.8;

/**
 * @param memoryBytes what the machine has.
 * @throws UsageError naming a batch size that fits, for a step that cannot.
 */
export function expectFittingStep(
  { trainingStateBytes, activationBytes }: Pick<DecoderEstimate, "trainingStateBytes" | "activationBytes">,
  { batchSize, length }: { batchSize: number; length: number },
  memoryBytes: number,
): void {
  const needed = minStateShare * trainingStateBytes + minActivationShare * activationBytes(batchSize * length);
  if (needed <= memoryBytes) return;
  const fitting = Math.floor((usableShare * memoryBytes - trainingStateBytes) / activationBytes(length));
  throw new UsageError(
    `batchSize: expected a step that fits into the ${gigabytes(memoryBytes)} of this machine, got ${batchSize} rows of ${length} tokens, which need ${gigabytes(needed)} or more`,
    {
      hint:
        fitting < 1
          ? "Give a smaller size or a shorter sequenceLength."
          : `Give batchSize ${fitting} or less; accumulate adds up several batches for one update.`,
    },
  );
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
