// WordPiece (Schuster & Nakajima 2012; BERT): the longest token first, from the left. WordLevel: a word is a token or unknown.
import { FormatError } from "../base/errors.ts";
import type { PieceEncoder, TokenSink } from "./piece-encoder.ts";

export interface WordPieceOptions {
  vocab: ReadonlyMap<string, number>;
  unknownToken: string;
  /** Marks tokens that do not begin a word. Default "##". */
  continuation?: string;
  /** Longer words are unknown. Default 100 characters. */
  maxCharacters?: number;
}

export class WordPiece implements PieceEncoder {
  private readonly options: Required<WordPieceOptions>;
  private readonly longest: number;

  constructor({ continuation = "##", maxCharacters = 100, ...rest }: WordPieceOptions) {
    this.options = { ...rest, continuation, maxCharacters };
    this.longest = [...rest.vocab.keys()].reduce((length, token) => Math.max(length, token.length), 0);
  }

  encode(piece: string, out: TokenSink): void {
    const { vocab, continuation, maxCharacters, unknownToken } = this.options;
    const found: (readonly [id: number, start: number, end: number])[] = [];
    const isTooLong = piece.length > maxCharacters && [...piece].length > maxCharacters;
    for (let start = 0; start < piece.length && !isTooLong; ) {
      let end = Math.min(piece.length, start + this.longest);
      let id: number | undefined;
      for (; end > start; end--) {
        id = vocab.get((start > 0 ? continuation : "") + piece.slice(start, end));
        if (id !== undefined) break;
      }
      if (id === undefined) break;
      found.push([id, start, end]);
      start = end;
    }
    const isWhole = found.length > 0 && found[found.length - 1][2] === piece.length;
    for (const [id, start, end] of isWhole ? found : [[unknownId(vocab, unknownToken), 0, piece.length] as const]) {
      out.ids.push(id);
      out.starts.push(start);
      out.ends.push(end);
    }
  }
}

export class WordLevel implements PieceEncoder {
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly unknownToken: string;

  constructor(vocab: ReadonlyMap<string, number>, unknownToken: string) {
    this.vocab = vocab;
    this.unknownToken = unknownToken;
  }

  encode(piece: string, out: TokenSink): void {
    out.ids.push(this.vocab.get(piece) ?? unknownId(this.vocab, this.unknownToken));
    out.starts.push(0);
    out.ends.push(piece.length);
  }
}

function unknownId(vocab: ReadonlyMap<string, number>, token: string): number {
  const id = vocab.get(token);
  if (id === undefined)
    throw new FormatError(`tokenizer: expected the unknown token ${JSON.stringify(token)} in the vocabulary, got none`, {
      hint: "The text has a word that the vocabulary lacks.",
    });
  return id;
}
