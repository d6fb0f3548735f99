import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BackendError, FormatError } from "../base/errors.ts";
import { allocate, bufferFrom } from "../runtime/buffer.ts";
import { openSafetensors } from "./safetensors.ts";
import { SafetensorsWriter, writeSafetensors } from "./safetensors-write.ts";

const golden = new URL("../../test/golden/formats/", import.meta.url).pathname;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-safetensors-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A file made by hand: any header text before any number of data bytes. */
function handmade(header: string | Uint8Array, dataBytes: number, claim?: bigint): string {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, claim ?? BigInt(json.length), true);
  file.set(json, 8);
  const path = join(root, "handmade.safetensors");
  writeFileSync(path, file);
  return path;
}

const entry = (dtype: string, shape: string, begin: number, end: number) =>
  `{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`;

describe("files of the reference implementation", () => {
  it("reads names, shapes and values", () => {
    using file = openSafetensors(join(golden, "stories260k", "expected.safetensors"));
    expect([...file.entries.keys()]).toEqual(["logits.0", "logits.1", "logits.2"]);
    expect(file.entries.get("logits.2")).toMatchObject({ dtype: "F32", shape: [19, 512], begin: 12288, end: 51200 });
    const { cases } = JSON.parse(readFileSync(join(golden, "stories260k", "expected.json"), "utf8"));
    const logits = file.read("logits.1");
    const last = logits.data.subarray(4 * 512) as Float32Array;
    expect(last.indexOf(Math.max(...last))).toBe(cases[1].greedy[0]);
  });

  it("reads a sharded bfloat16 checkpoint by folder or by index", () => {
    const index = JSON.parse(readFileSync(join(golden, "sharded", "model.safetensors.index.json"), "utf8"));
    using folder = openSafetensors(join(golden, "sharded"));
    using byIndex = openSafetensors(join(golden, "sharded", "model.safetensors.index.json"));
    expect([...folder.entries.keys()].sort()).toEqual(Object.keys(index.weight_map).sort());
    let bytes = 0;
    for (const [name, { begin, end, dtype }] of folder.entries) {
      bytes += end - begin;
      expect(dtype).toBe("BF16");
      const values = folder.read(name);
      expect(values.dtype).toBe("f32");
      const stored = new Uint16Array((end - begin) / 2);
      byIndex.readBytesInto(name, new Uint8Array(stored.buffer));
      expect([...new Uint32Array(values.data.buffer, 0, stored.length)]).toEqual([...stored].map((bits) => (bits << 16) >>> 0));
    }
    expect(bytes).toBe(index.metadata.total_size);
    expect(folder.metadata.get("format")).toBe("pt");
  });
});

describe("reading", () => {
  const path = () => join(root, "model.safetensors");
  beforeEach(() =>
    writeSafetensors(path(), [
      { name: "half", dtype: "f16", shape: [2, 3], data: new Float32Array([1, 2.5, -3, 65504, 2 ** -24, 0]) },
      { name: "brain", dtype: "bf16", shape: [3], data: new Uint16Array([0x3f80, 0xc000, 0x7f80]) },
      { name: "double", dtype: "f64", shape: [2], data: new Float64Array([Math.PI, -1e300]) },
      { name: "single", dtype: "F32", shape: [], data: new Float32Array([0.1]) },
      { name: "long", dtype: "i64", shape: [2], data: new BigInt64Array([-1n, 2n ** 62n]) },
      { name: "odd", dtype: "C64", shape: [1], data: new Float32Array([7, 0]) },
      { name: "none", dtype: "bool", shape: [0, 5], data: new Uint8Array(0) },
    ]),
  );

  it("converts floats to f32 and f64", () => {
    using file = openSafetensors(path());
    expect([...file.read("half").data]).toEqual([1, 2.5, -3, 65504, 2 ** -24, 0]);
    expect([...file.read("brain").data]).toEqual([1, -2, Number.POSITIVE_INFINITY]);
    expect([...file.read("double").data]).toEqual([Math.fround(Math.PI), Number.NEGATIVE_INFINITY]);
    for (const [name, shape, values] of [
      ["half", [2, 3], [1, 2.5, -3, 65504, 2 ** -24, 0]],
      ["brain", [3], [1, -2, Number.POSITIVE_INFINITY]],
      ["double", [2], [Math.PI, -1e300]],
      ["single", [], [Math.fround(0.1)]],
    ] as const) {
      const buffer = allocate("f64", shape);
      file.readInto(name, buffer);
      expect([...buffer.data]).toEqual(values);
    }
    expect([...file.read("long").data]).toEqual([-1n, 2n ** 62n]);
    expect(file.read("none")).toMatchObject({ dtype: "bool", shape: [0, 5] });
    expect(file.metadata).toEqual(new Map([["format", "pt"]]));
  });

  it("reads slices", () => {
    using file = openSafetensors(path());
    const buffer = allocate("f32", [2]);
    file.readSliceInto("half", 1, buffer);
    expect([...buffer.data]).toEqual([2.5, -3]);
    expect(() => file.readSliceInto("half", 5, buffer)).toThrow(FormatError);
    expect(() => file.readSliceInto("half", -1, buffer)).toThrow(FormatError);
  });

  it("refuses other shapes, lossy types, unknown names and closed files", () => {
    const file = openSafetensors(path());
    expect(() => file.readInto("half", allocate("f32", [3, 2]))).toThrow(/expected shape \[3, 2\] for tensor "half", got \[2, 3\]/);
    expect(() => file.readInto("half", allocate("i32", [2, 3]))).toThrow(/readable as i32, got F16/);
    expect(() => file.readInto("long", bufferFrom("f32", [2], [0, 0]))).toThrow(FormatError);
    expect(() => file.read("odd")).toThrow(/C64/);
    expect(() => file.read("missing")).toThrow(/expected tensor "missing"/);
    file.close();
    file.close();
    expect(() => file.read("half")).toThrow(BackendError);
  });

  it("is exact across conversion chunks", () => {
    const count = (1 << 18) + 3;
    const bits = Uint16Array.from({ length: count }, (_, i) => i % 0x7c00);
    writeSafetensors(path(), [{ name: "x", dtype: "f16", shape: [count], data: bits }]);
    using file = openSafetensors(path());
    const again = new Uint16Array(count);
    const wide = file.read("x");
    writeSafetensors(join(root, "again.safetensors"), [{ name: "x", dtype: "f16", shape: [count], data: wide.data }]);
    using second = openSafetensors(join(root, "again.safetensors"));
    second.readInto("x", { dtype: "f16", shape: [count], data: again });
    expect(Buffer.from(again.buffer).equals(Buffer.from(bits.buffer))).toBe(true);
  });
});

describe("headers that lie", () => {
  const refused: [string, () => string, RegExp][] = [
    [
      "a length beyond the file",
      () => handmade("{}", 0, 2n ** 63n),
      /expected a header of 2 to 2 bytes, got a claim of 9223372036854775808/,
    ],
    ["a length of zero", () => handmade("{}", 0, 0n), /claim of 0/],
    ["an array", () => handmade("[]", 0), /expected "\{"/],
    ["text after the object", () => handmade("{}x", 0), /end of the header/],
    ["invalid UTF-8", () => handmade(new Uint8Array([0x7b, 0xff, 0x7d]), 0), /UTF-8/],
    ["a name twice", () => handmade(`{"a":${entry("U8", "1", 0, 1)},"a":${entry("U8", "1", 1, 2)}}`, 2), /every name once, got "a" twice/],
    ["an escaped name twice", () => handmade(`{"a":${entry("U8", "1", 0, 1)},"\\u0061":${entry("U8", "1", 1, 2)}}`, 2), /twice/],
    ["an unknown type", () => handmade(`{"a":${entry("F31", "1", 0, 4)}}`, 4), /F31/],
    ["an inherited property as type", () => handmade(`{"a":${entry("constructor", "1", 0, 4)}}`, 4), /constructor/],
    ["a negative dimension", () => handmade(`{"a":${entry("U8", "-1", 0, 1)}}`, 1), /non-negative integer/],
    ["a fractional dimension", () => handmade(`{"a":${entry("U8", "1.5", 0, 1)}}`, 1), /expected/],
    ["an enormous dimension", () => handmade(`{"a":${entry("U8", "9007199254740993", 0, 1)}}`, 1), /below 2\^53/],
    [
      "a product that overflows",
      () => handmade(`{"a":${entry("U8", "4294967296,4294967296,4294967296", 0, 1)}}`, 1),
      /bytes for tensor "a"/,
    ],
    [
      "offsets that do not match the shape",
      () => handmade(`{"a":${entry("F32", "2", 0, 4)}}`, 4),
      /expected 8 bytes for tensor "a".* got 4/,
    ],
    ["offsets in reverse", () => handmade(`{"a":${entry("U8", "0", 1, 0)}}`, 1), /begin <= end/],
    ["an overlap", () => handmade(`{"a":${entry("U8", "2", 0, 2)},"b":${entry("U8", "2", 1, 3)}}`, 3), /overlaps/],
    ["a hole", () => handmade(`{"a":${entry("U8", "1", 0, 1)},"b":${entry("U8", "1", 2, 3)}}`, 3), /hole/],
    [
      "data beyond the tensors",
      () => handmade(`{"a":${entry("U8", "1", 0, 1)}}`, 5),
      /expected 1 bytes of tensors after the header, got 5/,
    ],
    ["data cut short", () => handmade(`{"a":${entry("U8", "9", 0, 9)}}`, 5), /got 5/],
    ["a missing field", () => handmade(`{"a":{"dtype":"U8","shape":[1]}}`, 1), /no data_offsets/],
    ["an unknown field", () => handmade(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1), /"x"/],
    ["metadata that are no strings", () => handmade(`{"__metadata__":{"a":1}}`, 0), /a string as metadata value/],
    ["packed elements that end within a byte", () => handmade(`{"a":${entry("F4", "3", 0, 2)}}`, 2), /bytes for tensor/],
  ];
  it.each(refused)("%s", (_, make, message) => {
    expect(() => openSafetensors(make())).toThrow(FormatError);
    expect(() => openSafetensors(make())).toThrow(message);
  });

  it("accepts a scalar, an empty tensor between others, packed types and padding", () => {
    const header = `{"a":${entry("U8", "", 0, 1)},"e":${entry("F32", "0,9007199254740991", 1, 1)},"p":${entry("F4", "4", 1, 3)}}   `;
    using file = openSafetensors(handmade(header, 3));
    expect([...file.entries.keys()]).toEqual(["a", "e", "p"]);
  });

  it("names what is wrong with a path", () => {
    expect(() => openSafetensors(join(root, "no.safetensors"))).toThrow(/nothing there/);
    expect(() => openSafetensors(root)).toThrow(/neither/);
    writeFileSync(join(root, "model.safetensors"), "");
    expect(() => openSafetensors(root)).toThrow(/at least 8 bytes/);
  });

  it("keeps an index inside its folder and its shards complete", () => {
    const index = join(root, "model.safetensors.index.json");
    const refuse = (content: unknown, message: RegExp) => {
      writeFileSync(index, JSON.stringify(content));
      expect(() => openSafetensors(index)).toThrow(message);
    };
    refuse({ weight_map: { a: "../outside.safetensors" } }, /beside it/);
    refuse({ weight_map: { a: "/etc/x.safetensors" } }, /beside it/);
    refuse({ weight_map: { a: 3 } }, /beside it/);
    refuse({ weight_map: [] }, /weight_map/);
    refuse({ weight_map: { a: "gone.safetensors" } }, /expected shard gone.safetensors/);
    writeSafetensors(join(root, "s.safetensors"), [{ name: "b", dtype: "u8", shape: [1], data: new Uint8Array(1) }]);
    refuse({ weight_map: { a: "s.safetensors" } }, /expected tensor "a"/);
  });
});

describe("writing", () => {
  it("aligns every tensor to its element size", () => {
    const path = join(root, "x.safetensors");
    writeSafetensors(path, [
      { name: "a", dtype: "u8", shape: [3], data: new Uint8Array([1, 2, 3]) },
      { name: "b", dtype: "f64", shape: [1], data: new Float64Array([5]) },
      { name: "c", dtype: "f16", shape: [1], data: new Uint16Array([9]) },
    ]);
    using file = openSafetensors(path);
    expect([...file.entries.keys()]).toEqual(["b", "c", "a"]);
    expect(Number(readFileSync(path).readBigUInt64LE(0)) % 8).toBe(0);
  });

  it("takes tensors in parts and in any order", () => {
    const path = join(root, "x.safetensors");
    const specs = [
      { name: "a", dtype: "f32", shape: [4] },
      { name: "b", dtype: "bf16", shape: [2] },
    ] as const;
    const writer = new SafetensorsWriter(path, specs, { metadata: { step: "3" } });
    writer.append("b", new Float32Array([1, 2]));
    writer.append("a", new Float32Array([1, 2, 3]));
    expect(() => writer.commit()).toThrow(/expected 16 bytes for tensor "a", got 12/);
    expect(() => writer.append("a", new Float32Array(2))).toThrow(/expected 16 bytes for tensor "a", got at least 20/);
    expect(() => writer.append("c", new Float32Array(2))).toThrow(/declared/);
    writer.append("a", new Float32Array([4]));
    writer.commit();
    expect(() => writer.append("a", new Float32Array(0))).toThrow(BackendError);
    using file = openSafetensors(path);
    expect([...file.read("a").data]).toEqual([1, 2, 3, 4]);
    expect([...file.read("b").data]).toEqual([1, 2]);
    expect(file.metadata).toEqual(new Map([["step", "3"]]));
  });

  it("refuses equal names, wrong sizes and impossible shapes, and leaves the earlier file", () => {
    const path = join(root, "x.safetensors");
    const good = { name: "a", dtype: "u8", shape: [1], data: new Uint8Array([4]) } as const;
    writeSafetensors(path, [good]);
    const before = readFileSync(path);
    expect(() => writeSafetensors(path, [good, good])).toThrow(/once each/);
    expect(() => writeSafetensors(path, [{ ...good, name: "__metadata__" }])).toThrow(FormatError);
    expect(() => writeSafetensors(path, [{ ...good, shape: [2] }])).toThrow(/expected 2 bytes/);
    expect(() => writeSafetensors(path, [{ ...good, shape: [-1] }])).toThrow(/non-negative/);
    expect(readFileSync(path).equals(before)).toBe(true);
  });
});
