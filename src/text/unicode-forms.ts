// Unicode normalisation that keeps track of where characters came from. The text is JavaScript's own `normalize`; places follow the
// canonical algorithm (Unicode Standard Annex 15): decompose, order marks, compose, one mark at a time.
import { type AlignedText, Rewrite } from "./aligned-text.ts";

export type UnicodeForm = "NFC" | "NFD" | "NFKC" | "NFKD";

interface Item {
  character: string;
  change: number;
}

/** The normal form of a text. */
export function normalizeForm(source: AlignedText, form: UnicodeForm): AlignedText {
  const text = source.text.normalize(form);
  if (text === source.text) return source;
  if (!source.starts) return { text, isFirst: source.isFirst };
  const rewrite = new Rewrite(source);
  const decomposed = decompose(source.text, form === "NFC" || form === "NFD" ? "NFD" : "NFKD");
  for (const { character, change } of form === "NFC" || form === "NFKC" ? compose(decomposed) : decomposed) rewrite.push(character, change);
  return rewrite.finish();
}

/** Characters of the decomposition, marks in canonical order. */
function decompose(text: string, form: "NFD" | "NFKD"): Item[] {
  const items: Item[] = [];
  let run: Item[] = [];
  const flush = (): void => {
    for (const item of inOrder(run)) items.push(item);
    run = [];
  };
  for (const character of text) {
    let change = 0;
    for (const part of character.normalize(form)) {
      if (!isMark(part)) flush();
      const item = { character: part, change };
      if (isMark(part)) run.push(item);
      else items.push(item);
      change = 1;
    }
  }
  flush();
  return items;
}

/** A run of marks, sorted by combining class; equal classes keep their order. */
function inOrder(run: Item[]): Item[] {
  if (run.length < 2) return run;
  const places = new Map<string, Item[]>();
  for (const item of run) {
    const known = places.get(item.character);
    if (known) known.push(item);
    else places.set(item.character, [item]);
  }
  for (const items of places.values()) items.reverse();
  return Array.from(
    run
      .map(({ character }) => character)
      .join("")
      .normalize("NFD"),
    (character) => places.get(character)?.pop() as Item,
  );
}

/** Joins marks with the character that they belong to; what was joined is one change less. */
function compose(items: readonly Item[]): Item[] {
  const out: Item[] = [];
  let starter = -1;
  // The last mark after the starter that did not join it: marks of its class, and starters, are blocked from joining.
  let blocking: string | undefined;
  for (const { character, change } of items) {
    const mark = isMark(character);
    const isBlocked = blocking !== undefined && (!mark || sameClass(blocking, character));
    const joined = starter < 0 || isBlocked ? undefined : composed(out[starter].character, character);
    if (joined !== undefined) {
      out[starter] = { character: joined, change: out[starter].change + change - 1 };
      continue;
    }
    out.push({ character, change });
    if (mark) blocking = character;
    else {
      starter = out.length - 1;
      blocking = undefined;
    }
  }
  return out;
}

/** The one character that two characters compose to. */
function composed(first: string, second: string): string | undefined {
  const pair = (first + second).normalize("NFC");
  if (pair.length > 2 || pair === first + second) return undefined;
  return pair.length === 1 || (pair.codePointAt(0) as number) > 0xffff ? pair : undefined;
}

const marks = new Map<string, boolean>();
/** U+0345 has the highest combining class, U+0334 the lowest: whatever changes places with one of them has a class. */
const [highest, lowest] = ["\u0345", "\u0334"];

/** The combining class is not 0. */
function isMark(character: string): boolean {
  if (character < "\u0300") return false;
  let mark = marks.get(character);
  if (mark === undefined) {
    mark = character === highest || (highest + character).normalize("NFD") !== highest + character || character === lowest;
    // Only as many entries as there are marks and characters that were asked about.
    if (marks.size < 1 << 16) marks.set(character, mark);
  }
  return mark;
}

/** @param first @param second two marks in canonical order. */
const sameClass = (first: string, second: string): boolean => (second + first).normalize("NFD") === second + first;
