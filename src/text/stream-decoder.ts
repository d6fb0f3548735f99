// Incremental decoding for generation: text comes out as soon as it is whole, and no character is ever split.
// Both decoders hold text back while it ends in U+FFFD, which is either an unfinished character or one that turns out broken later.

/**
 * Decodes a sequence one token at a time. To continue a prompt, push its tokens first: some kinds drop the space before the first word
 * of a sequence, and a prompt may end in the middle of a character.
 */
export interface StreamDecoder {
  /** Adds a token and returns the text that became final ("" = none yet). */
  push(id: number): string;
  /** Ends the sequence and returns what was held back; unfinished characters become U+FFFD. The decoder starts afresh. */
  end(): string;
}

/** Broken bytes without end must not be held back for ever. */
const maxHeldTokens = 64;

/** Streaming over tokens that are bytes. The concatenation of what comes out is the decoding of all bytes at once. */
export class ByteStreamDecoder implements StreamDecoder {
  private readonly bytesOf: (id: number) => Uint8Array | undefined;
  private readonly utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  private held = "";
  private numHeld = 0;
  /** The last bytes seen, at most 3, when they begin a character. */
  private tail: number[] = [];

  /** @param bytesOf the bytes of a token; undefined for one that is skipped. */
  constructor(bytesOf: (id: number) => Uint8Array | undefined) {
    this.bytesOf = bytesOf;
  }

  push(id: number): string {
    const bytes = this.bytesOf(id);
    if (bytes === undefined || bytes.length === 0) return "";
    this.held += this.utf8.decode(bytes, { stream: true });
    this.tail = unfinishedTail([...this.tail, ...bytes.subarray(-4)]);
    this.numHeld++;
    if ((this.tail.length > 0 || this.held.endsWith("\ufffd")) && this.numHeld <= maxHeldTokens) return "";
    const text = this.held;
    this.held = "";
    this.numHeld = 0;
    return text;
  }

  end(): string {
    const text = this.held + this.utf8.decode();
    this.held = "";
    this.numHeld = 0;
    this.tail = [];
    return text;
  }
}

/** The bytes at the end that begin a character but do not finish it. */
function unfinishedTail(bytes: readonly number[]): number[] {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte < 0x80) return [];
    if (byte >= 0xc0) {
      const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return back < needed ? bytes.slice(bytes.length - back) : [];
    }
  }
  return [];
}

/**
 * Streaming over any decoder: decodes a window of recent tokens with and without the new one and emits the difference.
 * The window reaches back over the text emitted last, so that rules about the first token of a sequence apply once only.
 */
export class WindowStreamDecoder implements StreamDecoder {
  private readonly decode: (ids: readonly number[]) => string;
  private readonly skips: (id: number) => boolean;
  private window: number[] = [];
  /** The first tokens of the window, whose text has been emitted. */
  private numEmitted = 0;
  private emitted = "";

  constructor(decode: (ids: readonly number[]) => string, skips: (id: number) => boolean) {
    this.decode = decode;
    this.skips = skips;
  }

  push(id: number): string {
    if (this.skips(id)) return "";
    this.window.push(id);
    const text = this.decode(this.window);
    const isHeld = text.endsWith("\ufffd") && this.window.length - this.numEmitted <= maxHeldTokens;
    if (text.length <= this.emitted.length || isHeld) return "";
    const fresh = text.slice(this.emitted.length);
    this.window = this.window.slice(this.numEmitted);
    this.numEmitted = this.window.length;
    this.emitted = this.decode(this.window);
    return fresh;
  }

  end(): string {
    const text = this.window.length === 0 ? "" : this.decode(this.window).slice(this.emitted.length);
    this.window = [];
    this.numEmitted = 0;
    this.emitted = "";
    return text;
  }
}
