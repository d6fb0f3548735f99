import { describe, expect, it } from "vitest";
import { DataError, ShapeError, UsageError } from "../base/errors.ts";
import { type Batch, BatchWriter } from "./batch.ts";
import { bestFitRows } from "./best-fit.ts";
import { BatchLoader, evaluationBatches } from "./loader.ts";
import { type PackingOptions, packDocuments } from "./packing.ts";
import { permutation } from "./permutation.ts";
import { selectDocuments, splitTokens, tokensOf } from "./token-source.ts";

const memory = (B: number, T: number) => ({
  inputs: new Int32Array(B * T),
  targets: new Int32Array(B * T),
  lossMask: new Float32Array(B * T),
  documentIds: new Int32Array(B * T),
  positions: new Int32Array(B * T),
});

function rowsOf(documents: number[][], options: PackingOptions, shift = 0) {
  const rows = packDocuments(tokensOf(documents), options);
  return Array.from({ length: rows.numRows }, (_, row) => {
    const batch = memory(1, rows.length);
    rows.fill(row, new BatchWriter(batch, 1, rows.length), 0, shift);
    return Object.fromEntries(Object.entries(batch).map(([name, array]) => [name, [...array]]));
  });
}

describe("concatenate", () => {
  const documents = [[1, 2, 3], [4], [], [5, 6, 7]];

  it("joins documents with separators after them", () => {
    expect(rowsOf(documents, { length: 6, separator: 9, padding: 8 })).toEqual([
      {
        inputs: [1, 2, 3, 9, 4, 9],
        targets: [2, 3, 9, 4, 9, 9],
        lossMask: [1, 1, 1, 1, 1, 1],
        documentIds: [0, 0, 0, 0, 1, 1],
        positions: [0, 1, 2, 3, 0, 1],
      },
      {
        inputs: [9, 5, 6, 7, 8, 8],
        targets: [5, 6, 7, 9, 8, 8],
        lossMask: [1, 1, 1, 1, 0, 0],
        documentIds: [0, 1, 1, 1, -1, -1],
        positions: [0, 0, 1, 2, 0, 0],
      },
    ]);
  });

  it("puts separators before documents, and masks targets that cross", () => {
    const options = { length: 4, separator: 9, separatorPlace: "before", crossDocumentTargets: false } as const;
    expect(rowsOf(documents, options)).toMatchObject([
      { inputs: [9, 1, 2, 3], targets: [1, 2, 3, 9], lossMask: [1, 1, 1, 0], documentIds: [0, 0, 0, 0] },
      { inputs: [9, 4, 9, 9], targets: [4, 9, 9, 5], lossMask: [1, 0, 0, 1], documentIds: [0, 0, 1, 2] },
      { inputs: [5, 6, 0, 0], targets: [6, 7, 0, 0], lossMask: [1, 1, 0, 0], positions: [0, 1, 0, 0] },
    ]);
  });

  it("works without a separator and around the end of the stream", () => {
    expect(rowsOf(documents, { length: 3 })).toMatchObject([
      { inputs: [1, 2, 3], targets: [2, 3, 4] },
      { inputs: [4, 5, 6], targets: [5, 6, 7] },
    ]);
    expect(rowsOf(documents, { length: 3 }, 2)).toMatchObject([
      { inputs: [3, 4, 5], targets: [4, 5, 6], documentIds: [0, 1, 2] },
      { inputs: [6, 7, 1], targets: [7, 1, 2], documentIds: [0, 0, 1] },
    ]);
  });
});

describe("bestFit", () => {
  it("packs whole documents, cuts only longer ones, and crosses no boundary", () => {
    const documents = [[1, 2, 3, 4, 5, 6, 7], [11, 12], [21, 22, 23], [31]];
    expect(rowsOf(documents, { length: 4, mode: "bestFit", separator: 9, padding: 8 })).toEqual([
      {
        inputs: [1, 2, 3, 4],
        targets: [2, 3, 4, 5],
        lossMask: [1, 1, 1, 1],
        documentIds: [0, 0, 0, 0],
        positions: [0, 1, 2, 3],
      },
      {
        inputs: [5, 6, 7, 8],
        targets: [6, 7, 9, 8],
        lossMask: [1, 1, 1, 0],
        documentIds: [0, 0, 0, -1],
        positions: [0, 1, 2, 0],
      },
      {
        inputs: [11, 12, 8, 8],
        targets: [12, 9, 8, 8],
        lossMask: [1, 1, 0, 0],
        documentIds: [0, 0, -1, -1],
        positions: [0, 1, 0, 0],
      },
      {
        inputs: [21, 22, 23, 31],
        targets: [22, 23, 9, 9],
        lossMask: [1, 1, 1, 1],
        documentIds: [0, 0, 0, 1],
        positions: [0, 1, 2, 0],
      },
    ]);
  });

  it("drops documents of one token when there is no separator: they have no target", () => {
    expect(rowsOf([[1], [2, 3]], { length: 4, mode: "bestFit" })).toMatchObject([{ inputs: [2, 0, 0, 0], targets: [3, 0, 0, 0] }]);
  });

  it("fills rows as tightly as exhaustive best-fit decreasing", () => {
    let state = 7;
    for (let round = 0; round < 30; round++) {
      const sizes = Uint32Array.from({ length: 60 }, () => 1 + ((state = (state * 1103515245 + 12345) % 2 ** 31) % 17));
      const free: number[] = [];
      for (const size of [...sizes].sort((a, b) => b - a)) {
        let best = -1;
        for (const [row, space] of free.entries()) if (space >= size && (best < 0 || space < free[best])) best = row;
        if (best < 0) free.push(17 - size);
        else free[best] -= size;
      }
      const { rowStarts, rowPieces } = bestFitRows(sizes, 17);
      expect(rowStarts.length - 1).toBe(free.length);
      expect([...rowPieces].sort((a, b) => a - b)).toEqual(sizes.reduce<number[]>((list) => [...list, list.length], []));
      for (let row = 0; row + 1 < rowStarts.length; row++) {
        const total = rowPieces.subarray(rowStarts[row], rowStarts[row + 1]).reduce((sum, piece) => sum + sizes[piece], 0);
        expect(total).toBeLessThanOrEqual(17);
      }
    }
  });
});

describe("options", () => {
  it("are checked", () => {
    const source = tokensOf([[1, 2, 3]]);
    expect(() => packDocuments(source, { length: 0 })).toThrow(UsageError);
    expect(() => packDocuments(source, { length: 2, seperator: 1 } as never)).toThrow(/separator/);
    expect(() => packDocuments(tokensOf([[1]]), { length: 2 })).toThrow(DataError);
    expect(() => packDocuments(tokensOf([]), { length: 2 })).toThrow(DataError);
    const rows = packDocuments(source, { length: 2 });
    expect(() => new BatchLoader(rows, memory(2, 3), { batchSize: 2 })).toThrow(ShapeError);
    expect(() => new BatchLoader(rows, memory(1, 2), { batchSize: 1, rank: 1 })).toThrow(UsageError);
    const packed = packDocuments(source, { length: 2, mode: "bestFit" });
    expect(() => new BatchLoader(packed, memory(1, 2), { batchSize: 1, shiftWindows: true })).toThrow(UsageError);
  });
});

describe("batches", () => {
  const rows = packDocuments(tokensOf([Array.from({ length: 41 }, (_, i) => i)]), { length: 4 });

  it("fills 64-bit memory as well", () => {
    const batch: Batch = { inputs: new BigInt64Array(8), targets: new BigInt64Array(8), documentIds: new BigInt64Array(8) };
    const writer = new BatchWriter(batch, 2, 4);
    rows.fill(9, writer, 0);
    writer.pad(1, 0, 5);
    expect([...batch.inputs]).toEqual([36n, 37n, 38n, 39n, 5n, 5n, 5n, 5n]);
    expect([...batch.documentIds!]).toEqual([0n, 0n, 0n, 0n, -1n, -1n, -1n, -1n]);
  });

  it("gives every row once an epoch, in another order each, without dropping any", () => {
    const batch = memory(3, 4);
    const loader = new BatchLoader(rows, batch, { batchSize: 3, seed: 1 });
    const seen: number[] = [];
    for (let step = 0; step < 20; step++) {
      loader.next();
      for (let slot = 0; slot < 3; slot++) seen.push(batch.inputs[slot * 4] / 4);
    }
    const epochs = Array.from({ length: 6 }, (_, epoch) => seen.slice(epoch * 10, epoch * 10 + 10));
    for (const epoch of epochs) expect([...epoch].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(new Set(epochs.map(String)).size).toBe(6);
    expect(loader.position).toEqual({ epoch: 6, index: 0 });
  });

  it("shares the global batch among processes", () => {
    const alone = memory(6, 4);
    const together = new BatchLoader(rows, alone, { batchSize: 6, seed: 4 });
    const shares = [0, 1, 2].map((rank) => {
      const batch = memory(2, 4);
      return { batch, loader: new BatchLoader(rows, batch, { batchSize: 2, rank, worldSize: 3, seed: 4 }) };
    });
    for (let step = 0; step < 12; step++) {
      together.next();
      for (const { loader } of shares) loader.next();
      expect(shares.flatMap(({ batch }) => [...batch.inputs])).toEqual([...alone.inputs]);
      for (const { loader } of shares) expect(loader.position).toEqual(together.position);
    }
  });

  it("shifts the windows every epoch, and every pair still comes once", () => {
    const batch = memory(1, 4);
    const loader = new BatchLoader(rows, batch, { batchSize: 1, shiftWindows: true });
    const firsts = new Set<number>();
    for (let epoch = 0; epoch < 8; epoch++) {
      const inputs: number[] = [];
      for (let row = 0; row < 10; row++) {
        loader.next();
        inputs.push(...batch.inputs);
      }
      expect(new Set(inputs).size).toBe(40);
      firsts.add(inputs[0] % 4);
    }
    expect(firsts.size).toBeGreaterThan(1);
  });

  it("refuses a position of other data", () => {
    const loader = new BatchLoader(rows, memory(1, 4), { batchSize: 1 });
    expect(() => loader.restore({ epoch: 0, index: 10 })).toThrow(/expected an epoch and one of 10 rows/);
    expect(() => loader.restore({ epoch: -1, index: 0 })).toThrow();
  });

  it("goes through all rows once for evaluation and pads the last batch", () => {
    const batch = memory(4, 4);
    const seen: number[] = [];
    const real = [...evaluationBatches(rows, batch, { batchSize: 4 })].length;
    for (const count of evaluationBatches(rows, batch, { batchSize: 4 })) {
      for (let slot = 0; slot < count; slot++) seen.push(batch.inputs[slot * 4] / 4);
      expect(batch.lossMask.reduce((sum, weight) => sum + weight, 0)).toBe(count * 4);
    }
    expect(real).toBe(3);
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...evaluationBatches(rows, batch, { batchSize: 4, maxBatches: 2 })]).toEqual([4, 4]);
  });
});

describe("permutation", () => {
  it("is uniform: every element comes to every place about equally often", () => {
    const n = 10;
    const epochs = 4000;
    const counts = Array.from({ length: n }, () => new Array<number>(n).fill(0));
    for (let epoch = 0; epoch < epochs; epoch++) {
      const permute = permutation(n, 3, epoch);
      for (let i = 0; i < n; i++) counts[i][permute(i)]++;
    }
    const expected = epochs / n;
    const chiSquare = counts.flat().reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 81 degrees of freedom: mean 81, standard deviation 12.7.
    expect(chiSquare).toBeLessThan(81 + 5 * 12.7);
    expect(chiSquare).toBeGreaterThan(81 - 5 * 12.7);
  });

  it("leaves neighbours apart", () => {
    const n = 100_000;
    const permute = permutation(n, 0, 0);
    let near = 0;
    for (let i = 1; i < n; i++) if (Math.abs(permute(i) - permute(i - 1)) < n / 100) near++;
    // Two random places are that near with probability 0.0199; standard deviation 44 of 1990.
    expect(Math.abs(near - 1990)).toBeLessThan(5 * 44);
  });

  it("refuses sizes that it cannot represent", () => {
    for (const size of [0, -1, 1.5, 2 ** 53]) expect(() => permutation(size, 0, 0)).toThrow(UsageError);
    const permute = permutation(2 ** 52, 0, 0);
    expect(Number.isSafeInteger(permute(2 ** 52 - 1))).toBe(true);
  });
});

describe("sides of a source", () => {
  it("are views that together hold every document", () => {
    const documents = Array.from({ length: 200 }, (_, i) => Array.from({ length: i % 5 }, () => i));
    const hashes = documents.map((_, i) => (i * 2654435761) >>> 0);
    const { train, validation } = splitTokens(tokensOf(documents, hashes), { validation: 0.3 });
    expect(train.numDocuments + validation.numDocuments).toBe(200);
    for (const side of [train, validation]) {
      const ids = new Int32Array(side.numTokens);
      side.read(0, ids, 0, ids.length);
      let at = 0;
      for (let document = 0; document < side.numDocuments; document++) {
        expect(side.documentStart(document)).toBe(at);
        const { length } = documents[hashes.indexOf(side.documentHash(document))];
        at += length;
      }
      const one = new Int32Array(1);
      for (let i = 0; i < ids.length; i++) {
        side.read(i, one, 0, 1);
        expect(one[0]).toBe(ids[i]);
      }
    }
  });

  it("name the side that got nothing", () => {
    expect(() => splitTokens(tokensOf([[1, 2]]))).toThrow(/expected documents for (train|validation), got none of 1/);
    expect(splitTokens(tokensOf([[1, 2]]), { validation: 0 }).train.numTokens).toBe(2);
    expect(selectDocuments(tokensOf([[1]]), () => false).numTokens).toBe(0);
  });
});
