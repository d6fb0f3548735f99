// Temperature: logits / T, in float32.
import type { Candidates } from "./candidates.ts";

/** Divides the logits by `temperature` > 0: below 1 sharpens, above 1 flattens the distribution. */
export function applyTemperature(candidates: Candidates, temperature: number): void {
  // The divisor is rounded first, as float32 arithmetic does it, but never to zero.
  if (temperature !== 1) candidates.divide(Math.max(Math.fround(temperature), 2 ** -149));
}
