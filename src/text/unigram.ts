// The unigram language model (Kudo 2018): the segmentation of highest probability, by Viterbi's algorithm over the tokens that begin at
// each character. Unknown characters cost 10 more than the rarest token and are joined, as in Hugging Face's tokenizers.
import { FormatError } from "../base/errors.ts";
import { byteTokenIds, type PieceEncoder, type TokenSink } from "./piece-encoder.ts";
import { TokenTrie } from "./token-trie.ts";

const unknownPenalty = 10;

export interface UnigramOptions {
  /** [token, log-probability] by id. */
  vocab: readonly (readonly [token: string, score: number])[];
  /** Undefined: text that no tokens make up is refused. */
  unknownId?: number;
  /** Unknown text becomes the tokens `<0xNN>` of its bytes. Default false. */
  byteFallback?: boolean;
}

export class Unigram implements PieceEncoder {
  private readonly trie: TokenTrie;
  private readonly scores: Float64Array;
  private readonly ids: ReadonlyMap<string, number>;
  private readonly unknownId: number | undefined;
  private readonly unknownScore: number;
  private readonly byteIds: Int32Array | undefined;
  /** By end of a segment: the best score up to there, where its last token starts (−1: not reached), and which one it is. */
  private best = new Float64Array(256);
  private from = new Int32Array(256);
  private token = new Int32Array(256);

  constructor({ vocab, unknownId, byteFallback }: UnigramOptions) {
    this.ids = new Map(vocab.map(([token], id) => [token, id]));
    this.scores = Float64Array.from(vocab, ([, score]) => score);
    this.trie = new TokenTrie([...this.ids].filter(([token]) => token !== ""));
    this.unknownId = unknownId;
    this.unknownScore = this.scores.reduce((least, score) => Math.min(least, score), Number.POSITIVE_INFINITY) - unknownPenalty;
    this.byteIds = byteFallback ? byteTokenIds(this.ids) : undefined;
  }

  /** @throws FormatError for text that no tokens make up, in a vocabulary without an unknown token. */
  encode(piece: string, out: TokenSink): void {
    const ends = this.segment(piece);
    let start = 0;
    for (let i = ends.length - 1; i >= 0; i--) {
      // Unknown characters in a row are one piece of text.
      while (i > 0 && this.token[ends[i]] === this.unknownId && this.token[ends[i - 1]] === this.unknownId) i--;
      this.push(piece, start, ends[i], out);
      start = ends[i];
    }
  }

  private push(piece: string, start: number, end: number, out: TokenSink): void {
    const { byteIds } = this;
    const text = piece.slice(start, end);
    const id = this.ids.get(text);
    const bytes = id === undefined && byteIds ? Buffer.from(text, "utf8") : undefined;
    const add = (tokenId: number): void => {
      out.ids.push(tokenId);
      out.starts.push(start);
      out.ends.push(end);
    };
    if (bytes?.every((byte) => (byteIds as Int32Array)[byte] >= 0)) {
      for (const byte of bytes) add((byteIds as Int32Array)[byte]);
      return;
    }
    const known = id ?? this.unknownId;
    if (known === undefined) throw noUnknown(text);
    add(known);
  }

  /** Ends of the tokens of the best segmentation, last one first. */
  private segment(piece: string): number[] {
    const { length } = piece;
    if (length >= this.best.length) {
      const size = 2 ** Math.ceil(Math.log2(length + 1));
      this.best = new Float64Array(size);
      this.from = new Int32Array(size);
      this.token = new Int32Array(size);
    }
    const { best, from, token, trie, scores, unknownId } = this;
    from.fill(-1, 0, length + 1);
    best[0] = 0;
    for (let start = 0; start < length; ) {
      const width = (piece.codePointAt(start) as number) > 0xffff ? 2 : 1;
      const here = best[start];
      let isCovered = false;
      for (let end = start, node = trie.root; end < length; ) {
        node = trie.step(node, piece.charCodeAt(end++));
        if (node < 0) break;
        const id = trie.idAt(node);
        if (id < 0) continue;
        if (end === start + width) isCovered = true;
        const score = here + scores[id];
        if (from[end] < 0 || score > best[end]) {
          best[end] = score;
          from[end] = start;
          token[end] = id;
        }
      }
      const end = start + width;
      if (!isCovered) {
        if (unknownId === undefined) throw noUnknown(piece.slice(start, end));
        const score = here + this.unknownScore;
        if (from[end] < 0 || score > best[end]) {
          best[end] = score;
          from[end] = start;
          token[end] = unknownId;
        }
      }
      start = end;
    }
    const ends: number[] = [];
    for (let end = length; end > 0; end = from[end]) ends.push(end);
    return ends;
  }
}

const noUnknown = (text: string): FormatError =>
  new FormatError(`tokenizer: expected text that the vocabulary can spell, got ${JSON.stringify(text)}`, {
    hint: "The unigram model has no unknown token (unk_id).",
  });
