import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LongwaveError, NotFiniteError, ShapeError, UsageError } from "../../base/errors.ts";
import type { SamplingContext } from "./context.ts";
import { Distribution } from "./distribution.ts";
import { samplingOptionsFromGenerationConfig } from "./generation-config.ts";
import { logSumExp, tokenLogProbability, topLogProbabilities } from "./log-probabilities.ts";
import { ignoredSettings, type SamplingOptionsInput, samplingOptions } from "./options.ts";
import { createProcessor } from "./processor.ts";
import { argmax, sampleToken, tokenUniform } from "./sample.ts";

const negative = Number.NEGATIVE_INFINITY;
const empty: SamplingContext = { ids: [], promptLength: 0 };

function processed(options: SamplingOptionsInput, logits: number[], context: SamplingContext = empty): number[] {
  const row = Float32Array.from(logits);
  createProcessor(options, { vocabularySize: row.length }).process(row, context);
  return Array.from(row);
}

describe("steps on logits", () => {
  const greedy = { doSample: false };

  it("repetition penalty can leave the prompt out, and counts only the ids that count", () => {
    const context = { ids: [0, 1, 1, 3, 2], numIds: 4, promptLength: 1 };
    expect(processed({ ...greedy, repetitionPenalty: 2 }, [4, -4, 6, 8], context)).toEqual([2, -8, 6, 4]);
    expect(processed({ ...greedy, repetitionPenalty: 2, penalizePrompt: false }, [4, -4, 6, 8], context)).toEqual([4, -8, 6, 4]);
  });

  it("leave no trace for the next sequence", () => {
    const processor = createProcessor(
      { ...greedy, repetitionPenalty: 2, frequencyPenalty: 1, presencePenalty: 0.5 },
      { vocabularySize: 3 },
    );
    const run = (ids: number[]) => {
      const row = Float32Array.of(8, 8, 8);
      processor.process(row, { ids, promptLength: 0 });
      return Array.from(row);
    };
    expect(run([0, 0, 1])).toEqual([1.5, 2.5, 8]);
    expect(run([2])).toEqual([8, 8, 2.5]);
    expect(run([0, 0, 1])).toEqual([1.5, 2.5, 8]);
  });

  it("end-of-sequence rules", () => {
    const at = (options: SamplingOptionsInput, numIds: number) =>
      processed({ ...greedy, eosTokenId: [0, 2], ...options }, [1, 2, -3], { ids: [1, 1, 1, 1, 1, 1], numIds, promptLength: 2 });
    expect(at({ minNewTokens: 2 }, 3)).toEqual([negative, 2, negative]);
    expect(at({ minNewTokens: 2 }, 4)).toEqual([1, 2, -3]);
    expect(at({ minLength: 4 }, 3)).toEqual([negative, 2, negative]);
    expect(at({ minLength: 4 }, 4)).toEqual([1, 2, -3]);
    // 1 generated id beyond start: factor 2 adds |logit|; 2 beyond: 3 |logit|.
    expect(at({ exponentialDecayLengthPenalty: [1, 2] }, 3)).toEqual([1, 2, -3]);
    expect(at({ exponentialDecayLengthPenalty: [1, 2] }, 4)).toEqual([2, 2, 0]);
    expect(at({ exponentialDecayLengthPenalty: [1, 2] }, 5)).toEqual([4, 2, 6]);
    expect(at({ exponentialDecayLengthPenalty: [0, 1e300], minLength: 9 }, 6)).toEqual([negative, 2, negative]);
  });

  it("forced and suppressed tokens", () => {
    const at = (options: SamplingOptionsInput, numIds: number, promptLength = 1) =>
      processed({ ...greedy, ...options }, [1, 2, 3], { ids: [1, 1, 1, 1], numIds, promptLength });
    expect(at({ forcedBosTokenId: 0 }, 1)).toEqual([0, negative, negative]);
    expect(at({ forcedBosTokenId: 0 }, 2)).toEqual([1, 2, 3]);
    expect(at({ forcedEosTokenId: [0, 2], maxLength: 4 }, 3)).toEqual([0, negative, 0]);
    expect(at({ forcedEosTokenId: 2, maxLength: 4 }, 2)).toEqual([1, 2, 3]);
    expect(at({ suppressTokens: [2] }, 3)).toEqual([1, 2, negative]);
    expect(at({ beginSuppressTokens: [1] }, 1)).toEqual([1, negative, 3]);
    expect(at({ beginSuppressTokens: [1] }, 2)).toEqual([1, 2, 3]);
    // A forced first token moves the beginning by one.
    expect(at({ beginSuppressTokens: [1], forcedBosTokenId: 2 }, 1)).toEqual([negative, negative, 0]);
    expect(at({ beginSuppressTokens: [1], forcedBosTokenId: 2 }, 2)).toEqual([1, negative, 3]);
  });

  it("sequence bias: the last of equal sequences counts, a prefix may fill the text", () => {
    const bias: SamplingOptionsInput["sequenceBias"] = [
      [[1], 9],
      [[2, 0], 5],
      [[1], 1],
    ];
    expect(processed({ ...greedy, sequenceBias: bias }, [0, 0, 0], { ids: [2], promptLength: 1 })).toEqual([5, 1, 0]);
    expect(processed({ ...greedy, sequenceBias: bias }, [0, 0, 0], empty)).toEqual([0, 1, 0]);
  });

  it("no-repeat n-gram equals a set of all n-grams", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 14 }), fc.integer({ min: 1, max: 4 }), (ids, size) => {
        const seen = new Set(ids.map((_, i) => ids.slice(i, i + size)).map((ngram) => ngram.join()));
        const tail = ids.slice(Math.max(0, ids.length - size + 1));
        const expected = [0, 1, 2, 3].map((id) => (tail.length === size - 1 && seen.has([...tail, id].join()) ? negative : 0));
        expect(processed({ ...greedy, noRepeatNgramSize: size }, [0, 0, 0, 0], { ids, promptLength: 0 })).toEqual(expected);
      }),
      { numRuns: 500, seed: 2 },
    );
  });

  it("own processors come last among them", () => {
    const seen: number[][] = [];
    const processor = createProcessor(
      { suppressTokens: [0], temperature: 2 },
      {
        vocabularySize: 3,
        processors: [
          (logits) => {
            seen.push(Array.from(logits));
            logits[1] = negative;
          },
        ],
      },
    );
    expect(Array.from(processor.probabilities(Float32Array.of(1, 2, 3), empty))).toEqual([0, 0, 1]);
    expect(seen).toEqual([[negative, 2, 3]]);
    expect(processor.steps).toEqual(["suppressTokens", "own", "temperature"]);
    expect([processor.dependsOnSequence, createProcessor({ topK: 2 }, { vocabularySize: 3 }).dependsOnSequence]).toEqual([true, false]);
  });
});

describe("composition", () => {
  it("has one order, whatever the order of the keys", () => {
    const options: SamplingOptionsInput = {
      etaCutoff: 0.1,
      epsilonCutoff: 0.1,
      typicalP: 0.9,
      minP: 0.1,
      topP: 0.9,
      topK: 2,
      topH: 0.5,
      temperature: 0.5,
      topNSigma: 1,
      beginSuppressTokens: [1],
      suppressTokens: [1],
      exponentialDecayLengthPenalty: [1, 1.1],
      maxLength: 10,
      forcedEosTokenId: 2,
      forcedBosTokenId: 2,
      minNewTokens: 1,
      minLength: 1,
      badWordsIds: [[1]],
      noRepeatNgramSize: 2,
      presencePenalty: 1,
      frequencyPenalty: 1,
      repetitionPenalty: 1.1,
      sequenceBias: [[[1], 1]],
      eosTokenId: 2,
    };
    expect(createProcessor(options, { vocabularySize: 3 }).steps).toEqual(
      "sequenceBias repetitionPenalty frequencyPresence noRepeatNgram badWords minLength minNewTokens forcedBos forcedEos exponentialDecayLengthPenalty suppressTokens beginSuppressTokens topNSigma temperature topH topK topP minP typicalP epsilonCutoff etaCutoff".split(
        " ",
      ),
    );
    expect(createProcessor({}, { vocabularySize: 3 }).steps).toEqual([]);
    expect(createProcessor({ ...options, doSample: false }, { vocabularySize: 3 }).steps.at(-1)).toBe("beginSuppressTokens");
  });

  it("greedy is one-hot on the largest logit, ties to the lowest id", () => {
    for (const options of [{ doSample: false }, { temperature: 0 }]) {
      const processor = createProcessor(options, { vocabularySize: 4 });
      const logits = Float32Array.of(1, 5, 5, -1);
      expect(processor.greedy).toBe(true);
      expect(processor.select(logits, empty, 0.99)).toBe(1);
      expect(Array.from(processor.probabilities(logits, empty))).toEqual([0, 1, 0, 0]);
      expect(processor.distribution(logits, empty).probability(1)).toBe(1);
    }
  });

  it("goes to the greedy limit at a tiny temperature instead of overflowing", () => {
    for (const logits of [Float32Array.of(1, 5, 4.9, negative), Float32Array.of(-7, -5, -5.5, -6)]) {
      for (const temperature of [1e-40, 1e-300]) {
        const processor = createProcessor({ temperature, topP: 0.9, etaCutoff: 0.1, topNSigma: 2 }, { vocabularySize: 4 });
        expect(Array.from(processor.probabilities(logits, empty))).toEqual([0, 1, 0, 0]);
      }
    }
  });
});

describe("mistakes", () => {
  it("in options name the option and suggest the nearest", () => {
    const make = (options: object) => () => createProcessor(options, { vocabularySize: 10 });
    expect(make({ topk: 3 })).toThrow(UsageError);
    expect(make({ topk: 3 })).toThrow(/expected `topK`/);
    expect(make({ topP: 1.5 })).toThrow(/topP.*got 1.5/);
    expect(make({ suppressTokens: [3, 10] })).toThrow(/suppressTokens.*vocabulary size 10, got 10/);
    expect(make({ minLength: 3 })).toThrow(/minLength.*eosTokenId/);
    expect(make({ forcedEosTokenId: 3 })).toThrow(/maxLength/);
    expect(make({ badWordsIds: [[]] })).toThrow(/badWordsIds/);
  });

  it("in logits are found, not sampled from", () => {
    for (const options of [{ doSample: false }, {}, { topK: 2 }, { minP: 0.1 }]) {
      const processor = createProcessor(options, { vocabularySize: 70 });
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const logits = new Float32Array(70);
        logits[67] = bad;
        expect(() => processor.select(logits, empty, 0.5)).toThrow(NotFiniteError);
        expect(() => processor.select(logits, empty, 0.5)).toThrow(/token 67/);
      }
      expect(() => processor.select(new Float32Array(70).fill(negative), empty, 0.5)).toThrow(LongwaveError);
      expect(() => processor.select(new Float32Array(3), empty, 0.5)).toThrow(ShapeError);
    }
    expect(() => argmax(Float32Array.of(negative))).toThrow(/at least one token/);
    expect(() => sampleToken(Float32Array.of(0, 0), 0)).toThrow(/at least one token/);
  });

  it("settings without effect are listed", () => {
    const ignored = (options: SamplingOptionsInput) => ignoredSettings(samplingOptions.parse(options));
    expect(ignored({ temperature: 0, topK: 5, topP: 0.9 })).toEqual(["topK", "topP"]);
    expect(ignored({ doSample: false, temperature: 0.5 })).toEqual(["temperature"]);
    expect(ignored({ topK: 5 })).toEqual([]);
  });

  it("a generation config is greedy unless it says do_sample, and null means absent", () => {
    const options = samplingOptionsFromGenerationConfig({
      top_k: 20,
      temperature: null,
      eos_token_id: [1, 2],
      pad_token_id: 0,
      bos_token_id: 1,
    });
    expect(options).toEqual(samplingOptions.parse({ doSample: false, topK: 20, eosTokenId: [1, 2] }));
    expect(() => samplingOptionsFromGenerationConfig({ top_p: 7 })).toThrow(/topP/);
  });
});

describe("sampling", () => {
  it("follows the probabilities (chi-square, fixed seed)", () => {
    const logits = Float32Array.of(1, 0.2, negative, 2, -0.5, 1.4, 0);
    for (const options of [{}, { temperature: 0.6, topK: 4 }, { topP: 0.8 }, { typicalP: 0.8 }]) {
      const processor = createProcessor(options, { vocabularySize: logits.length });
      const probabilities = processor.probabilities(logits, empty);
      const n = 20_000;
      const counts = new Float64Array(logits.length);
      for (let position = 0; position < n; position++) counts[processor.select(logits, empty, tokenUniform({ seed: 5 }, position))]++;
      let statistic = 0;
      let tokens = 0;
      probabilities.forEach((p, id) => {
        if (p === 0) expect(counts[id]).toBe(0);
        else {
          statistic += (counts[id] - n * p) ** 2 / (n * p);
          tokens++;
        }
      });
      // Exceeded with probability 0.001 for 1 to 5 degrees of freedom.
      expect(statistic).toBeLessThan([10.83, 13.82, 16.27, 18.47, 20.52][tokens - 2]);
    }
  });

  it("inverts the cumulative distribution in id order", () => {
    const p = Float64Array.of(0.25, 0, 0.5, 0.25);
    expect([0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2 ** -53].map((u) => sampleToken(p, u))).toEqual([0, 0, 2, 2, 3, 3]);
    // Rounding left the total below the uniform: the last possible token.
    expect(sampleToken(Float64Array.of(0.4, 0.4, 0), 0.9)).toBe(1);
    const distribution = new Distribution(1).setDense(p);
    expect([0, 0.2499, 0.25, 0.7499, 0.75].map((u) => distribution.sample(u))).toEqual([0, 0, 2, 2, 3]);
    expect([0, 1, 2, 3, 4].map((id) => distribution.probability(id))).toEqual([0.25, 0, 0.5, 0.25, 0]);
    expect(distribution.setOneHot(3).toDense(new Float64Array(4))).toEqual(Float64Array.of(0, 0, 0, 1));
  });

  it("uniforms depend on the request and position alone", () => {
    const key = { seed: 3, request: 4 };
    const uniforms = [tokenUniform(key, 5), tokenUniform(key, 6), tokenUniform(key, 5, 1), tokenUniform({ ...key, request: 5 }, 5)];
    expect(new Set(uniforms).size).toBe(4);
    expect(tokenUniform(key, 5)).toBe(uniforms[0]);
    expect(tokenUniform({ ...key, stream: 1 }, 5)).not.toBe(uniforms[0]);
  });
});

describe("log-probabilities", () => {
  it("equal ln softmax at any temperature", () => {
    const row = fc.array(fc.float({ min: -80, max: 80, noNaN: true }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(row, fc.constantFrom(0.5, 1, 2.5), fc.nat(8), (values, temperature, n) => {
        const logits = Float32Array.from(values);
        const max = Math.max(...logits);
        const normalizer = max / temperature + Math.log(logits.reduce((sum, x) => sum + Math.exp((x - max) / temperature), 0));
        expect(logSumExp(logits, temperature)).toBeCloseTo(normalizer, 10);
        const expected = Array.from(logits, (x, id) => ({ id, logProbability: x / temperature - normalizer }));
        for (const { id, logProbability } of expected) expect(tokenLogProbability(logits, id, temperature)).toBeCloseTo(logProbability, 10);
        const top = topLogProbabilities(logits, n, temperature);
        expected.sort((a, b) => logits[b.id] - logits[a.id] || a.id - b.id);
        expect(top.ids).toEqual(expected.slice(0, n).map(({ id }) => id));
        top.logProbabilities.forEach((value, i) => {
          expect(value).toBeCloseTo(expected[i].logProbability, 10);
        });
      }),
      { numRuns: 300, seed: 2 },
    );
  });

  it("of forbidden tokens are -Infinity and not among the top", () => {
    const logits = Float32Array.of(negative, 0, negative);
    expect(tokenLogProbability(logits, 0)).toBe(negative);
    expect(topLogProbabilities(logits, 3)).toEqual({ ids: [1], logProbabilities: [0] });
    expect(() => logSumExp(logits, 0)).toThrow(UsageError);
  });
});
