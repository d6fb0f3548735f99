import { describe, expect, test } from "vitest";
import { attentionFactorOf, dependsOnLength, inverseFrequencies, type RotaryScaling, rotaryTables } from "./rotary.ts";

const width = 16;
const base = 10_000;
const plain = Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
const scaled = (scaling: RotaryScaling, length?: number): number[] => [...inverseFrequencies({ base, width, scaling }, length)];
const expectNear = (actual: ArrayLike<number>, expected: ArrayLike<number>): void => {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual[i] / expected[i], `pair ${i}`).toBeCloseTo(1, 12);
};

describe("frequencies", () => {
  test("without scaling they fall from 1 by equal ratios", () => {
    expectNear(inverseFrequencies({ base, width }), plain);
  });

  test("linear: all are divided, so that position 2 of the scaled model is position 1 of the original", () => {
    const tables = rotaryTables(9, { base, width, scaling: { kind: "linear", factor: 2 } }, "f64");
    const original = rotaryTables(5, { base, width }, "f64");
    for (let t = 0; t < 5; t++)
      for (let i = 0; i < width / 2; i++)
        expect(tables.cosines[2 * t * (width / 2) + i]).toBeCloseTo(original.cosines[t * (width / 2) + i], 12);
  });

  test("dynamic: the first frequency stays, the last one covers the longer sequence, nothing changes within the original length", () => {
    const scaling = { kind: "dynamic", factor: 2, originalLength: 100 } as const;
    expectNear(scaled(scaling, 100), plain);
    const longer = scaled(scaling, 300);
    expect(longer[0]).toBe(1);
    // The base grows so that the last wavelength grows by factor · length / original − (factor − 1) = 5.
    expect(plain[7] / longer[7]).toBeCloseTo(5, 10);
  });

  test("llama3: short wavelengths are kept, long ones divided, those between interpolated in turns", () => {
    const scaling = { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 256 } as const;
    const result = scaled(scaling);
    for (const [i, w] of plain.entries()) {
      const wavelength = (2 * Math.PI) / w;
      if (wavelength < 256 / 4) expect(result[i]).toBe(w);
      else if (wavelength > 256) expect(result[i]).toBeCloseTo(w / 8, 15);
      else {
        const smooth = (256 / wavelength - 1) / 3;
        expect(result[i]).toBeCloseTo((1 - smooth) * (w / 8) + smooth * w, 15);
      }
    }
    // All three kinds occur.
    expect(new Set(plain.map((w) => (w > (2 * Math.PI * 4) / 256 ? "short" : w < (2 * Math.PI) / 256 ? "long" : "between"))).size).toBe(3);
  });

  test("yarn: pairs above betaFast turns are kept, below betaSlow divided, a ramp of whole pairs between", () => {
    // Pairs whose number of turns within 512 positions is 32 and 1: 16 ln(512 / 64π) / (2 ln 10000) = 0.8, 16 ln(512 / 2π) / … = 3.8.
    const result = scaled({ kind: "yarn", factor: 4, originalLength: 512 });
    const ramp = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1];
    expectNear(
      result,
      plain.map((w, i) => (1 - ramp[i]) * w + (ramp[i] * w) / 4),
    );
    expect(attentionFactorOf({ kind: "yarn", factor: 4, originalLength: 512 })).toBeCloseTo(1.1386294361119891, 15);
    expect(attentionFactorOf({ kind: "yarn", factor: 4, originalLength: 512, attentionFactor: 1 })).toBe(1);
    // Bounds that are not rounded: the first pair lies before the ramp, the next ones on it.
    const smooth = scaled({ kind: "yarn", factor: 4, originalLength: 512, truncate: false });
    expect(smooth[0]).toBe(1);
    expect(smooth[1]).toBeGreaterThan(result[1]);
  });

  test("longrope: one list up to the original length, the other beyond", () => {
    const [shortFactors, longFactors] = [1, 10].map((start) => Array.from({ length: 8 }, (_, i) => start + i));
    const scaling = { kind: "longrope", shortFactors, longFactors, originalLength: 64 } as const;
    expectNear(
      scaled(scaling, 64),
      plain.map((w, i) => w / (1 + i)),
    );
    expectNear(
      scaled(scaling, 65),
      plain.map((w, i) => w / (10 + i)),
    );
    expect(dependsOnLength(scaling)).toBe(true);
    expect(dependsOnLength({ kind: "linear", factor: 2 })).toBe(false);
  });

  test("tables carry the attention factor", () => {
    const scaling = { kind: "yarn", factor: 2, originalLength: 8, attentionFactor: 1.5 } as const;
    const { cosines, sines } = rotaryTables(4, { base, width, scaling }, "f64");
    for (let i = 0; i < cosines.length; i++) expect(Math.hypot(cosines[i], sines[i])).toBeCloseTo(1.5, 12);
  });
});
