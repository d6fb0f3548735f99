import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { Tokenizer as ReferenceTokenizer } from "@huggingface/tokenizers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bufferedOutput } from "../io.ts";
import { runCli } from "../run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-tokenizer-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = async (argv: string[], input: string | Buffer = "") => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  const io = { stdout, stderr, stdin: Readable.from([Buffer.from(input)]), env: {}, signal: new AbortController().signal };
  return { code: await runCli(argv, io), out: stdout.text(), err: stderr.text() };
};

const corpus = join(folder, "corpus.txt");
const out = join(folder, "tokenizer");
const sentence = "the cat sat on the mat; thé 猫 sat on the cat 👍<|endoftext|>";

beforeAll(() => writeFileSync(corpus, `${"the cat sat on the mat and the rat sat on the cat\n".repeat(50)}`));

describe("tokenizer", () => {
  it("trains from files, and other software reads the result alike", async () => {
    const { code, out: text, err } = await run(["tokenizer", "train", corpus, "-o", out, "--vocab-size", "270", "--json"]);
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(JSON.parse(text)).toMatchObject({ vocabSize: 270, numMerges: 13, numCharacters: 2500 });
    const read = (name: string) => JSON.parse(readFileSync(join(out, name), "utf8"));
    const reference = new ReferenceTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
    const encoded = await run(["tokenizer", "encode", out, sentence]);
    expect(encoded.out.trim().split(" ").map(Number)).toEqual(reference.encode(sentence).ids);
  });

  it("goes there and back through standard input", async () => {
    const { out: ids } = await run(["tokenizer", "encode", out], sentence);
    const { code, out: text } = await run(["tokenizer", "decode", out, "--no-skip-special-tokens"], ids);
    expect(code).toBe(0);
    expect(text).toBe(`${sentence}\n`);
    expect((await run(["tokenizer", "decode", out], ids)).out).toBe(`${sentence.replace("<|endoftext|>", "")}\n`);
    const list = ids.trim().split(" ");
    expect((await run(["tokenizer", "decode", out, ...list, "--no-skip-special-tokens"])).out).toBe(text);
    expect((await run(["tokenizer", "encode", out, "--count"], sentence)).out).toBe(`${list.length}\n`);
    expect(JSON.parse((await run(["tokenizer", "encode", out, "--json"], sentence)).out)).toMatchObject({
      count: list.length,
      ids: list.map(Number),
    });
    expect((await run(["tokenizer", "encode", out, "--tokens", "the"])).out).toMatch(/^\d+ {2}"/);
  });

  it.each([
    [["tokenizer", "train", join(folder, "none.txt"), "-o", "x"], 1, "expected a file, folder or pattern"],
    [["tokenizer", "train", corpus, "-o", join(folder, "no"), "--vocab-size", "100"], 2, "--vocab-size: expected at least 257"],
    [["tokenizer", "train", corpus, "-o", join(folder, "no"), "--eos-token", "<|end|>"], 2, "option `--special-tokens`: expected"],
    [["tokenizer", "train", corpus], 2, "option `--output`: expected a non-empty string, got nothing"],
    [["tokenizer", "encode", folder, "x"], 1, "expected tokenizer.json"],
    [["tokenizer", "decode", out, "9999"], 2, "expected ids below 270, got 9999"],
    [["tokenizer", "decode", out, "seven"], 2, "option `ids`: expected a list of integers"],
  ])("%j fails with code %d", async (argv, expected, message) => {
    const { code, err } = await run(argv);
    expect(err).toContain(message);
    expect(code).toBe(expected);
    expect(existsSync(join(folder, "no"))).toBe(false);
  });

  it("refuses input that is not text", async () => {
    expect((await run(["tokenizer", "encode", out], Buffer.from([0xff, 0xfe, 0x61]))).err).toContain("expected UTF-8 text");
    expect((await run(["tokenizer", "decode", out], "12 x")).err).toContain('expected token ids, got "x"');
  });
});
