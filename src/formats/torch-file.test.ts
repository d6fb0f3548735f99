// Files written by torch 2.15 (test/golden/formats/torch), read without Python and without executing anything.
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, test } from "vitest";
import { BackendError, FormatError } from "../base/errors.ts";
import { allocate } from "../runtime/buffer.ts";
import { openTorch, type TorchSource } from "./torch-file.ts";
import { openWeights } from "./weights.ts";

const golden = (name: string): string => fileURLToPath(new URL(`../../test/golden/formats/torch/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "longwave-torch-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const values = (source: TorchSource, name: string): number[] => Array.from(source.read(name).data as ArrayLike<number | bigint>, Number);

describe("a state_dict", () => {
  const rows = Array.from({ length: 24 }, (_, i) => i);

  it("views of one storage: whole, transposed, part, every second", () => {
    using file = openTorch(golden("tensors.pt"));
    expect(values(file, "plain")).toEqual(rows);
    expect(file.entries.get("transposed")).toMatchObject({ shape: [6, 4], strides: [1, 6], storage: file.entries.get("plain")?.storage });
    expect(values(file, "transposed")).toEqual(Array.from({ length: 24 }, (_, i) => (i % 4) * 6 + Math.floor(i / 4)));
    expect(values(file, "part")).toEqual([8, 9, 10, 14, 15, 16]);
    expect(values(file, "every_second")).toEqual([0, 2, 4, 6, 8]);
    expect(values(file, "scalar")).toEqual([2.5]);
    expect(file.read("scalar").shape).toEqual([]);
    expect(file.read("empty").shape).toEqual([0, 3]);
    expect(values(file, "parameter")).toEqual([1, 2]);
  });

  it("every element type", () => {
    using file = openTorch(golden("tensors.pt"));
    for (const name of ["f64", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "u16", "u32"])
      expect(values(file, name), name).toEqual([0, 1, 2, 100]);
    expect(values(file, "bool")).toEqual([1, 0, 1]);
    expect(values(file, "f8")).toEqual([0.5, -3, 448]);
    const exact = allocate("f64", [4]);
    file.readInto("f64", exact);
    expect(Array.from(exact.data)).toEqual([0, 1, 2, 100]);
  });

  it("other shapes, other types, unknown names, closed files", () => {
    using file = openTorch(golden("tensors.pt"));
    expect(() => file.readInto("plain", allocate("f32", [6, 4]))).toThrow(/expected shape \[6, 4\]/);
    expect(() => file.readInto("i64", allocate("f32", [4]))).toThrow(/readable as f32, got I64/);
    expect(() => file.read("absent")).toThrow(FormatError);
    file.close();
    expect(() => file.read("plain")).toThrow(BackendError);
  });
});

test("nested values around tensors", () => {
  for (const name of ["nested.pt", "zip64.pt"]) {
    using file = openTorch(golden(name));
    expect([...file.entries.keys()]).toEqual(["model.weight", "model.bias"]);
    expect(values(file, "model.weight")).toEqual([0, 1, 2, 3, 4, 5]);
    expect(values(file, "model.bias")).toEqual([7, 8, 9]);
    expect(file.value).toMatchObject({
      step: 3,
      lr: 0.1,
      name: "tiny",
      flags: [true, null, [1, 2 ** 40]],
      big: 2n ** 70n,
      negative: -5,
      betas: { 0: 0.9, 1: 0.95 },
      size: [2, 3],
      dtype: "bfloat16",
      model: { weight: { shape: [3, 2] } },
    });
  }
});

test("an optimiser's state: lists and numbers as keys", () => {
  using file = openTorch(golden("optimizer.pt"));
  expect([...file.entries.keys()]).toContain("optimizer.state.0.exp_avg");
  expect(values(file, "optimizer.state.0.exp_avg").every((value) => Math.abs(value - 0.1) < 1e-6)).toBe(true);
});

test.each([3, 4, 5])("pickle protocol %i", (protocol) => {
  using file = openTorch(golden(`protocol${protocol}.pt`));
  expect(values(file, "a")).toEqual([1, 2]);
  expect(file.value).toMatchObject({ s: "ü".repeat(300), b: Uint8Array.from(Buffer.from("xyz")) });
});

describe("what is refused", () => {
  test.each([
    ["evil.pt", /reference to posix\.system/],
    ["module.pt", /reference to torch\.nn\.modules\.linear\.Linear/],
    ["legacy.pt", /before 1\.6/],
    ["expanded.pt", /within the 1 elements/],
    ["deflated.pt", /without compression/],
  ])("%s", (name, pattern) => {
    expect(() => openTorch(golden(name))).toThrow(FormatError);
    expect(() => openTorch(golden(name))).toThrow(pattern);
  });

  const source = readFileSync(golden("nested.pt"));
  const file = (bytes: Uint8Array): string => {
    const path = join(directory, "file.pt");
    writeFileSync(path, bytes);
    return path;
  };

  it("foreign files", () => {
    expect(() => openTorch(file(new Uint8Array(0)))).toThrow(/empty file/);
    expect(() => openTorch(file(Buffer.from("<html>")))).toThrow(/another format/);
    const tar = new Uint8Array(1024);
    tar.set(Buffer.from("ustar"), 257);
    expect(() => openTorch(file(tar))).toThrow(/tar format/);
    expect(() => openTorch(file(Buffer.from("\x80\x04N.", "latin1")))).toThrow(/bare pickle/);
  });

  it("files cut anywhere", () => {
    for (let length = 0; length < source.length; length += 23) {
      expect(() => openTorch(file(source.subarray(0, length))), `${length} bytes`).toThrow(FormatError);
    }
  });

  /** The file with its pickle replaced, which must not be longer; what remains is left as garbage after STOP. */
  const withPickle = (...opcodes: (number | string)[]): string => {
    const pickle = Buffer.concat(opcodes.map((part) => (typeof part === "number" ? Buffer.from([part]) : Buffer.from(part, "latin1"))));
    const bytes = Buffer.from(source);
    const at = bytes.indexOf(Buffer.from([0x80, 0x02, 0x7d]));
    expect(at).toBeGreaterThan(0);
    bytes.set(pickle, at);
    return file(bytes);
  };

  test.each<[string, RegExp, ...(number | string)[]]>([
    ["an unknown opcode", /opcode that checkpoints use, got 0x49/, "\x80\x02I1\n."],
    ["a global in text", /reference to builtins\.eval/, "\x80\x02cbuiltins\neval\n."],
    ["a global from the stack", /reference to os\.system/, "\x80\x04\x8c\x02os\x8c\x06system\x93."],
    ["an empty stack", /a value on the stack/, "\x80\x02."],
    ["no mark", /a mark/, "\x80\x02Nt."],
    ["something not remembered", /remembered as 7/, "\x80\x02h\x07."],
    ["an odd number of items", /pairs of keys and values/, "\x80\x02}(NNNu."],
    ["a string beyond the end", /more bytes/, "\x80\x02X\xff\xff\xff\x7f"],
    ["a huge integer", /at most 1024 bytes/, "\x80\x02\x8b\xff\xff\xff\x7f"],
    ["a call of something that is no global", /a global and its arguments/, "\x80\x02N)R."],
    ["an unknown storage", /the id of a storage/, "\x80\x02(X\x07\x00\x00\x00storageNNNNtQ."],
    ["protocol 9", /protocol 2 to 5/, "\x80\x09N."],
    ["an append to a number", /a list/, "\x80\x02K\x01K\x02a."],
  ])("%s", (_, pattern, ...pickle) => {
    expect(() => openTorch(withPickle(...pickle))).toThrow(FormatError);
    expect(() => openTorch(withPickle(...pickle))).toThrow(pattern);
  });

  it("sizes whose product is beyond all numbers", () => {
    const text = (value: string): string => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
    const storage = `(${text("storage")}ctorch\nFloatStorage\n${text("0")}${text("cpu")}K\x01tQ`;
    // 21 times 2^53 - 1, and 0: Infinity times zero.
    const sizes = `(\x8a\x07\xff\xff\xff\xff\xff\xff\x1f${"2".repeat(20)}K\0t`;
    const path = withPickle(`\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(${storage}K\0${sizes}(${"K\0".repeat(22)}ttR.`);
    expect(() => openTorch(path)).toThrow(/elements of its storage/);
  });

  it("lists that contain themselves end", () => {
    // [x] with x the list itself.
    const path = withPickle("\x80\x02]q\x00h\x00a.");
    using opened = openTorch(path);
    expect((opened.value as unknown[])[0]).toBe(opened.value);
  });
});

test("weights of a folder: torch's file or its parts where there are no safetensors", () => {
  const folder = mkdtempSync(join(directory, "folder-"));
  copyFileSync(golden("tensors.pt"), join(folder, "part-1.bin"));
  copyFileSync(golden("protocol4.pt"), join(folder, "part-2.bin"));
  const index = (map: Record<string, unknown>) =>
    writeFileSync(join(folder, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map: map }));
  index({ plain: "part-1.bin", a: "part-2.bin" });
  using parts = openWeights(folder);
  expect([...parts.entries.keys()]).toEqual(["plain", "a"]);
  expect(Array.from(parts.read("a").data as Float32Array)).toEqual([1, 2]);
  expect(() => parts.read("part")).toThrow(FormatError);
  index({ plain: "../part-1.bin" });
  expect(() => openWeights(folder)).toThrow(/a \.bin file beside it/);
  index({ absent: "part-1.bin" });
  expect(() => openWeights(folder)).toThrow(/expected tensor "absent"/);
  copyFileSync(golden("tensors.pt"), join(folder, "pytorch_model.bin"));
  using whole = openWeights(folder);
  expect(whole.entries.size).toBeGreaterThan(10);
  expect(() => openWeights(join(folder, "absent.safetensors"))).toThrow(FormatError);
});
