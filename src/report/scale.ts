// Axes: a mapping from values to pixels, and round numbers to label it with.

export interface Scale {
  readonly kind: "linear" | "log";
  readonly domain: readonly [number, number];
  readonly range: readonly [number, number];
}

export function position({ kind, domain: [low, high], range: [from, to] }: Scale, value: number): number {
  const [a, b, x] = kind === "log" ? [Math.log(low), Math.log(high), Math.log(value)] : [low, high, value];
  return from + ((x - a) / (b - a)) * (to - from);
}

/** About `count` multiples of 1, 2 or 5 × a power of ten within the interval; only whole ones with `integers`. */
export function linearTicks(low: number, high: number, count: number, integers = false): number[] {
  const rough = (high - low) / count;
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  // The factor nearest to the rough step on a logarithmic scale: the limits are the geometric means of neighbours.
  const nice = [1, 2, 5].find((factor, i) => rough / power < Math.sqrt(factor * [2, 5, 10][i])) ?? 10;
  const step = integers ? Math.max(1, Math.round(nice * power)) : nice * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  // Multiples by division where the step is below 1: 3 × 0.1 is not 0.3.
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) =>
    step < 1 ? (first + i) / Math.round(1 / step) : (first + i) * step,
  );
}

/** Powers of ten, with 2 and 5 between them where there are few. */
export function logTicks(low: number, high: number): number[] {
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const decades = Math.log10(high / low);
  const factors = decades > 3 ? [1] : decades > 1.5 ? [1, 3] : [1, 2, 5];
  const every = Math.max(1, Math.ceil((to - from) / 6));
  const ticks: number[] = [];
  for (let power = from; power <= to; power += every) for (const factor of factors) ticks.push(factor * 10 ** power);
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

/** Room above and below the values; never beyond zero when they are all on one side, and down to zero when they come near it. */
export function paddedDomain(low: number, high: number): [number, number] {
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const pad = (high - low) * 0.06;
  const bottom = low >= 0 && low < (high - low) * 0.35 ? 0 : low - pad;
  const top = high <= 0 && -high < (high - low) * 0.35 ? 0 : high + pad;
  return [bottom, top];
}
