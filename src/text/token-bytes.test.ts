import { expect, test } from "vitest";
import { loadTokenizer } from "./load-tokenizer.ts";
import { tokenByteLengths, tokenBytes } from "./token-bytes.ts";

test("the bytes of a text's tokens are the text", () => {
  const tokenizer = loadTokenizer("assets/stories260k/tok512.bin");
  const bytes = tokenBytes(tokenizer);
  const text = "Once upon a time, there was a dög 🐕.";
  const joined = Buffer.concat([...tokenizer.encode(text)].map((id) => bytes[id] ?? new Uint8Array(0))).toString("utf8");
  expect(joined.trimStart()).toBe(text);
  const lengths = tokenByteLengths(tokenizer);
  for (const [id, piece] of bytes.entries()) expect(piece?.length ?? 0).toBe(lengths[id]);
});
