// convert, quantize, generate and bench-decode as a user meets them: what they write and say, and what they do about wrong input: one typed
// message, exit code 2 for usage and 1 for failure, nothing half written.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bufferedOutput } from "./io.ts";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-text-commands-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);

const chatModel = "test/golden/checkpoints/smollm2";
const stories = "assets/stories260k/stories260K.bin";

async function run(...argv: string[]) {
  const [stdout, stderr] = [bufferedOutput(), bufferedOutput()];
  const io = { stdout, stderr, stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
  const code = await runCli([...argv, "--threads", "1"], io);
  // Lines about work under way, which a slow machine shows.
  const err = stderr.text().replace(/^(reading|writing|perplexity|v\(n\),|\d+\/\d+ ).*\n/gm, "");
  return { code, out: stdout.text(), err };
}

/** One error and at most one hint, no stack. */
async function fails(code: 1 | 2, message: RegExp, ...argv: string[]) {
  const before = readdirSync(folder, { recursive: true }).sort();
  const result = await run(...argv);
  expect(result.err).toMatch(message);
  expect(result.code, result.err).toBe(code);
  expect(result.err).toMatch(/^error: .*\n(hint: .*\n)?$/);
  expect(result.err).not.toMatch(/unexpected|defect/);
  expect(readdirSync(folder, { recursive: true }).sort()).toEqual(before);
}

beforeAll(async () => {
  expect((await run("convert", chatModel, at("f32.gguf"), "--dtype", "f32")).code).toBe(0);
  expect((await run("quantize", chatModel, at("q8.gguf"), "--tokens", "0")).code).toBe(0);
  const whole = readFileSync(at("f32.gguf"));
  writeFileSync(at("cut.gguf"), whole.subarray(0, Math.floor(whole.length / 2)));
  writeFileSync(at("cut-head.gguf"), whole.subarray(0, 100));
  writeFileSync(at("letter.gguf"), "Dear Ms. Alvarez, thank you for your order of 12 March.");
  writeFileSync(at("letter.txt"), "Dear Ms. Alvarez");
  mkdirSync(at("empty"));
});

/** What every command that reads a model says of these. */
const wrongModels: [what: string, path: string, message: RegExp][] = [
  ["a missing file", at("none.gguf"), /none\.gguf: expected .*, got nothing there/],
  ["a text that is called .gguf", at("letter.gguf"), /letter\.gguf: expected /],
  ["a text", at("letter.txt"), /letter\.txt: expected .*, got a text\nhint: Train on it/],
  ["an empty folder", at("empty"), /empty.*: expected |empty: expected /],
  ["half of a GGUF file", at("cut.gguf"), /cut\.gguf.*expected /],
  ["the beginning of a GGUF file", at("cut-head.gguf"), /cut-head\.gguf.*expected /],
];

describe("pretrain", () => {
  it("says what is wrong with a folder of runs that lies below a file", () =>
    fails(1, /got ENOTDIR from stat\nhint: A part of the path is a file/, "pretrain", at("letter.txt"), "--runs", at("letter.txt/runs")));
});

describe("convert", () => {
  it("writes a GGUF file and a folder, and tells sizes before and after", async () => {
    const there = await run("convert", chatModel, at("there.gguf"));
    expect(there.err).toBe("");
    expect(there.out).toMatch(/smollm2: weights of [\d.]+ KiB \(f32\) become about [\d.]+ KiB \(f16\)\n.*there\.gguf: [\d.]+ KiB\n$/);
    const back = await run("convert", at("there.gguf"), at("back"));
    expect(back.code).toBe(0);
    expect(readdirSync(at("back"))).toEqual(expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]));
  });

  it.each(wrongModels)("refuses %s", (_, path, message) => fails(1, message, "convert", path, at("out.gguf")));

  it("refuses what it cannot or must not write", async () => {
    await fails(1, /q8\.gguf: expected nothing there, got a file/, "convert", chatModel, at("q8.gguf"));
    await fails(1, /letter\.txt/, "convert", chatModel, join(at("letter.txt"), "out.gguf"));
    await fails(2, /expected f32, f16, bf16 for a folder, got q8_0/, "convert", chatModel, at("out"), "--dtype", "q8_0");
  });

  it("names the nearest of a mistyped option, and what is missing", async () => {
    await fails(
      2,
      /option `--dtyp`: expected an option that exists.*\nhint: Did you mean --dtype\?/,
      "convert",
      chatModel,
      at("out"),
      "--dtyp",
      "f16",
    );
    await fails(2, /`--dtype`: expected one of .*, got "q3_k"/, "convert", chatModel, at("out.gguf"), "--dtype", "q3_k");
    await fails(2, /argument <output>: expected/, "convert", chatModel);
  });
});

describe("quantize", () => {
  it("tells what the weights become, and what that costs", async () => {
    const { code, out, err } = await run("quantize", chatModel, at("q4.gguf"), "--type", "q4_0", "--tokens", "40");
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/^.*smollm2: weights of [\d.]+ KiB \(f32\) become about [\d.]+ KiB \(q4_0\)\n/);
    expect(out).toMatch(/perplexity on 39 tokens of State of the Union addresses: [\d.]+ before, [\d.]+ after\n/);
    const json = await run("quantize", chatModel, at("q5.gguf"), "--type", "q5_0", "--tokens", "0", "--json");
    expect(JSON.parse(json.out)).toMatchObject({ type: "q5_0", path: at("q5.gguf"), sourceBytes: expect.any(Number) });
  });

  it("does not quantise twice unless told to", async () => {
    await fails(
      2,
      /q8\.gguf: expected float weights to make q4_0 of.*\nhint: .*--allow-requantize/,
      "quantize",
      at("q8.gguf"),
      at("out.gguf"),
      "--type",
      "q4_0",
    );
    const { code } = await run("quantize", at("q8.gguf"), at("twice.gguf"), "--type", "q4_0", "--allow-requantize", "--tokens", "0");
    expect(code).toBe(0);
  });

  it.each(wrongModels)("refuses %s", (_, path, message) => fails(1, message, "quantize", path, at("out.gguf"), "--tokens", "0"));

  it("refuses outputs, texts and options that are none", async () => {
    await fails(2, /expected a name that ends with \.gguf/, "quantize", chatModel, at("out"));
    await fails(1, /expected nothing there/, "quantize", chatModel, at("q8.gguf"), "--tokens", "0");
    await fails(1, /letter\.txt/, "quantize", chatModel, join(at("letter.txt"), "out.gguf"), "--tokens", "0");
    await fails(1, /expected a text file, got none/, "quantize", chatModel, at("out.gguf"), "--data", at("none.txt"));
    await fails(2, /Did you mean --type\?/, "quantize", chatModel, at("out.gguf"), "--typ", "q8_0");
  });
});

describe("generate", () => {
  const greedy = ["--no-do-sample", "-n", "24"];
  const story = async (...more: string[]) => {
    const { code, out, err } = await run("generate", stories, "-p", "Once upon a time", ...greedy, ...more);
    expect(code, err).toBe(0);
    return { out, err };
  };

  it("keeps the space between a prompt and its continuation, and tells two speeds", async () => {
    const { out, err } = await run("generate", stories, "-p", "Once", "--no-do-sample", "-n", "4");
    expect(out).toMatch(/^Once upon a time/);
    expect(err).toMatch(/^2 tokens read at [\d.]+ tokens\/s, first token after [\d.]+ s; 4 written at [\d.]+ tokens\/s\n$/);
  });

  it("says where the context ended a text, and which option gives more", async () => {
    const end = async (...more: string[]) => (await run("generate", stories, "-p", "Once", "--no-do-sample", "--ignore-eos", ...more)).err;
    expect(await end("--context", "20")).toMatch(/^stopped at a context of 20 tokens: --context 512 is all that the model has$/m);
    expect(await end("-n", "600")).toMatch(/^stopped at the model's context of 512 tokens: --context 1024 goes on, beyond/m);
    const long = await run("generate", stories, "-p", "Once upon a time there was", "--context", "4");
    expect(long.err).toMatch(/^hint: Shorten the prompt, or give a larger --context where/m);
  });

  it("with --speculate lookup and with --exact writes the same text", async () => {
    const plain = await story();
    const lookup = await story("--speculate", "lookup");
    expect(lookup.out).toBe(plain.out);
    expect(lookup.err).toMatch(/[\d.]+ tokens a step; (no drafts|\d+ of \d+ drafts accepted, by position [\d., ]+)\n/);
    const exact = await story("--exact", "--json");
    const both = await story("--exact", "--speculate", "lookup", "--json");
    expect(JSON.parse(both.out).results[0].ids).toEqual(JSON.parse(exact.out).results[0].ids);
    expect(JSON.parse(both.out).speed).toMatchObject({ newTokens: 24, promptTokens: 5 });
  });

  it("with --prompt-cache reads a prompt once", async () => {
    const plain = await story();
    const first = await story("--prompt-cache", at("prompt.cache"));
    expect(first.err).toMatch(/^0 of 5 prompt tokens from /);
    const second = await story("--prompt-cache", at("prompt.cache"));
    expect(second.err).toMatch(/^4 of 5 prompt tokens from /);
    expect(second.err).toMatch(/1 token read.*\(4 more from the cache\)/);
    expect([first.out, second.out]).toEqual([plain.out, plain.out]);
    const once = ["generate", stories, "-p", "Once upon a time", "-n", "2"];
    await fails(1, /letter\.txt.*expected/, ...once, "--prompt-cache", at("letter.txt"));
    await fails(1, /expected/, "generate", chatModel, "-p", "Once upon a time", "-n", "2", "--prompt-cache", at("prompt.cache"));
    await fails(1, /letter\.txt/, ...once, "--prompt-cache", join(at("letter.txt"), "x.cache"));
    await fails(2, /samples: expected 1|--samples: expected 1/, ...once, "--prompt-cache", at("other.cache"), "--samples", "2");
  });

  it("with --json-schema writes an instance of it", async () => {
    const schema = {
      type: "object",
      properties: { kind: { enum: ["cat", "dog"] }, small: { type: "boolean" } },
      required: ["kind", "small"],
      additionalProperties: false,
    };
    writeFileSync(at("schema.json"), JSON.stringify(schema));
    for (const given of [at("schema.json"), JSON.stringify(schema)]) {
      const { out, code, err } = await run("generate", stories, "-p", " ", "--json-schema", given, "-n", "100", "--json");
      expect(code, err).toBe(0);
      const { text } = JSON.parse(out).results[0];
      expect(JSON.parse(text)).toEqual({ kind: expect.stringMatching(/^(cat|dog)$/), small: expect.any(Boolean) });
    }
    const once = ["generate", stories, "-p", "a", "-n", "2"];
    await fails(2, /json-schema: expected a file, got/, ...once, "--json-schema", at("none.json"));
    await fails(2, /json-schema: expected JSON, got/, ...once, "--json-schema", '{"type":');
    await fails(2, /grammar: expected a file, got/, ...once, "--grammar", at("none.gbnf"));
  });

  it.each(wrongModels)("refuses %s", (_, path, message) => fails(1, message, "generate", path, "-p", "a", "-n", "1"));

  it("refuses options that are none", async () => {
    const once = ["generate", stories, "-p", "a", "-n", "1"];
    await fails(2, /Did you mean --temperature\?/, ...once, "--temprature", "1");
    await fails(2, /`--temperature`: expected a number >= 0, got "hot"/, ...once, "--temperature", "hot");
    await fails(2, /speculate.*expected|expected.*lookup/, ...once, "--speculate", "lokup");
    await fails(2, /expected lossless without sampling|expected lossless/, ...once, "--no-do-sample", "--verifier", "block");
    await fails(2, /expected a model with a chat template/, ...once, "--chat");
  });
});

describe("bench-decode", () => {
  const short = ["-n", "8", "--rounds", "1", "--context", "256", "--drafters", "lookup"];

  it("measures own prompts, tells how long it takes, and writes its numbers", async () => {
    writeFileSync(at("prompts.jsonl"), '{"task": "tales", "prompt": "Once upon a time"}\n{"prompt": "Lily and Tom"}\n');
    const { code, out, err } = await run(
      "bench-decode",
      stories,
      "--prompts",
      at("prompts.jsonl"),
      ...short,
      "--output",
      at("speeds.json"),
    );
    expect(code, err).toBe(0);
    expect(err).toMatch(/^2 prompts, plain and with 1 drafter, 1 round\n4 texts to decode, about [\d.]+s at most\n/);
    expect(out).toMatch(/^a call on n tokens, v\(n\): 1: 1\.00 /);
    expect(out).toMatch(/^lookup +tales /m);
    const report = JSON.parse(readFileSync(at("speeds.json"), "utf8"));
    expect(report.rows.map(({ task }: { task: string }) => task)).toEqual(["tales", "prompts"]);
    const one = await run("bench-decode", stories, "--prompts", at("prompts.jsonl"), ...short, "--tasks", "tales", "--json");
    expect(JSON.parse(one.out).rows).toHaveLength(1);
  });

  it("lists its kinds of work", async () => {
    const { out } = await run("bench-decode", "--help");
    expect(out.replace(/\s+/g, " ")).toMatch(
      /--tasks <text> Only these kinds of work: conversation, summarisation, copying, question answering, arithmetic, or those of --prompts/,
    );
    await fails(2, /tasks: expected conversation, .*, got cooking/, "bench-decode", stories, "--tasks", "cooking");
  });

  it("refuses files and options that are none", async () => {
    await fails(1, /expected a file of prompts, got none/, "bench-decode", stories, "--prompts", at("none.jsonl"));
    writeFileSync(at("broken.jsonl"), '{"prompt": "a"}\n{"promt": "b"}\n');
    await fails(
      1,
      /broken\.jsonl: expected a JSON object with the text "prompt" in line 2/,
      "bench-decode",
      stories,
      "--prompts",
      at("broken.jsonl"),
    );
    await fails(2, /Did you mean --rounds\?/, "bench-decode", stories, "--round", "1");
    await fails(1, /none\.gguf/, "bench-decode", at("none.gguf"), ...short);
  });
});
