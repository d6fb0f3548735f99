// `longwave evaluate <model> <data>`: loss, perplexity and bits per byte of a model on text.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { sourceSchema } from "../../data/sources.ts";
import { defineCommand } from "../command.ts";

export const evaluate = defineCommand({
  name: "evaluate",
  summary: "Measure a model's loss on text",
  description: "Loss in nats a token, perplexity, and bits per byte, which compares models with different vocabularies.",
  schema: z.object({
    model: z.string().min(1).describe("Checkpoint folder, run folder (its latest checkpoint) or llama2.c .bin file."),
    data: z.array(z.string()).default([]).describe("Text or JSONL files, folders or patterns. Default: the State of the Union addresses."),
    tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model."),
    batchSize: z.int().min(1).default(8).describe("Sequences at a time."),
    sequenceLength: z.int().min(1).optional().describe("Tokens of a sequence. Default: the model's context length, at most 1024."),
    maxBatches: z.int().min(1).optional().describe("Stop after so many batches. Default: all of the data."),
    validation: z
      .number()
      .min(0)
      .lt(1)
      .default(0)
      .describe("Only this share of the documents, chosen as pretrain chooses its validation set; 0: all."),
    ...sourceSchema.shape,
  }),
  positionals: ["model", "data"],
  hasJson: true,
  examples: [
    { command: "evaluate runs/20260131-120000-quickstart --validation 0.05", note: "on what the quickstart kept for validation" },
    { command: "evaluate model/ book.txt", note: "on a file" },
  ],
  run: async (options, context) => {
    const { openModel } = await import("../model-folder.ts");
    const { contentHash, openCorpus, packDocuments, stateOfTheUnion, tokensOf } = await import("../../data/index.ts");
    const { holdOut } = await import("../../recipes/index.ts");
    const { Evaluator } = await import("../../train/index.ts");
    const { tokenByteLengths } = await import("../../text/index.ts");
    const { decoder, tokenizer, path } = openModel(options.model, options.tokenizer);
    const { field, splitBy, extensions, signal } = { ...options, signal: context.signal };
    const corpus = options.data.length > 0 ? openCorpus(options.data, { field, splitBy, extensions }) : stateOfTheUnion();
    const { contextLength, position } = decoder.config;
    const length = options.sequenceLength ?? Math.min(contextLength, 1024);
    if (length > contextLength && position === "learned")
      throw new UsageError(`sequenceLength: expected at most ${contextLength}, got ${length}`, {
        hint: "The model has learned no further positions.",
      });
    if (length > contextLength) context.stderr.write(`warning: the model was trained for sequences of ${contextLength} tokens at most\n`);
    const encoded: Int32Array[] = [];
    const hashes: number[] = [];
    for await (const { text } of corpus.documents({ signal })) {
      encoded.push(tokenizer.encode(text, { addSpecialTokens: false }));
      hashes.push(contentHash(text));
      signal.throwIfAborted();
    }
    const all = tokensOf(encoded, hashes);
    const source = holdOut(all, options.validation).validation ?? all;
    const rows = packDocuments(source, { length, separator: tokenizer.specialIds.eos ?? tokenizer.specialIds.bos ?? null });
    const { backend } = await context.openRuntime();
    const evaluator = new Evaluator(backend, decoder, { batchSize: options.batchSize, length });
    try {
      const start = performance.now();
      const metrics = await evaluator.run(rows, { bytesOfToken: tokenByteLengths(tokenizer), maxBatches: options.maxBatches, signal });
      const seconds = (performance.now() - start) / 1000;
      const result = {
        model: path,
        data: corpus.name,
        sequenceLength: length,
        ...metrics,
        seconds,
        tokensPerSecond: metrics.tokens / seconds,
      };
      if (context.json) return context.printJson(result);
      context.print(`loss          ${metrics.loss.toFixed(4)} nats a token`);
      context.print(`perplexity    ${metrics.perplexity.toFixed(3)}`);
      if (metrics.bitsPerByte !== undefined) context.print(`bits per byte ${metrics.bitsPerByte.toFixed(4)}`);
      context.print(`tokens        ${metrics.tokens.toLocaleString("en-US")} in ${seconds.toFixed(1)} s`);
    } finally {
      evaluator.dispose();
    }
  },
});
