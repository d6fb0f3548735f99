// BPE that starts from characters (SentencePiece-like vocabularies, and byte-level ones with an unusual pipeline): characters without a
// token become their bytes (byte fallback) or the unknown token. As Hugging Face's BPE model does it, its order of unknowns included.
import { BpeMerger, MergeRanks } from "./bpe-merger.ts";
import { IdBuffer } from "./id-buffer.ts";
import { byteTokenIds, type PieceEncoder, type TokenSink } from "./piece-encoder.ts";

export interface CharacterBpeOptions {
  vocab: ReadonlyMap<string, number>;
  merges: readonly (readonly [string, string])[];
  /** Default: characters without a token are dropped. */
  unknownId?: number;
  /** Neighbouring unknown characters are one token. Default false. */
  fuseUnknown?: boolean;
  /** Characters without a token become the tokens `<0xNN>` of their bytes. Default false. */
  byteFallback?: boolean;
  /** A piece that is itself a token is not merged step by step. Default false. */
  ignoreMerges?: boolean;
  /** Marks tokens that do not begin a word. Default none. */
  continuation?: string;
  /** Marks tokens that end a word. Default none. */
  wordEnd?: string;
}

/** Pieces up to this length are remembered, so many of them. */
const maxCachedUnits = 48;
const maxCachedPieces = 1 << 15;

interface CachedPiece {
  readonly ids: Int32Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

export class CharacterBpe implements PieceEncoder {
  private readonly options: CharacterBpeOptions;
  private readonly byteIds: Int32Array | undefined;
  private readonly merger: BpeMerger;
  private readonly cache = new Map<string, CachedPiece>();
  private readonly own: TokenSink = { ids: new IdBuffer(), starts: new IdBuffer(), ends: new IdBuffer() };
  private starts = new Int32Array(192);
  private ends = new Int32Array(192);

  /** @throws FormatError when a merge names a token that the vocabulary lacks. */
  constructor(options: CharacterBpeOptions) {
    this.options = options;
    this.byteIds = options.byteFallback ? byteTokenIds(options.vocab) : undefined;
    this.merger = new BpeMerger(new MergeRanks(options.merges, options.vocab, options.continuation));
  }

  encode(piece: string, out: TokenSink): void {
    if (piece.length > maxCachedUnits) {
      this.merge(piece, out);
      return;
    }
    let cached = this.cache.get(piece);
    if (!cached) {
      const { ids, starts, ends } = this.own;
      for (const buffer of [ids, starts, ends]) buffer.length = 0;
      this.merge(piece, this.own);
      cached = { ids: ids.toArray(), starts: starts.toArray(), ends: ends.toArray() };
      if (this.cache.size >= maxCachedPieces) this.cache.clear();
      this.cache.set(piece, cached);
    }
    out.ids.pushAll(cached.ids);
    out.starts.pushAll(cached.starts);
    out.ends.pushAll(cached.ends);
  }

  private merge(piece: string, out: TokenSink): void {
    const { vocab, ignoreMerges } = this.options;
    const whole = ignoreMerges ? vocab.get(piece) : undefined;
    if (whole !== undefined) {
      out.ids.push(whole);
      out.starts.push(0);
      out.ends.push(piece.length);
      return;
    }
    const numSymbols = this.symbolsOf(piece);
    if (numSymbols === 0) return;
    this.merger.merge(numSymbols);
    const { symbols, next } = this.merger;
    for (let at = 0; at >= 0; at = next[at]) {
      out.ids.push(symbols[at]);
      out.starts.push(this.starts[at]);
      out.ends.push(this.ends[(next[at] < 0 ? numSymbols : next[at]) - 1]);
    }
  }

  /** Writes the symbols of single characters; returns how many. */
  private symbolsOf(piece: string): number {
    const { vocab, unknownId, fuseUnknown, continuation, wordEnd } = this.options;
    const { byteIds, merger } = this;
    merger.reserve(piece.length * 3);
    if (piece.length * 3 > this.starts.length) {
      this.starts = new Int32Array(piece.length * 3);
      this.ends = new Int32Array(piece.length * 3);
    }
    const { symbols } = merger;
    let count = 0;
    const add = (id: number, start: number, end: number): void => {
      symbols[count] = id;
      this.starts[count] = start;
      this.ends[count++] = end;
    };
    // Start and end of unknown characters that are not written yet.
    let [unknownStart, unknownEnd] = [-1, -1];
    const flush = (): void => {
      if (unknownStart >= 0 && unknownId !== undefined) add(unknownId, unknownStart, unknownEnd);
      unknownStart = -1;
    };
    let at = 0;
    for (const character of piece) {
      const start = at;
      at += character.length;
      let spelling = character;
      if (continuation && start > 0) spelling = continuation + spelling;
      if (wordEnd && at === piece.length) spelling += wordEnd;
      const id = vocab.get(spelling);
      if (id !== undefined) {
        flush();
        add(id, start, at);
        continue;
      }
      const bytes = byteIds && Buffer.from(character, "utf8");
      if (bytes?.every((byte) => (byteIds as Int32Array)[byte] >= 0)) {
        for (const byte of bytes) add((byteIds as Int32Array)[byte], start, at);
        continue;
      }
      if (unknownStart >= 0 && !fuseUnknown) flush();
      if (unknownStart < 0) unknownStart = start;
      unknownEnd = at;
    }
    flush();
    return count;
  }
}
