// Counts the distinct words of a stream of texts. Only the distinct words are kept, so the size of the stream does not matter.
import { writeUtf8 } from "./byte-alphabet.ts";
import { type PreTokenizerKind, type WordEnd, wordEndOf } from "./pre-tokenizer.ts";
import { grow, WordTable } from "./word-table.ts";

export class WordCounter {
  /** Code units read so far. */
  numUnits = 0;
  /** Words read so far, repetitions included. */
  numWords = 0;
  private readonly table = new WordTable();
  private readonly wordEnd: WordEnd;
  private counts = new Float64Array(1 << 9);

  constructor(preTokenizer: PreTokenizerKind) {
    this.wordEnd = wordEndOf(preTokenizer);
  }

  get numDistinct(): number {
    return this.table.length;
  }

  /**
   * Counts words of `text` from `start` on, at most `maxWords` of them, and returns where it stopped. The text is a document of its own:
   * no word reaches into the next one.
   */
  add(text: string, start = 0, maxWords = Number.POSITIVE_INFINITY): number {
    const { wordEnd, table } = this;
    const length = text.length;
    let at = start;
    let left = maxWords;
    for (; at < length && left > 0; left--) {
      const end = wordEnd(text, at, length);
      let word = table.find(text, at, end);
      if (word < 0) {
        word = table.add(text, at, end);
        if (word >= this.counts.length) this.counts = grow(this.counts, this.counts.length * 2);
      }
      this.counts[word]++;
      this.numWords++;
      at = end;
    }
    this.numUnits += at - start;
    return at;
  }

  /** The distinct words as bytes, with their counts. */
  words(): { bytes: Uint8Array; starts: Float64Array; counts: Float64Array; numWords: number } {
    const { units, starts: unitStarts, numUnits, length } = this.table;
    const bytes = new Uint8Array(numUnits * 3);
    const starts = new Float64Array(length + 1);
    for (let word = 0; word < length; word++) {
      starts[word + 1] = writeUtf8(units, unitStarts[word], unitStarts[word + 1], bytes, starts[word]);
    }
    return { bytes: bytes.subarray(0, starts[length]), starts, counts: this.counts, numWords: length };
  }
}
