// What a new user types first, as real processes in an empty folder: a short quickstart, and the commands that it ends with.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const cwd = mkdtempSync(join(tmpdir(), "longwave-first-"));
afterAll(() => rmSync(cwd, { recursive: true, force: true }));
const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Standard output; the process must succeed and say nothing else than `expected` on standard error. */
function longwave(args: readonly string[], expected: RegExp): string {
  const command = ["--import", path("../runtime/testing/register-typescript.mjs"), path("main.ts"), ...args];
  const env = { ...process.env, NO_COLOR: "1" };
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd, env, encoding: "utf8" });
  expect(status, stderr).toBe(0);
  expect(stderr).toMatch(expected);
  return stdout;
}

test("quickstart, generate, evaluate and report, as printed", { timeout: 240_000 }, () => {
  const short = ["--steps", "2", "--evaluation-batches", "2", "--sample-tokens", "8"];
  const out = longwave(["quickstart", ...short], /^$/);
  const run = /^run folder: (runs\/\d{8}-\d{6}-quickstart)$/m.exec(out)?.[1] as string;
  expect(run, out).toBeDefined();
  expect(out).toMatch(/^step 2\/2 {2}loss \d/m);
  // Below the current folder every path is as short as the user would write it.
  expect(out).not.toContain(cwd);
  expect(out).toContain(`checkpoint ${run}/checkpoints/step-00000002 (final`);

  const printed = (label: string): string[] => {
    const line = out.split("\n").find((text) => text.startsWith(label)) as string;
    const [, command] = / (generate|pretrain|report) .*/.exec(line) as RegExpExecArray;
    const words = line.slice(line.indexOf(` ${command} `) + 1).match(/"[^"]*"|\S+/g) as string[];
    return words.map((word) => word.replaceAll('"', ""));
  };
  const generated = printed("generate from it:");
  const prompt = generated.at(-1) as string;
  const text = longwave([...generated, "-n", "5"], /^\d+ tokens read .*; 5 written at .* tokens\/s\n$/);
  expect(text.startsWith(prompt)).toBe(true);

  const { tokens, loss, data } = JSON.parse(longwave(["evaluate", run, "--max-batches", "2", "--json"], /^(evaluating|$)/));
  expect(tokens).toBe(2 * 8 * 128);
  expect(data).toBe(`validation data of ${run}: State of the Union addresses`);
  // Two steps do not get far from a uniform guess among 2,048 tokens.
  expect(Math.abs(loss - Math.log(2048))).toBeLessThan(0.5);

  expect(printed("look at the run:").slice(0, 2)).toEqual(["report", run]);
  longwave(["report", run], /^$/);
  expect(readFileSync(join(cwd, run, "report.html"), "utf8")).toContain("quickstart");
  expect(printed("train it further:")).toEqual(["pretrain", "--resume", run, "--steps", "4"]);
});
