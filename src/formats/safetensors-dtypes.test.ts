// Element types as torch and the safetensors library write them, and checkpoints in several files.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../base/errors.ts";
import { allocate, bufferFrom } from "../runtime/buffer.ts";
import { openSafetensors } from "./safetensors.ts";
import { writeShardedSafetensors } from "./safetensors-shards.ts";
import { writeSafetensors } from "./safetensors-write.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../test/golden/formats/${name}`, import.meta.url));
let directory = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "longwave-safetensors-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe("every element type", () => {
  const expected = JSON.parse(readFileSync(golden("dtypes.json"), "utf8")) as Record<string, (number | string | boolean)[]>;

  it.each(Object.keys(expected))("%s has torch's values", (name) => {
    using file = openSafetensors(golden("dtypes.safetensors"));
    const { data, dtype } = file.read(name);
    const own = Array.from(data as ArrayLike<number | bigint>, (value) =>
      dtype === "i64" || name === "f64" ? value : name === "bool" ? value === 1 : value,
    );
    const stored = expected[name].map((value) =>
      dtype === "i64" ? BigInt(value as string) : typeof value === "string" ? Number(value) : value,
    );
    // Floats are read as float32.
    if (name === "f64") {
      const exact = allocate("f64", [2]);
      file.readInto(name, exact);
      expect(Array.from(exact.data)).toEqual(stored);
    } else expect(own).toEqual(name === "f32" ? stored.map(Number).map(Math.fround) : stored);
  });

  it("8-bit floats also go into float64, by parts; complex numbers only as bytes", () => {
    using file = openSafetensors(golden("dtypes.safetensors"));
    const part = allocate("f64", [3]);
    file.readSliceInto("e4m3", 56, part);
    // 0x38 is 1: sign 0, exponent 7 - 7, mantissa 0; then steps of 1/8.
    expect(Array.from(part.data)).toEqual([1, 1.125, 1.25]);
    expect(() => file.readInto("c64", allocate("f32", [1]))).toThrow(/not supported|readable as f32, got C64/);
    const bytes = new Uint8Array(8);
    file.readBytesInto("c64", bytes);
    expect(Array.from(new Float32Array(bytes.buffer))).toEqual([1, 2]);
    expect(() => file.readInto("u16", allocate("u8", [3]))).toThrow(FormatError);
  });

  it("unsigned numbers that no signed type holds are refused", () => {
    const path = join(directory, "large.safetensors");
    writeSafetensors(path, [{ name: "a", dtype: "U64", shape: [1], data: BigUint64Array.of(2n ** 63n) }]);
    using file = openSafetensors(path);
    expect(() => file.read("a")).toThrow(/below 2\^63, got 9223372036854775808/);
  });
});

describe("several files", () => {
  const tensor = (name: string, count: number) => ({
    name,
    dtype: "f32" as const,
    shape: [count],
    data: Float32Array.from({ length: count }, (_, i) => i + count),
  });
  const tensors = [tensor("a", 10), tensor("b", 12), tensor("huge", 40), tensor("c", 1), tensor("d", 2)];

  it("are filled in order up to the limit, and read back as one", () => {
    const files = writeShardedSafetensors(directory, tensors, { maxShardBytes: 100 });
    // 40 + 48 bytes fit, 160 are too many for any file and get their own, 4 + 8 come last.
    expect(files).toEqual(["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"]);
    const index = JSON.parse(readFileSync(join(directory, "model.safetensors.index.json"), "utf8"));
    expect(index.metadata.total_size).toBe(4 * 65);
    expect(index.weight_map).toEqual({ a: files[0], b: files[0], huge: files[1], c: files[2], d: files[2] });
    using source = openSafetensors(directory);
    for (const { name, data } of tensors) expect(source.read(name).data).toEqual(data);
    const slice = bufferFrom("f32", [2], [0, 0]);
    source.readSliceInto("huge", 38, slice);
    expect(Array.from(slice.data)).toEqual([78, 79]);
  });

  it("one file where it is enough; what an earlier checkpoint left is removed, other files are not", () => {
    writeShardedSafetensors(directory, tensors, { maxShardBytes: 100 });
    writeFileSync(join(directory, "adapter.safetensors"), "");
    let calls = 0;
    const lazy = tensors.map((each) => ({
      ...each,
      data: () => {
        calls++;
        return each.data;
      },
    }));
    expect(writeShardedSafetensors(directory, lazy)).toEqual(["model.safetensors"]);
    expect(calls).toBe(5);
    expect(readdirSync(directory).sort()).toEqual(["adapter.safetensors", "model.safetensors"]);
    writeShardedSafetensors(directory, tensors, { maxShardBytes: 1 });
    expect(readdirSync(directory)).not.toContain("model.safetensors");
    using source = openSafetensors(directory);
    expect(source.entries.size).toBe(5);
  });

  it("refuses equal names and limits that are no size", () => {
    expect(() => writeShardedSafetensors(directory, [tensors[0], tensors[0]])).toThrow(/twice/);
    expect(() => writeShardedSafetensors(directory, tensors, { maxShardBytes: Number.NaN })).toThrow(UsageError);
    expect(readdirSync(directory)).toEqual([]);
  });
});
