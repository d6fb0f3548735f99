// `longwave generate <model>`: text from a prompt, streamed.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import type { SpeculationSummary } from "../../decode/index.ts";
import { samplingOptions } from "../../decode/sampling/options.ts";
import { defineCommand } from "../command.ts";
import { readStdin } from "../io.ts";

const schema = z.object({
  model: z.string().min(1).describe("Checkpoint folder, run folder (its latest checkpoint) or llama2.c .bin file."),
  prompt: z.string().default("").describe("Text to go on from; - reads standard input.").meta({ short: "p" }),
  tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model."),
  maxNewTokens: z.int().min(0).default(200).describe("Tokens to generate at most.").meta({ short: "n" }),
  stop: z.array(z.string().min(1)).default([]).describe("Text that ends the answer; may be given several times."),
  seed: z.int().nonnegative().default(0).describe("Same seed, same text."),
  samples: z.int().min(1).default(1).describe("Texts to generate, side by side."),
  context: z.int().min(1).optional().describe("Positions of the cache. Default: the model's context length."),
  ignoreEos: z.boolean().default(false).describe("Go on after the end of text."),
  drafter: z.string().min(1).optional().describe("Drafter for faster generation: the folder or run of longwave train-drafter. Same text."),
  logProbs: z.int().min(0).optional().describe("With --json: log-probabilities of the tokens and of this many alternatives."),
  ...samplingOptions.shape,
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
  ],
  run: async (options, context) => {
    const {
      model,
      prompt,
      tokenizer: tokenizerPath,
      maxNewTokens,
      stop,
      seed,
      samples,
      context: capacity,
      ignoreEos,
      logProbs,
      drafter: drafterPath,
      ...sampling
    } = options;
    const { openModel } = await import("../model-folder.ts");
    const { DecoderRunner } = await import("../../decode/runner.ts");
    const { generate: run } = await import("../../decode/generate.ts");
    const { ignoredSettings } = await import("../../decode/sampling/options.ts");
    const { decoder, tokenizer } = openModel(model, tokenizerPath);
    if (logProbs !== undefined && !context.json) context.stderr.write("warning: --log-probs has no effect without --json\n");
    for (const name of ignoredSettings(sampling))
      context.stderr.write(`warning: ${context.phrase(`${name} has no effect without sampling`)}\n`);
    const text = prompt === "-" ? (await readStdin(context)).toString("utf8") : prompt;
    const ids = [...tokenizer.encode(text)];
    // The tokenizer puts in front of a text what the model expects there; where there is no text either, something must be.
    if (ids.length === 0) ids.push(beginningOf(tokenizer.specialIds));
    const limit = decoder.config.contextLength;
    if (capacity !== undefined && capacity > limit && decoder.config.position === "rotary")
      context.stderr.write(`warning: the model was trained for a context of ${limit} tokens, not ${capacity}\n`);
    const { backend } = await context.openRuntime();
    using runner = new DecoderRunner(backend, decoder, { batch: samples, ...(capacity === undefined ? {} : { capacity }) });
    const requests = Array.from({ length: samples }, (_, request) => ({
      ids,
      sampling,
      maxNewTokens,
      stop,
      // Each sample has a seed of its own, so that sample k is the same whatever runs beside it.
      seed: seed + request,
      logProbs,
      ...(ignoreEos ? { eosTokenIds: [] } : {}),
    }));
    const { openDrafter } = await import("../../recipes/drafter-source.ts");
    using drafter = drafterPath === undefined ? undefined : openDrafter(backend, drafterPath, decoder, tokenizer.hash);
    let speculation: SpeculationSummary | undefined;
    const start = performance.now();
    let numTokens = 0;
    const results: unknown[] = [];
    const stream = samples === 1 && !context.json;
    if (stream) context.stdout.write(text);
    const tokens: unknown[][] = requests.map(() => []);
    for await (const event of run(runner, requests, { tokenizer, signal: context.signal, drafter })) {
      if (event.kind !== "finish") {
        if (stream) context.stdout.write(event.text);
        if (event.kind === "text") continue;
        numTokens++;
        if (logProbs !== undefined) tokens[event.request].push({ id: event.id, logProb: event.logProb, top: event.top });
        continue;
      }
      speculation = event.speculation;
      results[event.request] = {
        text: event.text,
        ids: event.ids,
        reason: event.reason,
        ...(speculation === undefined ? {} : { speculation }),
        ...(logProbs === undefined ? {} : { tokens: tokens[event.request] }),
      };
    }
    const seconds = (performance.now() - start) / 1000;
    const tokensPerSecond = numTokens / seconds;
    if (context.json) return context.printJson({ prompt: text, results, numTokens, seconds, tokensPerSecond });
    if (stream) context.print();
    else for (const [i, result] of results.entries()) context.print(`--- ${i + 1}\n${text}${(result as { text: string }).text}`);
    context.stderr.write(`${numTokens} tokens in ${seconds.toFixed(2)} s, ${tokensPerSecond.toFixed(1)} tokens/s\n`);
    if (speculation) {
      const shares = speculation.acceptanceByPosition.map((share) => share.toFixed(2)).join(", ");
      context.stderr.write(`${speculation.tokensPerStep.toFixed(2)} tokens a step; accepted by position: ${shares || "no drafts"}\n`);
    }
  },
});

/** The token that stands for an empty prompt. @throws UsageError when the tokenizer has none. */
function beginningOf({ bos, eos }: { bos: number | undefined; eos: number | undefined }): number {
  const id = bos ?? eos;
  if (id !== undefined) return id;
  throw new UsageError("prompt: expected some text, got none, and the tokenizer has no token for the beginning of a text", {
    hint: "Give --prompt.",
  });
}
