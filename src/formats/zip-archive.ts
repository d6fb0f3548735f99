// The entries of a ZIP archive (APPNOTE 6.3, with ZIP64) that are stored without compression, by position. Every offset and size is
// checked against the file.
import { FormatError } from "../base/errors.ts";
import { readFully } from "../base/file-io.ts";

export interface ZipEntry {
  readonly name: string;
  /** First byte of the content in the file. */
  readonly begin: number;
  readonly bytes: number;
}

const endSignature = 0x06054b50;
const end64Signature = 0x06064b50;
const locatorSignature = 0x07064b50;
const centralSignature = 0x02014b50;
const localSignature = 0x04034b50;
const endBytes = 22;
const maxComment = 0xffff;
const hint = "The file is damaged, cut short or no ZIP archive; copy or download it again.";

/**
 * Reads the directory of an archive of `size` bytes.
 * @throws FormatError for compressed, encrypted or overlapping entries, several parts, and anything that does not fit the file.
 */
export function readZipDirectory(fd: number, size: number, label: string): Map<string, ZipEntry> {
  const wrong = (expected: string, got: string): FormatError => new FormatError(`${label}: expected ${expected}, got ${got}`, { hint });
  const read = (position: number, bytes: number): DataView => {
    if (position < 0 || bytes < 0 || position + bytes > size)
      throw wrong(`bytes ${position} to ${position + bytes} in the archive`, `${size} bytes`);
    const data = new Uint8Array(bytes);
    readFully(fd, data, position, label);
    return new DataView(data.buffer);
  };
  const u64 = (view: DataView, at: number): number => {
    const value = Number(view.getBigUint64(at, true));
    if (!Number.isSafeInteger(value)) throw wrong("sizes below 2^53", String(value));
    return value;
  };

  const tailBytes = Math.min(size, endBytes + maxComment);
  const tail = read(size - tailBytes, tailBytes);
  let at = tailBytes - endBytes;
  while (at >= 0 && tail.getUint32(at, true) !== endSignature) at--;
  if (at < 0) throw wrong("the end record of a ZIP archive", "none");
  let [count, directoryBytes, directoryStart] = [
    tail.getUint16(at + 10, true),
    tail.getUint32(at + 12, true),
    tail.getUint32(at + 16, true),
  ];
  const endAt = size - tailBytes + at;
  if (endAt >= 20) {
    const locator = read(endAt - 20, 20);
    if (locator.getUint32(0, true) === locatorSignature) {
      const record = read(u64(locator, 8), 56);
      if (record.getUint32(0, true) !== end64Signature) throw wrong("a ZIP64 end record", "something else");
      [count, directoryBytes, directoryStart] = [u64(record, 32), u64(record, 40), u64(record, 48)];
    }
  }
  if (count > directoryBytes / 46) throw wrong(`at most ${Math.floor(directoryBytes / 46)} entries`, String(count));
  const directory = read(directoryStart, directoryBytes);
  const entries = new Map<string, ZipEntry>();
  const decoder = new TextDecoder();
  let position = 0;
  for (let i = 0; i < count; i++) {
    if (position + 46 > directoryBytes || directory.getUint32(position, true) !== centralSignature)
      throw wrong(`entry ${i} in the directory`, "none");
    const [flags, method] = [directory.getUint16(position + 8, true), directory.getUint16(position + 10, true)];
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => directory.getUint16(position + field, true));
    const next = position + 46 + nameBytes + extraBytes + commentBytes;
    if (next > directoryBytes) throw wrong(`entry ${i} within the directory`, "its end");
    const name = decoder.decode(new Uint8Array(directory.buffer, position + 46, nameBytes));
    let [packed, bytes, local] = [20, 24, 42].map((field) => directory.getUint32(position + field, true));
    // ZIP64: fields that are all ones stand in an extra block, in this order.
    for (let extra = position + 46 + nameBytes; extra + 4 <= position + 46 + nameBytes + extraBytes; ) {
      const [id, length] = [directory.getUint16(extra, true), directory.getUint16(extra + 2, true)];
      const stop = extra + 4 + length;
      if (stop > next) break;
      if (id === 1) {
        let field = extra + 4;
        const take = (): number => {
          if (field + 8 > stop) throw wrong("the ZIP64 sizes of an entry", "fewer");
          field += 8;
          return u64(directory, field - 8);
        };
        if (bytes === 0xffffffff) bytes = take();
        if (packed === 0xffffffff) packed = take();
        if (local === 0xffffffff) local = take();
      }
      extra = stop;
    }
    position = next;
    const quoted = JSON.stringify(name.slice(0, 100));
    if (method !== 0 || packed !== bytes) throw wrong(`entry ${quoted} without compression`, `method ${method}`);
    if (flags & 1) throw wrong(`entry ${quoted} without encryption`, "an encrypted one");
    if (entries.has(name)) throw wrong("every entry once", `${quoted} twice`);
    const header = read(local, 30);
    if (header.getUint32(0, true) !== localSignature) throw wrong(`the local header of ${quoted}`, "something else");
    const begin = local + 30 + header.getUint16(26, true) + header.getUint16(28, true);
    if (begin + bytes > size) throw wrong(`${bytes} bytes of ${quoted}`, `a file of ${size}`);
    entries.set(name, { name, begin, bytes });
  }
  return entries;
}
