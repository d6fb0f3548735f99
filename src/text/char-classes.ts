// Unicode classes of the splitting patterns (letter, number, white space, other), one byte per code point.
// The table fills itself on first use of a code point, so that nothing is computed at import and rare planes cost no time.

/** Values of {@link classTable}; 0 means "not looked up yet". */
export const letter = 1;
export const number = 2;
export const space = 3;
export const other = 4;

const numCodePoints = 0x110000;
let table: Uint8Array | undefined;

/** The class of every code point; an entry of 0 must be filled with {@link classify}. */
export function classTable(): Uint8Array {
  table ??= new Uint8Array(numCodePoints);
  return table;
}

/** Looks a code point up in the Unicode tables of the JavaScript engine and remembers the answer. Lone surrogates are `other`. */
export function classify(codePoint: number): number {
  const character = String.fromCodePoint(codePoint);
  let kind = other;
  if (/^\p{L}$/u.test(character)) kind = letter;
  else if (/^\p{N}$/u.test(character)) kind = number;
  // Not `\s`: JavaScript counts U+FEFF as white space and U+0085 not; the tokenizers' patterns mean the Unicode property.
  else if (/^\p{White_Space}$/u.test(character)) kind = space;
  classTable()[codePoint] = kind;
  return kind;
}
