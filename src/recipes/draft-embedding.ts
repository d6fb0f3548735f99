// A small model's token embedding from a large one's: rows along the principal axes of the tokens that it knows, so that tokens of like
// meaning are alike before the first step. Rare tokens, of which its texts tell little, gain most.

/**
 * Rows [ids, width] of `table` [V, C] along its `width` largest principal axes over those rows (not centred), scaled to a standard deviation.
 * By subspace iteration from fixed axes: the same result every time.
 */
export function projectedRows(
  table: Float32Array,
  tableWidth: number,
  ids: ArrayLike<number>,
  { width, std, iterations = 12 }: { width: number; std: number; iterations?: number },
): Float32Array<ArrayBuffer> {
  const gram = gramOf(table, tableWidth, ids);
  // [width, C], rows orthonormal. Axes of the features with most energy to begin with.
  const order = Array.from({ length: tableWidth }, (_, c) => c).sort((a, b) => gram[b * tableWidth + b] - gram[a * tableWidth + a]);
  let axes = new Float64Array(width * tableWidth);
  for (let k = 0; k < Math.min(width, tableWidth); k++) axes[k * tableWidth + order[k]] = 1;
  for (let i = 0; i < iterations; i++) {
    axes = product(axes, gram, width, tableWidth);
    orthonormalise(axes, width, tableWidth);
  }
  const rows = new Float32Array(ids.length * width);
  let energy = 0;
  for (let row = 0; row < ids.length; row++) {
    const from = ids[row] * tableWidth;
    for (let k = 0; k < width; k++) {
      let dot = 0;
      for (let c = 0, at = k * tableWidth; c < tableWidth; c++) dot += axes[at + c] * table[from + c];
      rows[row * width + k] = dot;
      energy += dot * dot;
    }
  }
  const scale = energy > 0 ? std / Math.sqrt(energy / rows.length) : 0;
  for (let i = 0; i < rows.length; i++) rows[i] *= scale;
  return rows;
}

/** Sum of x xᵀ over the rows, [C, C]. */
function gramOf(table: Float32Array, width: number, ids: ArrayLike<number>): Float64Array<ArrayBuffer> {
  const gram = new Float64Array(width * width);
  for (let row = 0; row < ids.length; row++) {
    const x = table.subarray(ids[row] * width, (ids[row] + 1) * width);
    for (let i = 0; i < width; i++) {
      const xi = x[i];
      for (let j = 0, at = i * width; j <= i; j++) gram[at + j] += xi * x[j];
    }
  }
  for (let i = 0; i < width; i++) for (let j = i + 1; j < width; j++) gram[i * width + j] = gram[j * width + i];
  return gram;
}

/** a [rows, width] times a symmetric b [width, width]. */
function product(a: Float64Array, b: Float64Array, rows: number, width: number): Float64Array<ArrayBuffer> {
  const result = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    const out = result.subarray(r * width, (r + 1) * width);
    for (let k = 0; k < width; k++) {
      const value = a[r * width + k];
      if (value === 0) continue;
      for (let c = 0, at = k * width; c < width; c++) out[c] += value * b[at + c];
    }
  }
  return result;
}

/** Gram and Schmidt's, modified, in place; rows without a direction of their own become zero. */
function orthonormalise(axes: Float64Array, rows: number, width: number): void {
  for (let r = 0; r < rows; r++) {
    const x = axes.subarray(r * width, (r + 1) * width);
    for (let q = 0; q < r; q++) {
      const y = axes.subarray(q * width, (q + 1) * width);
      let dot = 0;
      for (let c = 0; c < width; c++) dot += x[c] * y[c];
      for (let c = 0; c < width; c++) x[c] -= dot * y[c];
    }
    let norm = 0;
    for (let c = 0; c < width; c++) norm += x[c] * x[c];
    const scale = norm > 1e-30 ? 1 / Math.sqrt(norm) : 0;
    for (let c = 0; c < width; c++) x[c] *= scale;
  }
}
