import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { FormatError } from "../../src/base/errors.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { bitsPerSafetensorsElement, fromSafetensorsDType, type SafetensorsDType } from "../../src/formats/safetensors-dtype.ts";
import { writeSafetensors } from "../../src/formats/safetensors-write.ts";
import { allocate } from "../../src/runtime/buffer.ts";

const long = process.env.LONGWAVE_TEST_LONG === "1";
let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-property-"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const wholeByteTypes = (Object.keys(bitsPerSafetensorsElement) as SafetensorsDType[]).filter(
  (type) => bitsPerSafetensorsElement[type] % 8 === 0,
);

const tensor = fc
  .record({
    name: fc.oneof(fc.string({ unit: "grapheme", minLength: 1 }), fc.constantFrom("__proto__", "constructor", 'quote"\\\n', "é😀")),
    dtype: fc.constantFrom(...wholeByteTypes),
    shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }),
  })
  .chain(({ name, dtype, shape }) => {
    const bytes = (shape.reduce((product, dimension) => product * dimension, 1) * bitsPerSafetensorsElement[dtype]) / 8;
    return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data) => ({ name, dtype, shape, data }));
  });
const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 12 });
const metadata = fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), { noNullPrototype: true });

it("what is written is read back: every type, name, shape and byte", () => {
  const path = join(root, "round.safetensors");
  fc.assert(
    fc.property(tensors, metadata, (list, strings) => {
      writeSafetensors(path, list, { metadata: strings });
      using file = openSafetensors(path);
      expect(file.metadata).toEqual(new Map(Object.entries(strings)));
      expect([...file.entries.keys()].sort()).toEqual(list.map(({ name }) => name).sort());
      for (const { name, dtype, shape, data } of list) {
        expect(file.entries.get(name)).toMatchObject({ dtype, shape });
        const bytes = new Uint8Array(data.length);
        file.readBytesInto(name, bytes);
        expect(bytes).toEqual(data);
        const inMemory = fromSafetensorsDType(dtype);
        if (inMemory === undefined) continue;
        const buffer = allocate(inMemory, shape);
        file.readInto(name, buffer);
        expect(new Uint8Array(buffer.data.buffer, buffer.data.byteOffset, buffer.data.byteLength)).toEqual(data);
      }
    }),
    { numRuns: long ? 1000 : 100 },
  );
});

it("a mutated file is refused with a FormatError or is consistent; it never crashes, hangs or allocates beyond its size", () => {
  const path = join(root, "mutated.safetensors");
  writeSafetensors(path, [
    { name: "layers.0.weight", dtype: "f32", shape: [4, 3], data: new Float32Array(12) },
    { name: "layers.0.bias", dtype: "bf16", shape: [3], data: new Uint16Array(3) },
    { name: "ids", dtype: "i64", shape: [2], data: new BigInt64Array(2) },
  ]);
  const original = new Uint8Array(readFileSync(path));
  const headerEnd = original.length - 70;
  // Bytes that matter to the grammar come up more often than others.
  const byte = fc.oneof(fc.constantFrom(...Buffer.from('{}[]",:0123456789\\ue-.+ \n')), fc.integer({ min: 0, max: 255 }));
  const edit = fc.record({
    kind: fc.constantFrom("replace", "insert", "delete", "truncate", "repeat"),
    at: fc.integer({ min: 0, max: headerEnd - 1 }),
    value: byte,
    count: fc.integer({ min: 1, max: 40 }),
  });
  const apply = (bytes: Uint8Array, { kind, at, value, count }: { kind: string; at: number; value: number; count: number }): Uint8Array => {
    const list = [...bytes];
    if (kind === "replace") list[at] = value;
    else if (kind === "insert") list.splice(at, 0, value);
    else if (kind === "delete") list.splice(at, count);
    else if (kind === "truncate") list.length = Math.min(list.length, at);
    else list.splice(at, 0, ...list.slice(at, at + count));
    return Uint8Array.from(list);
  };
  let refused = 0;
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), fc.boolean(), (edits, repairLength) => {
      const mutated = edits.reduce(apply, original);
      // Without this most mutations would stop at the length field.
      if (repairLength && mutated.length > 80) new DataView(mutated.buffer).setBigUint64(0, BigInt(mutated.length - 70 - 8), true);
      writeFileSync(path, mutated);
      try {
        using file = openSafetensors(path);
        let bytes = 0;
        for (const { begin, end } of file.entries.values()) bytes += end - begin;
        expect(bytes).toBeLessThan(mutated.length);
        for (const name of file.entries.keys()) {
          try {
            file.read(name);
          } catch (error) {
            expect(error).toBeInstanceOf(FormatError); // a type that is stored but not held in memory
          }
        }
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        expect(error.message.length).toBeLessThan(2000);
        refused++;
      }
    }),
    { numRuns: long ? 20_000 : 500 },
  );
  expect(refused).toBeGreaterThan(100);
});
