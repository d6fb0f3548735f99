// What turns a piece of text into tokens: the models of a tokenizer.json other than byte-level BPE with a known splitting pattern,
// which has an encoder of its own (byte-level-bpe.ts).
import type { IdBuffer } from "./id-buffer.ts";

/** Where tokens go: ids, and, when wanted, the range of code units of the piece that each stands for. */
export interface TokenSink {
  readonly ids: IdBuffer;
  readonly starts: IdBuffer;
  readonly ends: IdBuffer;
}

export interface PieceEncoder {
  /** Appends the tokens of a piece, which is not empty. */
  encode(piece: string, out: TokenSink): void;
}

/** The id of the token `<0xNN>` of each byte; undefined unless all bytes have one. */
export function byteTokenIds(vocab: ReadonlyMap<string, number>): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`) ?? -1);
}
