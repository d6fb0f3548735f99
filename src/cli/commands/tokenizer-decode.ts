// `longwave tokenizer decode`: token ids to text.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { defineCommand } from "../command.ts";
import { readStdin } from "../io.ts";
import { printable } from "../render/format.ts";

export const tokenizerDecode = defineCommand({
  name: "tokenizer decode",
  summary: "Turn token ids into text",
  description: "Without ids, they are read from standard input, separated by spaces, commas or line breaks.",
  schema: z.object({
    tokenizer: z.string().min(1).describe("Folder with tokenizer.json, the file itself, or a llama2.c tokenizer."),
    ids: z.array(z.int().min(0)).default([]).describe("Token ids."),
    skipSpecialTokens: z.boolean().default(true).describe("Leave special tokens out of the text."),
  }),
  positionals: ["tokenizer", "ids"],
  hasJson: true,
  examples: [
    { command: "tokenizer decode tokenizer 403 407 261 378", note: "text of four tokens" },
    { command: 'tokenizer encode t "abc" | longwave tokenizer decode t', note: "there and back" },
  ],
  run: async ({ tokenizer: path, ids: given, skipSpecialTokens }, context) => {
    const { loadTokenizer } = await import("../../text/index.ts");
    const tokenizer = loadTokenizer(path);
    const ids = given.length > 0 ? given : parseIds((await readStdin(context)).toString("utf8"));
    const unknown = ids.find((id) => tokenizer.idToToken(id) === undefined);
    if (unknown !== undefined) throw new UsageError(`argument <ids>: expected ids below ${tokenizer.vocabSize}, got ${unknown}`);
    const text = tokenizer.decode(ids, { skipSpecialTokens });
    if (context.json) context.printJson({ count: ids.length, text });
    else context.print(context.stdout.isTTY ? printable(text) : text);
  },
});

function parseIds(text: string): number[] {
  return text
    .split(/[\s,]+/)
    .filter((word) => word !== "")
    .map((word) => {
      if (!/^\d{1,9}$/.test(word)) throw new UsageError(`standard input: expected token ids, got ${JSON.stringify(word.slice(0, 40))}`);
      return Number(word);
    });
}
