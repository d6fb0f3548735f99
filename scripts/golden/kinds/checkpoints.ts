// models/checkpoints: tiny checkpoints of published families with what transformers computes from them.
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { topLogProbabilities } from "../../../src/decode/sampling/log-probabilities.ts";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import { readsRotary } from "../../../src/models/decoder/cached.ts";
import { loadDecoder } from "../../../src/models/decoder/checkpoint.ts";
import type { Backend } from "../../../src/runtime/backend.ts";
import { type ChatMessage, ChatTemplate, loadTokenizer } from "../../../src/text/index.ts";
import type { Comparison } from "../compare.ts";
import { cachedLogits, continuationLogProbs, greedy, openRunner, type SequenceOutputs, sequenceOutputs } from "../decoder-outputs.ts";
import { asInteger, asIntegers, asList, asNumbers, asObject, asObjects, asText, type Fields, type Numbers } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy, type Session } from "../kind.ts";

const tensorTolerance = { relative: 1e-4 };
const logProbTolerance = { absolute: 1e-3 };

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has("expected.json", "config.json")) return [];
    const first = folder.peekFirst("expected.json", "prompts");
    const isCheckpoint = first !== undefined && "greedy" in first;
    if (!isCheckpoint && folder.parentName !== "checkpoints") return [];
    return [{ name: "", files: [...folder.files], cases: () => casesOf(folder) }];
  },
};

/** The family, with the settings that change what is computed: `llama`, `llama+rope-linear`, `qwen2+sliding-window`. */
export function checkpointKind(config: Fields): string {
  const rope = (config.rope_scaling ?? config.rope_parameters) as Fields | null | undefined;
  const scaling = rope?.rope_type ?? rope?.type ?? "default";
  const parts = [asText(config.model_type, "config.json: model_type")];
  if (scaling !== "default") parts.push(`rope-${scaling}`);
  if (config.use_sliding_window === true) parts.push("sliding-window");
  return `models/checkpoints/${parts.join("+")}`;
}

interface Prompt {
  fields: Fields;
  ids: readonly number[];
  greedy: readonly number[];
}

function* casesOf(folder: Folder): Generator<GoldenCase> {
  const kindName = checkpointKind(asObject(folder.json("config.json"), "config.json"));
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const prompts = asObjects(expected.prompts, "prompts").map((fields, k): Prompt => {
    const ids = (name: string): readonly number[] => asIntegers(fields[name], `prompts[${k}].${name}`);
    return { fields, ids: ids("ids"), greedy: ids("greedy") };
  });
  const model = lazy(() => loadDecoder(folder.path));
  const tokenizer = lazy(() => loadTokenizer(folder.path));
  const whole = new Map<Prompt, SequenceOutputs>();
  /** Of a prompt at once, computed the first time. */
  const outputsOf = (prompt: Prompt, backend: Backend): SequenceOutputs => {
    const known = whole.get(prompt) ?? sequenceOutputs(backend, model(), prompt.ids);
    whole.set(prompt, known);
    return known;
  };
  const tensor = (name: string): Numbers | undefined => readTensor(folder, name);
  const required = (name: string): Numbers => {
    const found = tensor(name);
    if (!found) throw new Error(`expected.safetensors: expected tensor "${name}", got none`);
    return found;
  };

  for (const [k, prompt] of prompts.entries()) {
    const { fields, ids } = prompt;
    const item = (aspect: string, run: GoldenCase["run"]): GoldenCase => ({ kind: kindName, name: `prompt ${k} ${aspect}`, run });
    yield item("ids", (comparison) => {
      comparison.exact("ids", tokenizer().encode(asText(fields.text, "text")), ids);
    });
    yield item("logits", (comparison, { backend }) => {
      const stored = required(`logits.${k}`);
      const { logits } = outputsOf(prompt, backend);
      comparison.numbers("logits", logits, stored, tensorTolerance);
      using runner = openRunner(backend, model(), ids.length);
      comparison.numbers("logits (over a cache)", cachedLogits(runner, 0, ids), stored, tensorTolerance);
      if (fields.topTokens === undefined) return;
      const topTokens = asIntegers(fields.topTokens, "topTokens");
      const last = logits.subarray(-model().config.vocabSize);
      comparison.exact("topTokens", topLogProbabilities(last, topTokens.length).ids, topTokens);
    });
    yield item("hidden", (comparison, { backend }) => {
      const { hidden, layers } = outputsOf(prompt, backend);
      comparison.numbers("hidden", hidden, required(`hidden.${k}`), tensorTolerance);
      if (k > 0) return;
      for (const [j, rows] of [...layers, hidden].entries()) {
        const stored = tensor(`layers.${j}`);
        if (stored) comparison.numbers(`layers.${j}`, rows, stored, tensorTolerance);
      }
    });
    yield item("greedy", (comparison, session) => runGreedy(prompt, comparison, session));
    if (fields.continuation !== undefined)
      yield item("continuation", (comparison, session) => runContinuation(prompt, comparison, session));
  }

  async function runGreedy({ fields, ids, greedy: stored }: Prompt, comparison: Comparison, { backend }: Session): Promise<void> {
    using runner = openRunner(backend, model(), ids.length + stored.length);
    const [result] = await greedy(runner, [{ ids, maxNewTokens: stored.length }]);
    comparison.exact("greedy", result.ids, stored);
    if (fields.greedyText !== undefined)
      comparison.exact("greedyText", tokenizer().decode(stored, { skipSpecialTokens: false }), asText(fields.greedyText, "greedyText"));
    if (fields.greedyLogProbs === undefined) return;
    // Where positions depend on the length of a sequence, the stored numbers are of the whole path at once.
    const logProbs = readsRotary(runner.config) ? continuationLogProbs(runner, ids, stored) : result.logProbs;
    comparison.numbers("greedyLogProbs", logProbs, asNumbers(fields.greedyLogProbs, "greedyLogProbs"), logProbTolerance);
  }

  function runContinuation({ fields, ids }: Prompt, comparison: Comparison, { backend }: Session): void {
    const continuation = asIntegers(fields.continuation, "continuation");
    if (fields.continuationText !== undefined) {
      const own = tokenizer().encode(asText(fields.continuationText, "continuationText"), { addSpecialTokens: false });
      comparison.exact("continuation", own, continuation);
    }
    using runner = openRunner(backend, model(), ids.length + continuation.length);
    const stored = asNumbers(fields.continuationLogProbs, "continuationLogProbs");
    comparison.numbers("continuationLogProbs", continuationLogProbs(runner, ids, continuation), stored, logProbTolerance);
  }

  if (expected.batch !== undefined)
    yield {
      kind: kindName,
      name: "batch",
      run: async (comparison, { backend }) => {
        const rows = unpad(asObject(expected.batch, "batch"));
        const longest = Math.max(...rows.map(({ ids }) => ids.length), ...prompts.map(({ ids, greedy }) => ids.length + greedy.length));
        using runner = openRunner(backend, model(), longest, rows.length);
        const { vocabSize } = runner.config;
        const batchLogits = tensor("batch.logits");
        for (const [row, { ids, positions, places, width }] of rows.entries()) {
          const own = cachedLogits(runner, row, ids);
          if (batchLogits) {
            const from = (place: number): number => (row * width + place) * vocabSize;
            const stored = places.flatMap((place) => Array.from(sliceOf(batchLogits, from(place), from(place) + vocabSize)));
            comparison.numbers(`batch.logits[${row}]`, own, { data: stored, shape: [ids.length, vocabSize] }, tensorTolerance);
          }
          comparison.exact(`batch.positionIds[${row}] without padding`, Array.from(ids.keys()), positions);
          const k = prompts.findIndex((prompt) => String(prompt.ids) === String(ids));
          // Without logits of its own a row repeats a prompt.
          if (k < 0 && !batchLogits) comparison.exact(`batch.ids[${row}] without padding`, ids, prompts[row]?.ids);
          if (k >= 0) comparison.numbers(`logits.${k} in a batch`, own, required(`logits.${k}`), tensorTolerance);
        }
        const results = await greedy(
          runner,
          prompts.map((prompt) => ({ ids: prompt.ids, maxNewTokens: prompt.greedy.length })),
        );
        for (const [k, { ids }] of results.entries()) comparison.exact(`prompts[${k}].greedy in a batch`, ids, prompts[k].greedy);
      },
    };
  if (folder.has("config.v5.json"))
    yield {
      kind: kindName,
      name: "config.v5.json",
      run: (comparison, { backend }) => {
        const { logits } = sequenceOutputs(backend, loadWithConfig(folder, "config.v5.json"), prompts[0].ids);
        comparison.numbers("logits", logits, required("logits.0"), tensorTolerance);
      },
    };
  if (expected.long !== undefined)
    yield {
      kind: kindName,
      name: "long",
      run: (comparison, { backend }) => {
        const { logits } = sequenceOutputs(backend, model(), asIntegers(asObject(expected.long, "long").ids, "long.ids"));
        const stored = required("long.logits");
        // Rows are stored from some position to the end.
        comparison.numbers("long.logits", logits.subarray(-stored.data.length), stored, tensorTolerance);
      },
    };
  if (expected.chat !== undefined)
    yield {
      kind: "models/checkpoints/chat",
      name: "chat",
      run: (comparison) => {
        const chat = asObject(expected.chat, "chat");
        const messages = asList(chat.messages, "chat.messages") as ChatMessage[];
        const template = ChatTemplate.load(dirname(folder.file("expected.json")));
        const options = { addGenerationPrompt: chat.addGenerationPrompt !== false };
        comparison.exact("chat.text", template?.render(messages, options), asText(chat.text, "chat.text"));
        comparison.exact("chat.ids", template?.encode(tokenizer(), messages, options).ids, asIntegers(chat.ids, "chat.ids"));
      },
    };
}

/** The rows of a padded batch without their padding. */
function unpad(batch: Fields): { ids: number[]; positions: number[]; places: number[]; width: number }[] {
  const mask = asList(batch.attentionMask, "batch.attentionMask");
  const positionIds = asList(batch.positionIds, "batch.positionIds");
  return asList(batch.ids, "batch.ids").map((value, row) => {
    const ids = asIntegers(value, `batch.ids[${row}]`);
    const flags = asIntegers(mask[row], `batch.attentionMask[${row}]`);
    const places = ids.flatMap((_, place) => (asInteger(flags[place], `batch.attentionMask[${row}]`) === 1 ? [place] : []));
    const positions = asIntegers(positionIds[row], `batch.positionIds[${row}]`);
    return { ids: places.map((place) => ids[place]), positions: places.map((place) => positions[place]), places, width: ids.length };
  });
}

const sliceOf = ({ data }: Numbers, start: number, end: number): ArrayLike<number> => (data as Float32Array).subarray(start, end);

function readTensor(folder: Folder, name: string): Numbers | undefined {
  using source = openSafetensors(folder.file("expected.safetensors"));
  if (!source.entries.has(name)) return undefined;
  const { data, shape } = source.read(name);
  return { data: data as Float32Array, shape };
}

/** The same weights with another file as config.json. */
function loadWithConfig(folder: Folder, config: string): ReturnType<typeof loadDecoder> {
  const copy = mkdtempSync(join(tmpdir(), "longwave-golden-"));
  try {
    for (const name of folder.files) if (/^model.*\.(safetensors|json)$/.test(name)) copyFileSync(folder.file(name), join(copy, name));
    copyFileSync(folder.file(config), join(copy, "config.json"));
    return loadDecoder(copy);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}
