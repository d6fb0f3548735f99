// The command line of the golden runner: one line a case, then the counts.
import { statSync } from "node:fs";
import { type CaseResult, runGolden } from "./run.ts";

const usage = "Usage: npm run golden -- <folder or file>\n";

/** @returns the exit code: 0 when cases were found and none failed, 1 otherwise, 2 for a wrong call. */
export async function main(args: readonly string[]): Promise<number> {
  const help = args.includes("--help") || args.includes("-h");
  if (help || args.length !== 1) {
    (help ? process.stdout : process.stderr).write(usage);
    return help ? 0 : 2;
  }
  const [path] = args;
  if (!statSync(path, { throwIfNoEntry: false })) {
    process.stderr.write(`golden: expected a folder or file, got nothing at ${path}\n`);
    return 1;
  }
  const { passed, failed, notCovered } = await runGolden(path, { onResult: (result) => console.log(lineOf(result)) });
  console.log(`\n${passed} passed, ${failed} failed, ${notCovered} not covered`);
  if (passed + failed + notCovered > 0) return failed > 0 ? 1 : 0;
  process.stderr.write(`golden: expected cases, found none in ${path}\n`);
  return 1;
}

const words = { passed: "passed", failed: "FAILED", notCovered: "not covered" } as const;

function lineOf({ status, label, detail }: CaseResult): string {
  return `${words[status].padEnd(11)} ${label}${detail === "" ? "" : `: ${detail}`}`;
}
