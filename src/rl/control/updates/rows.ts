// Rows of a batch in the memory that programs are bound to.
import { headSize } from "../../../models/policy/config.ts";
import type { Policy } from "../../../models/policy/parameters.ts";
import type { TensorBuffer } from "../../../runtime/buffer.ts";

/** Shapes of the parameters of the distributions of `count` states. */
export function distributionShapes({ config: { head } }: Pick<Policy, "config">, count: number): number[][] {
  const rows = [count, headSize(head)];
  return head.kind === "gaussian" ? [rows, [head.size]] : head.kind === "gsde" ? [rows, rows] : [rows];
}

/** Rows of a source into the beginning of a bound buffer. */
export function gatherRows(
  source: ArrayLike<number>,
  order: ArrayLike<number>,
  from: number,
  count: number,
  width: number,
  { data }: TensorBuffer,
): void {
  const target = data as Float64Array;
  if (width === 1) {
    for (let i = 0; i < count; i++) target[i] = source[order[from + i]];
    return;
  }
  for (let i = 0, at = 0; i < count; i++) for (let j = 0, row = order[from + i] * width; j < width; j++) target[at++] = source[row + j];
}
