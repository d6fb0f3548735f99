import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AbortedError, DataError, UsageError } from "../base/errors.ts";
import type { Corpus, TextDocument } from "./corpus.ts";
import { expandBraces, findFiles, matchesName } from "./glob.ts";
import { readJsonLines } from "./json-lines.ts";
import { openCorpus, type SourceOptions } from "./sources.ts";
import { createSplitter, pieceCharacters, type SplitBy } from "./split-text.ts";
import { stateOfTheUnion } from "./state-of-the-union.ts";
import { readText } from "./utf8-reader.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-sources-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function write(name: string, content: string | Uint8Array): string {
  const path = join(root, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
const texts = async (corpus: Corpus) => (await all(corpus.documents())).map(({ text }) => text);
const read = (input: string, options?: SourceOptions) => texts(openCorpus(input, options));

describe("inputs", () => {
  it("reads a folder recursively in order of path, and only text", async () => {
    write("b.txt", "B");
    write("a/z.md", "AZ");
    write("a/y.jsonl", '{"text":"Y1"}\n\n{"text":"Y2","other":1}\n');
    write("image.png", new Uint8Array([0, 1]));
    write(".hidden/c.txt", "no");
    write("empty.txt", "");
    const documents = await all(openCorpus(root).documents());
    expect(documents).toEqual<TextDocument[]>([
      { text: "Y1", source: join(root, "a/y.jsonl"), index: 0 },
      { text: "Y2", source: join(root, "a/y.jsonl"), index: 1 },
      { text: "AZ", source: join(root, "a/z.md"), index: 0 },
      { text: "B", source: join(root, "b.txt"), index: 0 },
    ]);
    expect(openCorpus(root, { extensions: [".md"] }).totalBytes).toBe(2);
  });

  it("keeps the order of several inputs and reads named files whatever their extension", async () => {
    expect(await texts(openCorpus([write("b.rs", "B"), write("a.log", "A")]))).toEqual(["B", "A"]);
  });

  it("reads a file whose name looks like a pattern", async () => {
    expect(await read(write("what?{a,b}.txt", "literal"))).toEqual(["literal"]);
  });

  it("refuses what is missing, empty, or matches nothing, and says what it looked for", async () => {
    expect(() => openCorpus(join(root, "none.txt"))).toThrow(/nothing there/);
    expect(() => openCorpus([])).toThrow(DataError);
    expect(() => openCorpus(root)).toThrow(/files ending in .txt/);
    expect(() => openCorpus(join(root, "*.txt"))).toThrow(/files that match, got none/);
    expect(() => openCorpus(write("empty.txt", ""))).toThrow(/empty file/);
    expect(() => openCorpus(root)).toThrow(/1 empty ones/);
    expect(() => openCorpus(join(write("file", "x"), "below"))).toThrow(DataError);
    await expect(read(write("blank.txt", " \n\n"))).rejects.toThrow(/white space only/);
    expect(() => openCorpus(root, { fields: "x" } as never)).toThrow(UsageError);
  });

  it("has a fingerprint that follows content and settings", () => {
    const path = write("a.txt", "one");
    utimesSync(path, 1000, 1000);
    const before = openCorpus(path).fingerprint;
    expect(openCorpus(path).fingerprint).toBe(before);
    expect(openCorpus(path, { splitBy: "line" }).fingerprint).not.toBe(before);
    writeFileSync(path, "two");
    utimesSync(path, 2000, 2000);
    expect(openCorpus(path).fingerprint).not.toBe(before);
  });

  it("stops when aborted", async () => {
    const corpus = openCorpus(write("a.txt", "x"));
    await expect(all(corpus.documents({ signal: AbortSignal.abort() }))).rejects.toThrow(AbortedError);
  });
});

describe("JSONL", () => {
  it("reads another field and values of any kind", async () => {
    const path = write("a.jsonl", '{"body":"é"}\r\n[1]\n');
    expect(await all(readJsonLines(path))).toEqual([
      { value: { body: "é" }, line: 1 },
      { value: [1], line: 2 },
    ]);
    await expect(read(path, { field: "body" })).rejects.toThrow(/a.jsonl:2: expected a text in field "body", got no object/);
  });

  it("names file, line and fields", async () => {
    await expect(read(write("a.jsonl", '{"text":"x"}\n\n{"txt":"y"}'))).rejects.toThrow(/a.jsonl:3: .* got fields txt/);
    await expect(read(write("b.jsonl", '{"text":"x"}\n{"text":'))).rejects.toThrow(/b.jsonl:2: expected one JSON value/);
    await expect(read(write("c.jsonl", '{"text":3}'))).rejects.toThrow(/got number/);
    await expect(read(write("d.jsonl", "{}"), { field: "constructor" })).rejects.toThrow(/got fields none/);
  });
});

describe("encoding", () => {
  it("drops a byte order mark and joins characters cut between reads", async () => {
    const text = "aé€😀".repeat(50);
    const path = write("a.txt", `\ufeff${text}`);
    for (const chunkBytes of [1, 2, 3, 5, 7, 64]) expect((await all(readText(path, { chunkBytes }))).join("")).toBe(text);
  });

  it.each([
    ["a lone continuation byte", [0x61, 0x80, 0x61], 1],
    ["a cut character at the end", [0x61, 0x62, 0xe2, 0x82], 2],
    ["a cut character inside", [0xf0, 0x9f, 0x98, 0x61], 0],
    ["an overlong form", [0x61, 0xc0, 0xaf], 1],
    ["a surrogate", [0x61, 0x61, 0xed, 0xa0, 0x80], 2],
    ["a byte that never occurs", [0x61, 0xff], 1],
  ])("refuses %s and names the byte", async (_, bytes, offset) => {
    const prefix = [..."x".repeat(100)].map((c) => c.charCodeAt(0));
    const path = write("bad.txt", Uint8Array.from([...prefix, ...bytes]));
    for (const chunkBytes of [1, 7, 1 << 20]) {
      await expect(all(readText(path, { chunkBytes }))).rejects.toThrow(new RegExp(`bad.txt: .* at byte ${100 + offset}$`));
    }
  });

  it("refuses binary and UTF-16 files", async () => {
    await expect(read(write("a.txt", "ab\0c"))).rejects.toThrow(/NUL byte at byte 2/);
    await expect(read(write("b.txt", new Uint8Array([0xff, 0xfe, 0x61, 0])))).rejects.toThrow(/UTF-16/);
    await expect(read(write("c.txt", new Uint8Array([0x1f, 0x8b, 8, 0])))).rejects.toMatchObject({
      hint: expect.stringContaining("unpack"),
    });
    await expect(all(readText(join(root, "gone.txt")))).rejects.toThrow(/ENOENT/);
    await expect(all(readText(root))).rejects.toThrow(DataError);
  });
});

describe("documents of a text", () => {
  it("splits by line, paragraph and separator", async () => {
    const path = write("a.txt", "\none\r\ntwo\n \nthree\n\n\n\t\nfour\n");
    expect(await read(path, { splitBy: "line" })).toEqual(["one", "two", "three", "four"]);
    expect(await read(path, { splitBy: "paragraph" })).toEqual(["\none\r\ntwo", "three", "four\n"]);
    expect(await read(path, { splitBy: "file" })).toHaveLength(1);
    const stories = write("b.txt", "\nOnce.\n\nEnd.\n<|endoftext|>\n\nTwice.<|endoftext|>  <|endoftext|>");
    expect(await read(stories, { splitBy: { separator: "<|endoftext|>" } })).toEqual(["Once.\n\nEnd.", "Twice."]);
  });

  it("cuts a long file into pieces that end at blank lines and lose nothing", async () => {
    const text = Array.from({ length: 3000 }, (_, i) => `Paragraph ${i} ${"word ".repeat(i % 60)}`).join("\n\n");
    const pieces = await read(write("long.txt", text));
    expect(pieces.join("")).toBe(text);
    expect(pieces.length).toBeGreaterThan(10);
    for (const piece of pieces.slice(0, -1)) {
      expect(piece.endsWith("\n\n")).toBe(true);
      expect(piece.length).toBeLessThanOrEqual(2 * pieceCharacters);
    }
    // A longer file begins with the same pieces, so that they keep their side of a split.
    const longer = await read(write("longer.txt", `${text}\n\nmore`.padEnd(text.length + 100_000, " and more")));
    expect(longer.slice(0, pieces.length - 1)).toEqual(pieces.slice(0, -1));
  });

  it("does not depend on how the text arrives", () => {
    const modes: SplitBy[] = ["file", "line", "paragraph", { separator: "<|x|>" }, { separator: "\n" }];
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("a", "b ", "\n", "\r\n", "\n\n", "\t", "<|x", "|>", "<|x|>", "é"), { maxLength: 60 }),
        fc.array(fc.nat(80), { maxLength: 8 }),
        fc.constantFrom(...modes),
        (parts, cuts, mode) => {
          const text = parts.join("");
          const whole = createSplitter(mode, text.length, "whole");
          const expected = [...whole.push(text), ...whole.end()];
          const splitter = createSplitter(mode, text.length, "parts");
          const bounds = [0, ...cuts.map((cut) => Math.min(cut, text.length)).sort((a, b) => a - b), text.length];
          const found = bounds.slice(1).flatMap((end, i) => splitter.push(text.slice(bounds[i], end)));
          expect([...found, ...splitter.end()]).toEqual(expected);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("cuts text without line ends at spaces, and without spaces between characters", () => {
    for (const text of ["word ".repeat(40_000), "😀".repeat(100_000)]) {
      const splitter = createSplitter("auto", 1 << 30, "long");
      const pieces = [...splitter.push(text.slice(0, 70_001)), ...splitter.push(text.slice(70_001)), ...splitter.end()];
      expect(pieces.join("")).toBe(text);
      expect(pieces.length).toBeGreaterThan(2);
      for (const piece of pieces) expect(Buffer.from(piece).toString()).toBe(piece);
    }
  });
});

describe("patterns", () => {
  it("expands braces", () => {
    expect(expandBraces("a{b,c{d,e}}f{g,}")).toEqual(["abfg", "abf", "acdfg", "acdf", "acefg", "acef"]);
    expect(expandBraces("{a}{b")).toEqual(["{a}{b"]);
    expect(() => expandBraces("{a,b}".repeat(12))).toThrow(UsageError);
  });

  it("matches names as the equivalent regular expression does", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 8 });
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("a", "b", "*", "?", "."), maxLength: 6 }), letters, (pattern, name) => {
        const source = pattern.replace(/[.*?]/g, (c) => (c === "*" ? ".*" : c === "?" ? "." : "\\."));
        const hidden = name.startsWith(".") && !pattern.startsWith(".");
        expect(matchesName(pattern, name)).toBe(!hidden && new RegExp(`^${source}$`).test(name));
      }),
      { numRuns: 2000 },
    );
  });

  it("is quick on patterns that would make a regular expression backtrack", () => {
    expect(matchesName(`${"*a".repeat(60)}b`, "a".repeat(5000))).toBe(false);
  });

  it("finds files at any depth", () => {
    for (const name of ["a.txt", "x/b.txt", "x/y/c.md", "x/y/d.txt", ".h/e.txt", "x/.f.txt"]) write(name, "1");
    symlinkSync(root, join(root, "x", "loop"));
    const found = (pattern: string) => findFiles(join(root, pattern)).map((path) => path.slice(root.length + 1));
    expect(found("*.txt")).toEqual(["a.txt"]);
    expect(found("**/*.txt")).toEqual(["a.txt", "x/b.txt", "x/y/d.txt"]);
    expect(found("x/**")).toEqual(["x/b.txt", "x/y/c.md", "x/y/d.txt"]);
    expect(found("{x/y/*.md,a.???}")).toEqual(["a.txt", "x/y/c.md"]);
    expect(found("x/**/y/*.txt")).toEqual(["x/y/d.txt"]);
    expect(found(".h/*")).toEqual([".h/e.txt"]);
    expect(found("none/*")).toEqual([]);
  });
});

describe("State of the Union", () => {
  it("has 233 addresses from 1790 on", async () => {
    const corpus = stateOfTheUnion();
    const documents = await all(corpus.documents());
    expect(documents).toHaveLength(233);
    expect(documents[0].source).toBe("1790_george_washington_n.txt");
    expect(documents[0].text.startsWith("Fellow-Citizens of the Senate")).toBe(true);
    expect(documents.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0)).toBe(corpus.totalBytes);
    expect(corpus.totalBytes).toBe(10_761_413);
  });
});
