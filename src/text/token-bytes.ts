// Which bytes of text each token stands for, and how many: what joins vocabularies, what a grammar reads, and what turns nats a token into
// bits a byte, which compares across vocabularies.
import { byteCharacters, bytesOfToken } from "./byte-alphabet.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * The bytes that every id stands for inside of a text, by id; undefined for special tokens, unused ids and tokens that have none. Byte-level,
 * byte-fallback and metaspace vocabularies.
 */
export function tokenBytes(tokenizer: Tokenizer): (Uint8Array | undefined)[] {
  const special = new Set(tokenizer.specialIds.all);
  const byteLevel = isByteLevel(tokenizer);
  return Array.from({ length: tokenizer.vocabSize }, (_, id) => {
    const token = tokenizer.idToToken(id);
    if (token === undefined || special.has(id)) return undefined;
    // Added tokens are written as they are, also in a byte-level vocabulary.
    const bytes = byteLevel ? bytesOfToken(token) : undefined;
    if (bytes) return bytes;
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    return byte && !byteLevel ? Uint8Array.of(Number.parseInt(byte[1], 16)) : new TextEncoder().encode(token.replaceAll("▁", " "));
  });
}

/** In a byte-level vocabulary a space is spelled Ġ; in the others it is ▁ (or itself). */
const isByteLevel = (tokenizer: Tokenizer): boolean =>
  tokenizer.tokenToId(byteCharacters[0x20]) !== undefined && tokenizer.tokenToId("▁") === undefined;

/** UTF-8 bytes of the text of every id; 0 for special tokens and unused ids. Vocabularies as for {@link tokenBytes}. */
export function tokenByteLengths(tokenizer: Tokenizer): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(tokenBytes(tokenizer), (bytes) => bytes?.length ?? 0);
}
