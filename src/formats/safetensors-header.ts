// The header of a safetensors file: JSON of one fixed shape, read by a parser that accepts nothing else. A general JSON parser would
// keep the last of two equal names silently and build whatever a hostile header describes before anything could be checked.
// Layout: u64 header length | header, padded with spaces | tensors, one after another without gaps.
import { FormatError } from "../base/errors.ts";
import { bitsPerSafetensorsElement, isSafetensorsDType, type SafetensorsDType } from "./safetensors-dtype.ts";

/** The reference implementation's limit. */
export const maxHeaderBytes = 100_000_000;

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** First byte, counted from the end of the header. */
  readonly begin: number;
  /** Byte after the last one. */
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** The `__metadata__` strings. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Parses and checks a header against the number of data bytes that follow it.
 * @param label names the file in errors.
 * @throws FormatError saying what was expected, what was found and where.
 */
export function parseHeader(bytes: Uint8Array, dataBytes: number, label: string): SafetensorsHeader {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${label}: expected a UTF-8 header, got invalid bytes`, { cause, hint: damaged });
  }
  const scanner = new Scanner(text, label);
  if (text[0] !== "{") throw scanner.error('"{"', quote(text.slice(0, 20)));
  const entries: SafetensorsEntry[] = [];
  let metadata = new Map<string, string>();
  scanner.object((name) => {
    if (name === "__metadata__") metadata = readMetadata(scanner);
    else entries.push(readEntry(scanner, name));
  });
  scanner.end();
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(entries, dataBytes, label);
  return { entries: new Map(entries.map((entry) => [entry.name, entry])), metadata };
}

/** Bytes of a tensor, or NaN when they cannot be counted exactly or are not a whole number. */
export function tensorBytes(dtype: SafetensorsDType, shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  let elements = 1;
  for (const dimension of shape) {
    elements *= dimension;
    if (!Number.isSafeInteger(elements)) return Number.NaN;
  }
  const bytes = (elements * bitsPerSafetensorsElement[dtype]) / 8;
  return Number.isSafeInteger(bytes) ? bytes : Number.NaN;
}

/** The length field and the padded header, ready to be written. Entries are given in file order. */
export function serialiseHeader(entries: readonly SafetensorsEntry[], metadata: ReadonlyMap<string, string>): Uint8Array {
  const parts: string[] = [];
  if (metadata.size > 0) {
    const sorted = [...metadata].sort(([a], [b]) => (a < b ? -1 : 1));
    parts.push(`"__metadata__":{${sorted.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`);
  }
  for (const { name, dtype, shape, begin, end } of entries) {
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${begin},${end}]}`);
  }
  const json = Buffer.from(`{${parts.join(",")}}`);
  const headerBytes = Math.ceil(json.length / 8) * 8;
  if (headerBytes > maxHeaderBytes) {
    throw new FormatError(`safetensors header: expected at most ${maxHeaderBytes} bytes, got ${headerBytes}`, {
      hint: "Use shorter or fewer tensor names, or move metadata to a file of its own.",
    });
  }
  const bytes = new Uint8Array(8 + headerBytes).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(json, 8);
  return bytes;
}

/** A name for an error message; hostile ones may be as long as the header. */
const quote = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);

const damaged = "The file is damaged or no safetensors file; copy or download it again.";

function readMetadata(scanner: Scanner): Map<string, string> {
  const metadata = new Map<string, string>();
  scanner.object((key) => metadata.set(key, scanner.string("a string as metadata value")));
  return metadata;
}

function readEntry(scanner: Scanner, name: string): SafetensorsEntry {
  const quoted = quote(name);
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  scanner.object((key) => {
    if (key === "dtype") dtype = scanner.string("an element type");
    else if (key === "shape") shape = scanner.integers();
    else if (key === "data_offsets") offsets = scanner.integers();
    else throw scanner.error(`dtype, shape and data_offsets for tensor ${quoted}`, quote(key));
  });
  if (dtype === undefined || shape === undefined || offsets === undefined) {
    const missing = [!dtype && "dtype", !shape && "shape", !offsets && "data_offsets"].filter(Boolean).join(", ");
    throw scanner.error(`dtype, shape and data_offsets for tensor ${quoted}`, `no ${missing}`);
  }
  if (!isSafetensorsDType(dtype)) {
    throw scanner.error(`one of ${Object.keys(bitsPerSafetensorsElement).join(", ")} for tensor ${quoted}`, quote(dtype));
  }
  if (offsets.length !== 2 || offsets[0] > offsets[1]) {
    throw scanner.error(`data_offsets [begin, end] with begin <= end for tensor ${quoted}`, `[${offsets.slice(0, 4).join(", ")}]`);
  }
  const [begin, end] = offsets;
  const bytes = tensorBytes(dtype, shape);
  if (bytes !== end - begin) {
    const expected = Number.isNaN(bytes) ? "a countable number of" : String(bytes);
    throw scanner.error(`${expected} bytes for tensor ${quoted} (${dtype} [${shape.slice(0, 16).join(", ")}])`, `${end - begin}`);
  }
  return { name, dtype, shape, begin, end };
}

/** Sorted tensors must follow each other without overlap or hole, and fill the data. */
function checkCoverage(entries: readonly SafetensorsEntry[], dataBytes: number, label: string): void {
  let position = 0;
  let before = "the header";
  for (const { name, begin, end } of entries) {
    if (begin !== position) {
      const what = begin < position ? "overlaps" : "leaves a hole after";
      throw new FormatError(`${label}: expected tensor ${quote(name)} to begin at byte ${position}, got ${begin} (it ${what} ${before})`, {
        hint: damaged,
      });
    }
    position = end;
    before = quote(name);
  }
  if (position !== dataBytes) {
    throw new FormatError(`${label}: expected ${position} bytes of tensors after the header, got ${dataBytes}`, {
      hint: position > dataBytes ? "The file is cut short: copy or download it again." : damaged,
    });
  }
}

/** Reads the few JSON forms that a header may contain, and refuses all others where they begin. */
class Scanner {
  private readonly text: string;
  private readonly label: string;
  private at = 0;

  constructor(text: string, label: string) {
    this.text = text;
    this.label = label;
  }

  error(expected: string, got: string): FormatError {
    return new FormatError(`${this.label}: expected ${expected}, got ${got} at character ${this.at} of the header`, { hint: damaged });
  }

  /** An object whose values `visit` reads; equal keys are refused. */
  object(visit: (key: string) => void): void {
    const keys = new Set<string>();
    this.take("{");
    if (this.skipTo("}")) return;
    do {
      const key = this.string("a name");
      if (keys.has(key)) throw this.error("every name once", `${quote(key)} twice`);
      keys.add(key);
      this.take(":");
      visit(key);
    } while (this.skipTo(","));
    this.take("}");
  }

  /** An array of non-negative safe integers. */
  integers(): number[] {
    const values: number[] = [];
    this.take("[");
    if (this.skipTo("]")) return values;
    do {
      this.skipSpace();
      const start = this.at;
      while (this.isDigit(this.text.charCodeAt(this.at))) this.at++;
      const digits = this.text.slice(start, Math.min(this.at, start + 32));
      const value = Number(digits);
      if (digits === "" || !Number.isSafeInteger(value) || (digits.length > 1 && digits[0] === "0")) {
        this.at = start;
        throw this.error("a non-negative integer below 2^53", JSON.stringify(this.text.slice(start, start + 20)));
      }
      values.push(value);
    } while (this.skipTo(","));
    this.take("]");
    return values;
  }

  string(expected: string): string {
    this.skipSpace();
    const start = this.at;
    if (this.text[start] !== '"') throw this.error(expected, this.here());
    let end = start + 1;
    while (end < this.text.length && this.text[end] !== '"') end += this.text[end] === "\\" ? 2 : 1;
    try {
      const value: string = JSON.parse(this.text.slice(start, end + 1));
      this.at = end + 1;
      return value;
    } catch {
      throw this.error(expected, this.here());
    }
  }

  /** Only padding may follow. */
  end(): void {
    this.skipSpace();
    if (this.at < this.text.length) throw this.error("the end of the header", this.here());
  }

  private take(character: string): void {
    if (!this.skipTo(character)) throw this.error(JSON.stringify(character), this.here());
  }

  private skipTo(character: string): boolean {
    this.skipSpace();
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  private skipSpace(): void {
    for (let code = this.text.charCodeAt(this.at); code === 32 || code === 10 || code === 13 || code === 9; ) {
      code = this.text.charCodeAt(++this.at);
    }
  }

  private isDigit(code: number): boolean {
    return code >= 48 && code <= 57;
  }

  private here(): string {
    return this.at < this.text.length ? JSON.stringify(this.text.slice(this.at, this.at + 20)) : "the end of the header";
  }
}
