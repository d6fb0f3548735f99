// `longwave tokenizer train`: a byte-level BPE vocabulary from text files, written as Hugging Face's tokenizer.json.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { sourceSchema } from "../../data/sources.ts";
import { type BpeProgress, bpeTrainerOptions } from "../../text/bpe-trainer.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatCount, formatDuration } from "../render/format.ts";

const endOfText = "<|endoftext|>";

const schema = z.object({
  files: z.array(z.string().min(1)).min(1).describe("Text or JSONL files, folders, or patterns in quotes such as 'data/**/*.txt'."),
  output: z.string().min(1).describe("Folder for tokenizer.json and tokenizer_config.json.").meta({ short: "o", placeholder: "folder" }),
  ...bpeTrainerOptions.shape,
  ...sourceSchema.shape,
  specialTokens: bpeTrainerOptions.shape.specialTokens.default([endOfText]),
  bosToken: z.string().optional().describe("Special token that begins a text."),
  eosToken: z.string().optional().describe(`Special token that ends a text; ${endOfText} when it is among the special tokens.`),
  padToken: z.string().optional().describe("Special token that fills batches."),
  addBos: z.boolean().default(false).describe("Begin every encoded text with the bos token."),
  maxLength: z.int().min(1).optional().describe("Longest input of the model in tokens, noted in tokenizer_config.json."),
});

export const tokenizerTrain = defineCommand({
  name: "tokenizer train",
  summary: "Train a byte-level BPE tokenizer",
  description: "The files are what transformers, tokenizers and @huggingface/tokenizers load.",
  schema,
  positionals: ["files"],
  hasJson: true,
  examples: [
    { command: "tokenizer train corpus/*.txt -o tokenizer --vocab-size 4096", note: "4,096 tokens, GPT-2's way of splitting words" },
    {
      command: "tokenizer train chat.txt -o tokenizer --special-tokens '<|im_start|>' --special-tokens '<|im_end|>'",
      note: "own special tokens",
    },
  ],
  run: async (options, context) => {
    const { files, output, field, splitBy, extensions, bosToken, eosToken, padToken, addBos, maxLength, ...trainer } = options;
    const { openCorpus } = await import("../../data/sources.ts");
    const { saveTokenizer, trainBpe } = await import("../../text/index.ts");
    const special = trainer.specialTokens;
    const roles = { bosToken, eosToken: eosToken ?? (special.includes(endOfText) ? endOfText : undefined), padToken, addBos, maxLength };
    // Before minutes of training rather than after them.
    for (const token of [roles.bosToken, roles.eosToken, roles.padToken]) {
      if (token !== undefined && !special.includes(token)) {
        throw new UsageError(`option \`specialTokens\`: expected ${JSON.stringify(token)} among them, got ${JSON.stringify(special)}`);
      }
    }
    const corpus = openCorpus(files, { field, splitBy, extensions });
    const start = performance.now();
    const { signal } = context;
    let numCharacters = 0;
    async function* texts(): AsyncGenerator<string> {
      for await (const { text } of corpus.documents({ signal })) {
        numCharacters += text.length;
        yield text;
      }
    }
    const progress = progressLine(context);
    const trained = await trainBpe(texts(), trainer, { signal, onProgress: progress.show }).finally(progress.end);
    saveTokenizer(output, trained, roles);
    const seconds = (performance.now() - start) / 1000;
    const result = { folder: output, vocabSize: trained.tokens.length, numMerges: trained.merges.length, numCharacters, seconds };
    if (context.json) context.printJson(result);
    else {
      const merged = `${result.vocabSize} tokens, ${result.numMerges} merges`;
      context.print(`${merged} from ${formatCount(numCharacters)} characters in ${formatDuration(seconds)}: ${output}`);
    }
  },
});

/** A live line on standard error; nothing where that is no terminal. */
function progressLine({ stderr }: CommandContext): { show(event: BpeProgress): void; end(): void } {
  if (!stderr.isTTY) return { show: () => {}, end: () => {} };
  return {
    show: ({ phase, done, total }) => {
      const text = phase === "count" ? `reading: ${formatCount(done)} characters` : `merging: ${done}/${total} tokens`;
      stderr.write(`\r\u001b[2K${text}`);
    },
    end: () => stderr.write("\r\u001b[2K"),
  };
}
