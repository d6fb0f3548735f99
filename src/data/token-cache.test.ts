import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AbortedError, BackendError, DataError, FormatError } from "../base/errors.ts";
import { corpusOf } from "./corpus.ts";
import { openCorpus } from "./sources.ts";
import { contentHash } from "./split.ts";
import { openTokenCache, type TokenCacheEvent, type TokenEncoder } from "./token-cache.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "longwave-cache-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** One token a UTF-16 unit. */
const units = (vocabularySize = 65536): TokenEncoder => ({
  encode: (text) => Uint16Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)),
  hash: "units",
  vocabularySize,
});
const corpus = corpusOf(["hello", "", "wörld €"]);
const open = (events?: TokenCacheEvent[], encoder = units()) =>
  openTokenCache(corpus, encoder, { directory: join(root, "cache"), onEvent: (event) => events?.push(event) });
const folder = () => join(root, "cache", readdirSync(join(root, "cache"))[0]);

describe("token cache", () => {
  it.each([65536, 100_000])("keeps every token and document (vocabulary %i)", async (vocabularySize) => {
    using file = await open([], units(vocabularySize));
    expect([file.numDocuments, file.numTokens]).toEqual([3, 12]);
    expect([0, 1, 2, 3].map((i) => file.documentStart(i))).toEqual([0, 5, 5, 12]);
    expect(file.documentHash(2)).toBe(contentHash("wörld €"));
    const ids = new Int32Array(14);
    file.read(0, ids, 1, 12);
    expect(String.fromCharCode(...ids.subarray(1, 13))).toBe("hellowörld €");
    expect([ids[0], ids[13]]).toEqual([0, 0]);
    expect(readFileSync(join(folder(), "tokens.bin")).length).toBe(12 * (vocabularySize > 65536 ? 4 : 2));
  });

  it("is reused by the same corpus, tokenizer and settings, and by no other", async () => {
    const events: TokenCacheEvent[] = [];
    (await open()).close();
    (await open(events)).close();
    expect(events).toEqual([{ kind: "reused", documents: 3, tokens: 12 }]);
    (await open(events, { ...units(), hash: "other" })).close();
    (await openTokenCache(corpusOf(["hello"]), units(), { directory: join(root, "cache") })).close();
    (await openTokenCache(corpus, units(), { directory: join(root, "cache"), settings: "x" })).close();
    expect(readdirSync(join(root, "cache"))).toHaveLength(4);
  });

  it("is built again when a source file changed", async () => {
    const path = join(root, "a.txt");
    const numTokens = async (text: string, time: number) => {
      writeFileSync(path, text);
      utimesSync(path, time, time);
      using file = await openTokenCache(openCorpus(path), units(), { directory: join(root, "cache") });
      return file.numTokens;
    };
    expect(await numTokens("abc", 1000)).toBe(3);
    expect(await numTokens("abcd", 2000)).toBe(4);
  });

  it("holds texts across its internal chunks exactly", async () => {
    const text = Array.from({ length: 150_001 }, (_, i) => String.fromCharCode(32 + (i % 90))).join("");
    using file = await openTokenCache(corpusOf([text, text.slice(7)]), units(), { directory: root });
    const ids = new Int32Array(file.numTokens);
    file.read(0, ids, 0, ids.length);
    let found = "";
    for (let i = 0; i < ids.length; i += 1000) found += String.fromCharCode(...ids.subarray(i, i + 1000));
    expect(found).toBe(text + text.slice(7));
  });

  it.each<[string, (at: string) => void]>([
    ["tokens cut short", (at) => truncateSync(join(at, "tokens.bin"), 10)],
    ["an index cut short", (at) => truncateSync(join(at, "documents.bin"), 10)],
    ["no index", (at) => rmSync(join(at, "documents.bin"))],
    ["no manifest", (at) => rmSync(join(at, "cache.json"))],
    ["a manifest that is no JSON", (at) => writeFileSync(join(at, "cache.json"), "{")],
    [
      "a manifest that claims more",
      (at) =>
        writeFileSync(
          join(at, "cache.json"),
          readFileSync(join(at, "cache.json"), "utf8").replace('"numDocuments":3', '"numDocuments":900000000000'),
        ),
    ],
    [
      "another version",
      (at) => writeFileSync(join(at, "cache.json"), readFileSync(join(at, "cache.json"), "utf8").replace('"version":1', '"version":9')),
    ],
    [
      "starts that decrease",
      (at) => {
        const bytes = readFileSync(join(at, "documents.bin"));
        bytes.writeDoubleLE(50, 8);
        writeFileSync(join(at, "documents.bin"), bytes);
      },
    ],
  ])("with %s is built again", async (_, damage) => {
    (await open()).close();
    damage(folder());
    const events: TokenCacheEvent[] = [];
    using file = await open(events);
    expect(events[0].kind).toBe("rebuilding");
    const ids = new Int32Array(5);
    file.read(0, ids, 0, 5);
    expect(String.fromCharCode(...ids)).toBe("hello");
  });

  it("refuses ids outside the vocabulary when writing and when reading", async () => {
    await expect(open([], units(200))).rejects.toThrow(/document 2.*expected token ids below 200, got 246/);
    expect(readdirSync(join(root, "cache"))).toEqual([]);
    const small = corpusOf(["abc"]);
    (await openTokenCache(small, units(200), { directory: join(root, "cache") })).close();
    writeFileSync(join(folder(), "tokens.bin"), new Uint8Array([97, 0, 255, 255, 98, 0]));
    using file = await openTokenCache(small, units(200), { directory: join(root, "cache") });
    expect(() => file.read(0, new Int32Array(3), 0, 3)).toThrow(FormatError);
    await expect(openTokenCache(corpusOf(["", ""]), units(), { directory: root })).rejects.toThrow(DataError);
  });

  it("leaves nothing behind when aborted or when encoding fails", async () => {
    const controller = new AbortController();
    const slow: TokenEncoder = {
      ...units(),
      encode: async (text) => {
        controller.abort();
        await new Promise((wake) => setTimeout(wake, 60));
        return units().encode(text);
      },
    };
    const directory = join(root, "cache");
    await expect(openTokenCache(corpus, slow, { directory, signal: controller.signal })).rejects.toThrow(AbortedError);
    const failing: TokenEncoder = {
      ...units(),
      encode: () => {
        throw new RangeError("broken");
      },
    };
    await expect(openTokenCache(corpus, failing, { directory })).rejects.toThrow(RangeError);
    expect(readdirSync(directory)).toEqual([]);
  });

  it("refuses to read after it was closed", async () => {
    const file = await open();
    file.close();
    expect(() => file.read(0, new Int32Array(1), 0, 1)).toThrow(BackendError);
  });
});
