import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import wabt from "wabt";
import { blockFormats } from "../gguf-blocks.ts";
import { bfloat16ToFloat32, float16ToFloat32 } from "../half.ts";
import { kernelBytes } from "./bytes.ts";
import { inputBytes, kernels, repackedTypes } from "./kernels.ts";

it("without room for its memory, loops do the same", async () => {
  const program = `
    globalThis.WebAssembly = { Module: class {}, Instance: class { constructor() { throw new RangeError("Out of memory"); } } };
    const { kernels } = await import("./kernels.ts");
    const { float16ToFloat32 } = await import("../half.ts");
    const wide = new Float32Array(100);
    float16ToFloat32(new Uint16Array(100).fill(0x3c00), wide);
    console.log(kernels() === undefined, wide.every((x) => x === 1));`;
  const hooks = new URL("../../runtime/testing/register-typescript.mjs", import.meta.url).href;
  const args = ["--import", hooks, "--input-type=module", "-e", program];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: import.meta.dirname });
  expect(stdout).toBe("true true\n");
});

it("the bytes are those of the source", async () => {
  const module = (await wabt()).parseWat("kernels.wat", readFileSync(new URL("kernels.wat", import.meta.url), "utf8"), { simd: true });
  expect(Buffer.from(module.toBinary({}).buffer).toString("base64")).toBe(kernelBytes);
});

describe("widening", () => {
  const bits = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
  it.each([
    ["float16", float16ToFloat32],
    ["bfloat16", bfloat16ToFloat32],
  ] as const)("%s: every pattern of bits becomes in a long array what it becomes in a short one", (_, widen) => {
    const [long, short] = [new Float32Array(bits.length), new Float32Array(bits.length)];
    widen(bits, long);
    for (let at = 0; at < bits.length; at += 8) widen(bits.subarray(at, at + 8), short.subarray(at, at + 8));
    expect(new Uint32Array(long.buffer)).toEqual(new Uint32Array(short.buffer));
  });

  it.each([64, 65, 71, inputBytes / 2 + 3])("%d numbers, from an odd place to an odd place", (count) => {
    const source = Uint16Array.from({ length: count + 1 }, (_, i) => (i * 7919) & 0x7bff);
    const target = new Float32Array(count + 3).fill(-1);
    float16ToFloat32(source.subarray(1), target.subarray(1, count + 1));
    const last = new Float32Array(1);
    float16ToFloat32(source.subarray(count), last);
    expect([...target.subarray(count)]).toEqual([last[0], -1, -1]);
    expect(target[0]).toBe(-1);
  });
});

describe.each(repackedTypes)("repacking %s", (type) => {
  const format = blockFormats[type];
  const fast = kernels()!;
  const capacity = Math.floor(inputBytes / format.bytes);

  it.each([1, 7, capacity])("%d blocks of any bytes", (count) => {
    let state = count;
    const stored = Uint8Array.from({ length: count * format.bytes }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return state >>> 24;
    });
    fast.input.set(stored);
    fast.repack(type, count);
    // Decoding widens its scales through the same memory.
    const [packed, scales, offsets] = [fast.packed.slice(), fast.scales.slice(), fast.offsets.slice()];
    const [levels, scale, minimum] = [new Int8Array(32), new Float64Array(1), new Float64Array(1)];
    for (let block = 0; block < count; block++) {
      format.decode(stored, block * format.bytes, levels, scale, minimum);
      const at = block * (type === "Q8_0" ? 32 : 16);
      const got = Array.from(levels, (_, i) => (type === "Q8_0" ? packed[at + i] - 128 : (packed[at + (i >> 1)] >> (4 * (i & 1))) & 15));
      // Levels of 4 bits are unsigned there: those of Q4_0 stand 8 higher.
      expect(got).toEqual(Array.from(levels, (level) => level + (type === "Q4_0" ? 8 : 0)));
      expect(scales[block]).toBe(Math.fround(scale[0]));
      if (type === "Q4_1") expect(offsets[block]).toBe(Math.fround(minimum[0] + 8 * scale[0]));
    }
  });
});
