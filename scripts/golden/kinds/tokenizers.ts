// models/tokenizers: encoding, decoding and streaming of a tokenizer.json, by Hugging Face's tokenizers library.
import { loadTokenizer } from "../../../src/text/load-tokenizer.ts";
import type { Tokenizer } from "../../../src/text/tokenizer.ts";
import type { Comparison } from "../compare.ts";
import { asInteger, asIntegers, asList, asObject, asObjects, asText, asTexts, type Fields } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy } from "../kind.ts";

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has("expected.json", "tokenizer.json")) return [];
    const first = folder.peekFirst("expected.json", "cases");
    const isTokenizer = first !== undefined && "idsWithoutSpecial" in first && "stream" in first;
    if (!isTokenizer && folder.parentName !== "tokenizers") return [];
    return [{ name: "", files: ["expected.json", "tokenizer.json"], cases: () => casesOf(folder) }];
  },
};

/** What makes a tokenizer a kind of its own: the model, and normalisers that have to be written for it. */
export function tokenizerKind(json: Fields): string {
  const model = asObject(json.model, "tokenizer.json: model");
  const parts = JSON.stringify([json.normalizer, json.pre_tokenizer]);
  const uses = (type: string): boolean => parts.includes(`"type":"${type}"`);
  if (model.type !== "Unigram") return `models/tokenizers/${uses("ByteLevel") ? "byte-level" : "byte-fallback"}-bpe`;
  const variant = uses("Precompiled") ? "-charsmap" : uses("Nmt") ? "-nmt" : model.byte_fallback === true ? "-byte-fallback" : "";
  return `models/tokenizers/unigram${variant}`;
}

function* casesOf(folder: Folder): Generator<GoldenCase> {
  const json = asObject(folder.json("tokenizer.json"), "tokenizer.json");
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const kindName = tokenizerKind(json);
  const tokenizer = lazy(() => loadTokenizer(folder.file("tokenizer.json")));
  const cases = asObjects(expected.cases, "cases");
  const each = (name: string, run: (sample: Fields, place: string, comparison: Comparison) => void): GoldenCase => ({
    kind: kindName,
    name,
    run: (comparison) => {
      for (const [i, sample] of cases.entries()) run(sample, `cases[${i}]`, comparison);
    },
  });
  if (expected.vocabSize !== undefined)
    yield {
      kind: kindName,
      name: "vocabSize",
      run: (comparison) => comparison.exact("vocabSize", tokenizer().vocabSize, asInteger(expected.vocabSize, "vocabSize")),
    };
  yield each("ids", (sample, place, comparison) => {
    const text = asText(sample.text, `${place}.text`);
    comparison.exact(`${place}.ids of ${JSON.stringify(text)}`, tokenizer().encode(text), asIntegers(sample.ids, `${place}.ids`));
    const without = asIntegers(sample.idsWithoutSpecial, `${place}.idsWithoutSpecial`);
    comparison.exact(`${place}.idsWithoutSpecial`, tokenizer().encode(text, { addSpecialTokens: false }), without);
  });
  yield each("tokens", (sample, place, comparison) => {
    const tokens = asTexts(sample.tokens, `${place}.tokens`);
    // An unknown piece of a Unigram model is listed as the text that it stands for.
    const unknown = tokenizer().specialIds.unk;
    const own = asIntegers(sample.ids, `${place}.ids`).map((id, i) => (id === unknown ? tokens[i] : tokenizer().idToToken(id)));
    comparison.exact(`${place}.tokens`, own, tokens);
  });
  yield each("decoded", (sample, place, comparison) => {
    const ids = asIntegers(sample.ids, `${place}.ids`);
    comparison.exact(`${place}.decoded`, tokenizer().decode(ids), asText(sample.decoded, `${place}.decoded`));
    const kept = asText(sample.decodedKeepSpecial, `${place}.decodedKeepSpecial`);
    comparison.exact(`${place}.decodedKeepSpecial`, tokenizer().decode(ids, { skipSpecialTokens: false }), kept);
  });
  yield each("stream", (sample, place, comparison) => {
    const stored = streamOf(sample, place);
    if (stored) comparison.exact(`${place}.stream`, streamed(tokenizer(), sample, true), stored);
  });
  if (expected.randomIdDecodes !== undefined) {
    yield {
      kind: kindName,
      name: "randomIdDecodes",
      run: (comparison) => {
        for (const [i, sample] of asObjects(expected.randomIdDecodes, "randomIdDecodes").entries()) {
          const place = `randomIdDecodes[${i}]`;
          const ids = asIntegers(sample.ids, `${place}.ids`);
          const decoded = asText(sample.decoded, `${place}.decoded`);
          comparison.exact(`${place}.decoded`, tokenizer().decode(ids, { skipSpecialTokens: false }), decoded);
          const skipped = asText(sample.decodedSkipSpecial, `${place}.decodedSkipSpecial`);
          comparison.exact(`${place}.decodedSkipSpecial`, tokenizer().decode(ids), skipped);
          const stored = streamOf(sample, place);
          if (stored) comparison.exact(`${place}.stream`, streamed(tokenizer(), sample, false), stored);
        }
      },
    };
  }
  if (cases.some((sample) => "offsets" in sample)) {
    yield {
      kind: "models/tokenizers/offsets",
      name: "offsets",
      run: (comparison) => {
        for (const [i, sample] of cases.entries()) {
          const place = `cases[${i}]`;
          const text = asText(sample.text, `${place}.text`);
          const { ids, offsets, specialMask } = tokenizer().encodeWithOffsets(text);
          comparison.exact(`${place}.ids`, ids, asIntegers(sample.ids, `${place}.ids`));
          const stored = asList(sample.offsets, `${place}.offsets`);
          comparison.exact(
            `${place}.offsets of ${JSON.stringify(text)}`,
            inCodePoints(offsets, () => text),
            stored,
          );
          if ("specialMask" in sample) {
            comparison.exact(`${place}.specialMask`, specialMask, asIntegers(sample.specialMask, `${place}.specialMask`));
          }
        }
      },
    };
  }
  if (expected.pairs !== undefined) {
    yield {
      kind: "models/tokenizers/pairs",
      name: "pairs",
      run: (comparison) => {
        for (const [i, sample] of asObjects(expected.pairs, "pairs").entries()) {
          const place = `pairs[${i}]`;
          const [a, b] = [asText(sample.a, `${place}.a`), asText(sample.b, `${place}.b`)];
          const { ids, offsets, typeIds } = tokenizer().encodeWithOffsets(a, { pair: b });
          comparison.exact(`${place}.ids`, ids, asIntegers(sample.ids, `${place}.ids`));
          comparison.exact(`${place}.typeIds`, typeIds, asIntegers(sample.typeIds, `${place}.typeIds`));
          const ofText = (token: number): string => (typeIds[token] === 0 ? a : b);
          comparison.exact(`${place}.offsets`, inCodePoints(offsets, ofText), asList(sample.offsets, `${place}.offsets`));
        }
      },
    };
  }
}

/** Ranges in code points from ranges in UTF-16 code units. */
function inCodePoints(offsets: Int32Array, textOf: (token: number) => string): [number, number][] {
  return Array.from({ length: offsets.length / 2 }, (_, token) => {
    const count = (end: number): number => [...textOf(token).slice(0, end)].length;
    return [count(offsets[2 * token]), count(offsets[2 * token + 1])];
  });
}

/** The stored stream; undefined where the library itself refuses (any sane behaviour is right there). */
function streamOf({ stream }: Fields, place: string): readonly unknown[] | undefined {
  return stream === "error" ? undefined : asList(stream, `${place}.stream`);
}

function streamed(tokenizer: Tokenizer, { ids }: Fields, skipSpecialTokens: boolean): (string | null)[] {
  const decoder = tokenizer.stream({ skipSpecialTokens });
  return asIntegers(ids, "ids").map((id) => decoder.push(id) || null);
}
