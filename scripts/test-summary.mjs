// `node test-summary.mjs report.json [exit code of vitest]` prints `N passed, N failed` from vitest's JSON report.
// Exit code 1 when a test failed, a file did not load, vitest failed otherwise, or nothing ran.

import { readFileSync } from "node:fs";

let report = {};
try {
  report = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8"));
} catch (error) {
  console.error(`test summary: expected vitest's JSON report, got "${error.message}"`);
}
const { numPassedTests = 0, numFailedTests = 0, testResults = [] } = report;
// A file that cannot be loaded, or whose process dies, has no failed test of its own: it counts as one.
const numBrokenFiles = testResults.filter(
  ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
).length;
const isOtherFailure = Number(process.argv[3] ?? 0) !== 0 && numFailedTests + numBrokenFiles === 0;
const numFailed = numFailedTests + numBrokenFiles + (isOtherFailure ? 1 : 0);
console.log(`${numPassedTests} passed, ${numFailed} failed`);
if (numFailed > 0 || numPassedTests === 0) process.exitCode = 1;
