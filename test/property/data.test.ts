import fc from "fast-check";
import { expect, it } from "vitest";
import { BatchWriter } from "../../src/data/batch.ts";
import { corpusOf, type TextDocument } from "../../src/data/corpus.ts";
import { BatchLoader } from "../../src/data/loader.ts";
import { packDocuments } from "../../src/data/packing.ts";
import { permutation } from "../../src/data/permutation.ts";
import { splitDocuments } from "../../src/data/split.ts";
import { selectDocuments, tokensOf } from "../../src/data/token-source.ts";

const numRuns = process.env.LONGWAVE_TEST_LONG === "1" ? 5000 : 200;

const separatorToken = 1_000_000;
/** Every token occurs once, so that its place says everything. */
const documentsOf = (lengths: readonly number[]): number[][] => {
  let next = 1;
  return lengths.map((length) => Array.from({ length }, () => next++));
};
const lengths = fc.array(fc.nat(40), { minLength: 1, maxLength: 30 }).filter((list) => list.some((length) => length > 1));
const memory = (B: number, T: number) => ({
  inputs: new Int32Array(B * T),
  targets: new Int32Array(B * T),
  lossMask: new Float32Array(B * T),
  documentIds: new Int32Array(B * T),
  positions: new Int32Array(B * T),
});

it("a permutation meets every element once, for any size, seed and epoch", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3000 }), fc.nat(2 ** 40), fc.nat(100), (size, seed, epoch) => {
      const permute = permutation(size, seed, epoch);
      const seen = new Uint8Array(size);
      for (let i = 0; i < size; i++) seen[permute(i)]++;
      expect(seen.every((count) => count === 1)).toBe(true);
    }),
    { numRuns },
  );
});

it("a document keeps its side when others come, go or move", async () => {
  const collect = async (texts: string[], side: "train" | "validation") => {
    const found = new Set<string>();
    const documents: AsyncIterable<TextDocument> = corpusOf(texts).documents();
    for await (const { text } of splitDocuments(documents, side, { validation: 0.3, splitSeed: 5 })) found.add(text);
    return found;
  };
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(fc.string(), { maxLength: 30 }), fc.uniqueArray(fc.string(), { maxLength: 30 }), async (few, more) => {
      const both = [...more, ...few.toReversed()];
      for (const side of ["train", "validation"] as const) {
        const alone = await collect(few, side);
        const together = await collect(both, side);
        for (const text of few) expect(together.has(text)).toBe(alone.has(text));
      }
    }),
    { numRuns },
  );
});

it("the share of the validation side is the one asked for", async () => {
  const texts = Array.from({ length: 20_000 }, (_, i) => `document ${i}`);
  for (const validation of [0, 0.05, 0.5, 1]) {
    let count = 0;
    for await (const _ of splitDocuments(corpusOf(texts).documents(), "validation", { validation })) count++;
    // Five standard deviations of a binomial distribution.
    expect(Math.abs(count - 20_000 * validation)).toBeLessThanOrEqual(5 * Math.sqrt(20_000 * validation * (1 - validation)));
  }
});

it("concatenation keeps every token once as an input and once as a target, in order", () => {
  fc.assert(
    fc.property(
      lengths,
      fc.integer({ min: 1, max: 17 }),
      fc.constantFrom(null, "after", "before"),
      fc.nat(50),
      (sizes, T, place, shift) => {
        const documents = documentsOf(sizes);
        const separator = place === null ? null : separatorToken;
        const stream = documents.flatMap((document) =>
          place === null ? document : place === "after" ? [...document, separatorToken] : [separatorToken, ...document],
        );
        const rows = packDocuments(tokensOf(documents), { length: T, separator, separatorPlace: place ?? "after" });
        const inputs: number[] = [];
        const targets: number[] = [];
        const batch = memory(1, T);
        const writer = new BatchWriter(batch, 1, T);
        for (let row = 0; row < rows.numRows; row++) {
          rows.fill(row, writer, 0, shift);
          for (let t = 0; t < T; t++) {
            if (batch.documentIds[t] < 0) continue;
            inputs.push(batch.inputs[t]);
            targets.push(batch.targets[t]);
            if (t > 0) {
              const same = batch.documentIds[t] === batch.documentIds[t - 1];
              expect(batch.positions[t]).toBe(same ? batch.positions[t - 1] + 1 : 0);
              expect(batch.documentIds[t] - batch.documentIds[t - 1]).toBeLessThanOrEqual(1);
            }
          }
        }
        const turned = Array.from({ length: stream.length }, (_, i) => stream[(i + shift) % stream.length]);
        expect(inputs).toEqual(turned.slice(0, -1));
        expect(targets).toEqual(turned.slice(1));
        expect(rows.numPairs).toBe(inputs.length);
      },
    ),
    { numRuns },
  );
});

it("best-fit packing keeps every pair of every document once, in order and together", () => {
  fc.assert(
    fc.property(lengths, fc.integer({ min: 1, max: 17 }), fc.constantFrom(null, "after", "before"), (sizes, T, place) => {
      const documents = documentsOf(sizes);
      const separator = place === null ? null : separatorToken;
      const rows = packDocuments(tokensOf(documents), { length: T, mode: "bestFit", separator, separatorPlace: place ?? "after" });
      const batch = memory(1, T);
      const writer = new BatchWriter(batch, 1, T);
      const pairs = new Map<string, number>();
      let numPairs = 0;
      for (let row = 0; row < rows.numRows; row++) {
        rows.fill(row, writer, 0);
        for (let t = 0; t < T; t++) {
          const inside = batch.documentIds[t] >= 0;
          expect(batch.lossMask[t]).toBe(inside ? 1 : 0);
          if (!inside) continue;
          numPairs++;
          const pair = `${batch.inputs[t]} ${batch.targets[t]}`;
          pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
          // Within a document the next input is this target.
          if (batch.positions[t] > 0) expect(batch.inputs[t]).toBe(batch.targets[t - 1]);
        }
      }
      const expected = new Map<string, number>();
      for (const document of documents) {
        const tokens = place === null ? document : place === "after" ? [...document, separatorToken] : [separatorToken, ...document];
        for (let i = 1; i < tokens.length; i++) expected.set(`${tokens[i - 1]} ${tokens[i]}`, 1);
      }
      expect(pairs).toEqual(expected);
      expect(rows.numPairs).toBe(numPairs);
      // Documents that fit a row are in one piece.
      const uncut = documents.filter((document) => document.length > 1 && document.length + (place === null ? 0 : 1) - 1 <= T);
      for (const document of uncut) {
        let found = 0;
        for (let row = 0; row < rows.numRows; row++) {
          rows.fill(row, writer, 0);
          const at = batch.inputs.indexOf(document[0]);
          if (at >= 0 && document.slice(0, -1).every((token, i) => batch.inputs[at + i] === token)) found++;
        }
        expect(found).toBe(1);
      }
    }),
    { numRuns },
  );
});

it("a restored position gives the same batches", () => {
  fc.assert(
    fc.property(
      lengths,
      fc.integer({ min: 1, max: 5 }),
      fc.nat(30),
      fc.nat(),
      fc.boolean(),
      fc.constantFrom("concatenate", "bestFit"),
      (sizes, batchSize, steps, seed, shuffle, mode) => {
        const rows = packDocuments(tokensOf(documentsOf(sizes)), { length: 5, mode, separator: separatorToken });
        const options = { batchSize, seed, shuffle, shiftWindows: mode === "concatenate" };
        const first = memory(batchSize, 5);
        const loader = new BatchLoader(rows, first, options);
        for (let step = 0; step < steps; step++) loader.next();
        const saved = JSON.parse(JSON.stringify(loader.position));
        const second = memory(batchSize, 5);
        const resumed = new BatchLoader(rows, second, options);
        resumed.restore(saved);
        for (let step = 0; step < 12; step++) {
          loader.next();
          resumed.next();
          expect(second).toEqual(first);
        }
        expect(resumed.position).toEqual(loader.position);
      },
    ),
    { numRuns },
  );
});

it("a selection reads any range as the documents joined", () => {
  fc.assert(
    fc.property(lengths, fc.integer({ min: 1, max: 5 }), fc.nat(), fc.nat(), (sizes, every, a, b) => {
      const documents = documentsOf(sizes);
      const chosen = selectDocuments(tokensOf(documents), (document) => document % every === 0);
      const joined = documents.filter((_, i) => i % every === 0).flat();
      expect(chosen.numTokens).toBe(joined.length);
      const [start, end] = [a % (joined.length + 1), b % (joined.length + 1)].sort((x, y) => x - y);
      const ids = new Int32Array(end - start + 2);
      chosen.read(start, ids, 1, end - start);
      expect([...ids]).toEqual([0, ...joined.slice(start, end), 0]);
    }),
    { numRuns },
  );
});
