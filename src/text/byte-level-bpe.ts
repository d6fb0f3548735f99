// Byte-level BPE encoding: the pair of lowest rank is merged first, the leftmost among equals, as Hugging Face's BPE model does it.
// Words that were seen before come from a bounded cache; others cost O(n log n) in their length, however long they are.
import { BpeMerger, MergeRanks } from "./bpe-merger.ts";
import { byteCharacters, tokenOfBytes, writeUtf8 } from "./byte-alphabet.ts";
import { IdBuffer } from "./id-buffer.ts";
import type { WordEnd } from "./pre-tokenizer.ts";
import { WordTable } from "./word-table.ts";

/** The cache starts afresh when it holds this many words; longer words than `maxCachedUnits` are not kept. */
const maxCachedWords = 1 << 16;
const maxCachedUnits = 64;

export interface ByteLevelBpeOptions {
  /** Ids by token in byte-level spelling; must hold all 256 single bytes. */
  vocab: ReadonlyMap<string, number>;
  /** Pairs of tokens, most urgent first. */
  merges: readonly (readonly [string, string])[];
  /** Where the word that starts at a place ends. Default: words come one by one. */
  wordEnd?: WordEnd;
  /** A word that is itself a token is not merged step by step (Llama 3). */
  ignoreMerges: boolean;
}

export class ByteLevelBpe {
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly ignoreMerges: boolean;
  /** Where the word that starts at a place ends. */
  readonly wordEnd: WordEnd;
  private readonly byteIds: Int32Array;
  private readonly merger: BpeMerger;
  private readonly cache = new WordTable();
  private readonly cachedIds = new IdBuffer();
  /** By cached word: where its ids start in `cachedIds`. */
  private readonly cachedStarts = new Float64Array(maxCachedWords + 1);
  private units = new Uint16Array(64);
  private bytes = new Uint8Array(192);

  /** @throws FormatError when a merge names a token that the vocabulary lacks. */
  constructor(options: ByteLevelBpeOptions) {
    this.vocab = options.vocab;
    this.ignoreMerges = options.ignoreMerges;
    this.wordEnd = options.wordEnd ?? ((_text, _start, end) => end);
    this.byteIds = Int32Array.from(byteCharacters, (character) => options.vocab.get(character) ?? -1);
    this.merger = new BpeMerger(new MergeRanks(options.merges, options.vocab));
  }

  /** Appends the ids of text[start … end), which is split into words as a text of its own. */
  encode(text: string, start: number, end: number, out: IdBuffer): void {
    for (let at = start; at < end; ) {
      const stop = this.wordEnd(text, at, end);
      this.encodeWord(text, at, stop, out);
      at = stop;
    }
  }

  /** Appends the ids of the word text[start … end), not empty. */
  encodeWord(text: string, start: number, end: number, out: IdBuffer): void {
    if (end - start > maxCachedUnits) {
      this.mergeWord(text, start, end, out);
      return;
    }
    const { cache, cachedStarts, cachedIds } = this;
    let word = cache.find(text, start, end);
    if (word < 0) {
      if (cache.length === maxCachedWords) {
        cache.clear();
        cachedIds.length = 0;
        cache.find(text, start, end);
      }
      word = cache.add(text, start, end);
      this.mergeWord(text, start, end, cachedIds);
      cachedStarts[word + 1] = cachedIds.length;
    }
    out.pushAll(cachedIds.data, cachedStarts[word], cachedStarts[word + 1]);
  }

  private mergeWord(text: string, start: number, end: number, out: IdBuffer): void {
    const numUnits = end - start;
    if (numUnits > this.units.length) this.reserve(numUnits);
    const { units, bytes, byteIds, merger } = this;
    for (let i = 0; i < numUnits; i++) units[i] = text.charCodeAt(start + i);
    const numBytes = writeUtf8(units, 0, numUnits, bytes, 0);
    if (this.ignoreMerges && numBytes > 1) {
      const whole = this.vocab.get(tokenOfBytes(bytes.subarray(0, numBytes)));
      if (whole !== undefined) {
        out.push(whole);
        return;
      }
    }
    merger.reserve(numBytes);
    const { symbols, next } = merger;
    for (let i = 0; i < numBytes; i++) symbols[i] = byteIds[bytes[i]];
    merger.merge(numBytes);
    for (let i = 0; i >= 0; i = next[i]) out.push(symbols[i]);
  }

  private reserve(numUnits: number): void {
    const length = 2 ** Math.ceil(Math.log2(numUnits));
    this.units = new Uint16Array(length);
    this.bytes = new Uint8Array(length * 3);
  }
}
