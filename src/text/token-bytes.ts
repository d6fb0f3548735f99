// How many bytes of text each token stands for: what turns nats a token into bits a byte, which compares across vocabularies.
import { byteCharacters } from "./byte-alphabet.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** UTF-8 bytes of the text of every id; 0 for special tokens and unused ids. Byte-level, byte-fallback and metaspace vocabularies. */
export function tokenByteLengths(tokenizer: Tokenizer): Uint16Array<ArrayBuffer> {
  const lengths = new Uint16Array(tokenizer.vocabSize);
  const special = new Set(tokenizer.specialIds.all);
  // In a byte-level vocabulary a space is spelled Ġ; in the others it is ▁ (or itself).
  const byteLevel = tokenizer.tokenToId(byteCharacters[0x20]) !== undefined && tokenizer.tokenToId("▁") === undefined;
  for (let id = 0; id < lengths.length; id++) {
    const token = tokenizer.idToToken(id);
    if (token === undefined || special.has(id)) continue;
    if (byteLevel) lengths[id] = [...token].length;
    else if (/^<0x[0-9A-Fa-f]{2}>$/.test(token)) lengths[id] = 1;
    else lengths[id] = Buffer.byteLength(token.replaceAll("▁", " "));
  }
  return lengths;
}
