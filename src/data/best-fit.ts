// Best-fit decreasing bin packing in O((n + T) log T): sizes are integers up to the row length, so that a tree over the free space
// finds the fullest row that still fits. Deterministic: among equals, the row opened last is taken.

export interface BestFitRows {
  /** Row r holds `rowPieces[rowStarts[r] .. rowStarts[r + 1]]`. */
  readonly rowStarts: Uint32Array;
  /** Numbers of pieces: increasing within a row; rows are in the order of their first piece. */
  readonly rowPieces: Uint32Array;
}

/** Packs pieces of 1 to `capacity` into rows. */
export function bestFitRows(sizes: Uint32Array, capacity: number): BestFitRows {
  const rowOf = new Uint32Array(sizes.length);
  const numRows = assignRows(sizes, capacity, rowOf);
  return groupByRow(rowOf, numRows);
}

function assignRows(sizes: Uint32Array, capacity: number, rowOf: Uint32Array): number {
  const rows = new FreeSpace(capacity, sizes.length);
  let numRows = 0;
  for (const piece of byDecreasingSize(sizes, capacity)) {
    const size = sizes[piece];
    let free = rows.smallestAtLeast(size);
    let row: number;
    if (free < 0) {
      row = numRows++;
      free = capacity;
    } else row = rows.take(free);
    rowOf[piece] = row;
    if (free > size) rows.put(row, free - size);
  }
  return numRows;
}

/** Counting sort, stable. */
function byDecreasingSize(sizes: Uint32Array, capacity: number): Uint32Array {
  const next = new Uint32Array(capacity + 2);
  for (const size of sizes) next[capacity - size + 1]++;
  for (let i = 1; i < next.length; i++) next[i] += next[i - 1];
  const order = new Uint32Array(sizes.length);
  for (let piece = 0; piece < sizes.length; piece++) order[next[capacity - sizes[piece]]++] = piece;
  return order;
}

/** Renumbers rows by their first piece and lists the pieces of each in order. */
function groupByRow(rowOf: Uint32Array, numRows: number): BestFitRows {
  const renumbered = new Int32Array(numRows).fill(-1);
  const rowStarts = new Uint32Array(numRows + 1);
  let seen = 0;
  for (const row of rowOf) {
    if (renumbered[row] < 0) renumbered[row] = seen++;
    rowStarts[renumbered[row] + 1]++;
  }
  for (let row = 0; row < numRows; row++) rowStarts[row + 1] += rowStarts[row];
  const next = rowStarts.slice();
  const rowPieces = new Uint32Array(rowOf.length);
  for (let piece = 0; piece < rowOf.length; piece++) rowPieces[next[renumbered[rowOf[piece]]]++] = piece;
  return { rowStarts, rowPieces };
}

/** Rows by free space: a linked stack for every amount, and a binary tree of counts that finds the next amount in use. */
class FreeSpace {
  private readonly leaves: number;
  private readonly counts: Uint32Array;
  private readonly top: Int32Array;
  private readonly below: Int32Array;

  constructor(capacity: number, maxRows: number) {
    this.leaves = 2 ** Math.ceil(Math.log2(capacity + 1));
    this.counts = new Uint32Array(2 * this.leaves);
    this.top = new Int32Array(capacity + 1).fill(-1);
    this.below = new Int32Array(maxRows);
  }

  put(row: number, free: number): void {
    this.below[row] = this.top[free];
    this.top[free] = row;
    for (let node = free + this.leaves; node > 0; node >>= 1) this.counts[node]++;
  }

  take(free: number): number {
    const row = this.top[free];
    this.top[free] = this.below[row];
    for (let node = free + this.leaves; node > 0; node >>= 1) this.counts[node]--;
    return row;
  }

  /** The smallest amount of at least `size` that some row has, or -1. */
  smallestAtLeast(size: number): number {
    let node = size + this.leaves;
    if (this.counts[node] > 0) return size;
    // Up until a right sibling is in use, then down its leftmost path.
    for (; node > 1; node >>= 1) {
      if (node % 2 === 0 && this.counts[node + 1] > 0) {
        node++;
        while (node < this.leaves) node = this.counts[2 * node] > 0 ? 2 * node : 2 * node + 1;
        return node - this.leaves;
      }
    }
    return -1;
  }
}
