// `longwave generate <model>`: text from a prompt, streamed.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import type { GrammarOptionsInput, SpeculationSummary } from "../../decode/index.ts";
import { type SamplingOptionsInput, samplingOptions } from "../../decode/sampling/options.ts";
import type { TextModel } from "../../recipes/text-model/text-model.ts";
import { continuing } from "../../text/index.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { readStdin } from "../io.ts";
import { speculationText, speedText } from "../render/speed.ts";
import { grouped, modelFields, openTextModel, samplingFields, speculationFields } from "../text-model-flags.ts";

const schema = z.object({
  ...modelFields,
  ...grouped("Prompt", {
    prompt: z.string().default("").describe("Text to go on from; - reads standard input.").meta({ short: "p" }),
    chat: z.boolean().default(false).describe("The prompt is a question: put it into the model's chat template."),
    system: z.string().optional().describe("With --chat: what the model is told first."),
    promptCache: z
      .string()
      .optional()
      .describe("File that keeps what the model has read of the prompt: taken when it fits, then written, so that it is not read twice.")
      .meta({ placeholder: "file" }),
  }),
  ...grouped("Length", {
    maxNewTokens: z.int().min(0).default(200).describe("Tokens to generate at most.").meta({ short: "n" }),
    stop: z.array(z.string().min(1)).default([]).describe("Text that ends the answer; may be given several times."),
    ignoreEos: z.boolean().default(false).describe("Go on after the end of text."),
  }),
  ...grouped("Sampling", {
    seed: z.int().nonnegative().default(0).describe("Same seed, same text."),
    samples: z.int().min(1).default(1).describe("Texts to generate, side by side."),
  }),
  ...samplingFields,
  ...grouped("Constraints", {
    jsonSchema: z.string().optional().describe("JSON schema that the text is an instance of: a file, or the schema itself."),
    grammar: z
      .string()
      .optional()
      .describe("File with a grammar in llama.cpp's notation (GBNF) that the text keeps to.")
      .meta({ placeholder: "file" }),
  }),
  ...speculationFields,
  ...grouped("Speculation", {
    drafter: z.string().min(1).optional().describe("The same as --speculate: the folder or run of longwave train-drafter."),
    verifier: z
      .enum(["lossless", "rejection", "block", "typical", "relaxed"])
      .default("lossless")
      .describe("How drafts are verified. typical and relaxed change the text; rejection and block are for draft models that draw."),
  }),
  ...grouped("Output", {
    logProbs: z.int().min(0).optional().describe("With --json: log-probabilities of the tokens and of this many alternatives."),
  }),
});

export const generate = defineCommand({
  name: "generate",
  summary: "Generate text from a model",
  description: "Samples from the model's own distribution unless told otherwise; --no-do-sample takes the most probable token each time.",
  schema,
  positionals: ["model"],
  hasJson: true,
  examples: [
    { command: 'generate runs/20260131-120000-quickstart --prompt "My fellow citizens" --temperature 0.8 --top-k 50', note: "from a run" },
    { command: "generate assets/stories260k/stories260K.bin --prompt 'Once upon a time' --no-do-sample", note: "greedy" },
    {
      command: `generate smol.gguf --chat --prompt "Invent a person." --json-schema '{"type":"object","properties":{"name":{"type":"string"}}}'`,
      note: "an answer in JSON",
    },
    { command: 'generate smol.gguf --chat --prompt "Why is the sky blue?" --speculate lookup', note: "a question, with drafts" },
  ],
  run: async (options, context) => {
    const fields = Object.keys(samplingOptions.shape) as (keyof typeof samplingOptions.shape)[];
    const sampling = Object.fromEntries(fields.map((name) => [name, options[name]])) as SamplingOptionsInput;
    const { prompt, maxNewTokens, stop, seed, samples, ignoreEos, logProbs, drafter: drafterPath } = options;
    const {
      compileGrammar,
      DecoderRunner,
      GrammarDrafter,
      generate: run,
      ignoredSettings,
      modelFingerprint,
    } = await import("../../decode/index.ts");
    const { verifierOf } = await import("../verifiers.ts");
    const speculate = drafterPath ?? options.speculate;
    if (samples > 1 && (speculate !== "none" || options.exact || options.promptCache !== undefined))
      throw new UsageError(`samples: expected 1 with --speculate, --exact or --prompt-cache, got ${samples}`);
    if (logProbs !== undefined && !context.json) context.stderr.write("warning: --log-probs has no effect without --json\n");
    for (const name of ignoredSettings(sampling as never))
      context.stderr.write(`warning: ${context.phrase(`${name} has no effect with these settings`)}\n`);
    const verifier = await verifierOf(options.verifier, sampling.doSample === false);
    if (verifier && !verifier.lossless) context.stderr.write(`warning: ${verifier.name} verification is lossy: it changes the text\n`);
    using model = await openTextModel({ ...options, speculate }, context, {
      draw: options.verifier === "rejection" || options.verifier === "block",
      prepare: samples === 1,
    });
    const { tokenizer } = model;
    const given = prompt === "-" ? (await readStdin(context)).toString("utf8") : prompt;
    const { system } = options;
    if (system !== undefined && !options.chat) context.stderr.write("warning: --system has no effect without --chat\n");
    const text = options.chat ? "" : given;
    const ids = options.chat
      ? model.chatIds([...(system === undefined ? [] : [{ role: "system", content: system }]), { role: "user", content: given }])
      : model.encode(given);
    // Several samples share a batch; one sample uses the model's own row.
    using several =
      samples > 1 ? new DecoderRunner(model.backend, model.loaded.model, { batch: samples, capacity: model.runner.capacity }) : undefined;
    const runner = several ?? model.runner;
    const cachedLength =
      options.promptCache === undefined ? 0 : await usePromptCache(options.promptCache, model, ids, modelFingerprint, context);
    const streamed = options.chat ? tokenizer : continuing(tokenizer, ids);
    const eosTokenIds = ignoreEos ? [] : model.loaded.eosTokenIds;
    const rules = grammarFiles(options);
    if (rules && ignoreEos) throw new UsageError("ignoreEos: expected the end of text to end an answer under a grammar");
    const requests = Array.from({ length: samples }, (_, request) => ({
      ids,
      ...(rules ? { grammar: compileGrammar(rules, tokenizer, eosTokenIds) } : {}),
      cachedLength,
      sampling,
      maxNewTokens,
      stop,
      // Each sample has a seed of its own, so that sample k is the same whatever runs beside it.
      seed: seed + request,
      logProbs,
      eosTokenIds,
    }));
    // What a grammar leaves no choice about need not be computed token by token.
    const drafter = rules && samples === 1 ? new GrammarDrafter(model.drafter ? { otherwise: model.drafter } : {}) : model.drafter;
    let speculation: SpeculationSummary | undefined;
    let cut: string | undefined;
    const { SpeedMeter } = await import("../../recipes/text-model/generation-speed.ts");
    const meter = new SpeedMeter(samples * (ids.length - cachedLength), samples);
    const start = performance.now();
    let numTokens = 0;
    const results: unknown[] = [];
    const stream = samples === 1 && !context.json;
    const tokens: unknown[][] = requests.map(() => []);
    for await (const event of run(runner, requests, {
      tokenizer: streamed,
      signal: context.signal,
      drafter,
      verifier,
      onStep: meter.onStep,
    })) {
      meter.see(event);
      if (event.kind !== "finish") {
        if (stream && numTokens === 0 && event.kind === "token") context.stdout.write(text);
        if (stream) context.stdout.write(event.text);
        if (event.kind === "text") continue;
        numTokens++;
        if (logProbs !== undefined) tokens[event.request].push({ id: event.id, logProb: event.logProb, top: event.top });
        continue;
      }
      speculation = event.speculation;
      if (event.reason === "length" && (rules || options.chat)) cut = "warning: cut at --max-new-tokens";
      if (event.reason === "context") cut = contextNote(model);
      results[event.request] = {
        text: event.text,
        ids: event.ids,
        reason: event.reason,
        ...(speculation === undefined ? {} : { speculation }),
        ...(logProbs === undefined ? {} : { tokens: tokens[event.request] }),
      };
    }
    const seconds = (performance.now() - start) / 1000;
    const speed = meter.result();
    if (context.json)
      return context.printJson({ prompt: given, results, numTokens, seconds, tokensPerSecond: speed.generationTokensPerSecond, speed });
    if (stream) context.print();
    else for (const [i, result] of results.entries()) context.print(`--- ${i + 1}\n${text}${(result as { text: string }).text}`);
    context.stderr.write(`${speedText(speed, cachedLength)}\n`);
    if (cut !== undefined) context.stderr.write(`${cut}\n`);
    if (speculation && speculate !== "none") context.stderr.write(`${speculationText(speculation)}\n`);
  },
});

/** Where a text ended for want of room, and what gives it more. No warning: the usual number of tokens alone may be more than fits. */
function contextNote({ runner: { capacity }, config: { contextLength, position } }: TextModel): string {
  if (capacity < contextLength) return `stopped at a context of ${capacity} tokens: --context ${contextLength} is all that the model has`;
  const more = position === "rotary" ? `: --context ${2 * capacity} goes on, beyond what it was trained for` : "";
  return capacity === contextLength
    ? `stopped at the model's context of ${capacity} tokens${more}`
    : `stopped at a context of ${capacity} tokens`;
}

/** The rules that the text keeps to, read from where the flags say. @throws UsageError for a file that is none. */
function grammarFiles({ grammar, jsonSchema }: { grammar?: string; jsonSchema?: string }): GrammarOptionsInput | undefined {
  if (grammar === undefined && jsonSchema === undefined) return undefined;
  const read = (name: string, path: string): string => {
    try {
      return readFileSync(path, "utf8");
    } catch (cause) {
      throw new UsageError(`${name}: expected a file, got ${JSON.stringify(path)}`, { hint: "Check the path.", cause });
    }
  };
  if (jsonSchema === undefined) return { grammar: read("grammar", grammar as string) };
  const text = /^\s*[{[]|^(true|false)$/.test(jsonSchema) ? jsonSchema : read("jsonSchema", jsonSchema);
  try {
    return { ...(grammar === undefined ? {} : { grammar: read("grammar", grammar) }), jsonSchema: JSON.parse(text) };
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(`jsonSchema: expected JSON, got ${JSON.stringify(text.slice(0, 60))}`, { hint: (cause as Error).message });
  }
}

/** Takes from the file what the prompt begins with; reads and saves the rest of the prompt when the file had not all of it. */
async function usePromptCache(
  path: string,
  { runner, loaded }: TextModel,
  ids: Int32Array,
  modelFingerprint: (model: TextModel["loaded"]["model"]) => string,
  context: CommandContext,
): Promise<number> {
  const { existsSync } = await import("node:fs");
  const { loadPromptCache, savePromptCache } = await import("../../decode/prompt-cache.ts");
  const fingerprint = modelFingerprint(loaded.model);
  const all = ids.length - 1;
  let length = 0;
  if (existsSync(path)) length = loadPromptCache(path, runner, 0, ids, fingerprint).length;
  if (length < all) {
    await runner.prefillAsync(0, ids.subarray(length, all), { promptLength: ids.length, signal: context.signal });
    savePromptCache(path, runner, 0, ids.subarray(0, all), fingerprint);
  }
  context.stderr.write(`${length} of ${ids.length} prompt tokens from ${path}\n`);
  return all;
}
