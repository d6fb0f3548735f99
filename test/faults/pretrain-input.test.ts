// What users get wrong around training: one error that says what was expected and what to do, the right exit code, and nothing left behind.
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bufferedOutput } from "../../src/cli/io.ts";
import { runCli } from "../../src/cli/run-cli.ts";
import { readMetrics } from "../../src/engine/index.ts";
import { randomText } from "./random-text.ts";

const root = mkdtempSync(join(tmpdir(), "longwave-input-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string): string => join(root, name);

interface Result {
  code: number;
  out: string;
  err: string;
}

async function longwave(argv: readonly string[], stdin = ""): Promise<Result> {
  const [stdout, stderr] = [bufferedOutput(), bufferedOutput()];
  const io = { stdout, stderr, stdin: Readable.from([Buffer.from(stdin)]), env: {}, signal: new AbortController().signal };
  const code = await runCli([...argv, "--threads", "1"], io);
  return { code, out: stdout.text(), err: stderr.text() };
}

/** One error with its hint, and no defect. */
function expectError({ code, err }: Result, exitCode: number, message: RegExp, hint: RegExp): void {
  expect(err.match(/^error: /gm)).toHaveLength(1);
  expect(err).toMatch(message);
  expect(err.split("hint: ")[1] ?? "").toMatch(hint);
  expect(err).not.toMatch(/unexpected|defect/);
  expect(code).toBe(exitCode);
}

const runs = at("runs");
const options = [
  ["--split-by", "paragraph", "--vocab-size", "280", "--runs", runs, "--steps", "4", "--checkpoint-every", "2", "--batch-size", "4"],
  ["--model.width", "16", "--model.layers", "1", "--model.heads", "2", "--model.context-length", "16", "--sample-tokens", "4"],
].flat();
const pretrain = (data: string, ...more: string[]): Promise<Result> => longwave(["pretrain", at(data), ...options, ...more]);
const folderOf = ({ out, err }: Result): string => {
  const folder = /^run folder: (.+)$/m.exec(out)?.[1];
  if (folder === undefined) throw new Error(out + err);
  return folder;
};
const runFolders = (): string[] => (existsSync(runs) ? readdirSync(runs).filter((name) => name !== ".cache") : []);

/** A finished run of two checkpoints that no test changes. */
let run: string;
const copyOfRun = (name: string): string => {
  cpSync(run, at(name), { recursive: true });
  return at(name);
};

/** Its model alone, without what a resume needs. */
const modelOf = (path: string): string => {
  cpSync(join(path, "checkpoints/step-00000004"), at("model"), { recursive: true });
  rmSync(join(at("model"), "trainer.json"));
  return at("model");
};

beforeAll(async () => {
  const files: Record<string, string | Buffer> = {
    "text.txt": randomText(60),
    "other.txt": randomText(60, 5).toUpperCase(),
    "empty.txt": "",
    "blank.txt": " \n\n\t ",
    "binary.txt": Buffer.from([72, 105, 0, 1, 2]),
    "latin.txt": Buffer.from("caf\u00e9 au lait", "latin1"),
    "utf16.txt": Buffer.from("\ufeffHello", "utf16le"),
    "short.txt": "One two.",
    "broken.jsonl": '{"text": "good"}\n{"text": 3}\n',
    file: "x",
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(at(name), content);
  mkdirSync(at("folder"));
  const result = await pretrain("text.txt");
  expect(result.code, result.err).toBe(0);
  run = folderOf(result);
});

describe("data and settings that cannot be trained on", () => {
  test.each<[string, string, string[], number, RegExp, RegExp]>([
    ["a missing file", "nothing.txt", [], 1, /nothing.txt: expected a file, folder or pattern, got nothing/, /Check the path/],
    ["an empty file", "empty.txt", [], 1, /empty.txt: expected text, got an empty file/, /^/],
    ["white space", "blank.txt", [], 1, /blank.txt: expected text, got white space only/, /hold text/],
    ["binary data", "binary.txt", [], 1, /binary.txt: expected text, got binary data \(a NUL byte at byte 2\)/, /Remove the file/],
    ["Latin-1", "latin.txt", [], 1, /latin.txt: expected UTF-8 text, got an invalid byte sequence at byte 3/, /iconv/],
    ["UTF-16", "utf16.txt", [], 1, /utf16.txt: expected UTF-8 text, got UTF-16/, /iconv/],
    ["JSONL without the field", "broken.jsonl", [], 1, /broken.jsonl.*expected/, /./],
    ["a folder without text", "folder", [], 1, /folder: expected files ending in .txt/, /extensions/],
    [
      "a vocabulary larger than the data supports",
      "text.txt",
      ["--vocab-size", "5000"],
      1,
      /--vocab-size: expected text for 5000 tokens, got enough for \d+/,
      /Give --vocab-size \d+ or less/,
    ],
    ["too little text for any vocabulary", "short.txt", [], 1, /got enough for 2\d\d$/m, /Give more text: these are \d+ characters/],
    [
      "a sequence longer than the context",
      "text.txt",
      ["--sequence-length", "17"],
      2,
      /--sequence-length: expected at most the model's context of 16/,
      /--model.context-length/,
    ],
    [
      "a sequence longer than the data",
      "text.txt",
      ["--model.context-length", "50000"],
      1,
      /data: expected at least 50001 training tokens/,
      /more text or a shorter/,
    ],
    [
      "too little text",
      "short.txt",
      ["--vocab-size", "257"],
      1,
      /data: expected at least 17 training tokens for a sequence of 16/,
      /more text/,
    ],
    ["an unknown option", "text.txt", ["--stpes", "3"], 2, /option `--stpes`: expected an option that exists/, /Did you mean --steps/],
    [
      "a rate for the optimiser alone",
      "text.txt",
      ["--optimizer.learning-rate", "1"],
      2,
      /`--optimizer.learning-rate`: expected an option that exists/,
      /Did you mean --learning-rate/,
    ],
    ["an unknown option of the model", "text.txt", ["--model.widht", "3"], 2, /option `--model.widht`/, /Did you mean --model.width/],
    ["an option of another optimiser", "text.txt", ["--optimizer.nesterov"], 2, /optimizer.nesterov/, /optimizer.kind sgd or muon/],
    [
      "heads that do not fit",
      "text.txt",
      ["--model.heads", "3"],
      2,
      /model.width: expected a multiple of --model.heads \(3\)/,
      /--model.head-width/,
    ],
    [
      "a schedule longer than the run",
      "text.txt",
      ["--schedule.kind", "warmup-stable-decay", "--schedule.warmup-steps", "9"],
      2,
      /expected warmupSteps \+ decaySteps of at most 4/,
      /Lengthen/,
    ],
    ["two lengths", "text.txt", ["--epochs", "1", "--tokens", "1e4"], 2, /epochs, tokens: expected one of them/, /once/],
    [
      "early stopping without evaluations",
      "text.txt",
      ["--early-stopping.metric", "loss", "--validation", "0"],
      2,
      /--early-stopping: expected evaluations/,
      /validation/,
    ],
    ["early stopping by an unknown metric", "text.txt", ["--early-stopping.metric", "lss"], 2, /expected one of loss, perplexity/, /./],
    [
      "a sample prompt longer than the context",
      "text.txt",
      ["--sample-prompt", "the ".repeat(30)],
      2,
      /--sample-prompt: expected fewer tokens/,
      /Shorten/,
    ],
    [
      "a file in place of the run folder",
      "text.txt",
      ["--runs", at("file"), "--cache", at("cache")],
      2,
      /runs: expected a folder or nothing/,
      /another folder/,
    ],
    ["a file in place of the cache", "text.txt", ["--cache", at("file")], 2, /cache: expected a folder or nothing/, /another folder/],
    ["init from nothing", "text.txt", ["--init", at("nothing")], 1, /nothing: expected a checkpoint folder/, /path/],
    [
      "init from a folder without a model",
      "text.txt",
      ["--init", at("folder")],
      1,
      /folder: expected config.json in it/,
      /checkpoint folder/,
    ],
    ["a tokenizer that is not there", "text.txt", ["--tokenizer", at("folder")], 1, /expected tokenizer.json in folder/, /./],
  ])("%s", async (_, data, more, code, message, hint) => {
    const before = runFolders();
    expectError(await pretrain(data, ...more), code, message, hint);
    expect(runFolders()).toEqual(before);
  });

  test("a first run that fails leaves no folder at all", async () => {
    const result = await pretrain("binary.txt", "--runs", at("fresh"), "--tokenizer", join(run, "tokenizer"));
    expectError(result, 1, /binary data/, /Remove/);
    expect(existsSync(at("fresh"))).toBe(false);
  });

  test("a tokenizer with more tokens than the model of init", async () => {
    const larger = folderOf(await pretrain("other.txt", "--vocab-size", "300", "--name", "larger"));
    expectError(
      await pretrain("text.txt", "--init", run, "--tokenizer", join(larger, "tokenizer")),
      2,
      /expected at most the 280 tokens/,
      /tokenizer of that/,
    );
  });
});

describe("what is odd but works", () => {
  test("options without effect are told", async () => {
    const { code, out, err } = await pretrain("text.txt", "--init", run, "--size", "micro", "--epochs", "0.1");
    expect(code, err).toBe(0);
    for (const name of ["--size", "--model", "--vocab-size", "--steps"]) expect(out).toContain(`warning: ${name} has no effect: `);
    expect(out.match(/has no effect/g)).toHaveLength(4);
  });

  test("where weights are averaged, the average decides what is best, and is a model of its own", async () => {
    const result = await pretrain("text.txt", "--ema", "0.9", "--evaluate-every", "1", "--steps", "6", "--name", "ema");
    expect(result.code, result.err).toBe(0);
    const folder = folderOf(result);
    const events = [...readMetrics(join(folder, "metrics.jsonl"))];
    const losses = events.flatMap((event) => (event.kind === "evaluation" ? [event.metrics.emaLoss] : []));
    expect(losses).toHaveLength(6);
    const best = Math.min(...losses);
    expect(events.at(-1)).toMatchObject({ kind: "run-end", best: { metric: "emaLoss", value: best, step: 1 + losses.indexOf(best) } });
    const evaluated = await longwave(["evaluate", join(folder, "checkpoints/step-00000006/ema"), "--json"]);
    expect(JSON.parse(evaluated.out).loss).toBeCloseTo(losses[5], 5);
  });

  test("one document is divided by tokens", async () => {
    const { code, out, err } = await pretrain("text.txt", "--split-by", "file", "--name", "single");
    expect(code, err).toBe(0);
    expect(out).toMatch(
      /warning: validation: too few .*; the last \d+ tokens are kept for it\. --split-by paragraph or line makes more of them\.$/m,
    );
    expect(out).toMatch(/evaluation at step 4/);
  });

  test("epochs and tokens give the number of steps, and a size keeps what is not changed", async () => {
    const byTokens = await pretrain("text.txt", "--tokens", "500", "--name", "tokens");
    // 4 rows of 16 tokens a step.
    expect(byTokens.out).toContain("run: 8 steps");
    const config = JSON.parse(readFileSync(join(folderOf(byTokens), "config.json"), "utf8"));
    expect(config).toMatchObject({ steps: 8, seed: 0, model: { width: 16, layers: 1, heads: 2, contextLength: 16 } });
    expect(Object.keys(config.model)).toHaveLength(4);
    const gpt2 = await pretrain("text.txt", "--size", "gpt2-124m", "--name", "gpt2", "--model.mlp-width", "32", "--epochs", "0.05");
    const checkpoint = readdirSync(join(folderOf(gpt2), "checkpoints")).find((name) => name.startsWith("step")) as string;
    const model = JSON.parse(readFileSync(join(folderOf(gpt2), "checkpoints", checkpoint, "config.json"), "utf8"));
    expect(model).toMatchObject({ model_type: "gpt2", n_embd: 16, n_layer: 1, n_head: 2, n_inner: 32 });
  });
});

describe("a loss that is not a number", () => {
  test("ends the run with a record of the step; the checkpoints before it can be resumed at a lower rate", async () => {
    const result = await pretrain("text.txt", "--steps", "40", "--learning-rate", "1e9", "--name", "nan");
    expectError(
      result,
      1,
      /step \d+: expected finite numbers, got loss NaN/,
      /The step was written to .*nan-step-\d+.*lower learning rate/,
    );
    const folder = folderOf(result);
    const record = readdirSync(folder).find((name) => name.startsWith("nan-step")) as string;
    expect(readdirSync(join(folder, record)).sort()).toEqual(
      ["config.json", "metrics.json", "model.safetensors", "step.json", "tokenizer.json", "tokenizer_config.json"].sort(),
    );
    const { step, batch, learningRate } = JSON.parse(readFileSync(join(folder, record, "step.json"), "utf8"));
    expect(record).toBe(`nan-step-${step + 1}`);
    expect(batch.inputs).toHaveLength(64);
    expect(learningRate).toBeGreaterThan(1e7);
    expectError(
      await longwave(["pretrain", "--resume", folder, "--optimizer.kind", "sgd"]),
      2,
      /expected the settings.*--optimizer.kind/,
      /Leave them out/,
    );
    const again = await longwave(["pretrain", "--resume", folder, "--learning-rate", "1e-3", "--on-not-finite", "skip", "--steps", "6"]);
    expect(again.out).toMatch(/resumed at step 2/);
    expect(again.out).toMatch(/resumed with other settings: .*--learning-rate \(saved 1000000000, given 0.001\)/);
  });
});

describe("resume", () => {
  test.each<[string, () => string[], number, RegExp, RegExp]>([
    ["nothing", () => [at("nothing")], 1, /run folder .*nothing: expected a config.json that a run wrote/, /folder of a run/],
    ["no run", () => [at("folder")], 1, /a folder without it/, /folder of a run/],
    ["a model", () => [modelOf(run)], 1, /expected the folder of a pretraining run, got one of another kind/, /quickstart/],
    ["another batch size", () => [run, "--batch-size", "8"], 2, /other ones: --batch-size \(saved 4, given 8\)$/m, /Leave them out/],
    ["another model", () => [run, "--model.width", "32"], 2, /other ones: --model.width \(saved 16, given 32\)$/m, /Leave them out/],
    [
      "another kind of optimiser",
      () => [run, "--optimizer.kind", "muon"],
      2,
      /ones: --optimizer.kind \(saved "adamw", given "muon"\)$/m,
      /--init/,
    ],
    ["other data", () => [run, at("other.txt")], 1, /expected the data that the run was started with/, /Bring them back/],
    ["fewer steps than were taken", () => [copyOfRun("fewer"), "--steps", "2"], 0, /^/, /^/],
  ])("%s", async (_, args, code, message, hint) => {
    const [path, ...more] = args();
    const result = await longwave(["pretrain", ...more, "--resume", path]);
    if (code === 0) expect(result.code, result.err).toBe(0);
    else expectError(result, code, message, hint);
  });

  test("truncated checkpoints: the one before is used, and none is an error", async () => {
    const broken = copyOfRun("truncated");
    truncateSync(join(broken, "checkpoints/step-00000004/trainer.safetensors"), 100);
    const result = await longwave(["pretrain", "--resume", broken]);
    expect(result.code, result.err).toBe(0);
    expect(result.out).toMatch(/warning: checkpoint file .*trainer.safetensors: expected \d+ bytes, got 100/);
    expect(result.out).toMatch(/resumed at step 2/);
    for (const step of ["step-00000002", "step-00000004"]) truncateSync(join(broken, "checkpoints", step, "model.safetensors"), 100);
    expectError(await longwave(["pretrain", "--resume", broken]), 1, /expected a checkpoint that can be resumed, got .*got 100/, /anew/);
  });

  test("one checkpoint of the run, and a run that has none yet", async () => {
    const copy = copyOfRun("earlier");
    const result = await longwave(["pretrain", "--resume", join(copy, "checkpoints/step-00000002")]);
    expect(result.code, result.err).toBe(0);
    expect(result.out).toMatch(/resumed at step 2/);
    rmSync(join(copy, "checkpoints"), { recursive: true });
    expectError(
      await longwave(["pretrain", "--resume", copy, "--seed", "3"]),
      2,
      /other ones: --seed \(saved 0, given 3\)/,
      /Leave them out/,
    );
    const again = await longwave(["pretrain", "--resume", copy]);
    expect(again.out).toMatch(/warning: .*there is no checkpoint yet; the run starts from the beginning/);
    expect(again.code, again.err).toBe(0);
  });

  test("what a resume changed holds from then on", async () => {
    const copy = copyOfRun("changed");
    const changed = await longwave(["pretrain", "--resume", copy, "--learning-rate", "5e-4", "--steps", "6"]);
    expect(changed.out).toMatch(/resumed with other settings: .*--learning-rate \(saved [^,]*, given 0.0005\)/);
    expect(changed.code, changed.err).toBe(0);
    const plain = await longwave(["pretrain", "--resume", copy]);
    expect(plain.out).not.toMatch(/other settings/);
    expect(plain.out).toMatch(/nothing is left to train: the run is at step 6, and 6 were asked for/);
    expect(plain.code, plain.err).toBe(0);
  });

  test("data that was touched since", async () => {
    writeFileSync(at("touched.txt"), randomText(60, 2));
    const folder = folderOf(await pretrain("touched.txt", "--name", "touched"));
    utimesSync(at("touched.txt"), 1, 1);
    expectError(await longwave(["pretrain", "--resume", folder]), 1, /got other files or changed ones/, /time of modification/);
  });
});

describe("generate and evaluate", () => {
  test("of a run: text, an empty prompt, standard input, the same seed", async () => {
    const generate = (...more: string[]): Promise<Result> => longwave(["generate", run, "-n", "6", "--json", ...more]);
    const results = [await generate("--prompt", "the king"), await generate("--prompt", ""), await generate("--prompt", "the king")];
    const texts = results.map(({ out, err }) => JSON.parse(out || err).results[0]);
    for (const { ids } of texts) expect(ids.length).toBeGreaterThan(0);
    expect(texts[2]).toEqual(texts[0]);
    const piped = await longwave(["generate", run, "-n", "6", "--json", "--prompt", "-"], "the king");
    expect(JSON.parse(piped.out).results[0]).toEqual(texts[0]);
    const evaluated = JSON.parse(
      (await longwave(["evaluate", run, at("text.txt"), "--split-by", "paragraph", "--validation", "0.05", "--json"])).out,
    );
    const events = readFileSync(join(run, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    // The preparation, told before the folder was made, is in its metrics too.
    expect(events.slice(0, 7).map(({ kind }) => kind)).toEqual(["stage", "stage", "stage", "artifact", "stage", "run-start", "sample"]);
    const { metrics } = events.find(({ kind }) => kind === "evaluation");
    expect(evaluated.loss).toBeCloseTo(metrics.loss, 6);
    expect(evaluated.bitsPerByte).toBeCloseTo(metrics.bitsPerByte, 6);
  });

  test.each<[string, () => string[], number, RegExp, RegExp]>([
    ["no model", () => [at("nothing")], 1, /nothing: expected a checkpoint folder/, /path/],
    ["a folder without one", () => [at("folder")], 1, /expected config.json in it/, /checkpoint folder/],
    ["a file of another kind", () => [at("text.txt")], 1, /expected a checkpoint folder, .* got a text/, /Train on it/],
    [
      "a prompt longer than the context",
      () => [run, "--prompt", "the king and ".repeat(9)],
      2,
      /expected a prompt shorter than the context of 16 tokens, got \d+/,
      /Shorten/,
    ],
    ["an unknown option", () => [run, "--temprature", "1"], 2, /option `--temprature`/, /--temperature/],
    ["a value out of range", () => [run, "--top-p", "3"], 2, /--top-p.*expected a number between 0 and 1/, /./],
    [
      "the tokenizer of another model",
      () => [run, "--tokenizer", join(at("runs"), runFolders().find((name) => name.endsWith("foreign")) as string, "tokenizer")],
      2,
      /tokenizer: expected that of this model, where id \d+ is/,
      /Leave --tokenizer out/,
    ],
    [
      "a tokenizer that is too large",
      () => [run, "--tokenizer", join(at("runs"), runFolders().find((name) => name.endsWith("larger")) as string, "tokenizer")],
      2,
      /tokenizer: expected at most 280 tokens/,
      /tokenizer of this model/,
    ],
  ])("%s", async (_, args, code, message, hint) => {
    if (!runFolders().some((name) => name.endsWith("foreign"))) await pretrain("other.txt", "--name", "foreign");
    if (!runFolders().some((name) => name.endsWith("larger"))) await pretrain("other.txt", "--name", "larger", "--vocab-size", "300");
    expectError(await longwave(["generate", ...args(), "-n", "3"]), code, message, hint);
  });

  test("checkpoints that are damaged or not there yet", async () => {
    const broken = copyOfRun("damaged");
    const step = join(broken, "checkpoints/step-00000004");
    truncateSync(join(step, "model.safetensors"), 2000);
    // Of the run, the checkpoint before is taken; named itself, it is refused.
    expect((await longwave(["generate", broken, "-n", "2"])).code).toBe(0);
    expectError(await longwave(["generate", step, "-n", "2"]), 1, /model.safetensors: expected \d+ bytes of tensors/, /cut short/);
    expectError(await longwave(["evaluate", step, at("text.txt")]), 1, /model.safetensors: expected \d+ bytes of tensors/, /cut short/);
    expectError(await pretrain("text.txt", "--init", step), 1, /model.safetensors: expected \d+ bytes of tensors/, /cut short/);
    writeFileSync(join(step, "tokenizer.json"), '{"model":');
    rmSync(join(step, "model.safetensors"));
    cpSync(join(run, "checkpoints/step-00000004/model.safetensors"), join(step, "model.safetensors"));
    expectError(await longwave(["generate", step, "-n", "2"]), 1, /tokenizer.json/, /./);
    rmSync(join(broken, "checkpoints"), { recursive: true });
    expectError(
      await longwave(["generate", broken, "-n", "2"]),
      1,
      /run folder .*damaged: expected a checkpoint, got none yet/,
      /pretrain --resume/,
    );
    expectError(await longwave(["evaluate", broken, at("text.txt")]), 1, /expected a checkpoint, got none yet/, /pretrain --resume/);
  });

  test("evaluate: data that cannot be read, and a model that has learned no further positions", async () => {
    expectError(await longwave(["evaluate", run, at("nothing.txt")]), 1, /nothing there/, /path/);
    expectError(await longwave(["evaluate", run, at("binary.txt")]), 1, /binary data/, /Remove/);
    const gpt2 = folderOf(await pretrain("text.txt", "--model.position", "learned", "--name", "learned"));
    expectError(
      await longwave(["evaluate", gpt2, at("text.txt"), "--sequence-length", "32"]),
      2,
      /--sequence-length: expected at most 16, got 32/,
      /no further positions/,
    );
    expectError(await longwave(["generate", gpt2, "--context", "32"]), 2, /expected at most 16 positions/, /./);
  });
});
