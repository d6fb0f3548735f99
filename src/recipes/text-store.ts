// A file of texts that a model wrote, one line each, added to as they are finished: writing goes on where it was interrupted, and other runs
// may train on the same texts. The first line says what they are texts of.
import { appendFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { z } from "zod";
import { CheckpointError, DataError } from "../base/errors.ts";
import { makeDirectories } from "../base/make-directories.ts";
import type { WrittenText } from "./written-texts.ts";

const headSchema = z.object({
  tokenizerHash: z.string(),
  vocabSize: z.int().positive(),
  top: z.int().min(1).max(64),
  /** Whatever else decides what the texts are: temperature, seed, prompts. */
  settings: z.record(z.string(), z.unknown()),
});
export type TextStoreHead = z.output<typeof headSchema>;

const lineSchema = z.object({ index: z.int().nonnegative(), ids: z.array(z.int().nonnegative()), promptLength: z.int(), top: z.string() });

/** What can be read at once. */
const maxBytes = 2 ** 31 - 1;

export class TextStore {
  readonly path: string;
  readonly #head: TextStoreHead;
  readonly #texts = new Map<number, WrittenText>();

  /**
   * Opens a file, or begins one.
   * @throws CheckpointError for one of other texts, DataError for one that cannot be read.
   */
  constructor(path: string, head: TextStoreHead) {
    this.path = path;
    this.#head = head;
    if (existsSync(path)) this.#read();
    else {
      makeDirectories(dirname(path));
      writeFileSync(path, `${JSON.stringify(head)}\n`);
    }
  }

  /** In order; those whose opening was of no use are left out. */
  get texts(): WrittenText[] {
    return [...this.#texts.values()].filter(({ ids }) => ids.length > 0).sort((a, b) => a.index - b.index);
  }

  /** Tokens of answers. */
  get numTokens(): number {
    let count = 0;
    for (const { ids, promptLength } of this.#texts.values()) count += ids.length - promptLength;
    return count;
  }

  has(index: number): boolean {
    return this.#texts.has(index);
  }

  add(text: WrittenText): void {
    const { index, ids, promptLength, topIds, topLogProbs } = text;
    const bytes = Buffer.concat(
      [topIds, topLogProbs].map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)),
    );
    appendFileSync(this.path, `${JSON.stringify({ index, ids, promptLength, top: bytes.toString("base64") })}\n`);
    this.#texts.set(index, text);
  }

  #read(): void {
    const { size } = statSync(this.path);
    if (size > maxBytes)
      throw new DataError(`${this.path}: expected at most ${maxBytes} bytes, got ${size}`, { hint: "Name another folder with --texts." });
    const bytes = readFileSync(this.path);
    const [head, ...lines] = wholeLines(bytes);
    const found = headSchema.safeParse(parsed(head));
    if (!found.success)
      throw new DataError(`${this.path}: expected texts that train-drafter wrote, got another file`, { hint: "Check --texts." });
    const { settings: expectedSettings, ...expected } = this.#head;
    for (const [name, value] of Object.entries(expected))
      if (found.data[name as keyof typeof expected] !== value)
        throw new CheckpointError(
          `${this.path}: expected texts of this model (${name} ${value}), got others (${found.data[name as keyof typeof expected]})`,
          { hint: "Name another folder with --texts, or leave it out to have new ones written." },
        );
    if (JSON.stringify(found.data.settings) !== JSON.stringify(expectedSettings))
      throw new CheckpointError(
        `${this.path}: expected texts written with ${JSON.stringify(expectedSettings)}, got ${JSON.stringify(found.data.settings)}`,
        { hint: "Give the same settings, or another folder." },
      );
    for (const [i, line] of lines.entries()) {
      const result = lineSchema.safeParse(parsed(line));
      const text = result.success ? this.#textOf(result.data) : undefined;
      if (!text) throw new DataError(`${this.path}: expected a text in line ${i + 2}, got ${JSON.stringify(line.slice(0, 40))}`);
      this.#texts.set(text.index, text);
    }
    // What was being written when the process ended is written again. Only now: another file is left as it is.
    const whole = bytes.lastIndexOf(10) + 1;
    if (whole < bytes.length) truncateSync(this.path, whole);
  }

  /** Undefined where numbers do not fit each other or the vocabulary. */
  #textOf({ index, ids, promptLength, top }: z.output<typeof lineSchema>): WrittenText | undefined {
    const bytes = Buffer.from(top, "base64");
    const count = (ids.length - promptLength) * this.#head.top;
    if (promptLength < 0 || promptLength > ids.length || bytes.length !== 8 * count) return undefined;
    // Copied, because what base64 is decoded into is not aligned.
    const words = new Uint8Array(bytes).buffer;
    const topIds = new Int32Array(words, 0, count);
    const { vocabSize } = this.#head;
    if (ids.some((id) => id >= vocabSize) || topIds.some((id) => id < 0 || id >= vocabSize)) return undefined;
    return { index, ids, promptLength, topIds, topLogProbs: new Float32Array(words, 4 * count, count) };
  }
}

/** One by one: all in one text may be longer than a text can be. */
function* wholeLines(bytes: Buffer): Generator<string> {
  for (let from = 0, end = bytes.indexOf(10); end >= 0; from = end + 1, end = bytes.indexOf(10, from))
    yield bytes.toString("utf8", from, end);
}

function parsed(line: string | undefined): unknown {
  try {
    return JSON.parse(line ?? "");
  } catch {
    return undefined;
  }
}
