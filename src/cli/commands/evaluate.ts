// `longwave evaluate <model> <data>`: loss, perplexity and bits per byte of a model on text.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { sourceSchema } from "../../data/sources.ts";
import { defineCommand } from "../command.ts";
import { formatDuration, formatMetric, printable } from "../render/format.ts";
import { createLiveLine } from "../render/live-line.ts";

/** Enough for three digits of the loss, in seconds for a small model. */
const usualTokens = 200_000;

export const evaluate = defineCommand({
  name: "evaluate",
  summary: "Measure a model's loss on text",
  description: [
    "Loss in nats a token, perplexity, and bits per byte, which compares models with different vocabularies.",
    `Without data, a run is measured on what it kept for validation, and any other model on the State of the Union addresses: on at most`,
    `${usualTokens.toLocaleString("en-US")} tokens of them, unless --max-batches says otherwise.`,
  ].join("\n"),
  schema: z.object({
    model: z.string().min(1).describe("Checkpoint folder, run folder (its latest checkpoint), .gguf or llama2.c .bin file."),
    data: z.array(z.string()).default([]).describe("Text or JSONL files, folders or patterns. Default: see above."),
    tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model."),
    batchSize: z.int().min(1).default(8).describe("Sequences at a time."),
    sequenceLength: z
      .int()
      .min(1)
      .optional()
      .describe("Tokens of a sequence. Default: the run's with its own data, else the model's context length, at most 1024."),
    maxBatches: z
      .int()
      .min(0)
      .optional()
      .describe(`Stop after so many batches; 0: never. Default: never with data, else after ${usualTokens} tokens.`),
    validation: z
      .number()
      .min(0)
      .lt(1)
      .optional()
      .describe(
        "Only this share of the documents, chosen as pretrain chooses its validation set; 0: all. Default: the run's, or 0 with data.",
      ),
    ...sourceSchema.shape,
  }),
  positionals: ["model", "data"],
  hasJson: true,
  examples: [
    { command: "evaluate runs/20260131-120000-quickstart", note: "on what the run kept for validation" },
    { command: "evaluate model/ book.txt", note: "on a file" },
  ],
  run: async (options, context) => {
    const { openModel } = await import("../model-folder.ts");
    const { chooseEvaluationData } = await import("../evaluation-data.ts");
    const { packDocuments } = await import("../../data/index.ts");
    const { Evaluator } = await import("../../train/index.ts");
    const { tokenByteLengths } = await import("../../text/index.ts");
    const { decoder, tokenizer, path } = openModel(options.model, options.tokenizer);
    const { field, splitBy, extensions, batchSize } = options;
    const { signal } = context;
    const line = createLiveLine(context.stderr);
    const warn = (message: string): void => context.stderr.write(`warning: ${message}\n`);
    const data = chooseEvaluationData({
      ...{ model: options.model, data: options.data, source: { field, splitBy, extensions } },
      ...{ validation: options.validation, tokenizer, signal, report: line.update, warn },
    });
    let evaluator: InstanceType<typeof Evaluator> | undefined;
    let soFar: { batch: number; batches: number; tokens: number; loss: number } | undefined;
    try {
      const { contextLength, position } = decoder.config;
      const length = options.sequenceLength ?? data.sequenceLength ?? Math.min(contextLength, 1024);
      if (length > contextLength && position === "learned")
        throw new UsageError(`sequenceLength: expected at most ${contextLength}, got ${length}`, {
          hint: "The model has learned no further positions.",
        });
      if (length > contextLength) warn(`the model was trained for sequences of ${contextLength} tokens at most`);
      const usualBatches = data.isNamed ? 0 : Math.ceil(usualTokens / (batchSize * length));
      const maxBatches = (options.maxBatches ?? usualBatches) || Number.POSITIVE_INFINITY;
      const rows = packDocuments(await data.tokens(maxBatches * batchSize * length + 1), {
        length,
        mode: data.packing,
        separator: tokenizer.specialIds.eos ?? tokenizer.specialIds.bos ?? null,
        crossDocumentTargets: !data.isolateDocuments,
      });
      const { backend } = await context.openRuntime();
      evaluator = new Evaluator(backend, decoder, { batchSize, length, isolateDocuments: data.isolateDocuments });
      const start = performance.now();
      const secondsSince = (): number => (performance.now() - start) / 1000;
      const metrics = await evaluator.run(rows, {
        bytesOfToken: tokenByteLengths(tokenizer),
        ...{ maxBatches, signal },
        onProgress: (progress) => {
          soFar = progress;
          const { batch, batches, tokens, loss } = progress;
          line.update(() => {
            const rest = (secondsSince() / batch) * (batches - batch);
            return `evaluating: batch ${batch}/${batches}  ${tokens.toLocaleString("en-US")} tokens  loss ${formatMetric(loss)}  ETA ${formatDuration(rest)}`;
          });
        },
      });
      line.clear();
      const seconds = secondsSince();
      if (context.json)
        return context.printJson({
          model: path,
          data: data.name,
          sequenceLength: length,
          ...metrics,
          seconds,
          tokensPerSecond: metrics.tokens / seconds,
        });
      context.print(`model         ${printable(context.phrase(path))}`);
      context.print(`data          ${data.name}`);
      context.print(`loss          ${metrics.loss.toFixed(4)} nats a token`);
      context.print(`perplexity    ${metrics.perplexity.toFixed(3)}`);
      if (metrics.bitsPerByte !== undefined) context.print(`bits per byte ${metrics.bitsPerByte.toFixed(4)}`);
      const isCut = rows.numRows > maxBatches * batchSize;
      context.print(
        `tokens        ${metrics.tokens.toLocaleString("en-US")} in ${formatDuration(seconds)}${isCut ? ", not all: see --max-batches" : ""}`,
      );
    } catch (error) {
      line.clear();
      // Minutes of work are worth a number; it goes where no script takes it for the result.
      if (signal.aborted && soFar)
        context.stderr.write(
          `loss so far   ${soFar.loss.toFixed(4)} nats a token over ${soFar.tokens.toLocaleString("en-US")} tokens, batch ${soFar.batch} of ${soFar.batches}\n`,
        );
      throw error;
    } finally {
      line.clear();
      evaluator?.dispose();
      data.close();
    }
  },
});
