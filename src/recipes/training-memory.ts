// Whether a training step fits into the memory of the machine, said before anything is written.
import { UsageError } from "../base/errors.ts";
import type { DecoderEstimate } from "../models/decoder/estimate.ts";

/** Buffers that are used again and what is computed anew take less than the estimate of all activations; never less than this share. */
const minActivationShare = 0.5;
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
  const needed = trainingStateBytes + minActivationShare * activationBytes(batchSize * length);
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
