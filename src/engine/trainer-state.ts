// What a checkpoint holds besides the model: live buffers (moments, averages) in trainer.safetensors and small values in trainer.json.
import { join } from "node:path";
import type { z } from "zod";
import { CheckpointError } from "../base/errors.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { writeSafetensors } from "../formats/safetensors-write.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import type { JsonRecord } from "./events.ts";

const fileName = "trainer.safetensors";

export type NamedBuffers = Readonly<Record<string, TensorBuffer>>;

/** Writes buffers by name. @throws CheckpointError. */
export function saveTrainerState(directory: string, buffers: NamedBuffers): void {
  const tensors = Object.entries(buffers).map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, data }));
  writeSafetensors(join(directory, fileName), tensors);
}

/**
 * Reads the buffers and the parameters of a checkpoint back in place.
 * @param saved the parameters as they were loaded from it.
 * @throws CheckpointError for parameters of another layout, FormatError for buffers that are missing or of another shape.
 */
export function restoreTrainerState(
  directory: string,
  { live, saved, buffers }: { live: FlatBuffer<unknown>; saved: FlatBuffer<unknown>; buffers: NamedBuffers },
): void {
  if (JSON.stringify(saved.layout) !== JSON.stringify(live.layout))
    throw new CheckpointError(`${directory}: expected a checkpoint of this model, got one of another shape`, {
      hint: "Resume with the model and the settings that the run was started with.",
    });
  using source = openSafetensors(join(directory, fileName));
  for (const [name, buffer] of Object.entries(buffers)) source.readInto(name, buffer);
  (live.buffer.data as Float32Array).set(saved.buffer.data as Float32Array);
}

/**
 * The small values of a checkpoint, checked.
 * @param expected what they are, and of what run: `["a position in the data", "a training run of a language model"]`.
 * @throws CheckpointError.
 */
export function checkTrainerState<S extends z.ZodType>(
  schema: S,
  state: JsonRecord,
  directory: string,
  [expected, run]: readonly [string, string],
): z.output<S> {
  const parsed = schema.safeParse(state);
  if (parsed.success) return parsed.data;
  throw new CheckpointError(`${directory}: expected ${expected}, got ${JSON.stringify(state).slice(0, 60)}`, {
    hint: `This checkpoint was not written by ${run}.`,
  });
}
