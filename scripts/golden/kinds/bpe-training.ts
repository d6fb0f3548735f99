// models/bpe-training: vocabulary, merges in order and pair counts of byte-level BPE, by Hugging Face's trainer.
import { readTextFile } from "../../../src/formats/json-file.ts";
import { trainBpe } from "../../../src/text/bpe-trainer.ts";
import { preTokenizerKind } from "../../../src/text/section-encoder.ts";
import type { Comparison } from "../compare.ts";
import { asInteger, asIntegers, asList, asObject, asTexts, type Fields, Malformed } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";

const maxTextBytes = 256 << 20;
/** The run called `small` is of the first characters of the text. */
const smallLength = 3000;

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has("expected.json")) return [];
    const isTraining = folder.has("text.txt") && "runs" in (folder.peek("expected.json") ?? {});
    if (!isTraining && folder.name !== "bpe-training") return [];
    const cases = (): GoldenCase[] => {
      const runs = asObject(asObject(folder.json("expected.json"), "expected.json").runs, "runs");
      return Object.entries(runs).map(([name, run]) => ({
        kind: "models/bpe-training",
        name,
        run: (comparison) => {
          const text = readTextFile(folder.file("text.txt"), maxTextBytes);
          const used = name === "small" ? Array.from(text).slice(0, smallLength).join("") : text;
          return runCase(asObject(run, `runs.${name}`), used, comparison);
        },
      }));
    };
    return [{ name: "", files: ["expected.json", "text.txt"], cases }];
  },
};

async function runCase(run: Fields, text: string, comparison: Comparison): Promise<void> {
  const preTokenizer = preTokenizerKind(run.preTokenizer);
  if (preTokenizer === undefined) throw new Malformed(`preTokenizer: expected a known one, got ${JSON.stringify(run.preTokenizer)}`);
  const trained = await trainBpe([text], {
    vocabSize: asInteger(run.vocabSize, "vocabSize"),
    minFrequency: asInteger(run.minFrequency, "minFrequency"),
    specialTokens: [...asTexts(run.specialTokens, "specialTokens")],
    preTokenizer,
    // Whether the text is enough for the vocabulary is part of what is stored.
    allowSmaller: true,
  });
  const { tokens } = trained;
  const merges = asList(run.merges, "merges").map((pair, i) => asTexts(pair, `merges[${i}]`));
  comparison.exact(
    "merges",
    trained.merges.map(([left, right]) => [tokens[left], tokens[right]]),
    merges,
  );
  comparison.exact("pairCounts", trained.pairCounts, asIntegers(run.pairCounts, "pairCounts"));
  const vocab = asObject(run.vocab, "vocab");
  comparison.exact("number of tokens", tokens.length, Object.keys(vocab).length);
  comparison.exact("vocab", Object.fromEntries(tokens.map((token, id) => [token, id])), vocab);
}
