// `longwave tokenizer encode`: text to token ids.
import { z } from "zod";
import { DataError } from "../../base/errors.ts";
import { defineCommand } from "../command.ts";
import { readStdin } from "../io.ts";
import { printable } from "../render/format.ts";
import { table } from "../render/table.ts";

export const tokenizerEncode = defineCommand({
  name: "tokenizer encode",
  summary: "Turn text into token ids",
  description: "Without a text, standard input is read. The ids are printed on one line.",
  schema: z.object({
    tokenizer: z.string().min(1).describe("Folder with tokenizer.json, the file itself, or a llama2.c tokenizer."),
    text: z.string().optional().describe("The text."),
    addSpecialTokens: z.boolean().default(true).describe("Add what the tokenizer puts around a text, such as a begin token."),
    parseSpecialTokens: z.boolean().default(true).describe("Read special tokens that are written out in the text as such."),
    tokens: z.boolean().default(false).describe("Print one line for each token: id and spelling."),
    count: z.boolean().default(false).describe("Print the number of tokens only."),
  }),
  positionals: ["tokenizer", "text"],
  hasJson: true,
  examples: [
    { command: 'tokenizer encode tokenizer "Once upon a time"', note: "ids of a text" },
    { command: "tokenizer encode tokenizer --count < book.txt", note: "how many tokens a file has" },
  ],
  run: async ({ tokenizer: path, text, addSpecialTokens, parseSpecialTokens, tokens, count }, context) => {
    const { loadTokenizer } = await import("../../text/index.ts");
    const tokenizer = loadTokenizer(path);
    const input = text ?? utf8(await readStdin(context));
    const ids = [...tokenizer.encode(input, { addSpecialTokens, parseSpecialTokens })];
    if (context.json) context.printJson({ count: ids.length, ids, tokens: ids.map((id) => tokenizer.idToToken(id) ?? null) });
    else if (count) context.print(String(ids.length));
    else if (tokens) {
      const rows = ids.map((id) => [String(id), printable(JSON.stringify(tokenizer.idToToken(id) ?? ""))]);
      context.stdout.write(table(rows, { align: "rl" }));
    } else context.print(ids.join(" "));
  },
});

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new DataError("standard input: expected UTF-8 text, got other bytes", { cause });
  }
}
