// Sums over plain numbers in float64 that leave out NaN: a NaN reward means "this function gave no reward".

/** How many values are not NaN. */
export function countOf(values: ArrayLike<number>): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (!Number.isNaN(values[i])) count++;
  return count;
}

/** Mean of the values that are not NaN; NaN when there are none. */
export function meanOf(values: ArrayLike<number>): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue;
    sum += values[i];
    count++;
  }
  return sum / count;
}

/** Standard deviation of the values that are not NaN, divided by count − ddof; 0 where that is not positive. */
export function stdOf(values: ArrayLike<number>, ddof: 0 | 1 = 1): number {
  const mean = meanOf(values);
  let [squares, count] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue;
    squares += (values[i] - mean) ** 2;
    count++;
  }
  return count > ddof ? Math.sqrt(squares / (count - ddof)) : 0;
}

/** Standard error of the mean of independent values; 0 for fewer than two. */
export const standardErrorOf = (values: ArrayLike<number>): number => stdOf(values) / Math.sqrt(Math.max(1, countOf(values)));

/** The p-quantile of sorted values, linear between neighbours (as NumPy and PyTorch). */
export function quantileOf(sorted: ArrayLike<number>, p: number): number {
  const place = p * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}
