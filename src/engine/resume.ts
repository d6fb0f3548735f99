// Going on from a checkpoint: choose it, compare the configuration, hand it to the trainable; pass over damaged ones with a warning.
import { CheckpointError, FormatError } from "../base/errors.ts";
import { type Checkpoint, readCheckpoint } from "./checkpoint-manifest.ts";
import type { CheckpointReference, CheckpointStore } from "./checkpoints.ts";
import { compareConfigs, describeDifference, describeDifferences, isCovered } from "./config-difference.ts";
import type { JsonRecord, WarningCode } from "./events.ts";
import type { Trainable } from "./trainable.ts";

/** A checkpoint, or `"auto"`: the latest one if there is any, else a new run. */
export type ResumeReference = CheckpointReference | "auto";

export interface Resumed {
  /** Undefined when `auto` found nothing to resume. */
  readonly checkpoint: Checkpoint | undefined;
  readonly warnings: readonly { code: WarningCode; message: string; hint?: string }[];
}

/**
 * Restores the trainable.
 * @param changeable names of settings that may differ; see `changeableSettings`.
 * @throws CheckpointError when nothing can be resumed, or when another setting differs (all of them are listed).
 */
export async function resumeFrom(
  store: CheckpointStore,
  reference: ResumeReference,
  trainable: Trainable,
  config: JsonRecord,
  changeable: readonly string[],
): Promise<Resumed> {
  const warnings: { code: WarningCode; message: string; hint?: string }[] = [];
  const passOver = (error: Error): void => {
    warnings.push({ code: "checkpoint-unreadable", message: error.message, hint: "An earlier checkpoint is used instead." });
  };
  const restore = async (checkpoint: Checkpoint): Promise<Resumed> => {
    const changed = checkConfig(checkpoint, config, changeable);
    if (changed.length > 0) warnings.push({ code: "settings-changed", message: `resumed with other settings: ${changed.join(", ")}` });
    await trainable.restore(checkpoint.path, checkpoint.state);
    const later = store.steps().filter((step) => step > checkpoint.step);
    if (later.length > 0)
      warnings.push({
        code: "checkpoints-abandoned",
        message: `the run goes on from step ${checkpoint.step}; with the next save the checkpoints of steps ${later.join(", ")} are no part of it any more`,
        hint: "They stay beside the others as checkpoints/left-step-…, models like any other: remove them by hand.",
      });
    return { checkpoint, warnings };
  };

  if (reference !== "latest" && reference !== "auto") return restore(store.resolve(reference));
  const steps = store.steps().reverse();
  for (const step of steps) {
    let checkpoint: Checkpoint;
    try {
      checkpoint = readCheckpoint(store.pathOf(step));
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      passOver(error);
      continue;
    }
    // Outside the attempt: an earlier checkpoint of this run has the same configuration.
    checkConfig(checkpoint, config, changeable);
    try {
      return await restore(checkpoint);
    } catch (error) {
      // The sizes were right, the content is not: the trainable says so with one of these.
      if (!(error instanceof FormatError || error instanceof CheckpointError)) throw error;
      passOver(error);
    }
  }
  if (reference === "auto" && steps.length === 0) return { checkpoint: undefined, warnings };
  const reasons = warnings.map(({ message }) => message).join("; ");
  throw new CheckpointError(`${store.directory}: expected a checkpoint that can be resumed, got ${reasons || "none"}`, {
    hint: "Start the run anew.",
  });
}

/** @returns descriptions of the differences that are allowed. */
function checkConfig(checkpoint: Checkpoint, config: JsonRecord, changeable: readonly string[]): string[] {
  const differences = compareConfigs(checkpoint.config, config);
  const refused = differences.filter(({ path }) => !isCovered(path, changeable));
  if (refused.length > 0)
    throw new CheckpointError(
      `resume ${checkpoint.path}: expected the settings that the run was started with, got other ones: ${describeDifferences(refused)}`,
      { hint: "Give the saved values, or start a new run." },
    );
  return differences.map(describeDifference);
}
