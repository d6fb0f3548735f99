// The byte-level alphabet of GPT-2: every byte has a printable character, so that tokens can be written as text in a vocabulary file.
// Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 and up, in order.

/** The character of every byte. */
export const byteCharacters: readonly string[] = makeByteCharacters();

function makeByteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : next++);
  });
}

const lastCode = 0x143;
const bytesOfCodes = /* @__PURE__ */ makeBytesOfCodes();

function makeBytesOfCodes(): Int16Array {
  const bytes = new Int16Array(lastCode + 1).fill(-1);
  byteCharacters.forEach((character, byte) => {
    bytes[character.charCodeAt(0)] = byte;
  });
  return bytes;
}

/** All 256 bytes in the order of their characters' code points, which is the order of their ids in a vocabulary. */
export function bytesInCharacterOrder(): number[] {
  return byteCharacters.map((_, byte) => byte).sort((a, b) => byteCharacters[a].charCodeAt(0) - byteCharacters[b].charCodeAt(0));
}

/** The bytes that a byte-level token stands for, or undefined when a character is not of the alphabet. */
export function bytesOfToken(token: string): Uint8Array<ArrayBuffer> | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const code = token.charCodeAt(i);
    const byte = code <= lastCode ? bytesOfCodes[code] : -1;
    if (byte < 0) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/** The byte-level spelling of UTF-8 bytes. */
export function tokenOfBytes(bytes: Uint8Array): string {
  let token = "";
  for (const byte of bytes) token += byteCharacters[byte];
  return token;
}

/**
 * Writes UTF-16 code units as UTF-8 into `target` from `offset` on and returns the end. A lone surrogate becomes U+FFFD.
 * `target` needs three bytes per unit.
 */
export function writeUtf8(units: ArrayLike<number>, start: number, end: number, target: Uint8Array, offset: number): number {
  let to = offset;
  for (let i = start; i < end; i++) {
    let code = units[i];
    if (code < 0x80) {
      target[to++] = code;
      continue;
    }
    if (code < 0x800) {
      target[to++] = 0xc0 | (code >> 6);
      target[to++] = 0x80 | (code & 63);
      continue;
    }
    if ((code & 0xf800) === 0xd800) {
      const low = (code & 0xfc00) === 0xd800 && i + 1 < end ? units[i + 1] : 0;
      if ((low & 0xfc00) === 0xdc00) {
        i++;
        code = ((code - 0xd800) << 10) + (low - 0xdc00) + 0x10000;
        target[to++] = 0xf0 | (code >> 18);
        target[to++] = 0x80 | ((code >> 12) & 63);
        target[to++] = 0x80 | ((code >> 6) & 63);
        target[to++] = 0x80 | (code & 63);
        continue;
      }
      code = 0xfffd;
    }
    target[to++] = 0xe0 | (code >> 12);
    target[to++] = 0x80 | ((code >> 6) & 63);
    target[to++] = 0x80 | (code & 63);
  }
  return to;
}
