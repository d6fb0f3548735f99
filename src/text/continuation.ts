// Decoding of what follows a prompt.
import type { Tokenizer } from "./tokenizer.ts";

/** Ids of the prompt that can matter: a character takes at most four bytes, and so four tokens. */
const contextLength = 8;

/**
 * The tokenizer for text behind a prompt. Some tokenizers drop the space before the first word of a text, which a continuation is not.
 * @param prompt ids; not those of a chat, whose answers are texts of their own.
 */
export function continuing(tokenizer: Tokenizer, prompt: ArrayLike<number>): Pick<Tokenizer, "stream" | "specialIds" | "hash"> {
  return {
    stream: (options) => {
      const decoder = tokenizer.stream(options);
      for (let i = Math.max(0, prompt.length - contextLength); i < prompt.length; i++) decoder.push(prompt[i]);
      return decoder;
    },
    specialIds: tokenizer.specialIds,
    get hash() {
      return tokenizer.hash;
    },
  };
}
