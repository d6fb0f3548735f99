import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { AbortedError, FormatError } from "../base/errors.ts";
import { type CommandContext, defineCommand } from "./command.ts";
import { kebabCase } from "./flags.ts";
import { reflow } from "./help.ts";
import { bufferedOutput } from "./io.ts";
import { type CommandEntry, commands } from "./registry.ts";
import { runCli } from "./run-cli.ts";
import { packageVersion } from "./version.ts";

const folder = mkdtempSync(join(tmpdir(), "longwave-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const trainSchema = z.object({
  files: z.array(z.string()).min(1).describe("Training files."),
  steps: z.int().min(1).default(1000).describe("Optimiser steps.").meta({ short: "s" }),
  tie: z.boolean().default(true).describe("Tie the embeddings."),
  verbose: z.boolean().default(false).describe("Say more."),
  noRepeat: z.int().min(0).default(0).describe("A setting whose name begins with no."),
  stop: z.array(z.string()).default([]).describe("Stop strings."),
  optim: z.object({
    kind: z.enum(["adamw", "muon"]).default("adamw").describe("Optimiser."),
    learningRate: z.number().positive().default(3e-4).describe("Peak learning rate.").meta({ flag: "learning-rate" }),
    betas: z.tuple([z.number(), z.number()]).default([0.9, 0.95]).describe("Decay rates of Adam."),
    momentum: z.number().default(0.9).describe("Momentum."),
  }),
});

let received: { options: z.output<typeof trainSchema>; context: CommandContext } | undefined;

const train = defineCommand({
  name: "train",
  summary: "Train a model",
  description: "Reads text files and learns from them.",
  schema: trainSchema,
  positionals: ["files"],
  presets: { tiny: { summary: "seconds", values: { steps: 10, optim: { learningRate: 1e-2, momentum: 0.5 } } } },
  hasJson: true,
  examples: [{ command: "train a.txt --steps 5", note: "five steps" }],
  run: async (options, context) => {
    received = { options, context };
    if (options.files[0] === "abort") throw new AbortedError("interrupted by SIGINT");
    if (options.files[0] === "broken") throw new FormatError("model.bin: expected a header, got 3 bytes", { hint: "Download it again." });
    if (options.files[0] === "bug") throw new TypeError("x is not a function");
    if (context.json) context.printJson({ steps: options.steps });
    else context.print(`${options.steps} steps`);
  },
});

const show = defineCommand({
  name: "model show",
  summary: "Show a model",
  schema: z.object({ path: z.string().describe("Model."), depth: z.int().default(1).describe("Depth.") }),
  positionals: ["path"],
  examples: [],
  run: async ({ path }, context) => context.print(path),
});

const entries: CommandEntry[] = [train, show].map((command) => ({ ...command, load: async () => command }));

const run = async (argv: string[], env: Record<string, string> = {}) => {
  const stdout = bufferedOutput();
  const stderr = bufferedOutput();
  received = undefined;
  const io = { stdout, stderr, stdin: Readable.from([]), env, signal: new AbortController().signal };
  const code = await runCli(argv, io, entries);
  return { code, out: stdout.text(), err: stderr.text() };
};

const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

describe("precedence", () => {
  it("is defaults < preset < configuration file < flags, leaf by leaf", async () => {
    const config = file("run.yaml", "steps: 20\noptim:\n  learningRate: 0.5\n");
    await run(["train", "a.txt"]);
    expect(received?.options).toMatchObject({ steps: 1000, optim: { learningRate: 3e-4, momentum: 0.9 } });
    await run(["train", "a.txt", "--preset", "tiny"]);
    expect(received?.options).toMatchObject({ steps: 10, optim: { learningRate: 1e-2, momentum: 0.5 } });
    await run(["train", "a.txt", "--preset", "tiny", "--config", config]);
    expect(received?.options).toMatchObject({ steps: 20, optim: { learningRate: 0.5, momentum: 0.5 } });
    await run(["train", "a.txt", "--optim.learning-rate", "3e-4", "--preset", "tiny", "--config", config, "-s", "7"]);
    expect(received?.options).toMatchObject({ steps: 7, optim: { learningRate: 3e-4, momentum: 0.5 } });
  });

  it("lets the file choose preset, threads and positional fields", async () => {
    const config = file("all.json", JSON.stringify({ preset: "tiny", threads: 2, files: ["b.txt"] }));
    const { code } = await run(["train", "--config", config]);
    expect(code).toBe(0);
    expect(received?.options).toMatchObject({ files: ["b.txt"], steps: 10 });
    expect(received?.context.threads).toBe(2);
    await run(["train", "--config", config, "--threads", "3"]);
    expect(received?.context.threads).toBe(3);
  });
});

describe("flags", () => {
  it("reads lists, booleans, both spellings of a nested option and several positionals", async () => {
    await run([
      "train",
      "a",
      "--no-tie",
      "--learning-rate=0.1",
      "b",
      "--optim.betas",
      "0.8,0.9",
      "--stop",
      "x,y",
      "--stop",
      "z",
      "--verbose",
    ]);
    expect(received?.options).toMatchObject({
      files: ["a", "b"],
      tie: false,
      verbose: true,
      stop: ["x,y", "z"],
      optim: { learningRate: 0.1, betas: [0.8, 0.9] },
    });
  });

  it("takes everything after -- as positional", async () => {
    await run(["train", "--", "--odd-name.txt"]);
    expect(received?.options.files).toEqual(["--odd-name.txt"]);
  });

  it.each([
    [["train", "a", "--stepz", "3"], "option `--stepz`: expected an option that exists, got none of that name", "Did you mean --steps?"],
    [["train", "a", "--optim.learning-rat=3"], "option `--optim.learning-rat`: expected an option", "Did you mean --optim.learning-rate?"],
    [["train", "a", "--momentum", "1"], "option `--momentum`: expected an option", "Did you mean --optim.momentum?"],
    [["train", "a", "--stop-file", "x"], "option `--stop-file`: expected an option that exists", "longwave train --help"],
    [["train", "a", "--ste"], "option `--ste`: expected an option that exists", "Did you mean --steps?"],
    [["train", "a", "--stew"], "option `--stew`: expected an option that exists", "longwave train --help"],
    [["train", "a", "--zzzzzz"], "option `--zzzzzz`: expected an option that exists", "longwave train --help"],
    [["train", "a", "--steps"], "option `--steps`: expected a value <n>, got nothing", "longwave train --help"],
    [["train", "a", "--steps", "many"], 'option `--steps`: expected an integer >= 1, got "many"', "longwave train --help"],
    [["train", "a", "--steps", "1.5"], "option `--steps`: expected an integer >= 1, got 1.5", "longwave train --help"],
    [["train", "a", "--optim.kind", "adam"], 'expected one of adamw, muon, got "adam"', "longwave train --help"],
    [["train", "a", "--verbose=true"], "option `--verbose`: expected no value", "Write --verbose or --no-verbose"],
    [["train", "a", "--threads", "0"], "option `--threads`: expected an integer between 1 and 1024, got 0", "longwave train --help"],
    [["train", "a", "--preset", "tini"], "option `--preset`: expected one of tiny", 'Did you mean "tiny"?'],
    [["train"], "argument <files>: expected a non-empty list of strings, got nothing", "longwave train --help"],
    [["model", "show", "a", "b"], 'expected at most 1, got "b" as well', "longwave model show --help"],
    [["trian"], 'longwave: expected a command, got "trian"', "Did you mean `longwave train`?"],
    [["model", "shwo"], "expected a command", "Did you mean `longwave model show`?"],
    [["modle"], "expected a command", "Did you mean `longwave model`?"],
    [["--json", "train"], 'expected a command first, got "--json"', "Options follow the command"],
  ])("%j is one error with a hint and exit code 2", async (argv, message, hint) => {
    const { code, out, err } = await run(argv);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(received).toBeUndefined();
    const [first, second, ...rest] = err.trimEnd().split("\n");
    expect(first.startsWith("error: ")).toBe(true);
    expect(first).toContain(message);
    expect(second).toContain(hint);
    expect(rest).toEqual([]);
  });

  it("names file and line of a wrong setting", async () => {
    const wrong = file("wrong.yaml", "steps: 5\noptim:\n  learningRate: fast\n");
    expect((await run(["train", "a", "--config", wrong])).err).toContain(
      'option `optim.learningRate`: expected a number > 0, got "fast" (wrong.yaml:3)',
    );
    const misspelt = file("misspelt.yaml", "# comment\noptim: { learningrate: 1 }\n");
    const { code, err } = await run(["train", "a", "--config", misspelt]);
    expect(code).toBe(2);
    expect(err).toContain("expected `optim.learningRate`, got an unknown name (misspelt.yaml:2)");
  });

  it("spells names in kebab case", () => {
    expect(["learningRate", "optim.numKVHeads", "topK", "f32"].map(kebabCase)).toEqual([
      "learning-rate",
      "optim.num-kv-heads",
      "top-k",
      "f32",
    ]);
  });
});

describe("help", () => {
  it("lists every option of the schema with its default, and the examples", async () => {
    const { code, out } = await run(["train", "--help"]);
    expect(code).toBe(0);
    for (const part of [
      "Usage: longwave train [options] <files...>",
      "-s, --steps <n>",
      "(default: 1000)",
      "--[no-]tie",
      "--learning-rate, --optim.learning-rate <x>",
      "--optim.kind <adamw|muon>",
      "--config <file>",
      "--preset <name>",
      "--threads <n>",
      "--json",
      "Optim:",
      "longwave train a.txt --steps 5",
    ]) {
      expect(out).toContain(part);
    }
    expect(out).not.toContain("\u001b");
  });

  it("is the same for `help train`, and lists commands, groups and the version", async () => {
    expect((await run(["help", "train"])).out).toBe((await run(["train", "-h"])).out);
    expect((await run([])).out).toContain("Show a model");
    const group = await run(["model"]);
    expect(group.code).toBe(0);
    expect(group.out).toContain("model show");
    expect(group.out).not.toContain("Train a model");
    expect((await run(["--version"])).out).toBe(`${packageVersion()}\n`);
  });

  it("of every registered command loads, has examples and the summary of the overview", async () => {
    for (const entry of commands) {
      const command = await entry.load();
      expect(command.name).toBe(entry.name);
      expect(command.summary).toBe(entry.summary);
      expect(command.examples.length).toBeGreaterThan(0);
      for (const option of [...command.options, ...command.positionals])
        expect(option.description, `${entry.name} ${option.name}`).not.toBe("");
    }
  });
});

describe("help at a width", () => {
  it("joins and breaks paragraphs, and leaves lists and code alone", () => {
    expect(reflow("  name  one two three", 15)).toBe("  name  one two\n        three");
    expect(reflow("one two\nthree four\n\n  code   here\n  more\n\nfive", 9)).toBe("one two\nthree\nfour\n\n  code   here\n  more\n\nfive");
  });

  it("keeps 80 columns for every command, but for examples", async () => {
    for (const entry of commands) {
      const stdout = bufferedOutput({ columns: 80 });
      const io = { stdout, stderr: bufferedOutput(), stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
      expect(await runCli([...entry.name.split(" "), "--help"], io)).toBe(0);
      const [help] = stdout.text().split("\nExamples:\n");
      for (const line of help.split("\n")) expect(line.length, `${entry.name}: ${line}`).toBeLessThanOrEqual(80);
      // No list of more than a screen without headings.
      expect(help, entry.name).not.toContain("undefined");
    }
  });

  it("names what a group holds below its own command", async () => {
    const stdout = bufferedOutput({ columns: 80 });
    const io = { stdout, stderr: bufferedOutput(), stdin: Readable.from([]), env: {}, signal: new AbortController().signal };
    await runCli(["rl", "--help"], io);
    const [, list] = stdout.text().split("Further commands:\n");
    for (const name of ["rl evaluate", "rl watch", "rl export", "rl zoo"]) expect(list).toContain(`  ${name} `);
  });

  it("groups what generates text", async () => {
    const stdout = bufferedOutput({ columns: 80 });
    await runCli(["generate", "--help"], {
      stdout,
      stderr: bufferedOutput(),
      stdin: Readable.from([]),
      env: {},
      signal: new AbortController().signal,
    });
    const headings = stdout.text().match(/^[A-Z][A-Za-z ]+:$/gm);
    expect(headings).toEqual([
      "Arguments:",
      "Model:",
      "Prompt:",
      "Length:",
      "Sampling:",
      "Repetition:",
      "Token ids:",
      "Constraints:",
      "Speculation:",
      "Output:",
      "General:",
      "Examples:",
    ]);
  });
});

describe("results and failures", () => {
  it("prints text, or one JSON value with --json", async () => {
    expect((await run(["train", "a"])).out).toBe("1000 steps\n");
    expect(JSON.parse((await run(["train", "a", "--json"])).out)).toEqual({ steps: 1000 });
  });

  it("maps errors to exit codes and never shows a stack unasked", async () => {
    expect(await run(["train", "broken"])).toMatchObject({
      code: 1,
      err: "error: model.bin: expected a header, got 3 bytes\nhint: Download it again.\n",
    });
    expect((await run(["train", "abort"])).code).toBe(130);
    const bug = await run(["train", "bug"]);
    expect(bug.code).toBe(1);
    expect(bug.err).toContain("unexpected TypeError: x is not a function");
    expect(bug.err).not.toContain("    at ");
    expect((await run(["train", "bug"], { LONGWAVE_DEBUG: "1" })).err).toContain("    at ");
  });
});

describe("the executable", () => {
  const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  const command = ["--import", path("../runtime/testing/register-typescript.mjs"), path("./main.ts")];

  it("has exit code 2 for an unknown command", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [...command, "docter"], { encoding: "utf8" });
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toBe('error: longwave: expected a command, got "docter"\nhint: Did you mean `npx longwave doctor`?\n');
  });

  it("ends quietly when its reader is gone", async () => {
    const child = spawn(process.execPath, [...command, "--help"], { stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.destroy();
    const errors: Buffer[] = [];
    child.stderr.on("data", (chunk: Buffer) => errors.push(chunk));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(code).toBe(0);
    expect(Buffer.concat(errors).toString()).toBe("");
  });

  /** Starts a command that waits, sends one signal each time it says something, and tells how it ended. */
  const interrupt = async (name: string, signal: NodeJS.Signals) => {
    const child = spawn(process.execPath, [...command.slice(0, -1), path("./testing/slow-command.ts"), name]);
    const output: string[] = [];
    child.stdout.on("data", (chunk: Buffer) => {
      output.push(chunk.toString());
      child.kill(signal);
    });
    child.stderr.on("data", (chunk: Buffer) => output.push(chunk.toString()));
    const code = await new Promise((resolve) => child.on("close", resolve));
    return { code, text: output.join("") };
  };

  it.skipIf(process.platform === "win32")("exits with 130 when a command stops at the first signal", async () => {
    const { code, text } = await interrupt("heed", "SIGINT");
    expect(code).toBe(130);
    expect(text).toMatch(/^interrupted\n/m);
    expect((await interrupt("heed", "SIGTERM")).code).toBe(130);
  });

  it.skipIf(process.platform === "win32")("exits with 130 at the second signal when a command does not listen", async () => {
    expect(await interrupt("ignore", "SIGINT")).toEqual({
      code: 130,
      text: "ready\nasked to stop\nstopped at once: what was not saved is lost\n",
    });
  });
});

describe("settings that are on by default", () => {
  it("are one line of help for both forms", async () => {
    const { out } = await run(["train", "--help"]);
    expect(out).toMatch(/^ +--\[no-\]tie +Tie the embeddings\. \(on by default\)$/m);
    expect(out).toMatch(/^ +--verbose +Say more\. \(off by default\)$/m);
    expect(out).not.toContain("--no-verbose");
  });
});

describe("settings whose name begins with no", () => {
  it("take a value and leave defaults alone", async () => {
    const entries = [{ name: "train", summary: "Train a model", load: async () => train }];
    const io = {
      stdout: bufferedOutput(),
      stderr: bufferedOutput(),
      stdin: Readable.from([]),
      env: {},
      signal: new AbortController().signal,
    };
    expect(await runCli(["train", "a.txt", "--no-tie"], io, entries)).toBe(0);
    expect(received?.options).toMatchObject({ noRepeat: 0, tie: false });
    expect(await runCli(["train", "a.txt", "--no-repeat", "3"], io, entries)).toBe(0);
    expect(received?.options).toMatchObject({ noRepeat: 3, tie: true });
  });
});
