import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { listOptions } from "../base/schema.ts";
import { pretrainSchema } from "../recipes/index.ts";
import { createPhrase, programName } from "./phrase.ts";

const options = listOptions(pretrainSchema).filter(({ name }) => name !== "data");
const phrase = createPhrase({ options, program: "npx longwave", cwd: "/home/me/lab" });

describe("createPhrase", () => {
  test.each([
    ["splitBy sets what a document is.", "--split-by sets what a document is."],
    ["keepBest, earlyStopping: expected evaluations, got none", "--keep-best, --early-stopping: expected evaluations, got none"],
    ["Set validation and evaluateEvery above 0.", "Set --validation and --evaluate-every above 0."],
    [
      "Give a shorter sequenceLength or a larger model.contextLength.",
      "Give a shorter --sequence-length or a larger --model.context-length.",
    ],
    ["option `steps`: expected an integer > 0, got 0", "option `--steps`: expected an integer > 0, got 0"],
    ["got other ones: steps (saved 4, given 9)", "got other ones: --steps (saved 4, given 9)"],
    ["option `optimizer.kind`: expected one of adam", "option `--optimizer.kind`: expected one of adam"],
    ["steps has no effect: epochs sets the length of the run", "--steps has no effect: --epochs sets the length of the run"],
  ])("names options as flags: %s", (text, expected) => {
    expect(phrase(text)).toBe(expected);
  });

  test.each([
    "data: expected text, got white space only",
    "validation: too few documents to choose among",
    "the steps of a model have a name and a size",
    "option `optimizer.kind`: expected one of adam (run.yaml:3)",
    "option `keepBest`: expected true or false, got 3 (settings of runs/a)",
    "runs/splitBy/evaluateEvery.txt: expected text, got 3 bytes",
    'expected a number, got "keepBest"',
  ])("leaves other words alone: %s", (text) => {
    expect(phrase(text)).toBe(text);
  });

  test("shortens paths below the folder of the user, and no others", () => {
    expect(phrase("Resume from /home/me/lab/runs/a.")).toBe("Resume from runs/a.");
    expect(phrase("see /home/me/laboratory/x and /mnt/home/me/lab/x")).toBe("see /home/me/laboratory/x and /mnt/home/me/lab/x");
    expect(createPhrase({ cwd: "/" })("/tmp/a")).toBe("/tmp/a");
  });

  test("gives commands that can be typed", () => {
    expect(phrase("See `longwave pretrain --help`.")).toBe("See `npx longwave pretrain --help`.");
    expect(phrase("Train it further: longwave pretrain --resume a")).toBe("Train it further: npx longwave pretrain --resume a");
    expect(phrase("Give a folder that longwave pretrain made.")).toBe("Give a folder that longwave pretrain made.");
  });
});

describe("programName", () => {
  const root = mkdtempSync(join(tmpdir(), "longwave-program-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  const file = process.platform === "win32" ? "longwave.cmd" : "longwave";
  const folder = (...parts: string[]): string => {
    const path = join(root, ...parts);
    mkdirSync(path, { recursive: true });
    return path;
  };
  const bin = folder("bin");
  writeFileSync(join(bin, file), "");
  const local = folder("project", "node_modules", ".bin");
  writeFileSync(join(local, file), "");
  const clone = folder("clone", "deep");
  writeFileSync(join(root, "clone", "package.json"), '{ "name": "longwave" }');
  const elsewhere = folder("elsewhere");

  test.each([
    ["on the path", elsewhere, [bin], {}, "longwave"],
    ["installed here, where npx and npm run add to the path", join(root, "project"), [local], {}, "npx longwave"],
    ["in a clone", clone, [], {}, "npx longwave"],
    ["fetched by npx", elsewhere, [], { npm_command: "exec" }, "npx longwave"],
    ["none of these", elsewhere, [], {}, "node /opt/main.js"],
  ])("%s", (_, cwd, path, env, expected) => {
    expect(programName({ cwd, env: { PATH: path.join(delimiter), ...env }, script: "/opt/main.js" })).toBe(expected);
  });
});
