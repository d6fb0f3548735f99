// Truncations against plain definitions: full sorts in float64, on rows with ties, forbidden tokens and several groups of 64.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fillNormal } from "../../runtime/rng-fill.ts";
import { expNegative } from "./exp.ts";
import { MassThreshold } from "./mass-threshold.ts";
import { isGreedy, type SamplingOptionsInput, samplingOptions } from "./options.ts";
import { createProcessor } from "./processor.ts";

const negative = Number.NEGATIVE_INFINITY;
const context = { ids: [], promptLength: 0 };

/** Rows of up to 200 logits: coarse values (many ties) or fine ones, some tokens forbidden, at least one allowed. */
const rows = fc
  .tuple(
    fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.integer({ min: -12, max: 12 }).map((x) => x / 2) },
        { weight: 3, arbitrary: fc.float({ min: -20, max: 20, noNaN: true }) },
        { weight: 1, arbitrary: fc.constant(negative) },
      ),
      { maxLength: 200, size: "max" },
    ),
    fc.constantFrom(0, -1.5, 7),
  )
  .map(([logits, last]) => Float32Array.from([...logits, last]));

interface Token {
  id: number;
  logit: number;
  probability: number;
}

function softmax(logits: ArrayLike<number>): Float64Array {
  const max = Math.max(...Array.from(logits));
  const weights = Float64Array.from(logits, (x) => Math.exp(x - max));
  const total = weights.reduce((sum, x) => sum + x, 0);
  return weights.map((x) => x / total);
}

/** Allowed tokens, most probable first, ties in id order. */
function ranked(logits: Float32Array): Token[] {
  const probabilities = softmax(logits);
  return Array.from(logits, (logit, id) => ({ id, logit, probability: probabilities[id] }))
    .filter(({ logit }) => logit > negative)
    .sort((a, b) => b.logit - a.logit || a.id - b.id);
}

const entropyOf = (tokens: Token[]): number => {
  const total = tokens.reduce((sum, { probability }) => sum + probability, 0);
  return -tokens.reduce((sum, { probability: p }) => sum + (p > 0 ? (p / total) * Math.log(p / total) : 0), 0);
};

/** Ids that a truncation keeps. */
function kept(options: SamplingOptionsInput, logits: Float32Array): number[] {
  const processed = logits.slice();
  createProcessor(options, { vocabularySize: logits.length }).process(processed, context);
  return Array.from(processed.keys()).filter((id) => processed[id] > negative);
}

const sorted = (tokens: Token[]): number[] => tokens.map(({ id }) => id).sort((a, b) => a - b);
const parameters = { numRuns: 400, seed: 3 };
const share = fc.double({ min: 0.01, max: 0.99, noNaN: true });

/** Rounding decides when a token lies on the boundary within 1e-12: such rows prove nothing. */
const clear = (values: number[], boundary: number): boolean => values.every((x) => Math.abs(x - boundary) > 1e-12);

describe("truncations equal their definitions", () => {
  it("top-k: the k largest and ties with the k-th", () => {
    fc.assert(
      fc.property(rows, fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 210 })), (logits, k) => {
        const tokens = ranked(logits);
        const last = tokens[Math.min(k, tokens.length) - 1].logit;
        const result = kept({ topK: k }, logits);
        expect(result).toEqual(sorted(tokens.filter(({ logit }) => logit >= last)));
        expect(result.length).toBeGreaterThanOrEqual(Math.min(k, tokens.length));
      }),
      parameters,
    );
  });

  it("top-p: the smallest set of most probable tokens of mass >= p", () => {
    fc.assert(
      fc.property(rows, share, (logits, p) => {
        const tokens = ranked(logits);
        const before = tokens.map((_, i) => tokens.slice(0, i).reduce((sum, { probability }) => sum + probability, 0));
        fc.pre(clear(before, p));
        const result = kept({ topP: p }, logits);
        expect(result).toEqual(sorted(tokens.filter((_, i) => before[i] < p)));
        const probabilities = softmax(logits);
        const masses = result.map((id) => probabilities[id]);
        const mass = masses.reduce((sum, x) => sum + x, 0);
        expect(mass).toBeGreaterThanOrEqual(p - 1e-12);
        expect(mass - Math.min(...masses)).toBeLessThan(p);
      }),
      parameters,
    );
  });

  it("top-p 0 is the most probable token alone", () => {
    fc.assert(
      fc.property(rows, (logits) => {
        expect(kept({ topP: 0 }, logits)).toEqual([ranked(logits)[0].id]);
      }),
      parameters,
    );
  });

  it("min-p: probability >= minP * max", () => {
    fc.assert(
      fc.property(rows, share, (logits, minP) => {
        const tokens = ranked(logits);
        const ratios = tokens.map(({ logit }) => Math.exp(logit - tokens[0].logit));
        fc.pre(clear(ratios, minP));
        expect(kept({ minP }, logits)).toEqual(sorted(tokens.filter((_, i) => ratios[i] >= minP)));
      }),
      parameters,
    );
  });

  it("typical-p: nearest to the entropy until the mass is reached, with ties", () => {
    fc.assert(
      fc.property(rows, share, (logits, typicalP) => {
        const tokens = ranked(logits);
        const entropy = entropyOf(tokens);
        // Distances are float32 numbers in the reference implementation too.
        const distance = (token: Token) => Math.fround(Math.abs(-Math.log(token.probability) - entropy));
        const order = [...tokens].sort((a, b) => distance(a) - distance(b));
        let mass = 0;
        const last = order.find(({ probability }) => (mass += probability) >= typicalP) ?? order[order.length - 1];
        // Nearly equal distances round to either side, and then either set is right.
        fc.pre(tokens.every((t) => distance(t) === distance(last) || Math.abs(distance(t) - distance(last)) > 1e-5));
        fc.pre(clear([mass, mass - last.probability], typicalP));
        const tied = order.filter((token) => Math.abs(distance(token) - distance(last)) <= 1e-5);
        fc.pre(new Set(tied.map(({ logit }) => logit)).size === 1);
        expect(kept({ typicalP }, logits)).toEqual(sorted(order.filter((token) => distance(token) <= distance(last))));
      }),
      parameters,
    );
  });

  it("epsilon and eta cutoff: a floor on the probability, the best token always stays", () => {
    fc.assert(
      fc.property(rows, fc.double({ min: 1e-4, max: 0.9, noNaN: true }), (logits, epsilon) => {
        const tokens = ranked(logits);
        const eta = Math.min(epsilon, Math.sqrt(epsilon) * Math.exp(-entropyOf(tokens)));
        for (const [options, floor] of [
          [{ epsilonCutoff: epsilon }, epsilon],
          [{ etaCutoff: epsilon }, eta],
        ] as const) {
          if (
            !clear(
              tokens.map(({ probability }) => probability),
              floor,
            )
          )
            continue;
          const expected = tokens.filter(({ probability, logit }) => probability >= floor || logit === tokens[0].logit);
          expect(kept(options, logits)).toEqual(sorted(expected));
        }
      }),
      parameters,
    );
  });

  it("top-n-sigma: within n standard deviations of the largest, whatever the temperature", () => {
    fc.assert(
      fc.property(rows, fc.double({ min: 0.1, max: 3, noNaN: true }), (logits, topNSigma) => {
        const tokens = ranked(logits);
        const mean = tokens.reduce((sum, { logit }) => sum + logit, 0) / tokens.length;
        const deviation = Math.sqrt(tokens.reduce((sum, { logit }) => sum + (logit - mean) ** 2, 0) / tokens.length);
        const floor = tokens[0].logit - topNSigma * deviation;
        fc.pre(tokens.every(({ logit }) => Math.abs(logit - floor) > 1e-6));
        const expected = sorted(tokens.filter(({ logit }) => logit >= floor));
        expect(kept({ topNSigma }, logits)).toEqual(expected);
        expect(kept({ topNSigma, temperature: 3 }, logits)).toEqual(expected);
      }),
      parameters,
    );
  });

  it("top-h: the top tokens while their entropy terms stay within the share", () => {
    fc.assert(
      fc.property(rows, share, (logits, topH) => {
        const tokens = ranked(logits).slice(0, 100);
        const total = tokens.reduce((sum, { probability }) => sum + probability, 0);
        let sum = 0;
        const sums = tokens.map(({ probability: p }) => (sum -= p > 0 ? (p / total) * Math.log(p / total) : 0));
        const bound = topH * entropyOf(tokens);
        fc.pre(clear(sums, bound));
        expect(kept({ topH }, logits)).toEqual(sorted(tokens.filter((_, i) => i === 0 || sums[i] <= bound)));
      }),
      parameters,
    );
  });

  it("compose: each step sees what the one before left", () => {
    const chain = [
      { temperature: 0.7 },
      { topH: 0.9 },
      { topK: 30 },
      { topP: 0.9 },
      { minP: 0.02 },
      { typicalP: 0.9 },
      { etaCutoff: 0.01 },
    ];
    fc.assert(
      fc.property(rows, fc.subarray(chain), (logits, links) => {
        const stepwise = logits.slice();
        const size = { vocabularySize: logits.length };
        for (const link of links) createProcessor(link, size).process(stepwise, context);
        const together = logits.slice();
        createProcessor(Object.assign({}, ...links), size).process(together, context);
        expect(together).toEqual(stepwise);
      }),
      parameters,
    );
  });
});

describe("a large vocabulary", () => {
  // Many groups, most of which are never looked at again after their maximum is known.
  for (const [name, round] of [
    ["distinct logits", (x: number) => x],
    ["tied logits", (x: number) => Math.round(x * 4) / 4],
  ] as const) {
    it(`is preselected without changing the result: ${name}`, () => {
      for (let seed = 0; seed < 4; seed++) {
        const logits = fillNormal(new Float32Array(9001), -1, 3, { seed }).map((x, id) => (id % 3 === seed % 4 ? negative : round(x)));
        const tokens = ranked(logits);
        for (const k of [1, 7, 50, 140, 141, 3000]) {
          const last = tokens[k - 1].logit;
          const expected = sorted(tokens.filter(({ logit }) => logit >= last));
          for (const temperature of [1, 0.37]) expect(kept({ topK: k, temperature }, logits)).toEqual(expected);
        }
        for (const temperature of [1, 0.37]) {
          const floor = tokens[0].logit + temperature * Math.log(0.02);
          expect(kept({ minP: 0.02, temperature }, logits)).toEqual(sorted(tokens.filter(({ logit }) => logit >= floor)));
        }
        const pool = tokens.slice(0, 100);
        const total = pool.reduce((sum, { probability }) => sum + probability, 0);
        let sum = 0;
        const bound = 0.4 * entropyOf(pool);
        const top = pool.filter(({ probability: p }, i) => (sum -= (p / total) * Math.log(p / total)) <= bound || i === 0);
        expect(kept({ topH: 0.4 }, logits)).toEqual(sorted(top));
      }
    });
  }
});

describe("a processed distribution", () => {
  const options = fc.record({
    temperature: fc.constantFrom(0, 0.5, 1, 2),
    topK: fc.constantFrom(0, 3, 80),
    topP: fc.constantFrom(1, 0.8),
    minP: fc.constantFrom(0, 0.1),
    typicalP: fc.constantFrom(1, 0.7),
  });

  it("is the same as dense array, as sparse Distribution and as the one that select draws from", () => {
    fc.assert(
      fc.property(rows, options, fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })), (logits, chosen, uniforms) => {
        const original = logits.slice();
        const processor = createProcessor(chosen, { vocabularySize: logits.length });
        const dense = processor.probabilities(logits, context);
        const distribution = processor.distribution(logits, context);
        expect(distribution.toDense(new Float64Array(logits.length))).toEqual(dense);
        expect(dense.reduce((sum, x) => sum + x, 0)).toBeCloseTo(1, 12);
        dense.forEach((p, id) => {
          expect(distribution.probability(id)).toBe(p);
        });
        expect(distribution.probability(logits.length)).toBe(0);
        for (const u of [...uniforms, 0, 1 - 2 ** -53]) {
          const token = processor.select(logits, context, u);
          expect(dense[token]).toBeGreaterThan(0);
          expect(distribution.sample(u)).toBe(token);
        }
        expect(logits).toEqual(original);

        const processed = logits.slice();
        processor.process(processed, context);
        if (!isGreedy(samplingOptions.parse(chosen))) {
          softmax(processed).forEach((p, id) => {
            expect(Math.abs(p - dense[id])).toBeLessThan(1e-14);
          });
        }
      }),
      parameters,
    );
  });
});

describe("building blocks", () => {
  it("MassThreshold equals a sort, for any float32 keys and masses", () => {
    const entry = fc.tuple(
      fc.float({ noNaN: true }).map((x) => x + 0),
      fc.constantFrom(0, 0.25, 1, 3),
    );
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 80 }), fc.double({ min: 0.01, max: 1, noNaN: true }), (entries, part) => {
        const keys = Float32Array.from(entries, ([key]) => key);
        const masses = Float64Array.from(entries, ([, mass]) => mass);
        const total = masses.reduce((sum, x) => sum + x, 0);
        fc.pre(total > 0);
        const search = new MassThreshold(100);
        const bits = new Uint32Array(keys.buffer);
        const above = (t: number, weights: ArrayLike<number>) => keys.reduce((sum, key, i) => sum + (key > t ? weights[i] : 0), 0);
        const from = (t: number, weights: ArrayLike<number>) => keys.reduce((sum, key, i) => sum + (key >= t ? weights[i] : 0), 0);

        const target = part * total;
        const threshold = search.find(bits, masses, keys.length, target);
        expect(keys).toContain(threshold);
        expect(search.massAbove).toBe(above(threshold, masses));
        expect(above(threshold, masses)).toBeLessThan(target);
        expect(from(threshold, masses)).toBeGreaterThanOrEqual(target);

        const rank = Math.ceil(part * keys.length);
        expect(search.find(bits, null, keys.length, rank)).toBe([...keys].sort((a, b) => b - a)[rank - 1]);
      }),
      { numRuns: 1000, seed: 5 },
    );
  });

  it("expNegative agrees with Math.exp to 5e-16", () => {
    const check = (x: number): void => {
      // 2 ulp: Math.exp itself is right to 1 ulp only.
      expect(Math.abs(expNegative(x) / Math.exp(x) - 1), `exp(${x})`).toBeLessThan(5e-16);
    };
    for (let i = 0; i <= 20_000; i++) check(-i * 0.035);
    fc.assert(fc.property(fc.double({ min: -700, max: 0, noNaN: true }), check), { numRuns: 5000, seed: 1 });
    expect([expNegative(0), expNegative(-746), expNegative(negative)]).toEqual([1, 0, 0]);
    expect(Math.abs(expNegative(-744) - Math.exp(-744))).toBeLessThanOrEqual(5e-324);
  });
});
