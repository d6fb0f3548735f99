import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, test } from "vitest";
import { BackendError, FormatError } from "../base/errors.ts";
import { bytesOf } from "../base/file-io.ts";
import { allocate } from "../runtime/buffer.ts";
import { openGguf } from "./gguf.ts";
import { blockFormats, dequantiseBlocks } from "./gguf-blocks.ts";
import { type GgufTypeName, ggufTensorTypes } from "./gguf-types.ts";
import { ggufEntry, writeGguf } from "./gguf-write.ts";
import { float32ToFloat16 } from "./half.ts";
import { openSafetensors } from "./safetensors.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../test/golden/formats/gguf/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "longwave-gguf-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const zoo = readFileSync(golden("zoo.gguf"));
const expected = JSON.parse(readFileSync(golden("zoo.expected.json"), "utf8"));

function write(bytes: Uint8Array, name = "file.gguf"): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

describe("the zoo written by gguf 0.19.0", () => {
  it.each([2, 3])("version %i: tensors and metadata", (version) => {
    const bytes = Uint8Array.from(zoo);
    bytes[4] = version;
    using file = openGguf(write(bytes));
    expect(file.version).toBe(version);
    expect(
      [...file.entries.values()].map(({ name, dtype, shape, begin, bytes }) => ({ name, type: dtype, shape, offset: begin, bytes })),
    ).toEqual(expected.tensors);
    for (const [key, stored] of Object.entries(expected.keyValues)) {
      const value = file.value(key);
      if (key === "zoo.u64") expect(value).toBe(BigInt(expected.u64AsString));
      else if (key === "zoo.i64") expect(value).toBe(BigInt(expected.i64AsString));
      else if (typeof value !== "object") expect(value).toBe(stored);
      else if (value.type === "bool") expect(Array.from(value.values as Uint8Array, Boolean)).toEqual(stored);
      else expect(Array.from(value.values as ArrayLike<unknown>)).toEqual(stored);
    }
  });

  it("dequantises every type to the same bits as gguf", () => {
    using file = openGguf(golden("zoo.gguf"));
    using reference = openSafetensors(golden("zoo.expected.safetensors"));
    expect(reference.entries.size).toBe(18);
    for (const name of reference.entries.keys()) {
      expect(Buffer.compare(bytesOf(file.read(name).data), bytesOf(reference.read(name).data)), name).toBe(0);
    }
  });

  it("reads integers as they are, parts by whole blocks, and floats into float64", () => {
    using file = openGguf(golden("zoo.gguf"));
    for (const name of ["int8", "int16", "int32", "int64", "float64"]) {
      expect(Array.from(file.read(`zoo.${name}`).data, Number)).toEqual([-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]);
    }
    const whole = file.read("zoo.q4_0").data as Float32Array;
    const part = allocate("f64", [64]);
    file.readSliceInto("zoo.q4_0", 512, part);
    expect(Array.from(part.data)).toEqual(Array.from(whole.subarray(512, 576)));
    expect(() => file.readSliceInto("zoo.q4_0", 16, part)).toThrow(/whole blocks of 32/);
    expect(() => file.readSliceInto("zoo.q4_0", 1504, part)).toThrow(FormatError);
    expect(() => file.readInto("zoo.q4_0", allocate("f32", [512, 3]))).toThrow(/expected shape/);
    expect(() => file.readInto("zoo.q4_0", allocate("i32", [3, 512]))).toThrow(/readable as i32, got Q4_0/);
    expect(() => file.readInto("zoo.int32", allocate("f32", [2, 6]))).toThrow(/readable as f32, got I32/);
    expect(() => file.read("zoo.absent")).toThrow(/expected tensor "zoo.absent"/);
    file.close();
    expect(() => file.read("zoo.f32")).toThrow(BackendError);
  });
});

describe("blocks outside the zoo", () => {
  const scale = (value: number): number[] => {
    const bits = new Uint16Array(1);
    float32ToFloat16(Float32Array.of(value), bits);
    return [bits[0] & 255, bits[0] >> 8];
  };

  it("NVFP4 as gguf decodes it", () => {
    const { bytes, values } = JSON.parse(readFileSync(golden("quantised.json"), "utf8")).decoded.NVFP4;
    const target = new Float32Array(values.length);
    dequantiseBlocks(blockFormats.NVFP4, Buffer.from(bytes, "hex"), target);
    expect(Array.from(target)).toEqual(values);
  });

  it("Q8_1 and Q8_K: a scale and signed bytes", () => {
    const levels = Array.from({ length: 256 }, (_, i) => i - 128);
    const q8_1 = Uint8Array.from([...scale(0.25), 9, 9, ...levels.slice(100, 132)]);
    const short = new Float32Array(32);
    dequantiseBlocks(blockFormats.Q8_1, q8_1, short);
    expect(Array.from(short)).toEqual(levels.slice(100, 132).map((level) => level * 0.25));
    const q8_k = new Uint8Array(292);
    new DataView(q8_k.buffer).setFloat32(0, -0.5, true);
    q8_k.set(Uint8Array.from(levels), 4);
    const long = new Float32Array(256);
    dequantiseBlocks(blockFormats.Q8_K, q8_k, long);
    expect(Array.from(long)).toEqual(levels.map((level) => (level === 0 ? -0 : level * -0.5)));
  });

  it("every level lies between the bounds that the format states", () => {
    for (const [name, format] of Object.entries(blockFormats)) {
      const { values, bytes } = ggufTensorTypes[name as GgufTypeName];
      expect([format.values, format.bytes], name).toEqual([values, bytes]);
      const levels = new Int8Array(values);
      for (let round = 0; round < 50; round++) {
        const block = Uint8Array.from({ length: bytes }, (_, i) => (Math.imul(round * 1000 + i + 1, 2654435761) >>> 11) & 255);
        format.decode(block, 0, levels, new Float64Array(16), new Float64Array(16));
        expect(Math.min(...levels), name).toBeGreaterThanOrEqual(format.low);
        expect(Math.max(...levels), name).toBeLessThanOrEqual(format.high);
      }
    }
  });

  it("names a codebook type that it does not read", () => {
    const path = join(directory, "codebook.gguf");
    writeGguf(path, [{ name: "w", dtype: "IQ2_XXS", shape: [1, 256], data: new Uint8Array(66) }]);
    using file = openGguf(path);
    expect(() => file.read("w")).toThrow(/got IQ2_XXS/);
    const bytes = new Uint8Array(66);
    file.readBytesInto("w", bytes);
    expect(bytes).toEqual(new Uint8Array(66));
  });
});

describe("writing", () => {
  it("gives back the zoo byte for byte", () => {
    using file = openGguf(golden("zoo.gguf"));
    const path = join(directory, "copy.gguf");
    const tensors = [...file.entries.values()].map(({ name, dtype, shape, bytes }) => ({
      name,
      dtype,
      shape,
      data: () => {
        const data = new Uint8Array(bytes);
        file.readBytesInto(name, data);
        return data;
      },
    }));
    writeGguf(path, tensors, { metadata: file.metadata });
    expect(readFileSync(path).equals(zoo)).toBe(true);
  });

  it("quantises to the same bytes as gguf", () => {
    const { values, shape, quantised } = JSON.parse(readFileSync(golden("quantised.json"), "utf8"));
    const path = join(directory, "quantised.gguf");
    const dtypes = Object.keys(quantised) as GgufTypeName[];
    writeGguf(
      path,
      dtypes.map((dtype) => ({ name: dtype, dtype, shape, data: Float32Array.from(values) })),
      { metadata: [["general.architecture", ggufEntry.string("llama")]], alignment: 64 },
    );
    using file = openGguf(path);
    expect(file.alignment).toBe(64);
    for (const dtype of dtypes) {
      const stored = new Uint8Array(file.entries.get(dtype)!.bytes);
      file.readBytesInto(dtype, stored);
      expect(Buffer.from(stored).toString("hex"), dtype).toBe(quantised[dtype]);
    }
  });

  it("refuses rows that are no whole blocks, equal names, and data of another size", () => {
    const path = join(directory, "refused.gguf");
    const data = new Float32Array(48);
    expect(() => writeGguf(path, [{ name: "a", dtype: "Q8_0", shape: [1, 48], data }])).toThrow(/whole blocks/);
    expect(() => writeGguf(path, [{ name: "a", dtype: "F32", shape: [3, 16], data: new Float32Array(47) }])).toThrow(
      /expected the 48 values/,
    );
    const twice = { name: "a", dtype: "F32" as const, shape: [48], data };
    expect(() => writeGguf(path, [twice, twice])).toThrow(/twice/);
    expect(() => openGguf(path)).toThrow(FormatError);
  });
});

describe("a model in parts", () => {
  const u16 = (value: number) => ({ type: "u16" as const, value });
  const part = (folder: string, number: number, name: string, counts: { parts?: number; tensors?: number } = {}): string => {
    const { parts = 2, tensors = 2 } = counts;
    const path = join(folder, `tiny-0000${number}-of-00002.gguf`);
    const data = Float32Array.of(number, number + 0.5);
    writeGguf(path, [{ name, dtype: "F32", shape: [2], data }], {
      metadata: [
        ...(number === 1 ? [["general.architecture", ggufEntry.string("llama")] as const] : []),
        ["split.no", u16(number - 1)],
        ["split.count", u16(parts)],
        ["split.tensors.count", { type: "i32", value: tensors }],
      ],
    });
    return path;
  };

  it("is one source", () => {
    const folder = mkdtempSync(join(directory, "parts-"));
    const path = part(folder, 1, "a");
    expect(() => openGguf(path)).toThrow(/tiny-00002-of-00002.gguf/);
    part(folder, 2, "b");
    using file = openGguf(path);
    expect([...file.entries.keys()]).toEqual(["a", "b"]);
    expect(Array.from(file.read("b").data as Float32Array)).toEqual([2, 2.5]);
    expect(file.value("general.architecture")).toBe("llama");
    expect(() => openGguf(join(folder, "tiny-00002-of-00002.gguf"))).toThrow(/the first of 2 parts/);
  });

  it("parts that do not belong together are refused", () => {
    const folder = mkdtempSync(join(directory, "parts-"));
    const path = part(folder, 1, "a");
    part(folder, 2, "a");
    expect(() => openGguf(path)).toThrow(/"a" again/);
    part(folder, 2, "b");
    part(folder, 1, "a", { tensors: 3 });
    expect(() => openGguf(path)).toThrow(/expected 3 tensors in 2 parts, got 2/);
    part(folder, 1, "a", { parts: 3 });
    expect(() => openGguf(path)).toThrow(/the first of 3 parts/);
  });
});

describe("damage", () => {
  const refused = (change: (bytes: Buffer) => void, pattern: RegExp): void => {
    const bytes = Buffer.from(zoo);
    change(bytes);
    expect(() => openGguf(write(bytes))).toThrow(FormatError);
    expect(() => openGguf(write(bytes))).toThrow(pattern);
  };
  const tensorAt = zoo.indexOf("zoo.f16");
  // name | rank u32 | 512 u64 | 3 u64 | type u32 | offset u64
  const [rankAt, innerAt, typeAt, offsetAt] = [7, 11, 27, 31].map((more) => tensorAt + more);

  test.each<[string, (bytes: Buffer) => void, RegExp]>([
    ["other letters", (bytes) => bytes.write("GGML", 0), /letters "GGUF"/],
    ["big endian", (bytes) => bytes.writeUInt32BE(3, 4), /big-endian/],
    ["version 1", (bytes) => bytes.writeUInt32LE(1, 4), /version 2 or 3, got 1/],
    ["too many tensors", (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 8), /at most \d+ tensors/],
    ["too many keys", (bytes) => bytes.writeBigUInt64LE(2n ** 63n, 16), /keys below 2\^53/],
    ["a key of endless length", (bytes) => bytes.writeBigUInt64LE(2n ** 33n, 24), /a key of at most/],
    ["an unknown value type", (bytes) => bytes.writeUInt32LE(99, 24 + 8 + 20), /value type of 0 to 12/],
    ["a rank of 5", (bytes) => bytes.writeUInt32LE(5, rankAt), /at most 4 dimensions/],
    ["a dimension beyond the file", (bytes) => bytes.writeBigUInt64LE(2n ** 45n, innerAt), /a file of/],
    ["a dimension of 0", (bytes) => bytes.writeBigUInt64LE(0n, innerAt), /whole blocks/],
    ["an unknown element type", (bytes) => bytes.writeUInt32LE(4, typeAt), /known element type/],
    ["an offset that is not aligned", (bytes) => bytes.writeBigUInt64LE(6145n, offsetAt), /multiple of 32/],
    ["overlapping tensors", (bytes) => bytes.writeBigUInt64LE(32n, offsetAt), /overlaps/],
    ["an offset beyond the file", (bytes) => bytes.writeBigUInt64LE(2n ** 40n, offsetAt), /cut short|a file of/],
    ["a tensor twice", (bytes) => bytes.write("zoo.f32", tensorAt), /"zoo.f32" twice/],
    ["a key twice", (bytes) => bytes.write("zoo.i8", bytes.indexOf("zoo.u8")), /"zoo.i8" twice/],
    ["a boolean of 7", (bytes) => bytes.writeUInt8(7, bytes.indexOf("zoo.bool") + 12), /boolean/],
    ["an array of endless length", (bytes) => bytes.writeBigUInt64LE(2n ** 50n, bytes.indexOf("zoo.array_i32") + 13 + 8), /values of i32/],
  ])("%s", (_, change, pattern) => refused(change, pattern));

  it("a file cut anywhere", () => {
    for (let length = 0; length < zoo.length; length += 97) {
      expect(() => openGguf(write(zoo.subarray(0, length))), `${length} bytes`).toThrow(FormatError);
    }
  });

  it("arrays of arrays have a bottom", () => {
    let nested: { type: "array" | "u8"; values: never } = { type: "u8", values: Uint8Array.of(1) as never };
    const file = (depth: number): string => {
      for (let i = 1; i < depth; i++) nested = { type: "array", values: [nested] as never };
      const path = join(directory, `nested-${depth}.gguf`);
      writeGguf(path, [], { metadata: [["deep", { type: "array", value: nested }]] });
      return path;
    };
    expect(openGguf(file(3)).value("deep")).toEqual(nested);
    expect(() => openGguf(file(6))).toThrow(/at most 4 deep/);
  });
});
