// Thinning and smoothing of series before they are drawn.
import type { Series } from "./run-record.ts";

/** More neighbours would take long and tell no more. */
const maxSigma = 4000;

/**
 * Gaussian average over neighbours on both sides (standard deviation: 1/60 of the series, at least 1.2 values), at `limit` evenly spaced
 * places. Unlike a moving average of the past it does not lag behind. Values that are not finite do not count.
 * Undefined where there are too few values for it to say anything.
 */
export function smooth({ steps, values }: Series, limit: number): Series | undefined {
  const count = values.length;
  if (count < 20) return undefined;
  const sigma = Math.min(maxSigma, Math.max(1.2, count / 60));
  const reach = Math.ceil(3 * sigma);
  const kernel = Array.from({ length: reach + 1 }, (_, distance) => Math.exp(-0.5 * (distance / sigma) ** 2));
  const places = evenly(count, limit);
  const smoothed = places.map((place) => {
    let sum = 0;
    let weight = 0;
    for (let i = Math.max(0, place - reach); i <= Math.min(count - 1, place + reach); i++) {
      if (!Number.isFinite(values[i])) continue;
      const share = kernel[Math.abs(i - place)];
      sum += share * values[i];
      weight += share;
    }
    return weight > 0 ? sum / weight : Number.NaN;
  });
  return { steps: places.map((place) => steps[place]), values: smoothed };
}

/** Indices of at most `limit` values: of every bucket its lowest and highest, so that no peak is lost; first and last always. */
export function extremes(values: readonly number[], limit: number): number[] {
  if (values.length <= limit) return values.map((_, i) => i);
  const numBuckets = Math.max(1, Math.floor(limit / 2) - 1);
  const chosen = new Set([0, values.length - 1]);
  for (let bucket = 0; bucket < numBuckets; bucket++) {
    const from = Math.floor((bucket * values.length) / numBuckets);
    const to = Math.floor(((bucket + 1) * values.length) / numBuckets);
    let low = from;
    let high = from;
    for (let i = from; i < to; i++) {
      if (values[i] < values[low] || Number.isNaN(values[low])) low = i;
      if (values[i] > values[high] || Number.isNaN(values[high])) high = i;
    }
    chosen.add(low).add(high);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** Indices of at most `limit` evenly spaced values, first and last among them. */
export function evenly(length: number, limit: number): number[] {
  if (length <= limit) return Array.from({ length }, (_, i) => i);
  if (limit < 2) return [length - 1];
  return Array.from({ length: limit }, (_, i) => Math.round((i * (length - 1)) / (limit - 1)));
}

export const at = ({ steps, values }: Series, indices: readonly number[]): Series => ({
  steps: indices.map((i) => steps[i]),
  values: indices.map((i) => values[i]),
});

export const lastFinite = ({ values }: Series): number | undefined => values.findLast(Number.isFinite);
export const firstFinite = ({ values }: Series): number | undefined => values.find(Number.isFinite);

export function median(values: readonly number[]): number | undefined {
  const finite = values.filter(Number.isFinite).sort((a, b) => a - b);
  return finite.length === 0 ? undefined : finite[Math.floor(finite.length / 2)];
}
