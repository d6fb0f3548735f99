// models/stories260k: the pretrained model of the package (or a .bin file beside the data) against its weights in transformers.
import { fileURLToPath } from "node:url";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import { loadDecoder } from "../../../src/models/decoder/checkpoint.ts";
import { loadTokenizer } from "../../../src/text/load-tokenizer.ts";
import { cachedLogits, greedy, openRunner, sequenceOutputs } from "../decoder-outputs.ts";
import { asIntegers, asNumbers, asObject, asObjects, asText, type Fields, shorten } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy } from "../kind.ts";

const kindName = "models/stories260k";
const assets = fileURLToPath(new URL("../../../assets/stories260k/", import.meta.url));
const logitsTolerance = { relative: 1e-4 };

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has("expected.json")) return [];
    const first = folder.peekFirst("expected.json", "cases");
    const isStories = first !== undefined && "greedy" in first && "encodings" in (folder.peek("expected.json") ?? {});
    if (!isStories && folder.name !== "stories260k") return [];
    return [{ name: "", files: [...folder.files].filter((name) => /^expected\.|\.bin$/.test(name)), cases: () => casesOf(folder) }];
  },
};

function* casesOf(folder: Folder): Generator<GoldenCase> {
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const bins = [...folder.files].filter((name) => name.endsWith(".bin"));
  const ownFile = (pattern: RegExp): string | undefined => {
    const name = bins.find((bin) => pattern.test(bin));
    return name === undefined ? undefined : folder.file(name);
  };
  const model = lazy(() => loadDecoder(ownFile(/^(?!tok)/) ?? `${assets}stories260K.bin`));
  const tokenizer = lazy(() => loadTokenizer(ownFile(/^tok/) ?? `${assets}tok512.bin`));

  if (expected.config !== undefined) {
    yield {
      kind: kindName,
      name: "config",
      run: (comparison) => {
        const { width, mlpWidth, layers, heads, kvHeads, vocabSize, contextLength, tieEmbeddings } = model().config;
        const own: Fields = {
          dim: width,
          hiddenDim: mlpWidth,
          layers,
          heads,
          kvHeads,
          vocabulary: vocabSize,
          maxLength: contextLength,
          sharedHead: tieEmbeddings,
        };
        // Fields that say something else are not compared.
        const stored = Object.entries(asObject(expected.config, "config")).filter(([name]) => name in own);
        comparison.exact("config", own, Object.fromEntries(stored));
      },
    };
  }
  for (const [index, fields] of asObjects(expected.cases, "cases").entries()) {
    const ids = asIntegers(fields.ids, `cases[${index}].ids`);
    const stored = asIntegers(fields.greedy, `cases[${index}].greedy`);
    const prompt = asText(fields.prompt, `cases[${index}].prompt`);
    const name = (aspect: string): string => shorten(`${index} ${JSON.stringify(prompt)} ${aspect}`);
    yield {
      kind: kindName,
      name: name("logits"),
      run: (comparison, { backend }) => {
        using source = openSafetensors(folder.file("expected.safetensors"));
        const { data, shape } = source.read(`logits.${index}`);
        const logits = { data: data as Float32Array, shape };
        comparison.numbers("logits", sequenceOutputs(backend, model(), ids).logits, logits, logitsTolerance);
        using runner = openRunner(backend, model(), ids.length);
        comparison.numbers("logits (over a cache)", cachedLogits(runner, 0, ids), logits, logitsTolerance);
      },
    };
    yield {
      kind: kindName,
      name: name("greedy"),
      run: async (comparison, { backend }) => {
        using runner = openRunner(backend, model(), ids.length + stored.length);
        const [result] = await greedy(runner, [{ ids, maxNewTokens: stored.length }]);
        comparison.exact("greedy", result.ids, stored);
        comparison.exact("text", tokenizer().decode([...ids, ...result.ids]), asText(fields.text, "text"));
      },
    };
    yield { kind: kindName, name: name("ids"), run: (comparison) => comparison.exact("ids", tokenizer().encode(prompt), ids) };
  }
  for (const [index, fields] of asObjects(expected.encodings ?? [], "encodings").entries()) {
    const text = asText(fields.text, `encodings[${index}].text`);
    yield {
      kind: kindName,
      name: shorten(`encoding ${JSON.stringify(text)}`),
      run: (comparison) => {
        const ids = asNumbers(fields.ids, "ids").data;
        comparison.exact("ids", tokenizer().encode(text), Array.from(ids));
        comparison.exact("decoded", tokenizer().decode(ids), text);
      },
    };
  }
}
