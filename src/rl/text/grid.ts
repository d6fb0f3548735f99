// Completions laid out for the programs: rows of prompt and completion, right-padded, and values a token on the grid [R, C].
import type { GridSize } from "./policy-programs.ts";
import type { Completion } from "./rollouts.ts";

/** A completion with what is known of each of its tokens. */
export interface PolicyRow {
  readonly promptIds: ArrayLike<number>;
  readonly completion: Completion;
  /** Number of its group. */
  readonly group: number;
  /** Counts in the loss: false for truncated completions that are masked. */
  readonly counts: boolean;
  /** One a token. */
  advantages: Float64Array;
  oldLogProbs: Float64Array;
  refLogProbs: Float64Array | undefined;
  /** Constant factors of the policy term. */
  factors: Float64Array | undefined;
  entropies: Float64Array | undefined;
}

/** Smallest grid that holds the rows. */
export function sizesOf(rows: readonly PolicyRow[]): { time: number; columns: number } {
  let [time, columns] = [1, 1];
  for (const { promptIds, completion } of rows) {
    time = Math.max(time, promptIds.length + completion.ids.length - 1);
    columns = Math.max(columns, completion.ids.length);
  }
  return { time, columns };
}

interface Tokens {
  readonly ids: { readonly data: Int32Array };
  readonly places: { readonly data: Int32Array };
  readonly targets: { readonly data: Int32Array };
}

/** Writes the tokens of up to R rows; what is left over is padding that no value depends on. */
export function writeTokens({ ids, places, targets }: Tokens, { time, columns }: GridSize, rows: readonly PolicyRow[]): void {
  ids.data.fill(0);
  places.data.fill(0);
  targets.data.fill(0);
  for (const [r, { promptIds, completion }] of rows.entries()) {
    const start = r * time;
    ids.data.set(promptIds as Int32Array, start);
    // The last token is predicted and predicts nothing.
    ids.data.set(completion.ids.subarray(0, completion.ids.length - 1), start + promptIds.length);
    targets.data.set(completion.ids, r * columns);
    for (let t = 0; t < completion.ids.length; t++) places.data[r * columns + t] = start + promptIds.length - 1 + t;
  }
}

/** Values of each token on the grid, 0 where there is none. */
export function writeGrid(
  target: Float32Array,
  { columns }: GridSize,
  rows: readonly PolicyRow[],
  valuesOf: (row: PolicyRow) => ArrayLike<number> | undefined,
): void {
  target.fill(0);
  for (const [r, row] of rows.entries()) {
    const values = valuesOf(row);
    if (values) target.set(values, r * columns);
  }
}

/** The values of each row's tokens from the grid. */
export function readGrid(source: Float32Array, { columns }: GridSize, rows: readonly PolicyRow[]): Float64Array[] {
  return rows.map(({ completion }, r) => Float64Array.from(source.subarray(r * columns, r * columns + completion.ids.length)));
}

/** Weights of a rule of aggregation by row, from `aggregationWeights` over a mask of the rows' tokens. */
export function maskOf(rows: readonly PolicyRow[]): { mask: Uint8Array; length: number } {
  const { columns: length } = sizesOf(rows);
  const mask = new Uint8Array(rows.length * length);
  for (const [r, { completion, counts }] of rows.entries()) if (counts) mask.fill(1, r * length, r * length + completion.ids.length);
  return { mask, length };
}
