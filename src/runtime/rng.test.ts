import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { normalDistribution, normalQuantile } from "./normal-distribution.ts";
import {
  philox4x32,
  Random,
  randomExponential,
  randomNormal,
  randomU32,
  randomUniform,
  randomUniform24,
  seedHigh,
  streamId,
} from "./rng.ts";
import { fillNormal, fillTruncatedNormal, fillUniform } from "./rng-fill.ts";

function words(counter: number[], key: number[]): string[] {
  const out = new Uint32Array(4);
  philox4x32(counter[0], counter[1], counter[2], counter[3], key[0], key[1], out);
  return Array.from(out, (word) => word.toString(16).padStart(8, "0"));
}

/** The definition of a round with exact integers (section 3.2 of the paper), independent of the 16-bit halves. */
function philoxByBigInt(counter: number[], key: number[]): string[] {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  for (let round = 0; round < 10; round++) {
    const product0 = 0xd2511f53n * c0;
    const product1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(product1 >> 32n) ^ c1 ^ k0, product1 & mask, (product0 >> 32n) ^ c3 ^ k1, product0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map((word) => word.toString(16).padStart(8, "0"));
}

function moments(values: ArrayLike<number>) {
  let mean = 0;
  for (let i = 0; i < values.length; i++) mean += values[i] / values.length;
  let variance = 0;
  let kurtosis = 0;
  for (let i = 0; i < values.length; i++) {
    variance += (values[i] - mean) ** 2 / values.length;
    kurtosis += (values[i] - mean) ** 4 / values.length;
  }
  return { mean, variance, kurtosis: kurtosis / variance ** 2 };
}

describe("philox4x32", () => {
  it("gives the known answers of Random123", () => {
    expect(words([0, 0, 0, 0], [0, 0])).toEqual(["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
    const ones = 0xffffffff;
    expect(words([ones, ones, ones, ones], [ones, ones])).toEqual(["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]);
    expect(words([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      "d16cfe09",
      "94fdcceb",
      "5001e420",
      "24126ea1",
    ]);
  });

  it("equals exact integer arithmetic", () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.tuple(word, word, word, word), fc.tuple(word, word), (counter, key) => {
        expect(words(counter, key)).toEqual(philoxByBigInt(counter, key));
      }),
      { numRuns: 200, seed: 1 },
    );
  });
});

describe("keyed numbers", () => {
  it("use counter [draw, position, request, stream] and the 64-bit seed as key", () => {
    const seed = 0x12345_89abcdef;
    const expected = philoxByBigInt([5, 4, 3, 2], [0x89abcdef, 0x12345]);
    expect(randomU32(seed, 2, 3, 4, 5).toString(16).padStart(8, "0")).toBe(expected[0]);
    expect(seedHigh(seed)).toBe(0x12345);
    const [high, low] = expected.map((word) => Number.parseInt(word, 16));
    expect(randomUniform(seed, 2, 3, 4, 5)).toBe(Number(((BigInt(high) >> 5n) << 26n) | (BigInt(low) >> 6n)) / 2 ** 53);
    expect(randomUniform24(seed, 2, 3, 4, 5)).toBe(Math.fround(Math.floor(high / 256) / 2 ** 24));
  });

  it("differ in every argument", () => {
    const base = [1, 2, 3, 4, 5] as const;
    const reference = randomU32(...base);
    for (let i = 0; i < 5; i++) {
      const other = base.map((value, j) => (i === j ? value + 1 : value)) as [number, number, number, number, number];
      expect(randomU32(...other)).not.toBe(reference);
    }
    expect(randomU32(1 + 2 ** 32, 2, 3, 4, 5)).not.toBe(reference);
  });

  it("have the moments of their distributions", () => {
    const n = 50_000;
    const draws = (f: typeof randomUniform) => Float64Array.from({ length: n }, (_, i) => f(7, 1, 0, 0, i));
    const uniform = moments(draws(randomUniform));
    expect(Math.abs(uniform.mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / n));
    expect(Math.abs(uniform.variance - 1 / 12)).toBeLessThan(0.002);
    const normal = moments(draws(randomNormal));
    expect(Math.abs(normal.mean)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(normal.variance - 1)).toBeLessThan(0.04);
    expect(Math.abs(normal.kurtosis - 3)).toBeLessThan(0.12);
    const exponential = moments(draws(randomExponential));
    expect(Math.abs(exponential.mean - 1)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(exponential.variance - 1)).toBeLessThan(0.08);
  });

  it("streamId is FNV-1a for ASCII bytes padded to UTF-16", () => {
    expect(streamId("")).toBe(0x811c9dc5);
    expect(streamId("dropout")).not.toBe(streamId("sampling"));
    expect(new Set(Array.from({ length: 2000 }, (_, i) => streamId(`layers.${i}.attention.query`))).size).toBe(2000);
  });
});

describe("Random", () => {
  it("goes on from a saved state, also through JSON", () => {
    const random = new Random(11, { stream: "shuffle" });
    for (let i = 0; i < 5; i++) random.uniform();
    random.normal();
    const restored = Random.fromState(JSON.parse(JSON.stringify(random.state)));
    expect(restored.state).toEqual({ seed: 11, stream: streamId("shuffle"), request: 0, index: 6 });
    expect([restored.u32(), restored.uniform(), restored.normal(), restored.exponential(), restored.integer(9)]).toEqual([
      random.u32(),
      random.uniform(),
      random.normal(),
      random.exponential(),
      random.integer(9),
    ]);
  });

  it("does not repeat after 2^32 draws", () => {
    expect(new Random(1, { index: 2 ** 32 }).u32()).not.toBe(new Random(1).u32());
  });

  it("shuffles into a permutation, each position equally likely", () => {
    const random = new Random(3);
    const counts = Array.from({ length: 4 }, () => new Array<number>(4).fill(0));
    const rounds = 4000;
    for (let i = 0; i < rounds; i++) for (const [position, value] of random.permutation(4).entries()) counts[position][value]++;
    // Chi-square with 9 degrees of freedom: 27.9 is exceeded with probability 0.001.
    let statistic = 0;
    for (const row of counts) for (const count of row) statistic += (count - rounds / 4) ** 2 / (rounds / 4);
    expect(statistic).toBeLessThan(27.9);
    expect([...new Random(5).permutation(100)].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(new Random(5).shuffle(["a"])).toEqual(["a"]);
  });

  it("refuses seeds that are no whole numbers", () => {
    expect(() => new Random(-1)).toThrow(/expected an integer in \[0, 2\^53\), got -1/);
    expect(() => new Random(0.5)).toThrow(/got 0.5/);
  });
});

describe("fills", () => {
  it("give the same draws for float32 and float64, and for a shorter array", () => {
    for (const fill of [
      (a: Float32Array | Float64Array) => fillUniform(a, -1, 3, { seed: 1, stream: 2 }),
      (a: Float32Array | Float64Array) => fillNormal(a, 1, 2, { seed: 1, stream: 2 }),
      (a: Float32Array | Float64Array) => fillTruncatedNormal(a, 1, 2, { seed: 1, stream: 2 }),
    ]) {
      const double = fill(new Float64Array(103));
      expect(Array.from(fill(new Float32Array(103)))).toEqual(Array.from(double, Math.fround));
      for (const length of [0, 1, 2, 3, 5, 50]) expect(fill(new Float64Array(length))).toEqual(double.slice(0, length));
      expect(new Set(double).size).toBeGreaterThan(100);
    }
  });

  it("fillNormal follows the normal distribution (Kolmogorov-Smirnov)", () => {
    const values = fillNormal(new Float64Array(20_000), 3, 0.5, { seed: 9 }).sort();
    let distance = 0;
    values.forEach((value, i) => {
      distance = Math.max(distance, Math.abs(normalDistribution((value - 3) / 0.5) - (i + 0.5) / values.length));
    });
    // 1.95 / sqrt(n) is exceeded with probability 0.001.
    expect(distance).toBeLessThan(1.95 / Math.sqrt(values.length));
  });

  it("fillTruncatedNormal stays inside and follows the conditioned distribution, in the far tail too", () => {
    for (const [low, high] of [
      [-2, 2],
      [-0.5, 3],
      [6, 7],
      [-40, -9],
    ]) {
      const values = fillTruncatedNormal(new Float64Array(8000), 0, 1, { seed: 4 }, { low, high }).sort();
      expect(values[0]).toBeGreaterThanOrEqual(low);
      expect(values[values.length - 1]).toBeLessThanOrEqual(high);
      // Tail intervals are compared through the mirror image, where probabilities keep their precision.
      const mirrored = low > 0;
      const below = (z: number) => (mirrored ? normalDistribution(-z) : normalDistribution(z));
      const [first, last] = [below(low), below(high)];
      let distance = 0;
      values.forEach((value, i) => {
        distance = Math.max(distance, Math.abs((below(value) - first) / (last - first) - (i + 0.5) / values.length));
      });
      expect(distance).toBeLessThan(1.95 / Math.sqrt(values.length));
    }
    const variance = moments(fillTruncatedNormal(new Float64Array(40_000), 0, 1, { seed: 4 })).variance;
    expect(Math.abs(Math.sqrt(variance) - 0.87962566)).toBeLessThan(0.01);
  });

  it("refuses an empty interval", () => {
    expect(() => fillTruncatedNormal(new Float32Array(1), 0, 1, { seed: 0 }, { low: 1, high: 1 })).toThrow(/low < high/);
  });
});

describe("normal distribution", () => {
  it("equals reference values", () => {
    // Quantiles: CPython's statistics.NormalDist().inv_cdf; probabilities: erfc of the C library.
    const quantiles: [number, number][] = [
      [1e-300, -37.0470962993612],
      [1e-20, -9.262340089798405],
      [3e-7, -4.991217139907696],
      [0.0749, -1.4402382675279632],
      [0.0751, -1.4388253927525398],
      [0.3, -0.5244005127080407],
      [0.99, 2.3263478740408408],
      [0.999999, 4.753424308817089],
    ];
    for (const [p, z] of quantiles) expect(Math.abs(normalQuantile(p) / z - 1)).toBeLessThan(1e-14);
    const probabilities: [number, number][] = [
      [-20, 2.7536241186063314e-89],
      [-8, 6.220960574271819e-16],
      [-4, 3.1671241833119965e-5],
      [-3.9, 4.809634401760275e-5],
      [-1, 0.15865525393145707],
      [-0.5, 0.3085375387259869],
      [0.7, 0.758036347776927],
      [3.99, 0.9999669633523706],
      [4.01, 0.9999696406260734],
    ];
    for (const [z, p] of probabilities) expect(Math.abs(normalDistribution(z) / p - 1)).toBeLessThan(1e-13);
    expect([normalQuantile(0), normalQuantile(0.5), normalQuantile(1), normalQuantile(-0.1)]).toEqual([
      Number.NEGATIVE_INFINITY,
      0,
      Number.POSITIVE_INFINITY,
      Number.NaN,
    ]);
  });
});
