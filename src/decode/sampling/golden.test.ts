// Every case of the reference file (transformers 5.23; frequency and presence penalties by OpenAI's formula).
// Its parameter names are the option names; those of combinations are GenerationConfig's, read as a file of that kind.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { samplingOptionsFromGenerationConfig } from "./generation-config.ts";
import type { SamplingOptionsInput } from "./options.ts";
import { createProcessor } from "./processor.ts";

type Wire = number | "-Infinity";

interface Case {
  name: string;
  parameters: Record<string, unknown>;
  /** Names of transformers' classes; only for combinations. */
  order: string[] | null;
  inputIds: number[][];
  logits: Wire[][];
  processed: Wire[][];
  probabilities: number[][];
  note?: string;
}

const file = new URL("../../../test/golden/sampling/expected.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };

const steps: Record<string, string> = {
  TemperatureLogitsWarper: "temperature",
  TopKLogitsWarper: "topK",
  TopPLogitsWarper: "topP",
  MinPLogitsWarper: "minP",
  TypicalLogitsWarper: "typicalP",
  EpsilonLogitsWarper: "epsilonCutoff",
  EtaLogitsWarper: "etaCutoff",
  RepetitionPenaltyLogitsProcessor: "repetitionPenalty",
  NoRepeatNGramLogitsProcessor: "noRepeatNgram",
  NoBadWordsLogitsProcessor: "badWords",
};

const numbers = (row: Wire[]): Float32Array => Float32Array.from(row, Number);
const forbidden = (row: ArrayLike<number>): number[] =>
  Array.from(row, (x, id) => (x === Number.NEGATIVE_INFINITY ? id : -1)).filter((id) => id >= 0);

function softmax(logits: Float32Array): number[] {
  const max = Math.max(...logits);
  const weights = Array.from(logits, (x) => Math.exp(x - max));
  const total = weights.reduce((sum, x) => sum + x, 0);
  return weights.map((x) => x / total);
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i] - expected[i]), `token ${i}`).toBeLessThanOrEqual(tolerance);
}

describe("reference cases", () => {
  it("covers the whole file", () => {
    expect(cases.length).toBe(118);
  });

  for (const [index, item] of cases.entries()) {
    it(`${index} ${item.name} ${JSON.stringify(item.parameters).slice(0, 90)}`, () => {
      const { promptLength = item.inputIds[0].length, ...parameters } = item.parameters as SamplingOptionsInput & { promptLength?: number };
      const options = item.name === "combination" ? samplingOptionsFromGenerationConfig(parameters) : parameters;
      const processor = createProcessor(options, { vocabularySize: item.logits[0].length });
      if (item.order !== null) expect(processor.steps).toEqual(item.order.map((name) => steps[name]));

      for (const [row, wire] of item.logits.entries()) {
        const context = { ids: item.inputIds[row], promptLength };
        const logits = numbers(wire);
        const processed = logits.slice();
        processor.process(processed, context);
        const reference = numbers(item.processed[row]);
        if (item.note !== undefined) {
          // Ties: which of the equal tokens stay is the sort's choice; the values are not.
          processed.sort();
          reference.sort();
        }
        expect(forbidden(processed)).toEqual(forbidden(reference));
        const finite = (values: Float32Array) => values.filter((x) => x > Number.NEGATIVE_INFINITY);
        expectClose(finite(processed), finite(reference), 1e-5);
        expectClose(softmax(processed), item.note === undefined ? item.probabilities[row] : softmax(reference), 1e-6);

        if (processor.greedy) continue;
        const probabilities = processor.probabilities(logits, context);
        const expected = Float64Array.from(item.probabilities[row]);
        if (item.note !== undefined) {
          probabilities.sort();
          expected.sort();
        }
        expectClose(probabilities, expected, 1e-6);
        expect(logits).toEqual(numbers(wire));
      }
    });
  }
});
