import { describe, expect, it } from "vitest";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./half.ts";

const every = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The definition in IEEE 754: 1 sign bit, `e` exponent bits, the rest fraction. */
function byDefinition(bits: number, e: number): number {
  const fractionBits = 15 - e;
  const bias = 2 ** (e - 1) - 1;
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** e - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  if (exponent === 2 ** e - 1) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

const kinds = [
  { name: "float16", exponentBits: 5, widen: float16ToFloat32, narrow: float32ToFloat16, largest: 0x7bff },
  { name: "bfloat16", exponentBits: 8, widen: bfloat16ToFloat32, narrow: float32ToBfloat16, largest: 0x7f7f },
] as const;

describe.each(kinds)("$name", ({ exponentBits, widen, narrow, largest }) => {
  const wide = new Float32Array(65536);
  widen(every, wide);

  it("widens every bit pattern to its value by definition", () => {
    for (let bits = 0; bits < 65536; bits++) {
      if (!Object.is(wide[bits], byDefinition(bits, exponentBits)))
        expect(wide[bits], `bits ${bits}`).toBe(byDefinition(bits, exponentBits));
    }
  });

  it("gives every number back", () => {
    const back = new Uint16Array(65536);
    narrow(wide, back);
    for (let bits = 0; bits < 65536; bits++) {
      if (Number.isNaN(wide[bits])) expect(Number.isNaN(byDefinition(back[bits], exponentBits))).toBe(true);
      else if (back[bits] !== bits) expect(back[bits]).toBe(bits);
    }
  });

  it("rounds to nearest, ties to even, around every midpoint", () => {
    const out = new Uint16Array(3);
    const view = new DataView(new ArrayBuffer(4));
    for (let low = 0; low < largest; low++) {
      const middle = (wide[low] + wide[low + 1]) / 2; // exact in float32 (or, for the smallest bfloat16 values, in float64)
      if (Math.fround(middle) !== middle) continue;
      view.setFloat32(0, middle);
      const bits = view.getUint32(0);
      const around = new Float32Array(3);
      for (const [k, step] of [-1, 0, 1].entries()) {
        view.setUint32(0, bits + step);
        around[k] = view.getFloat32(0);
      }
      narrow(around, out);
      const even = low % 2 === 0 ? low : low + 1;
      if (out[0] !== low || out[1] !== even || out[2] !== low + 1)
        expect([...out], `between ${low} and its successor`).toEqual([low, even, low + 1]);
    }
  });

  it("overflows to infinity and keeps NaN with any payload", () => {
    const out = new Uint16Array(4);
    const source = new Float32Array([3.4e38, -3.4e38, Number.NaN, 0]);
    new Uint32Array(source.buffer)[3] = 0xff800001;
    narrow(source, out);
    expect(byDefinition(out[0], exponentBits)).toBe(exponentBits === 5 ? Number.POSITIVE_INFINITY : byDefinition(out[0], 8));
    expect(byDefinition(out[1], exponentBits)).toBeLessThan(-6e4);
    expect(byDefinition(out[2], exponentBits)).toBeNaN();
    expect(byDefinition(out[3], exponentBits)).toBeNaN();
  });
});
