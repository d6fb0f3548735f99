// models/sampling: one processor at a time and combinations, by transformers; frequency and presence penalties by OpenAI's formula.
import { samplingOptionsFromGenerationConfig } from "../../../src/decode/sampling/generation-config.ts";
import type { SamplingOptionsInput } from "../../../src/decode/sampling/options.ts";
import { createProcessor } from "../../../src/decode/sampling/processor.ts";
import type { Comparison } from "../compare.ts";
import { asIntegers, asList, asNumbers, asObject, asObjects, asText, asTexts, type Fields, type Numbers, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";

/** Transformers' classes in longwave's names. */
const stepOf: Readonly<Record<string, string>> = {
  TemperatureLogitsWarper: "temperature",
  TopHLogitsWarper: "topH",
  TopKLogitsWarper: "topK",
  TopPLogitsWarper: "topP",
  MinPLogitsWarper: "minP",
  TypicalLogitsWarper: "typicalP",
  EpsilonLogitsWarper: "epsilonCutoff",
  EtaLogitsWarper: "etaCutoff",
  RepetitionPenaltyLogitsProcessor: "repetitionPenalty",
  NoRepeatNGramLogitsProcessor: "noRepeatNgram",
  NoBadWordsLogitsProcessor: "badWords",
  SequenceBiasLogitsProcessor: "sequenceBias",
  SuppressTokensLogitsProcessor: "suppressTokens",
  SuppressTokensAtBeginLogitsProcessor: "beginSuppressTokens",
  MinLengthLogitsProcessor: "minLength",
  MinNewTokensLengthLogitsProcessor: "minNewTokens",
  ForcedBOSTokenLogitsProcessor: "forcedBos",
  ForcedEOSTokenLogitsProcessor: "forcedEos",
  ExponentialDecayLengthPenalty: "exponentialDecayLengthPenalty",
};

export const kind: GoldenKind = {
  recognise(folder) {
    const first = folder.peekFirst("expected.json", "cases");
    const isSampling = first !== undefined && "logits" in first && "processed" in first && "parameters" in first;
    if (!isSampling && !(folder.name === "sampling" && folder.has("expected.json"))) return [];
    const cases = (): GoldenCase[] =>
      asObjects(asObject(folder.json("expected.json"), "expected.json").cases, "cases").map((fields, index) => {
        const name = asText(fields.name, `cases[${index}].name`);
        return {
          kind: `models/sampling/${name}`,
          name: shorten(`${index} ${name} ${JSON.stringify(fields.parameters)}`),
          run: (comparison) => runCase(fields, name, comparison),
        };
      });
    return [{ name: "", files: ["expected.json"], cases }];
  },
};

function runCase(fields: Fields, name: string, comparison: Comparison): void {
  const inputs = asList(fields.inputIds, "inputIds").map((row, i) => asIntegers(row, `inputIds[${i}]`));
  const rows = (field: string): Numbers[] => asList(fields[field], field).map((row, i) => asNumbers(row, `${field}[${i}]`));
  const [logits, processed, probabilities] = ["logits", "processed", "probabilities"].map(rows);
  for (const [field, list] of Object.entries({ logits, processed, probabilities }))
    comparison.exact(`number of rows of ${field}`, inputs.length, list.length);
  const { promptLength, ...parameters } = asObject(fields.parameters, "parameters");
  const options = name === "combination" ? samplingOptionsFromGenerationConfig(parameters) : (parameters as SamplingOptionsInput);
  const processor = createProcessor(options, { vocabularySize: logits[0].data.length });
  if (fields.order !== null && fields.order !== undefined) {
    const order = asTexts(fields.order, "order").map((className) => stepOf[className] ?? className);
    comparison.exact("order", processor.steps, order);
  }
  // The order of tied tokens is the sort's choice: their values are compared without their places.
  const arrange = (values: Float32Array | Float64Array): typeof values => (fields.note === undefined ? values : values.slice().sort());
  for (const [row, ids] of inputs.entries()) {
    const context = { ids, promptLength: promptLength === undefined ? ids.length : Number(promptLength) };
    const own = Float32Array.from(logits[row].data);
    processor.process(own, context);
    const stored = arrange(Float32Array.from(processed[row].data));
    comparison.numbers(`processed[${row}]`, arrange(own), stored, { absolute: 1e-5, relative: 1e-6 });
    const expected = arrange(Float64Array.from(probabilities[row].data));
    comparison.numbers(`probabilities[${row}]`, arrange(softmax(own)), expected, { absolute: 1e-6 });
    // A greedy processor's own distribution is one-hot; the reference stores the softmax of what its steps left.
    if (processor.greedy) continue;
    const drawnFrom = processor.probabilities(Float32Array.from(logits[row].data), context);
    comparison.numbers(`probabilities[${row}]`, arrange(drawnFrom), expected, { absolute: 1e-6 });
  }
}

function softmax(logits: Float32Array): Float64Array {
  const largest = logits.reduce((max, x) => Math.max(max, x), Number.NEGATIVE_INFINITY);
  const weights = Float64Array.from(logits, (x) => Math.exp(x - largest));
  const total = weights.reduce((sum, x) => sum + x, 0);
  return weights.map((x) => x / total);
}
