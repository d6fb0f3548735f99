// The tokenizer file of llama2.c (Karpathy 2023): u32 longest token, then for each token a float32 score, an i32 length and its bytes.
// Ids 0, 1, 2 are unknown, begin and end; 3 … 258 are single bytes. Encoding starts from characters (bytes where a character is no
// token) and joins the neighbours whose join has the highest score, the leftmost among equals, until no join is a token.
import { FormatError } from "../base/errors.ts";
import { ByteStreamDecoder, type StreamDecoder } from "./stream-decoder.ts";
import { byteOfToken } from "./token-decoder.ts";
import {
  type DecodeOptions,
  type DetailedEncodeOptions,
  type EncodeOptions,
  type Encoding,
  hashVocabulary,
  type SpecialIds,
  type Tokenizer,
} from "./tokenizer.ts";
import { readBoundedFile } from "./tokenizer-file.ts";

const unknownId = 0;
const beginId = 1;
const endId = 2;
const firstByteId = 3;
const maxFileBytes = 64 << 20;
/** Longer tokens than this mean that the file is something else (llama2.c's own have at most 27 bytes). */
const maxTokenBytes = 4096;

export interface Llama2cVocabulary {
  /** Tokens as latin1 strings of their bytes, so that broken UTF-8 keeps its bytes. */
  tokens: readonly string[];
  scores: Float32Array;
}

/**
 * @param numTokens how many tokens the model has; the file itself does not say, so that a cut between two tokens shows only here.
 * @throws FormatError when the file is missing, too large or malformed.
 */
export function loadLlama2cTokenizer(path: string, numTokens?: number): Tokenizer {
  return new Llama2cTokenizer(parseLlama2cTokenizer(readBoundedFile(path, maxFileBytes), path, numTokens));
}

/** @param label names the source in errors. @param numTokens as in {@link loadLlama2cTokenizer}. @throws FormatError. */
export function parseLlama2cTokenizer(bytes: Uint8Array<ArrayBuffer>, label = "llama2.c tokenizer", numTokens?: number): Llama2cVocabulary {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const hint = "Expected a tokenizer.bin as llama2.c's tokenizer.py writes it.";
  const wrong = (expected: string, got: string): FormatError => new FormatError(`${label}: expected ${expected}, got ${got}`, { hint });
  if (bytes.length < 4) throw wrong("at least 4 bytes", String(bytes.length));
  const longest = view.getUint32(0, true);
  if (longest < 1 || longest > maxTokenBytes) throw wrong(`a longest token of 1 to ${maxTokenBytes} bytes`, String(longest));
  const tokens: string[] = [];
  const scores: number[] = [];
  for (let at = 4; at < bytes.length; ) {
    if (at + 8 > bytes.length) throw wrong(`token ${tokens.length} at offset ${at}`, "the end of the file");
    const score = view.getFloat32(at, true);
    const length = view.getInt32(at + 4, true);
    at += 8;
    if (Number.isNaN(score)) throw wrong(`a score for token ${tokens.length}`, "NaN");
    if (length < 0 || length > maxTokenBytes) throw wrong(`a length of 0 to ${maxTokenBytes} for token ${tokens.length}`, String(length));
    if (at + length > bytes.length) throw wrong(`${length} bytes of token ${tokens.length} at offset ${at}`, "the end of the file");
    tokens.push(latin1(bytes, at, at + length));
    scores.push(score);
    at += length;
  }
  if (numTokens !== undefined && tokens.length !== numTokens) throw wrong(`${numTokens} tokens`, String(tokens.length));
  if (tokens.length < firstByteId + 256) throw wrong(`at least ${firstByteId + 256} tokens`, String(tokens.length));
  for (let byte = 0; byte < 256; byte++) {
    const token = tokens[firstByteId + byte];
    if (byteOfToken(token) !== byte) throw wrong(`the byte token ${byte} as token ${firstByteId + byte}`, JSON.stringify(token));
  }
  return { tokens, scores: Float32Array.from(scores) };
}

export class Llama2cTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly specialIds: SpecialIds = { bos: beginId, eos: endId, pad: undefined, unk: unknownId, all: [unknownId, beginId, endId] };
  private readonly tokens: readonly string[];
  private readonly scores: Float32Array;
  private readonly ids: ReadonlyMap<string, number>;
  private lazyHash: string | undefined;

  constructor(vocabulary: Llama2cVocabulary) {
    this.tokens = vocabulary.tokens;
    this.scores = vocabulary.scores;
    this.vocabSize = vocabulary.tokens.length;
    const ids = new Map<string, number>();
    // Special and byte tokens stand for no text of their own, so that "<s>" in a text is four characters.
    for (let id = firstByteId + 256; id < this.vocabSize; id++) if (!ids.has(this.tokens[id])) ids.set(this.tokens[id], id);
    this.ids = ids;
  }

  get hash(): string {
    this.lazyHash ??= hashVocabulary(this.tokens, new Set(this.specialIds.all));
    return this.lazyHash;
  }

  /** Special tokens are never looked for in the text: this kind has none that are written out. */
  encode(text: string, options: EncodeOptions = {}): Int32Array<ArrayBuffer> {
    const symbols: number[] = [];
    // A text starts with the space that SentencePiece puts before the first word.
    for (const character of text === "" ? "" : ` ${text}`) {
      const bytes = new TextEncoder().encode(character);
      const id = this.ids.get(latin1(bytes, 0, bytes.length));
      if (id !== undefined) symbols.push(id);
      else for (const byte of bytes) symbols.push(byte + firstByteId);
    }
    const merged = mergeByScore(symbols, (left, right) => this.join(left, right));
    return Int32Array.from(options.addSpecialTokens === false ? merged : [beginId, ...merged]);
  }

  encodeWithOffsets(text: string, { pair, ...options }: DetailedEncodeOptions = {}): Encoding {
    const parts = (pair === undefined ? [text] : [text, pair]).map((part) => ({ part, ids: this.encode(part, options) }));
    const size = parts.reduce((sum, { ids }) => sum + ids.length, 0);
    const encoding: Encoding = {
      ids: new Int32Array(size),
      offsets: new Int32Array(2 * size),
      typeIds: new Uint8Array(size),
      specialMask: new Uint8Array(size),
    };
    let at = 0;
    for (const [typeId, { part, ids }] of parts.entries()) {
      encoding.ids.set(ids, at);
      encoding.typeIds.fill(typeId, at, at + ids.length);
      this.writeOffsets(part, ids, encoding.offsets.subarray(2 * at), encoding.specialMask.subarray(at));
      at += ids.length;
    }
    return encoding;
  }

  /** The ranges of characters that the bytes of each token are part of; the space before a text is part of its first character. */
  private writeOffsets(text: string, ids: Int32Array, offsets: Int32Array, specialMask: Uint8Array): void {
    const starts: number[] = [0];
    const ends: number[] = [Math.min(1, text.length)];
    let unit = 0;
    for (const character of text) {
      for (let i = Buffer.byteLength(character); i > 0; i--) {
        starts.push(unit);
        ends.push(unit + character.length);
      }
      unit += character.length;
    }
    let byte = 0;
    for (const [i, id] of ids.entries()) {
      if (id === beginId) {
        specialMask[i] = 1;
        continue;
      }
      const end = byte + (id < firstByteId + 256 ? 1 : this.tokens[id].length);
      offsets[2 * i] = starts[byte];
      offsets[2 * i + 1] = ends[end - 1];
      byte = end;
    }
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const stream = this.stream(options);
    let text = "";
    for (let i = 0; i < ids.length; i++) text += stream.push(ids[i]);
    return text + stream.end();
  }

  /** The space before the first word of a sequence is dropped, as it was added by `encode`. */
  stream(options: DecodeOptions = {}): StreamDecoder {
    const { skipSpecialTokens = true } = options;
    let isFirst = true;
    const inner = new ByteStreamDecoder((id) => {
      const token = this.tokens[id];
      if (token === undefined) return undefined;
      if (id === beginId) isFirst = true;
      if (id < firstByteId) return skipSpecialTokens ? undefined : Buffer.from(token.trim(), "latin1");
      const byte = id < firstByteId + 256 ? id - firstByteId : -1;
      const text = byte >= 0 ? String.fromCharCode(byte) : isFirst && token.startsWith(" ") ? token.slice(1) : token;
      isFirst = false;
      return Buffer.from(text, "latin1");
    });
    return {
      push: (id) => inner.push(id),
      end: () => {
        isFirst = true;
        return inner.end();
      },
    };
  }

  tokenToId(token: string): number | undefined {
    const bytes = Buffer.from(token, "utf8").toString("latin1");
    const id = this.ids.get(bytes);
    if (id !== undefined) return id;
    const other = this.tokens.indexOf(bytes);
    return other < 0 ? undefined : other;
  }

  /** The token's text; broken UTF-8 shows as U+FFFD. */
  idToToken(id: number): string | undefined {
    const token = this.tokens[id];
    return token === undefined ? undefined : Buffer.from(token, "latin1").toString("utf8");
  }

  private join(left: number, right: number): { id: number; score: number } | undefined {
    const id = this.ids.get(this.textOf(left) + this.textOf(right));
    return id === undefined ? undefined : { id, score: this.scores[id] };
  }

  /** llama2.c joins the spelling of byte tokens (`<0x0A>`), which is never a token: bytes do not merge. */
  private textOf(id: number): string {
    return this.tokens[id];
  }
}

const latin1 = (bytes: Uint8Array, start: number, end: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");

interface Candidate {
  score: number;
  at: number;
  left: number;
  right: number;
  id: number;
}

/** Joins neighbours, best score first, with a linked list and a heap: O(n log n) where llama2.c rescans after every join. */
function mergeByScore(symbols: number[], join: (left: number, right: number) => { id: number; score: number } | undefined): number[] {
  const length = symbols.length;
  const next = symbols.map((_, i) => (i + 1 < length ? i + 1 : -1));
  const previous = symbols.map((_, i) => i - 1);
  const heap: Candidate[] = [];
  const offer = (at: number): void => {
    const second = next[at];
    if (second < 0) return;
    const joined = join(symbols[at], symbols[second]);
    if (joined) pushCandidate(heap, { ...joined, at, left: symbols[at], right: symbols[second] });
  };
  for (let i = 0; i + 1 < length; i++) offer(i);
  for (let best = popCandidate(heap); best !== undefined; best = popCandidate(heap)) {
    const { at, left, right, id } = best;
    const second = next[at];
    if (symbols[at] !== left || second < 0 || symbols[second] !== right) continue;
    symbols[at] = id;
    symbols[second] = -1;
    next[at] = next[second];
    if (next[at] >= 0) previous[next[at]] = at;
    offer(at);
    if (previous[at] >= 0) offer(previous[at]);
  }
  return symbols.filter((symbol) => symbol >= 0);
}

const isBefore = (a: Candidate, b: Candidate): boolean => a.score > b.score || (a.score === b.score && a.at < b.at);

function pushCandidate(heap: Candidate[], candidate: Candidate): void {
  let hole = heap.push(candidate) - 1;
  while (hole > 0) {
    const parent = (hole - 1) >> 1;
    if (!isBefore(candidate, heap[parent])) break;
    heap[hole] = heap[parent];
    hole = parent;
  }
  heap[hole] = candidate;
}

function popCandidate(heap: Candidate[]): Candidate | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return top;
  let hole = 0;
  for (let child = 1; child < heap.length; child = hole * 2 + 1) {
    if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
    if (!isBefore(heap[child], last)) break;
    heap[hole] = heap[child];
    hole = child;
  }
  heap[hole] = last;
  return top;
}
